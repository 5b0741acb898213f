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
    os::unix::thread::JoinHandleExt as _,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::{
    actions::{ActionError, Ended, Out, ms},
    lowered::{Lowered, Notes},
};
use crate::{
    cgroup::{CgroupError, CgroupHandle},
    engine::Memory,
};

/// How long the kernel gets to choose somebody.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an interrupted write may take to return.
const WRITER_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// memory.max is kept in pages; a multiple of the largest page size reads back as it was written.
const GRANULE: u64 = 64 * 1024;

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

/// A cgroup whose limit was lowered.
#[derive(Debug)]
pub(super) struct Squeezed {
    pub(super) cgroup: Arc<CgroupHandle>,
    pub(super) oom_kills_before: u64,
    pub(super) group_kills_before: u64,
    pub(super) relief: Result<Relief, ActionError>,
    /// Whether the limit is what it was, which has nothing to do with who died.
    pub(super) restored: Result<(), ActionError>,
}

/// A cgroup whose limit is lowered. Dropped, it is put back.
#[derive(Debug)]
pub(super) struct Squeeze {
    cgroup: Arc<CgroupHandle>,
    lowered: Lowered,
    oom_kills_before: u64,
    group_kills_before: u64,
    /// How often this very limit had asked for the OOM killer; `None` where the kernel does not say (before 5.3).
    asked_before: Option<u64>,
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
        let group_kills_before = cgroup.oom_group_kills().map_err(ActionError::Limit)?;
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
            group_kills_before,
            asked_before: memory.local.map(|local| local.oom),
            began: Instant::now(),
            notes: notes.clone(),
            writer,
            written,
            _harmless: harmless,
            restored: false,
        })
    }

    /// Waits for the kernel's OOM killer, tells `out` when it has acted, puts the limit back, and gives the cgroup back.
    pub(super) async fn finish(mut self, out: &Out) -> Squeezed {
        let relief = self.wait().await;
        if let Ok(Relief::Killed { processes, after }) = relief {
            out(Ended::OomKilled { processes, after_ms: ms(after), alive: true });
        }
        let restored = self.restore().await;
        Squeezed {
            cgroup: Arc::clone(&self.cgroup),
            oom_kills_before: self.oom_kills_before,
            group_kills_before: self.group_kills_before,
            relief,
            restored,
        }
    }

    async fn wait(&mut self) -> Result<Relief, ActionError> {
        loop {
            let mut unseen = None;
            match self.cgroup.memory() {
                Ok(memory) if self.has_killed(&memory) => {
                    let processes = memory.oom_kills - self.oom_kills_before;
                    return Ok(Relief::Killed { processes, after: self.began.elapsed() });
                }
                Ok(_) => {}
                Err(error) if error.is_gone() => return Ok(Relief::Gone),
                // It may be readable again before the time is over.
                Err(error) => unseen = Some(error),
            }
            if let Ok(Err(error)) = self.written.try_recv() {
                return if error.is_gone() { Ok(Relief::Gone) } else { Err(ActionError::Limit(error)) };
            }
            let waited = self.began.elapsed();
            if waited >= PATIENCE {
                return unseen.map_or(Ok(Relief::Nothing { waited }), |error| Err(ActionError::Limit(error)));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether the OOM killer has ended somebody for the lowered limit. A kill is counted where its victim was, so in the
    /// subtree (`__oom_kill_process()`), and a container inside may have one at its own, smaller limit
    /// meanwhile; whose limit asked is told by `oom` of memory.events.local (`mem_cgroup_oom()` and `memory_max_write()`).
    fn has_killed(&self, memory: &Memory) -> bool {
        let asked = match (memory.local, self.asked_before) {
            (Some(local), Some(before)) => local.oom > before,
            _ => true,
        };
        asked && memory.oom_kills > self.oom_kills_before
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
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::{cgroup::fake_cgroup, respond::actions::tests::noted};

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
        assert!(matches!(squeeze.finish(&noted().0).await.relief.unwrap(), Relief::Killed { processes: 2, .. }));
        assert_eq!((max(&path).as_str(), notes_left(&notes)), (LIMIT, 0));
    }

    #[tokio::test]
    async fn a_kill_at_a_limit_further_down_is_no_relief() {
        let (_dir, path, notes) = setup();
        let events = |kills: u64, asked: u64| {
            fs::write(path.join("memory.events"), format!("max 2\noom 9\noom_kill {kills}\n")).unwrap();
            fs::write(path.join("memory.events.local"), format!("max 2\noom {asked}\noom_kill 0\n")).unwrap();
        };
        events(4, 3);
        let squeeze = Squeeze::begin(&open(&path), &notes).unwrap();
        lowered(&path).await;
        events(5, 3);
        assert!(matches!(squeeze.finish(&noted().0).await.relief.unwrap(), Relief::Nothing { .. }));
        let squeeze = Squeeze::begin(&open(&path), &notes).unwrap();
        lowered(&path).await;
        events(6, 4);
        assert!(matches!(squeeze.finish(&noted().0).await.relief.unwrap(), Relief::Killed { processes: 1, .. }));
    }

    #[tokio::test]
    async fn the_limit_is_put_back_when_nobody_dies() {
        let (_dir, path, notes) = setup();
        let squeeze = Squeeze::begin(&open(&path), &notes).unwrap();
        lowered(&path).await;
        assert!(matches!(squeeze.finish(&noted().0).await.relief.unwrap(), Relief::Nothing { .. }));
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
        squeeze.finish(&noted().0).await.relief.unwrap();
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
}
