//! `cargo xtask setup`: what is needed, what is there, what is missing; and installing that.

mod apt;
pub(crate) mod archive;
pub(crate) mod chart;
pub(crate) mod cross;
pub(crate) mod prometheus;
pub(crate) mod toolchain;

use anyhow::{Context as _, bail};

use self::toolchain::Toolchain;
use crate::{
    arch::Arch,
    lab::{
        containers, foreign, image, kernels,
        qemu::{self, Qemu},
    },
    prism, process, ui,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only report what is there and what is missing, with the remedy for each; exit status 1 if anything is.
    #[arg(long)]
    check: bool,

    /// What building for arm64, and booting arm64 guests, takes beside the rest.
    #[arg(long)]
    arm64: bool,
}

/// What it is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Building,
    /// Requests held against GitHub's own description.
    Description,
    /// The chart held against Helm and the schemas of Kubernetes.
    Chart,
    /// Metrics, alerts and the dashboard held against a real Prometheus.
    Monitoring,
    Lab,
    /// Disks of guests.
    Disks,
    /// A container runtime for a guest of the lab.
    Containers,
    /// Fetched one by one, as they are asked for.
    Kernels,
    /// Building for arm64 on another machine.
    Arm64,
    /// Guests of arm64.
    Arm64Lab,
}

impl Part {
    /// What is needed for it.
    const fn parts(self) -> &'static [Self] {
        match self {
            Self::Building => &[Self::Building],
            Self::Description => &[Self::Description],
            Self::Chart => &[Self::Chart],
            Self::Monitoring => &[Self::Monitoring],
            Self::Lab => &[Self::Building, Self::Disks, Self::Lab],
            Self::Disks => &[Self::Disks],
            Self::Containers => &[Self::Disks, Self::Containers],
            Self::Kernels => &[Self::Kernels],
            Self::Arm64 => &[Self::Building, Self::Arm64],
            Self::Arm64Lab => &[Self::Building, Self::Disks, Self::Arm64, Self::Arm64Lab],
        }
    }

    /// Whether it is left out unless it is asked for.
    const fn is_extra(self) -> bool {
        matches!(self, Self::Arm64 | Self::Arm64Lab)
    }
}

