//! A real Prometheus and its promtool, unpacked from Debian's packages into the cache and not installed: nothing is started
//! but by the tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{
    State,
    archive::{self, Archive},
};
use crate::{cache, paths, process, ui};

/// The newest first: sid has Prometheus 3, which is stricter about what it scrapes than the 2 of the stable suites.
const SUITES: [&str; 2] = ["sid", "trixie"];
/// With its C library, which may be newer than this machine's. Both programs need nothing else to run.
const PACKAGES: [&str; 3] = ["prometheus", "promtool", "libc6"];
const LOADERS: [&str; 2] = ["lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"];
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// The unpacked tree.
#[derive(Clone, Debug)]
pub(crate) struct Prometheus(PathBuf);

impl Prometheus {
    pub(crate) fn find() -> anyhow::Result<Option<Self>> {
        let root = folder()?;
        Ok(is_whole(&root).then_some(Self(root)))
    }

    /// `prometheus` or `promtool`, by its own loader.
    pub(crate) fn command(&self, program: &str) -> anyhow::Result<Command> {
        let loader = LOADERS.iter().map(|below| self.0.join(below)).find(|path| path.exists());
        let mut command = Command::new(loader.context("the unpacked C library has no loader")?);
        let libraries = LIBRARIES.map(|below| self.0.join(below).display().to_string()).join(":");
        command.arg("--library-path").arg(libraries).arg(self.0.join("usr/bin").join(program));
        Ok(command)
    }

    /// As it tells it.
    pub(crate) fn version(&self) -> anyhow::Result<String> {
        let said = process::output(self.command("prometheus")?.arg("--version"))?;
        Ok(said.split_whitespace().nth(2).unwrap_or("of unknown version").to_owned())
    }
}

fn is_whole(root: &Path) -> bool {
    root.join("usr/bin/prometheus").is_file()
}

fn folder() -> anyhow::Result<PathBuf> {
    Ok(paths::cache()?.join("tools/prometheus"))
}

pub(super) fn check() -> anyhow::Result<State> {
    Ok(match Prometheus::find()? {
        Some(prometheus) => State::Ready(format!("{} ({})", prometheus.version()?, prometheus.0.display())),
        None => State::Missing {
            remedy: format!("`cargo xtask setup` unpacks Debian's packages {} into the cache", PACKAGES.join(", ")),
        },
    })
}

pub(super) fn install() -> anyhow::Result<()> {
    cache::fill(&folder()?, is_whole, |work| {
        let root = work.join("root");
        unpack(&root, &work.join("debs")).map(|()| root)
    })
}

fn unpack(root: &Path, debs: &Path) -> anyhow::Result<()> {
    let (archive, suite) = archive()?;
    ui::say(format!("unpacking Debian's Prometheus of {suite} into the cache"));
    fs::create_dir_all(debs).with_context(|| format!("can't make {}", debs.display()))?;
    for package in PACKAGES {
        let deb = archive.download(package, debs)?;
        archive::unpack(&deb, root)?;
        ui::check_interrupt()?;
    }
    let unpacked = Prometheus(root.to_owned());
    ui::say(unpacked.version().context("the unpacked Prometheus does not start")?);
    Ok(())
}

/// Of the first suite that has all of it.
fn archive() -> anyhow::Result<(Archive, &'static str)> {
    for suite in SUITES {
        let archive = Archive::open(&format!("prometheus-{suite}"), &[suite])?;
        if PACKAGES.iter().all(|package| archive.has(package)) {
            return Ok((archive, suite));
        }
        ui::check_interrupt()?;
    }
    anyhow::bail!("Debian's {} have no {}", SUITES.join(" and "), PACKAGES.join(", "))
}
