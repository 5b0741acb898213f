//! Notes about limits that are lowered for a moment, so that they are put back whatever happens to memguard.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::cgroup::{CgroupError, CgroupHandle};

/// A limit that is lowered for a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lowered {
    pub(super) path: PathBuf,
    pub(super) inode: u64,
    /// Bytes; `None` is `max`.
    pub(super) limit: Option<u64>,
    /// Bytes.
    pub(super) now: u64,
}

impl Lowered {
    /// Puts the limit back, unless somebody else has set another one meanwhile. Whether it did.
    pub(super) fn put_back(&self, cgroup: &CgroupHandle) -> Result<bool, CgroupError> {
        if cgroup.max()? != Some(self.now) {
            return Ok(false);
        }
        cgroup.limit()?.write(self.limit).map(|()| true)
    }
}

/// Where notes about lowered limits are: a folder that outlives memguard and not the machine's start, as a cgroup does.
#[derive(Clone, Debug)]
pub struct Notes {
    pub(super) folder: PathBuf,
}

/// What became of a note of an earlier memguard.
#[derive(Debug)]
pub enum Restored {
    /// The limit is what it was.
    PutBack(PathBuf),
    /// It could not be put back, and the note stays.
    Failed(CgroupError),
    /// The note says nothing that could be done; it was deleted.
    Unusable(String),
}

impl Notes {
    /// `folder` is made when it is needed.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn file(&self, inode: u64) -> PathBuf {
        self.folder.join(format!("lowered-{inode}.json"))
    }

    pub(super) fn put(&self, lowered: &Lowered) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let (file, part) = (self.file(lowered.inode), self.folder.join("part"));
        fs::write(&part, serde_json::to_vec(lowered)?)?;
        fs::rename(part, file)
    }

    pub(super) fn remove(&self, inode: u64) {
        let file = self.file(inode);
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "can't delete {}; the limit that it tells of was put back", file.display());
        }
    }

    /// Puts back what an earlier memguard lowered below `root` before it died.
    #[must_use]
    pub fn restore(&self, root: &Path) -> Vec<Restored> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let notes = entries.flatten().map(|entry| entry.path());
        notes
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(|path| self.restore_one(&path, root))
            .collect()
    }

    fn restore_one(&self, note: &Path, root: &Path) -> Option<Restored> {
        let read = fs::read(note).map_err(|error| error.to_string());
        let lowered: Lowered = match read.and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string())) {
            Ok(lowered) => lowered,
            Err(why) => {
                let _ = fs::remove_file(note);
                return Some(Restored::Unusable(format!("{}: {why}", note.display())));
            }
        };
        if !lowered.path.starts_with(root) || lowered.path.components().any(|part| part.as_os_str() == "..") {
            // Of a memguard that watches another part of the tree, perhaps.
            return None;
        }
        let put_back = CgroupHandle::open(&lowered.path)
            .and_then(|cgroup| if cgroup.inode() == lowered.inode { lowered.put_back(&cgroup) } else { Ok(false) });
        match put_back {
            Err(error) if !error.is_gone() => Some(Restored::Failed(error)),
            put_back => {
                self.remove(lowered.inode);
                let _ = fs::remove_file(note);
                matches!(put_back, Ok(true)).then_some(Restored::PutBack(lowered.path))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fake_cgroup;

    const LIMIT: &str = "536870912\n";

    #[test]
    fn the_next_start_puts_back_what_was_lowered_and_only_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.scope");
        fake_cgroup(&path);
        let notes = Notes::new(dir.path().join("run"));
        let max = |path: &Path| fs::read_to_string(path.join("memory.max")).unwrap();
        let notes_left = |notes: &Notes| fs::read_dir(&notes.folder).map_or(0, Iterator::count);
        let inode = CgroupHandle::open(&path).unwrap().inode();
        let note = Lowered { path: path.clone(), inode, limit: Some(536_870_912), now: 251_658_240 };
        let max_after = |lowered: &Lowered, now: &str| {
            fs::write(path.join("memory.max"), now).unwrap();
            notes.put(lowered).unwrap();
            let restored = notes.restore(dir.path());
            (restored.len(), max(&path))
        };
        assert_eq!(max_after(&note, "251658240\n"), (1, LIMIT.to_owned()));
        assert_eq!(notes_left(&notes), 0);
        assert_eq!(max_after(&note, "123456789\n").1, "123456789\n", "set by somebody else since");
        let other = Lowered { inode: inode + 1, ..note.clone() };
        assert_eq!(max_after(&other, "251658240\n").1, "251658240\n", "another cgroup under the same path");
        assert_eq!(notes_left(&notes), 0);
        let gone = Lowered { path: dir.path().join("gone"), ..note.clone() };
        assert_eq!(max_after(&gone, "251658240\n").0, 0);
        assert_eq!(notes_left(&notes), 0);
        let elsewhere = Lowered { path: "/elsewhere".into(), ..note };
        assert_eq!(max_after(&elsewhere, "251658240\n").0, 0);
        assert_eq!(notes_left(&notes), 1, "another memguard's");

        fs::write(notes.folder.join("lowered-1.json"), "{").unwrap();
        let restored = notes.restore(dir.path());
        assert!(matches!(&restored[..], [Restored::Unusable(why)] if why.contains("lowered-1.json")), "{restored:?}");
    }
}
