//! Installing packages on this machine, or saying which.

use std::{fs, process::Command};

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

/// The package with QEMU for x86-64 guests.
pub(super) fn qemu() -> String {
    "qemu-system-x86".to_owned()
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

/// Reads the package lists once, if that was never done on this machine.
pub(super) fn update_if_empty() -> anyhow::Result<()> {
    let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    let any = lists.filter(|entry| entry.file_name().to_string_lossy().contains("_Packages")).count() > 0;
    if any || !is_debian() {
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
    update_if_empty()?;
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
        ui::say("that failed; reading package lists anew (apt-get update) and trying again");
        process::output(privileged("apt-get")?.args(["update", "-q"]))?;
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
