//! Programs for guests, as they were when a command of the lab began: a build meanwhile changes nothing for those that still
//! boot, and what was measured can be named.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// A folder of copies, deleted with them.
pub(crate) struct Programs(TempDir);

impl Programs {
    pub(crate) fn new() -> anyhow::Result<Self> {
        super::work_folder().map(Self)
    }

    /// Copies a program, and tells where the copy is.
    pub(crate) fn take(&self, program: &Path) -> anyhow::Result<PathBuf> {
        let name = program.file_name().with_context(|| format!("{} is no program", program.display()))?;
        let copy = std::path::absolute(self.0.path().join(name))?;
        fs::copy(program, &copy).with_context(|| format!("can't copy {} to {}", program.display(), copy.display()))?;
        Ok(copy)
    }
}

/// The first twelve digits of a file's sha256.
pub(crate) fn short_hash(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut hash = format!("{:x}", Sha256::digest(bytes));
    hash.truncate(12);
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("memguard");
        fs::write(&built, "one").unwrap();
        let programs = Programs(tempfile::tempdir().unwrap());
        let copy = programs.take(&built).unwrap();
        let hash = short_hash(&copy).unwrap();
        assert_eq!(hash, "7692c3ad3540");
        fs::remove_file(&built).unwrap();
        assert_eq!((fs::read_to_string(&copy).unwrap().as_str(), short_hash(&copy).unwrap()), ("one", hash));
        assert!(programs.take(&built).unwrap_err().to_string().contains("memguard"));
    }
}
