//! The ways in which memguard changes the world. Everything that does goes through [`Actions`].

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cgroup::{CgroupError, CgroupHandle, Killed};

/// How to end a livelock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// `cgroup.kill`: SIGKILL to every process of the cgroup and below.
    #[default]
    Kill,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Kill => "cgroup.kill",
        })
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Ended {
    /// No process is left. Times from the moment that the action began.
    Dead { write_us: u64, empty_after_ms: u64 },
    /// The signal is out, but a process is still there: it waits uninterruptibly, and dies when that ends.
    Lingering { write_us: u64, waited_ms: u64 },
    /// Observe mode: nothing was done.
    DryRun,
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    #[error("{0} (memguard has to run as root and see the host's cgroups writable, kernel 5.14 or newer)")]
    Kill(#[source] CgroupError),
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
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelActions;

impl Actions for KernelActions {
    fn end(
        &self,
        mut victim: CgroupHandle,
        method: Method,
        patience: Duration,
    ) -> impl Future<Output = Result<Ended, ActionError>> + Send + 'static {
        let began = Instant::now();
        // The kill itself happens now, not when the future is first polled.
        let written = match method {
            Method::Kill => victim.kill(),
        };
        let write_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        async move {
            match written {
                Ok(()) => {}
                // Removed between the fresh check and the write: it is as dead as it gets.
                Err(error) if error.is_gone() => return Ok(Ended::Dead { write_us, empty_after_ms: 0 }),
                Err(error) => return Err(ActionError::Kill(error)),
            }
            let ended = victim.wait_until_empty(patience).await.map_err(ActionError::Confirm)?;
            let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            Ok(match ended {
                Some(Killed::Dead | Killed::Gone) => Ended::Dead { write_us, empty_after_ms: ms },
                None => Ended::Lingering { write_us, waited_ms: ms },
            })
        }
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

    #[tokio::test]
    async fn a_kill_is_written_at_once_and_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let handle = CgroupHandle::open(dir.path()).unwrap();
        let future = KernelActions.end(handle, Method::Kill, Duration::from_secs(5));
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.kill")).unwrap(), "1", "before the first poll");
        fs::write(dir.path().join("cgroup.events"), "populated 0\n").unwrap();
        assert!(matches!(future.await.unwrap(), Ended::Dead { .. }));
    }

    #[tokio::test]
    async fn a_task_that_does_not_die_is_reported_as_such() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let handle = CgroupHandle::open(dir.path()).unwrap();
        let ended = KernelActions.end(handle, Method::Kill, Duration::from_millis(20)).await.unwrap();
        assert!(matches!(ended, Ended::Lingering { .. }));
    }

    #[tokio::test]
    async fn what_cannot_be_killed_is_an_error_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let handle = CgroupHandle::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("cgroup.kill")).unwrap();
        fs::create_dir(dir.path().join("cgroup.kill")).unwrap();
        let error = KernelActions.end(handle, Method::Kill, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains("cgroup.kill") && error.contains("root"), "{error}");
    }

    #[tokio::test]
    async fn a_cgroup_that_vanished_before_the_kill_counts_as_dead() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let handle = CgroupHandle::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("cgroup.kill")).unwrap();
        let ended = KernelActions.end(handle, Method::Kill, Duration::ZERO).await.unwrap();
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
