//! Cgroup v2 as a file system: reading it, finding one's way in it, killing in it.
//!
//! The root is a parameter everywhere, so a fake tree in a temporary folder does for tests.

mod find;
mod handle;
mod own;
pub(crate) mod parse;
mod root;
mod tree;

use std::{io, path::PathBuf};

pub use find::find;
#[cfg(test)]
pub(crate) use handle::tests::fake as fake_cgroup;
pub use handle::{CgroupHandle, LimitFile};
pub use own::{lineage, own_cgroup};
pub use root::{CgroupRoot, RootFacts};
pub(crate) use tree::limit_hits;
pub use tree::{Tree, is_grouping};

/// What can go wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cgroup {} is gone", path.display())]
    Gone { path: PathBuf },
    #[error("can't {verb} {}: {source}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {what}", path.display())]
    Malformed { path: PathBuf, what: String },
    #[error("{} is no longer the cgroup it was (inode {now} instead of {expected}): another one was made in its place", path.display())]
    Replaced { path: PathBuf, expected: u64, now: u64 },
}

impl CgroupError {
    /// Wraps an I/O error. `ENOENT` and `ENODEV` (kernfs: the folder was removed while a file in it was open) mean that
    /// the cgroup is gone.
    pub(crate) fn io(verb: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.into(), source.into());
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV) => Self::Gone { path },
            _ => Self::Io { verb, path, source },
        }
    }

    /// Whether the cgroup does not exist any more.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::Replaced { .. })
    }
}
