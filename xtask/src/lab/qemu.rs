//! The program that runs guests: this machine's own, or one unpacked into the cache.
//!
//! Unpacked rather than installed: it then needs no root, and can't conflict with other packages of QEMU that a machine
//! has (the tools of a newer suite, say).

use std::{fs, path::PathBuf, process::Command};

use anyhow::Context as _;

use crate::{
    paths, process,
    setup::archive::{self, Archive},
    ui,
};

const PROGRAM: &str = "qemu-system-x86_64";
/// Debian's package of it.
pub(crate) const PACKAGE: &str = "qemu-system-x86";
const SUITES: &[&str] = &["bookworm", "bookworm-security"];
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &[&str] = &[
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/pulseaudio",
    "usr/lib/x86_64-linux-gnu/ceph",
];

/// QEMU for x86-64 guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Qemu {
    /// On the PATH.
    Installed(PathBuf),
    /// A tree of unpacked packages, with every library that it needs.
    Unpacked(PathBuf),
}

impl Qemu {
    pub(crate) fn find() -> anyhow::Result<Option<Self>> {
        if let Some(path) = process::find(PROGRAM) {
            return Ok(Some(Self::Installed(path)));
        }
        let root = folder()?;
        Ok(root.join("usr/bin").join(PROGRAM).is_file().then_some(Self::Unpacked(root)))
    }

    pub(crate) fn command(&self) -> Command {
        match self {
            Self::Installed(path) => Command::new(path),
            Self::Unpacked(root) => {
                // Its own loader, because this machine's C library may be older than the one it was built for.
                let mut command = Command::new(root.join(LOADER));
                let libraries: Vec<_> = LIBRARIES.iter().map(|below| root.join(below).display().to_string()).collect();
                command.arg("--library-path").arg(libraries.join(":")).arg(root.join("usr/bin").join(PROGRAM));
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
            Self::Installed(path) | Self::Unpacked(path) => path.display().fmt(f),
        }
    }
}

fn folder() -> anyhow::Result<PathBuf> {
    Ok(paths::cache()?.join("tools/qemu"))
}

/// Unpacks Debian's QEMU into the cache.
pub(crate) fn install() -> anyhow::Result<()> {
    let folder = folder()?;
    let parent = folder.parent().context("the cache has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
    let work = tempfile::tempdir_in(parent)?;
    ui::say("unpacking Debian's QEMU and what it depends on into the cache");
    let archive = Archive::open("qemu", SUITES)?;
    for deb in archive.download_closure(&[PACKAGE])? {
        archive::unpack(&deb, work.path())?;
        ui::check_interrupt()?;
    }
    archive.clean();
    let said = process::output(Qemu::Unpacked(work.path().to_owned()).command().arg("--version"))
        .context("the unpacked QEMU does not start")?;
    ui::say(said.lines().next().unwrap_or_default());
    // Moved when it is whole, so that an interrupted run leaves nothing that looks finished.
    let _ = fs::remove_dir_all(&folder);
    fs::rename(work.path(), &folder).with_context(|| format!("can't move it to {}", folder.display()))?;
    let _ = work.keep();
    Ok(())
}
