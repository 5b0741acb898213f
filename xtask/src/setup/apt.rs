//! Installing packages on this machine, or saying which.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, bail};

use crate::{process, ui};

/// Whether this machine is Debian or made from it, and has its tools.
pub(super) fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    is_debian_release(&release) && process::find("apt-get").is_some()
}

fn is_debian_release(release: &str) -> bool {
    release.lines().any(|line| {
        let Some((key, value)) = line.split_once('=') else { return false };
        (key == "ID" || key == "ID_LIKE") && value.trim_matches('"').split_whitespace().any(|id| id == "debian")
    })
}

/// What a person would type.
pub(super) fn remedy(packages: &[String]) -> String {
    let list = packages.join(" ");
    if is_debian() {
        format!("apt-get install --no-install-recommends {list}")
    } else {
        format!("install what Debian calls: {list}")
    }
}

/// Whether this machine's package sources have a package.
pub(super) fn has(package: &str) -> bool {
    if !is_debian() {
        return false;
    }
    let policy = process::output(Command::new("apt-cache").args(["policy", package])).unwrap_or_default();
    policy.lines().any(|line| line.trim_start().starts_with("Candidate:") && !line.contains("(none)"))
}

/// Whether this machine's package sources have all of them, by lists that are read anew if the ones here know less:
/// a machine that was just made often has none, or some as old as its image.
pub(super) fn find(packages: &[&str]) -> anyhow::Result<bool> {
    let have_all = || packages.iter().all(|package| has(package));
    if have_all() || !is_debian() {
        return Ok(have_all());
    }
    update()?;
    Ok(have_all())
}

/// Reads the package lists, once in a run of xtask.
fn update() -> anyhow::Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    ui::say("reading package lists (apt-get update)");
    process::output(privileged("apt-get")?.args(["update", "-q"])).map(drop)
}

/// Installs packages with apt-get. Never removes one.
pub(super) fn install(packages: &[String]) -> anyhow::Result<()> {
    if !is_debian() {
        bail!("this is no Debian: {}", remedy(packages));
    }
    let names: Vec<&str> = packages.iter().map(String::as_str).collect();
    find(&names)?;
    ui::say(format!("apt-get install {}", packages.join(" ")));
    let install = || -> anyhow::Result<()> {
        let mut command = privileged("apt-get")?;
        command
            .args(["install", "-y", "-q", "--no-install-recommends", "--no-remove"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive");
        process::output(&mut command).map(drop)
    };
    install().or_else(|_| {
        // Lists that are older than the archive name files that are gone.
        ui::check_interrupt()?;
        update()?;
        install()
    })
}

/// A command as root: directly, or with sudo.
fn privileged(program: &str) -> anyhow::Result<Command> {
    if rustix::process::geteuid().is_root() {
        return Ok(Command::new(program));
    }
    process::find("sudo").context("installing packages needs root, and there is no sudo: run this as root")?;
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_told_from_others() {
        assert!(is_debian_release("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(is_debian_release("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian_release("ID=fedora\nNAME=\"not debian\"\n"));
        assert!(!is_debian_release(""));
    }
}