/// One thing that is needed.
struct Need {
    name: &'static str,
    part: Part,
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
        part: Part::Building,
        purpose: "builds the eBPF object",
        check: || toolchain::check(),
        install: toolchain::install,
    },
    Need {
        name: "bpf-linker",
        part: Part::Building,
        purpose: "links the eBPF object",
        check: linker_check,
        install: toolchain::install_linker,
    },
    Need {
        name: "QEMU",
        part: Part::Lab,
        purpose: "boots the lab's kernels",
        check: || qemu_check(Arch::Amd64),
        install: || qemu::install(Arch::Amd64),
    },
    Need {
        name: "mke2fs",
        part: Part::Disks,
        purpose: "makes the lab's disks",
        check: || Ok(program_check("mke2fs", "e2fsprogs")),
        install: || apt::install(&["e2fsprogs".to_owned()]),
    },
    Need {
        name: "kernels",
        part: Part::Kernels,
        purpose: "are what the lab boots",
        check: kernels_check,
        install: || kernels::DEFAULT.iter().try_for_each(|line| kernels::ensure(line).map(drop)),
    },
    Need {
        name: "root disk",
        part: Part::Lab,
        purpose: "is what the lab's guests run from",
        check: image_check,
        install: || image::ensure().map(drop),
    },
    Need {
        name: "containerd, runc",
        part: Part::Containers,
        purpose: "run containers in a guest of the lab",
        check: containers_check,
        install: || containers::node::install(),
    },
    Need {
        name: "node",
        part: Part::Description,
        purpose: "runs Prism",
        check: || Ok(program_check("node", "nodejs")),
        install: || apt::install(&["nodejs".to_owned()]),
    },
    Need {
        name: "Prism",
        part: Part::Description,
        purpose: "holds memguard's requests against GitHub's own description",
        check: prism_check,
        install: install_prism,
    },
    Need {
        name: "Helm and schemas",
        part: Part::Chart,
        purpose: "check the chart",
        check: || chart::check(),
        install: chart::install,
    },
    Need {
        name: "Prometheus",
        part: Part::Monitoring,
        purpose: "checks metrics, alerts and the dashboard",
        check: || prometheus::check(),
        install: prometheus::install,
    },
    Need {
        name: "C for arm64",
        part: Part::Arm64,
        purpose: "links for arm64, and has the C library for it",
        check: || Ok(cross::compiler_check(Arch::Arm64)),
        install: || cross::install_compiler(Arch::Arm64),
    },
    Need {
        name: "Rust for arm64",
        part: Part::Arm64,
        purpose: "is the standard library for arm64",
        check: || cross::std_check(Arch::Arm64),
        install: || cross::install_std(Arch::Arm64),
    },
    Need {
        name: "QEMU for arm64",
        part: Part::Arm64Lab,
        purpose: "boots arm64 guests",
        check: || qemu_check(Arch::Arm64),
        install: || qemu::install(Arch::Arm64),
    },
    Need {
        name: "disk for arm64",
        part: Part::Arm64Lab,
        purpose: "is what arm64 guests run from",
        check: foreign_disk_check,
        install: || foreign::ensure(Arch::Arm64).map(drop),
    },
];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let needs: Vec<&Need> = NEEDS.iter().filter(|need| args.arm64 || !need.part.is_extra()).collect();
    if !args.check {
        return install(needs.into_iter());
    }
    let mut missing = 0;
    for need in &needs {
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
        bail!("{missing} of {} are missing; `cargo xtask setup` installs them", needs.len());
    }
    Ok(())
}

/// Installs what a part needs and is missing.
pub(crate) fn ensure(part: Part) -> anyhow::Result<()> {
    install(NEEDS.iter().filter(|need| part.parts().contains(&need.part)))
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

fn qemu_check(guests: Arch) -> anyhow::Result<State> {
    Ok(match Qemu::find(guests)? {
        Some(qemu) => State::Ready(qemu.to_string()),
        None => State::Missing { remedy: apt::remedy(&[qemu::package(guests).to_owned()]) },
    })
}

fn foreign_disk_check() -> anyhow::Result<State> {
    Ok(match foreign::cached(Arch::Arm64)? {
        Some(path) => State::Ready(path.display().to_string()),
        None => State::Missing { remedy: "`cargo xtask setup --arm64` makes it".to_owned() },
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

/// npm is needed for that alone, and not any more once it is there.
fn install_prism() -> anyhow::Result<()> {
    if process::find("npm").is_none() {
        apt::install(&["npm".to_owned()])?;
    }
    prism::install()
}

fn prism_check() -> anyhow::Result<State> {
    Ok(match prism::cached()? {
        Some(path) => State::Ready(path.display().to_string()),
        None => State::Missing { remedy: "`cargo xtask setup` fetches it with npm".to_owned() },
    })
}

fn kernels_check() -> anyhow::Result<State> {
    let mut there = Vec::new();
    for line in kernels::DEFAULT {
        match kernels::cached(line, Arch::Amd64)? {
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

fn containers_check() -> anyhow::Result<State> {
    Ok(match containers::node::cached()? {
        Some(path) => State::Ready(path.display().to_string()),
        None => State::Missing { remedy: "`cargo xtask setup` unpacks Debian's packages".to_owned() },
    })
}

fn image_check() -> anyhow::Result<State> {
    Ok(match image::cached()? {
        Some(path) => State::Ready(path.display().to_string()),
        None => State::Missing { remedy: "`cargo xtask setup` makes it from Debian's packages".to_owned() },
    })
}
