//! One cgroup, looked for by its id.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::CgroupError;

/// More are not gone through; it is then not known whether the one that is looked for is among the rest.
const MOST_CGROUPS: usize = 1 << 20;

/// The path of the cgroup with this id, at `root` or below it. `None` only if there is none for certain: whatever keeps a
/// part of the tree from being looked at is an error, unlike in a walk of [`Tree`](super::Tree).
pub fn find(root: &Path, id: u64) -> Result<Option<PathBuf>, CgroupError> {
    let mut open = vec![root.to_owned()];
    let mut seen = 0_usize;
    while let Some(path) = open.pop() {
        match below(&path, id) {
            Ok(Looked::Itself) => return Ok(Some(path)),
            Ok(Looked::Below(folders)) => open.extend(folders),
            // It was removed meanwhile, and what was below it before it.
            Err(error) if error.is_gone() && path != root => {}
            Err(error) => return Err(error),
        }
        seen += 1;
        if seen >= MOST_CGROUPS {
            let what = format!("has more than {MOST_CGROUPS} cgroups, so not all are looked at");
            return Err(CgroupError::Malformed { path: root.to_owned(), what });
        }
    }
    Ok(None)
}

enum Looked {
    Itself,
    Below(Vec<PathBuf>),
}

fn below(path: &Path, id: u64) -> Result<Looked, CgroupError> {
    let io = |error| CgroupError::io("read", path, error);
    if fs::symlink_metadata(path).map_err(io)?.ino() == id {
        return Ok(Looked::Itself);
    }
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_dir() {
            folders.push(entry.path());
        }
    }
    Ok(Looked::Below(folders))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_from_what_cannot_be_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a.slice/b.scope/c");
        fs::create_dir_all(&deep).unwrap();
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        let id = fs::metadata(&deep).unwrap().ino();
        assert_eq!(find(dir.path(), id).unwrap(), Some(deep.clone()));
        fs::remove_dir(&deep).unwrap();
        // Its number may be given to another folder of this file system, but not before one is made.
        assert_eq!(find(dir.path(), id).unwrap(), None);
        assert!(find(&dir.path().join("not-mounted"), id).is_err(), "a root that is not there says nothing");
        assert!(find(&dir.path().join("memory.max"), id).is_err());
    }
}
