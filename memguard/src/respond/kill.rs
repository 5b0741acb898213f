//! One write to cgroup.kill, and what comes of it.
//!
//! The write takes the kernel's lock of all cgroups (`cgroup_kn_lock_live()`), and a mkdir below the cgroup that hangs can
//! hold that lock while its own allocations are charged there, and hang as well. So it is made by a thread of its own.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, TryRecvError},
    },
    time::{Duration, Instant},
};

use super::{
    actions::{ActionError, Ended, Out, ms},
    life::{Left, POLL, on_a_thread, until_empty},
};
use crate::{
    cgroup::{CgroupError, CgroupHandle},
    crash,
};

/// So long the caller waits for the write, which takes well under a millisecond otherwise: the kill comes before the words
/// about it, also where there is only one CPU for both.
const AT_ONCE: Duration = Duration::from_millis(50);
/// A write that has not returned after this time is told.
const LATE: Duration = Duration::from_secs(1);
const LATE_POLL: Duration = Duration::from_millis(100);

type Written = (Result<(), CgroupError>, Duration);

/// A `cgroup.kill` that is under way or out.
pub(super) struct Kill {
    victim: Arc<CgroupHandle>,
    began: Instant,
    told: Receiver<Written>,
    written: Option<Written>,
}

impl Kill {
    /// Begins now, not when somebody comes to wait for it. `out` is told as soon as the kill is out.
    pub(super) fn begin(victim: Arc<CgroupHandle>, out: Out) -> Self {
        Self::by(CgroupHandle::kill, victim, out)
    }

    fn by(
        kill: impl FnOnce(&CgroupHandle) -> Result<(), CgroupError> + Clone + Send + 'static,
        victim: Arc<CgroupHandle>,
        out: Out,
    ) -> Self {
        let began = Instant::now();
        let (tell, told) = mpsc::sync_channel(1);
        let write = {
            let victim = Arc::clone(&victim);
            move || {
                let written = kill(&victim);
                let took = began.elapsed();
                crash::point("kill-written");
                if written.is_ok() {
                    out(Ended::Lingering { write_us: us(took), waited_ms: 0 });
                }
                let _ = tell.send((written, took));
            }
        };
        if let Err(error) = on_a_thread("cgroup.kill", write.clone()) {
            tracing::warn!(%error, "no thread for the kill, so nothing else is done until it is written");
            write();
        }
        let written = told.recv_timeout(AT_ONCE).ok();
        Self { victim, began, told, written }
    }

    pub(super) async fn confirm(mut self, patience: Duration) -> Result<Ended, ActionError> {
        let Some((written, took)) = self.written().await else { return Ok(self.dead(self.began.elapsed())) };
        match written {
            Ok(()) => {}
            // Removed between the fresh check and the write: it is as dead as it gets.
            Err(error) if error.is_gone() => return Ok(Ended::Dead { write_us: us(took), empty_after_ms: 0 }),
            Err(error) => return Err(ActionError::Kill(error)),
        }
        Ok(match until_empty(&self.victim, patience).await {
            Left::Nobody => self.dead(took),
            left => {
                if let Left::Unknown(error) = left {
                    tracing::warn!(%error, "the kill is out, and whether somebody is left can't be seen");
                }
                Ended::Lingering { write_us: us(took), waited_ms: ms(self.began.elapsed()) }
            }
        })
    }

    fn dead(&self, took: Duration) -> Ended {
        Ended::Dead { write_us: us(took), empty_after_ms: ms(self.began.elapsed()) }
    }

    /// What came of the write, however long it takes; `None` if nobody is left before it returns.
    async fn written(&mut self) -> Option<Written> {
        let mut late = false;
        loop {
            if let Some(written) = self.written.take() {
                return Some(written);
            }
            match self.told.try_recv() {
                Ok(written) => return Some(written),
                // Its thread is gone without a word, so it may be out: that is to be seen.
                Err(TryRecvError::Disconnected) => return Some((Ok(()), self.began.elapsed())),
                Err(TryRecvError::Empty) => {}
            }
            if matches!(Left::of(&self.victim), Left::Nobody) {
                return None;
            }
            if !late && self.began.elapsed() >= LATE {
                late = true;
                tracing::warn!(
                    "the write to cgroup.kill of {} has not returned after {} s: somebody holds the kernel's lock of all \
                     cgroups; waiting for it",
                    self.victim.path().display(),
                    LATE.as_secs()
                );
            }
            tokio::time::sleep(if late { LATE_POLL } else { POLL }).await;
        }
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::Path,
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use super::*;
    use crate::{cgroup::fake_cgroup, respond::actions::tests::noted};

    fn open(path: &Path) -> Arc<CgroupHandle> {
        fake_cgroup(path);
        Arc::new(CgroupHandle::open(path).unwrap())
    }

    /// A write for which the kernel's lock has to be let go first.
    fn stuck(cgroup: Arc<CgroupHandle>, out: Out) -> (Kill, Arc<AtomicBool>) {
        let free = Arc::new(AtomicBool::new(false));
        let lock = Arc::clone(&free);
        let kill = move |cgroup: &CgroupHandle| {
            while !lock.load(Ordering::SeqCst) {
                thread::sleep(POLL);
            }
            cgroup.kill()
        };
        (Kill::by(kill, cgroup, out), free)
    }

    #[tokio::test]
    async fn a_write_that_does_not_return_holds_nobody_up_and_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (out, seen) = noted();
        let (kill, free) = stuck(open(dir.path()), out);
        assert!(kill.written.is_none(), "and yet it is here");
        let mut ended = tokio::spawn(kill.confirm(Duration::from_millis(10)));
        tokio::time::timeout(Duration::from_millis(1200), &mut ended).await.unwrap_err();
        assert_eq!(*seen.lock().unwrap(), [], "it is not out");
        free.store(true, Ordering::SeqCst);
        let ended = ended.await.unwrap().unwrap();
        let Ended::Lingering { write_us, waited_ms } = ended else { panic!("it is out now: {ended:?}") };
        assert!(write_us >= 1_200_000 && waited_ms >= write_us / 1000, "{write_us} {waited_ms}");
        assert!(ended.late().contains("took"));
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.kill")).unwrap(), "1");
        assert!(matches!(seen.lock().unwrap()[..], [Ended::Lingering { .. }]));
    }

    #[tokio::test]
    async fn who_dies_before_the_write_returns_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let (kill, free) = stuck(open(dir.path()), noted().0);
        fs::write(dir.path().join("cgroup.events"), "populated 0\n").unwrap();
        assert!(matches!(kill.confirm(Duration::ZERO).await, Ok(Ended::Dead { .. })));
        free.store(true, Ordering::SeqCst);
    }

    #[tokio::test]
    async fn that_it_is_out_is_told_before_its_end_is() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = open(dir.path());
        let order = Arc::new(Mutex::new(Vec::new()));
        let (kill, told) = (dir.path().join("cgroup.kill"), Arc::clone(&order));
        let out: Out = Arc::new(move |_| told.lock().unwrap().push(fs::read_to_string(&kill).unwrap()));
        Kill::begin(cgroup, out).confirm(Duration::ZERO).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["1"]);
    }

    #[tokio::test]
    async fn a_kill_whose_end_cannot_be_seen_is_out_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = open(dir.path());
        fs::write(dir.path().join("cgroup.events"), "nonsense\n").unwrap();
        let ended = Kill::begin(cgroup, noted().0).confirm(Duration::from_millis(10)).await;
        assert!(matches!(ended, Ok(Ended::Lingering { .. })), "{ended:?}");
    }
}
