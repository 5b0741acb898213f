//! The second way to end a hang: give the kernel its verdict back.
//!
//! memory.max is lowered to half of what can't be reclaimed. No charge succeeds any more, so there is nothing left to free,
//! reclaim returns 0 and the kernel asks its own OOM killer, which it had not in all the time before (measured on 6.1,
//! 6.12 and 6.18: within 0.2 to 0.5 s). Kubernetes can then say `OOMKilled`, and with `memory.oom.group` 0 only the
//! hungry process dies.
//!
//! The write itself reclaims and kills in the writer's own context (`memory_max_write()` in mm/memcontrol.c), for up to
//! seconds, and goes on until usage is below: so it has a thread of its own, which is interrupted after the first kill.
//!
//! The limit is put back whatever happens: after the first kill, after a timeout, when an action is dropped, and, should
//! memguard itself die meanwhile, by its next start, from a note.

use std::{
    fs, io,
    os::unix::{fs::DirBuilderExt as _, thread::JoinHandleExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::actions::ActionError;
use crate::cgroup::{CgroupError, CgroupHandle};

/// How long the kernel gets to choose somebody.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an interrupted write may take to return.
const WRITER_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// memory.max is kept in pages; a multiple of the largest page size reads back as it was written.
const GRANULE: u64 = 64 * 1024;

/// A limit that is lowered for a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lowered {
    path: PathBuf,
    inode: u64,
    /// Bytes; `None` is `max`.
    limit: Option<u64>,
    /// Bytes.
    now: u64,
}

impl Lowered {
    /// Puts the limit back, unless somebody else has set another one meanwhile. Whether it did.
    fn put_back(&self, cgroup: &CgroupHandle) -> Result<bool, CgroupError> {
        if cgroup.max()? != Some(self.now) {
            return Ok(false);
        }
        cgroup.limit()?.write(self.limit).map(|()| true)
    }
}

/// Where notes about lowered limits are: a folder that outlives memguard and not the machine's start, as a cgroup does.
#[derive(Clone, Debug)]
pub struct Notes {
    folder: PathBuf,
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

    fn put(&self, lowered: &Lowered) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let (file, part) = (self.file(lowered.inode), self.folder.join("part"));
        fs::write(&part, serde_json::to_vec(lowered)?)?;
        fs::rename(part, file)
    }

    fn remove(&self, inode: u64) {
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

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relief {
    /// The kernel's OOM killer has acted.
    Killed { processes: u64, after: Duration },
    /// Nobody died.
    Nothing { waited: Duration },
    /// The cgroup was removed meanwhile.
    Gone,
}

/// A cgroup whose limit is lowered. Dropped, it is put back.
#[derive(Debug)]
pub(super) struct Squeeze {
    cgroup: Arc<CgroupHandle>,
    lowered: Lowered,
    oom_kills_before: u64,
    began: Instant,
    notes: Notes,
    writer: JoinHandle<()>,
    written: oneshot::Receiver<Result<(), CgroupError>>,
    /// Held so that SIGUSR1, which interrupts the writer, has a handler.
    _harmless: Signal,
    restored: bool,
}

impl Squeeze {
    /// Notes what is about to be done, and has a thread do it.
    pub(super) fn begin(cgroup: &Arc<CgroupHandle>, notes: &Notes) -> Result<Self, ActionError> {
        let memory = cgroup.memory().map_err(ActionError::Limit)?;
        let limit = cgroup.limit().map_err(ActionError::Limit)?;
        let lowered = Lowered {
            path: cgroup.path().to_owned(),
            inode: cgroup.inode(),
            limit: memory.max,
            now: (memory.unreclaimable() / 2 / GRANULE * GRANULE).max(GRANULE),
        };
        let harmless = signal(SignalKind::user_defined1()).map_err(ActionError::Thread)?;
        notes.put(&lowered).map_err(|source| ActionError::Note { folder: notes.folder.clone(), source })?;
        let (done, written) = oneshot::channel();
        let now = lowered.now;
        let writer = thread::Builder::new()
            .name("memory.max".to_owned())
            .spawn(move || {
                // Nobody listens any more when the cgroup has been let go: the limit is back by then.
                let _ = done.send(limit.write(Some(now)));
            })
            .map_err(|error| {
                notes.remove(lowered.inode);
                ActionError::Thread(error)
            })?;
        Ok(Self {
            cgroup: Arc::clone(cgroup),
            lowered,
            oom_kills_before: memory.oom_kills,
            began: Instant::now(),
            notes: notes.clone(),
            writer,
            written,
            _harmless: harmless,
            restored: false,
        })
    }

    /// Waits for the kernel's OOM killer, puts the limit back, and gives the cgroup back.
    pub(super) async fn finish(mut self) -> (Arc<CgroupHandle>, Result<Relief, ActionError>) {
        let relief = self.wait().await;
        let restored = self.restore().await;
        (Arc::clone(&self.cgroup), restored.and(relief))
    }

    async fn wait(&mut self) -> Result<Relief, ActionError> {
        loop {
            match self.cgroup.memory() {
                Ok(memory) if memory.oom_kills > self.oom_kills_before => {
                    let processes = memory.oom_kills - self.oom_kills_before;
                    return Ok(Relief::Killed { processes, after: self.began.elapsed() });
                }
                Ok(_) => {}
                Err(error) if error.is_gone() => return Ok(Relief::Gone),
                Err(error) => return Err(ActionError::Limit(error)),
            }
            if let Ok(Err(error)) = self.written.try_recv() {
                return if error.is_gone() { Ok(Relief::Gone) } else { Err(ActionError::Limit(error)) };
            }
            let waited = self.began.elapsed();
            if waited >= PATIENCE {
                return Ok(Relief::Nothing { waited });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Puts the limit back, stops the writer, which may only now come to write, and looks again.
    async fn restore(&mut self) -> Result<(), ActionError> {
        let first = self.put_back();
        let deadline = Instant::now() + WRITER_PATIENCE;
        while !self.writer.is_finished() {
            self.interrupt();
            if Instant::now() >= deadline {
                tracing::warn!(
                    "the write to memory.max of {} has not returned; the note about its limit stays for the next start",
                    self.cgroup.path().display()
                );
                return first;
            }
            tokio::time::sleep(POLL).await;
        }
        self.put_back()?;
        self.restored = true;
        self.notes.remove(self.lowered.inode);
        Ok(())
    }

    fn put_back(&self) -> Result<(), ActionError> {
        match self.lowered.put_back(&self.cgroup) {
            Err(error) if !error.is_gone() => Err(ActionError::Restore(error)),
            _ => Ok(()),
        }
    }

    fn interrupt(&self) {
        // SAFETY: the thread is neither joined nor detached, so its id is valid; SIGUSR1 has a handler.
        unsafe { libc::pthread_kill(self.writer.as_pthread_t(), libc::SIGUSR1) };
    }
}

impl Drop for Squeeze {
    fn drop(&mut self) {
        if !self.restored && self.put_back().is_ok() && self.writer.is_finished() {
            self.notes.remove(self.lowered.inode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fake_cgroup;

    const LIMIT: &str = "536870912\n";

    /// 480 MiB of anonymous memory under a limit of 512.
    fn setup() -> (tempfile::TempDir, PathBuf, Notes) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.scope");
        fake_cgroup(&path);
        fs::write(path.join("memory.max"), LIMIT).unwrap();
        fs::write(
            path.join("memory.stat"),
            "anon 503316480\nfile 30\nshmem 0\npgsteal 5\nworkingset_refault_file 6\npgmajfault 7\n",
        )
        .unwrap();
        let notes = Notes::new(dir.path().join("run"));
        (dir, path, notes)
    }

    fn open(path: &Path) -> Arc<CgroupHandle> {
        Arc::new(CgroupHandle::open(path).unwrap())
    }

    fn max(path: &Path) -> String {
        fs::read_to_string(path.join("memory.max")).unwrap()
    }

    async fn lowered(path: &Path) {
        while max(path).trim() != "251658240" {
            tokio::time::sleep(POLL).await;
        }
    }

    fn notes_left(notes: &Notes) -> usize {
        fs::read_dir(&notes.folder).map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn the_limit_is_put_back_after_the_first_kill() {
        let (_dir, path, notes) = setup();
        let squeeze = Squeeze::begin(&open(&path), &notes).unwrap();
        lowered(&path).await;
        assert_eq!(notes_left(&notes), 1, "noted before it is done");
        fs::write(path.join("memory.events"), "max 2\noom 9\noom_kill 6\n").unwrap();
        assert!(matches!(squeeze.finish().await.1.unwrap(), Relief::Killed { processes: 2, .. }));
        assert_eq!((max(&path).as_str(), notes_left(&notes)), (LIMIT, 0));
    }

    #[tokio::test]
    async fn the_limit_is_put_back_when_nobody_dies() {
        let (_dir, path, notes) = setup();
        let squeeze = Squeeze::begin(&open(&path), &notes).unwrap();
        lowered(&path).await;
        assert!(matches!(squeeze.finish().await.1.unwrap(), Relief::Nothing { .. }));
        assert_eq!((max(&path).as_str(), notes_left(&notes)), (LIMIT, 0));
    }

    #[tokio::test]
    async fn the_limit_is_put_back_when_the_action_is_given_up() {
        let (_dir, path, notes) = setup();
        let squeeze = Squeeze::begin(&open(&path), &notes).unwrap();
        lowered(&path).await;
        drop(squeeze);
        assert_eq!(max(&path), LIMIT);
    }

    #[tokio::test]
    async fn a_limit_that_somebody_else_has_set_meanwhile_stays() {
        let (_dir, path, notes) = setup();
        let squeeze = Squeeze::begin(&open(&path), &notes).unwrap();
        lowered(&path).await;
        fs::write(path.join("memory.max"), "107374182\n").unwrap();
        fs::write(path.join("memory.events"), "max 2\noom_kill 5\n").unwrap();
        squeeze.finish().await.1.unwrap();
        assert_eq!(max(&path), "107374182\n");
    }

    #[tokio::test]
    async fn without_a_note_nothing_is_lowered() {
        let (dir, path, _) = setup();
        fs::write(dir.path().join("file"), "").unwrap();
        let notes = Notes::new(dir.path().join("file"));
        let error = Squeeze::begin(&open(&path), &notes).unwrap_err().to_string();
        assert!(error.contains("file") && error.contains("--run-dir"), "{error}");
        assert_eq!(max(&path), LIMIT);
    }

    #[test]
    fn the_next_start_puts_back_what_was_lowered_and_only_that() {
        let (dir, path, notes) = setup();
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
