//! `cargo xtask setup`: what is needed, what is there, what is missing; and installing that.

mod apt;
pub(crate) mod archive;
pub(crate) mod prometheus;
pub(crate) mod toolchain;

use anyhow::{Context as _, bail};

use self::toolchain::Toolchain;
use crate::{
    lab::{
        image, kernels,
        qemu::{self, Qemu},
    },
    process, ui,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only report what is there and what is missing, with the remedy for each; exit status 1 if anything is.
    #[arg(long)]
    check: bool,
}

/// One thing that is needed.
struct Need {
    name: &'static str,
    /// What for, so that a reader can do without it.
    purpose: &'static str,
    check: fn() -> anyhow::Result<State>,
    install: fn() -> anyhow::Result<()>,
}

enum State {
    /// There, and which.
    Ready(String),
    /// Not there, and how to get it by hand.
    Missing { remedy: String },
}

/// Of use one by one; a later one may need an earlier one.
const NEEDS: &[Need] = &[
    Need {
        name: "eBPF toolchain",
        purpose: "builds the eBPF object",
        check: || toolchain::check(),
        install: toolchain::install,
    },
    Need {
        name: "bpf-linker",
        purpose: "links the eBPF object",
        check: linker_check,
        install: toolchain::install_linker,
    },
    Need { name: "QEMU", purpose: "boots the lab's kernels", check: qemu_check, install: qemu::install },
    Need {
        name: "mke2fs",
        purpose: "makes the lab's root disk",
        check: || Ok(program_check("mke2fs", "e2fsprogs")),
        install: || apt::install(&["e2fsprogs".to_owned()]),
    },
    Need {
        name: "kernels",
        purpose: "are what the lab boots",
        check: kernels_check,
        install: || kernels::DEFAULT.iter().try_for_each(|line| kernels::ensure(line).map(drop)),
    },
    Need {
        name: "root disk",
        purpose: "is what the lab's guests run from",
        check: image_check,
        install: || image::ensure().map(drop),
    },
    Need {
        name: "Prometheus",
        purpose: "checks metrics, alerts and the dashboard",
        check: || prometheus::check(),
        install: prometheus::install,
    },
];

/// Names of the needs that building takes; the rest is for the lab.
const FOR_BUILDING: &[&str] = &["eBPF toolchain", "bpf-linker"];
const FOR_MONITORING: &[&str] = &["Prometheus"];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !args.check {
        return install(NEEDS.iter());
    }
    let mut missing = 0;
    for need in NEEDS {
        match (need.check)() {
            Ok(State::Ready(which)) => println!("ok       {:15} {which}", need.name),
            Ok(State::Missing { remedy }) => {
                missing += 1;
                println!("MISSING  {:15} ({}) remedy: {remedy}", need.name, need.purpose);
            }
            Err(error) => {
                missing += 1;
                println!("UNKNOWN  {:15} {error:#}", need.name);
            }
        }
    }
    if missing > 0 {
        bail!("{missing} of {} are missing; `cargo xtask setup` installs them", NEEDS.len());
    }
    Ok(())
}

/// Installs what building memguard needs and is missing.
pub(crate) fn for_building() -> anyhow::Result<()> {
    install(NEEDS.iter().filter(|need| FOR_BUILDING.contains(&need.name)))
}

/// Installs what checking metrics, alerts and the dashboard needs and is missing.
pub(crate) fn for_monitoring() -> anyhow::Result<()> {
    install(NEEDS.iter().filter(|need| FOR_MONITORING.contains(&need.name)))
}

/// Installs what the lab needs and is missing, but for kernels, which are fetched as they are asked for.
pub(crate) fn for_lab() -> anyhow::Result<()> {
    install(NEEDS.iter().filter(|need| need.name != "kernels" && !FOR_MONITORING.contains(&need.name)))
}

fn install<'n>(needs: impl Iterator<Item = &'n Need>) -> anyhow::Result<()> {
    for need in needs {
        let context = || format!("setup: {} (it {})", need.name, need.purpose);
        if let State::Missing { remedy } = (need.check)().with_context(context)? {
            let _step = ui::step(format!("setup: {}: missing", need.name));
            (need.install)().with_context(|| format!("{}; by hand: {remedy}", context()))?;
            ui::check_interrupt()?;
            if let State::Missing { remedy } = (need.check)().with_context(context)? {
                bail!("setup: {}: installed, and still missing; by hand: {remedy}", need.name);
            }
        }
    }
    Ok(())
}

fn program_check(program: &str, package: &str) -> State {
    let folders = ["/usr/sbin", "/sbin"].map(|folder| std::path::Path::new(folder).join(program));
    match process::find(program).or_else(|| folders.into_iter().find(|path| path.is_file())) {
        Some(path) => State::Ready(path.display().to_string()),
        None => State::Missing { remedy: apt::remedy(&[package.to_owned()]) },
    }
}

fn qemu_check() -> anyhow::Result<State> {
    Ok(match Qemu::find()? {
        Some(qemu) => State::Ready(qemu.to_string()),
        None => State::Missing { remedy: apt::remedy(&[qemu::PACKAGE.to_owned()]) },
    })
}

fn linker_check() -> anyhow::Result<State> {
    let Some(toolchain) = Toolchain::find()? else {
        return Ok(State::Missing { remedy: "first the eBPF toolchain".to_owned() });
    };
    Ok(match toolchain.linker() {
        Some(path) => State::Ready(format!("{} for LLVM {}", path.display(), toolchain.llvm)),
        None => State::Missing { remedy: toolchain.linker_remedy() },
    })
}

fn kernels_check() -> anyhow::Result<State> {
    let mut there = Vec::new();
    for line in kernels::DEFAULT {
        match kernels::cached(line)? {
            Some(kernel) => there.push(kernel.release),
            None => {
                return Ok(State::Missing {
                    remedy: format!("`cargo xtask setup` fetches Debian's kernel package of line {}", line.name),
                });
            }
        }
    }
    Ok(State::Ready(there.join(", ")))
}

fn image_check() -> anyhow::Result<State> {
    Ok(match image::cached()? {
        Some(path) => State::Ready(path.display().to_string()),
        None => State::Missing { remedy: "`cargo xtask setup` makes it from Debian's packages".to_owned() },
    })
}
