//! The program that runs guests: this machine's own, or one unpacked into the cache.
//!
//! Unpacked rather than installed: it then needs no root, and can't conflict with other packages of QEMU that a machine
//! has (the tools of a newer suite, say).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    arch::Arch,
    cache, paths, process,
    setup::archive::{self, Archive},
    ui,
};

const SUITES: &[&str] = &["bookworm", "bookworm-security"];
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &[&str] = &[
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/pulseaudio",
    "usr/lib/x86_64-linux-gnu/ceph",
];

/// QEMU for guests of one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Qemu {
    /// On the PATH.
    Installed(PathBuf),
    /// A tree of unpacked packages, with every library that it needs.
    Unpacked { root: PathBuf, program: PathBuf },
}

fn program(guests: Arch) -> &'static str {
    match guests {
        Arch::Amd64 => "qemu-system-x86_64",
        Arch::Arm64 => "qemu-system-aarch64",
    }
}

/// Debian's package of it.
pub(crate) const fn package(guests: Arch) -> &'static str {
    match guests {
        Arch::Amd64 => "qemu-system-x86",
        Arch::Arm64 => "qemu-system-arm",
    }
}

impl Qemu {
    pub(crate) fn find(guests: Arch) -> anyhow::Result<Option<Self>> {
        if let Some(path) = process::find(program(guests)) {
            return Ok(Some(Self::Installed(path)));
        }
        let unpacked = Self::unpacked(folder(guests)?, guests);
        let Self::Unpacked { program, .. } = &unpacked else { return Ok(None) };
        Ok(program.is_file().then_some(unpacked))
    }

    fn unpacked(root: PathBuf, guests: Arch) -> Self {
        Self::Unpacked { program: root.join("usr/bin").join(program(guests)), root }
    }

    pub(crate) fn command(&self) -> Command {
        match self {
            Self::Installed(path) => Command::new(path),
            Self::Unpacked { root, program } => {
                // Its own loader, because this machine's C library may be older than the one it was built for.
                let mut command = Command::new(root.join(LOADER));
                let libraries: Vec<_> = LIBRARIES.iter().map(|below| root.join(below).display().to_string()).collect();
                command.arg("--library-path").arg(libraries.join(":")).arg(program);
                for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
                    command.arg("-L").arg(root.join(firmware));
                }
                command.env("QEMU_MODULE_DIR", root.join("usr/lib/x86_64-linux-gnu/qemu"));
                command
            }
        }
    }
}

impl std::fmt::Display for Qemu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Installed(path) | Self::Unpacked { root: path, .. } => path.display().fmt(f),
        }
    }
}

fn folder(guests: Arch) -> anyhow::Result<PathBuf> {
    let name = match guests {
        Arch::Amd64 => "tools/qemu",
        Arch::Arm64 => "tools/qemu-arm64",
    };
    Ok(paths::cache()?.join(name))
}

/// Unpacks Debian's QEMU into the cache.
pub(crate) fn install(guests: Arch) -> anyhow::Result<()> {
    let is_whole = |folder: &Path| folder.join("usr/bin").join(program(guests)).is_file();
    cache::fill(&folder(guests)?, is_whole, |work| unpack(guests, work).map(|()| work.to_owned()))
}

fn unpack(guests: Arch, work: &Path) -> anyhow::Result<()> {
    ui::say(format!("unpacking Debian's {} and what it depends on into the cache", package(guests)));
    let archive = Archive::open("qemu", SUITES)?;
    for deb in archive.download_closure(&[package(guests)])? {
        archive::unpack(&deb, work)?;
        ui::check_interrupt()?;
    }
    archive.clean();
    let said = process::output(Qemu::unpacked(work.to_owned(), guests).command().arg("--version"))
        .context("the unpacked QEMU does not start")?;
    ui::say(said.lines().next().unwrap_or_default());
    Ok(())
}
