//! The ways in which memguard changes the world. Everything that does goes through [`Actions`].

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::oom::{Notes, Relief, Squeeze};
use crate::cgroup::{CgroupError, CgroupHandle, Killed};

/// How to end a livelock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// `cgroup.kill`: SIGKILL to every process of the cgroup and below.
    #[default]
    Kill,
    /// memory.max is lowered for a moment, so that the kernel's own OOM killer acts.
    Oom,
    /// The same, and `cgroup.kill` if nobody has died of it after two seconds.
    OomThenKill,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Kill => "cgroup.kill",
            Self::Oom => "the kernel's OOM killer",
            Self::OomThenKill => "the kernel's OOM killer, or else cgroup.kill",
        })
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Ended {
    /// No process is left. Times from the moment that the action began.
    Dead { write_us: u64, empty_after_ms: u64 },
    /// The signal is out, but a process is still there: it waits uninterruptibly, and dies when that ends.
    Lingering { write_us: u64, waited_ms: u64 },
    /// The kernel's OOM killer has acted, and the limit is what it was. `alive`: somebody is left.
    OomKilled { processes: u64, after_ms: u64, alive: bool },
    /// The limit was lowered and put back, and nobody died.
    NobodyDied { waited_ms: u64 },
    /// Observe mode: nothing was done.
    DryRun,
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    #[error("{0} (memguard has to run as root and see the host's cgroups writable, kernel 5.14 or newer)")]
    Kill(#[source] CgroupError),
    #[error("can't lower its limit: {0} (memguard has to run as root and see the host's cgroups writable)")]
    Limit(#[source] CgroupError),
    #[error("its limit was lowered and can't be put back: {0} (the next start of memguard tries again)")]
    Restore(#[source] CgroupError),
    #[error("can't note in {} which limit is lowered, so it was not: {source} (--run-dir names another folder)", folder.display())]
    Note { folder: PathBuf, source: io::Error },
    #[error("can't start the thread that lowers its limit: {0}")]
    Thread(#[source] io::Error),
    #[error("the kill is out, but what became of it can't be seen: {0}")]
    Confirm(#[source] CgroupError),
}

/// Side effects. Takes the cgroup by value: after an action its handle is used up.
pub trait Actions {
    /// Ends the livelock of `victim`, and waits up to `patience` for its last process.
    fn end(
        &self,
        victim: CgroupHandle,
        method: Method,
        patience: Duration,
    ) -> impl Future<Output = Result<Ended, ActionError>> + Send + 'static;
}

/// The real thing.
#[derive(Clone, Debug)]
pub struct KernelActions {
    notes: Notes,
}

impl KernelActions {
    /// `notes`: where it is noted which limits are lowered.
    #[must_use]
    pub const fn new(notes: Notes) -> Self {
        Self { notes }
    }
}

impl Actions for KernelActions {
    fn end(
        &self,
        victim: CgroupHandle,
        method: Method,
        patience: Duration,
    ) -> impl Future<Output = Result<Ended, ActionError>> + Send + 'static {
        // What kills happens now, not when the future is first polled.
        let victim = Arc::new(victim);
        let begun = match method {
            Method::Kill => Begun::Kill(Kill::begin(victim)),
            Method::Oom | Method::OomThenKill => match Squeeze::begin(&victim, &self.notes) {
                Ok(squeeze) => Begun::Squeeze(Box::new(squeeze)),
                Err(error) if method == Method::OomThenKill => {
                    tracing::warn!(%error, "cgroup.kill instead");
                    Begun::Kill(Kill::begin(victim))
                }
                Err(error) => Begun::Failed(error),
            },
        };
        async move {
            match begun {
                Begun::Kill(kill) => kill.confirm(patience).await,
                Begun::Squeeze(squeeze) => relieve(*squeeze, method, patience).await,
                Begun::Failed(error) => Err(error),
            }
        }
    }
}

enum Begun {
    Kill(Kill),
    Squeeze(Box<Squeeze>),
    Failed(ActionError),
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A `cgroup.kill` that is out.
struct Kill {
    victim: Arc<CgroupHandle>,
    began: Instant,
    written: Result<(), CgroupError>,
    write_us: u64,
}

impl Kill {
    fn begin(victim: Arc<CgroupHandle>) -> Self {
        let began = Instant::now();
        let written = victim.kill();
        let write_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Self { victim, began, written, write_us }
    }

    async fn confirm(self, patience: Duration) -> Result<Ended, ActionError> {
        let Self { victim, began, written, write_us } = self;
        match written {
            Ok(()) => {}
            // Removed between the fresh check and the write: it is as dead as it gets.
            Err(error) if error.is_gone() => return Ok(Ended::Dead { write_us, empty_after_ms: 0 }),
            Err(error) => return Err(ActionError::Kill(error)),
        }
        let ended = victim.wait_until_empty(patience).await.map_err(ActionError::Confirm)?;
        Ok(match ended {
            Some(Killed::Dead | Killed::Gone) => Ended::Dead { write_us, empty_after_ms: ms(began.elapsed()) },
            None => Ended::Lingering { write_us, waited_ms: ms(began.elapsed()) },
        })
    }
}

/// A group that the OOM killer ends as a whole is empty a moment later.
const GROUP_DIES_WITHIN: Duration = Duration::from_millis(500);

async fn relieve(squeeze: Squeeze, method: Method, patience: Duration) -> Result<Ended, ActionError> {
    let (victim, relief) = squeeze.finish().await;
    match relief {
        Ok(Relief::Killed { processes, after }) => {
            let left = victim.wait_until_empty(GROUP_DIES_WITHIN).await.map_err(ActionError::Confirm)?;
            Ok(Ended::OomKilled { processes, after_ms: ms(after), alive: left.is_none() })
        }
        Ok(Relief::Gone) => Ok(Ended::Dead { write_us: 0, empty_after_ms: 0 }),
        Ok(Relief::Nothing { .. }) | Err(_) if method == Method::OomThenKill => {
            if let Err(error) = relief {
                tracing::warn!(%error, "cgroup.kill instead");
            }
            Kill::begin(victim).confirm(patience).await
        }
        Ok(Relief::Nothing { waited }) => Ok(Ended::NobodyDied { waited_ms: ms(waited) }),
        Err(error) => Err(error),
    }
}

/// Does nothing, and says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct DryRun;

impl Actions for DryRun {
    fn end(
        &self,
        _victim: CgroupHandle,
        _method: Method,
        _patience: Duration,
    ) -> impl Future<Output = Result<Ended, ActionError>> + Send + 'static {
        std::future::ready(Ok(Ended::DryRun))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::fake_cgroup;

    fn actions() -> KernelActions {
        KernelActions::new(Notes::new("/nonexistent/memguard".into()))
    }

    #[tokio::test]
    async fn a_limit_that_cannot_be_lowered_ends_in_a_kill_if_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        fs::write(dir.path().join("file"), "").unwrap();
        let actions = KernelActions::new(Notes::new(dir.path().join("file")));
        let end = |method| actions.end(CgroupHandle::open(dir.path()).unwrap(), method, Duration::from_millis(10));
        assert!(matches!(end(Method::Oom).await, Err(ActionError::Note { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.kill")).unwrap(), "");
        assert!(matches!(end(Method::OomThenKill).await, Ok(Ended::Lingering { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.kill")).unwrap(), "1");
    }

    #[tokio::test]
    async fn when_nobody_dies_of_it_the_kill_follows_if_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let actions = KernelActions::new(Notes::new(dir.path().join("run")));
        let end = |method| actions.end(CgroupHandle::open(dir.path()).unwrap(), method, Duration::from_millis(10));
        assert!(matches!(end(Method::Oom).await, Ok(Ended::NobodyDied { waited_ms: 2000.. })));
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.kill")).unwrap(), "");
        assert!(matches!(end(Method::OomThenKill).await, Ok(Ended::Lingering { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.kill")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.path().join("memory.max")).unwrap().trim(), "2000");
    }

    #[tokio::test]
    async fn a_kill_is_written_at_once_and_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let handle = CgroupHandle::open(dir.path()).unwrap();
        let future = actions().end(handle, Method::Kill, Duration::from_secs(5));
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.kill")).unwrap(), "1", "before the first poll");
        fs::write(dir.path().join("cgroup.events"), "populated 0\n").unwrap();
        assert!(matches!(future.await.unwrap(), Ended::Dead { .. }));
    }

    #[tokio::test]
    async fn a_task_that_does_not_die_is_reported_as_such() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let handle = CgroupHandle::open(dir.path()).unwrap();
        let ended = actions().end(handle, Method::Kill, Duration::from_millis(20)).await.unwrap();
        assert!(matches!(ended, Ended::Lingering { .. }));
    }

    #[tokio::test]
    async fn what_cannot_be_killed_is_an_error_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let handle = CgroupHandle::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("cgroup.kill")).unwrap();
        fs::create_dir(dir.path().join("cgroup.kill")).unwrap();
        let error = actions().end(handle, Method::Kill, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains("cgroup.kill") && error.contains("root"), "{error}");
    }

    #[tokio::test]
    async fn a_cgroup_that_vanished_before_the_kill_counts_as_dead() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let handle = CgroupHandle::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("cgroup.kill")).unwrap();
        let ended = actions().end(handle, Method::Kill, Duration::ZERO).await.unwrap();
        assert!(matches!(ended, Ended::Dead { .. }));
    }

    #[tokio::test]
    async fn a_dry_run_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let handle = CgroupHandle::open(dir.path()).unwrap();
        assert_eq!(DryRun.end(handle, Method::Kill, Duration::ZERO).await.unwrap(), Ended::DryRun);
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.kill")).unwrap(), "");
    }
}
