//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// What is fetched or takes long to make and outlives `cargo clean`: `$MEMGUARD_CACHE`, else `memguard` in
/// `$XDG_CACHE_HOME` or `~/.cache`.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let named = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = named("MEMGUARD_CACHE") {
        return Ok(path);
    }
    let base = named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither HOME nor MEMGUARD_CACHE is set: there is no place for a cache")?.join("memguard"))
}

/// An error, with the remedy, if there is less room than something takes. Asked beforehand, because not every program
/// that runs into a full disk says so: apt-get waits for ever.
pub(crate) fn check_room(folder: &Path, needed_mib: u64, what_for: &str) -> anyhow::Result<()> {
    let stat = rustix::fs::statvfs(folder).with_context(|| format!("can't look at {}", folder.display()))?;
    let free_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if free_mib < needed_mib {
        bail!(
            "{} has {free_mib} MiB free, and {what_for} takes {needed_mib}: make room, or put the cache elsewhere with \
             MEMGUARD_CACHE",
            folder.display()
        );
    }
    Ok(())
}

/// What runs of the lab leave, and where they work.
pub(crate) fn lab() -> PathBuf {
    target().join("lab")
}

/// The lab's scenarios.
pub(crate) fn scenarios() -> PathBuf {
    root().join("tests/scenarios")
}
