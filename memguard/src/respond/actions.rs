//! The ways in which memguard changes the world. Everything that does goes through [`Actions`].

#[cfg(test)]
pub(crate) mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    kill::Kill,
    life::{Left, Life, life, until_empty},
    lowered::Notes,
    oom::{Relief, Squeeze},
};
use crate::cgroup::{CgroupError, CgroupHandle};

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
    /// The signal is out, but a process is still there, as far as that can be seen: it waits uninterruptibly, and dies
    /// when that ends.
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
}

impl Ended {
    /// Of a kill that was out, with nobody left so many ms later.
    #[must_use]
    pub const fn emptied(self, after_ms: u64) -> Self {
        match self {
            Self::Lingering { write_us, .. } => Self::Dead { write_us, empty_after_ms: after_ms },
            Self::OomKilled { processes, after_ms, .. } => Self::OomKilled { processes, after_ms, alive: false },
            other => other,
        }
    }

    /// The same with somebody left so many ms later.
    #[must_use]
    pub const fn waited(self, waited_ms: u64) -> Self {
        match self {
            Self::Lingering { write_us, .. } => Self::Lingering { write_us, waited_ms },
            other => other,
        }
    }

    /// That the kernel took its time for the write, if it did.
    #[must_use]
    pub fn late(self) -> String {
        match self {
            Self::Dead { write_us, .. } | Self::Lingering { write_us, .. } if write_us >= 1_000_000 => {
                format!(" (the write to cgroup.kill took {:.1} s)", write_us as f64 / 1e6)
            }
            _ => String::new(),
        }
    }
}

/// Called as soon as a kill is out, by whoever sees it first, with what is certain of it from then on. Returns at once.
pub type Out = Arc<dyn Fn(Ended) + Send + Sync>;

/// Side effects. Takes the cgroup by value: after an action its handle is used up.
pub trait Actions {
    /// Ends the livelock of `victim`, tells `out` when there is no way back, and waits up to `patience` for its last
    /// process.
    fn end(
        &self,
        victim: CgroupHandle,
        method: Method,
        patience: Duration,
        out: Out,
    ) -> impl Future<Output = Result<Ended, ActionError>> + Send + 'static;
}

/// The real thing.
#[derive(Clone, Debug)]
pub struct KernelActions {
    notes: Notes,
    proc: PathBuf,
}

impl KernelActions {
    /// `notes`: where it is noted which limits are lowered.
    #[must_use]
    pub fn new(notes: Notes) -> Self {
        Self { notes, proc: PathBuf::from("/proc") }
    }
}

impl Actions for KernelActions {
    fn end(
        &self,
        victim: CgroupHandle,
        method: Method,
        patience: Duration,
        out: Out,
    ) -> impl Future<Output = Result<Ended, ActionError>> + Send + 'static {
        // What kills happens now, not when the future is first polled.
        let victim = Arc::new(victim);
        let begun = match method {
            Method::Kill => Begun::Kill(Kill::begin(victim, out)),
            Method::Oom | Method::OomThenKill => match Squeeze::begin(&victim, &self.notes) {
                Ok(squeeze) => Begun::Squeeze(Box::new(squeeze), out),
                Err(error) if method == Method::OomThenKill => {
                    tracing::warn!(%error, "cgroup.kill instead");
                    Begun::Kill(Kill::begin(victim, out))
                }
                Err(error) => Begun::Failed(error),
            },
        };
        let proc = self.proc.clone();
        async move {
            match begun {
                Begun::Kill(kill) => kill.confirm(patience).await,
                Begun::Squeeze(squeeze, out) => relieve(*squeeze, method, patience, out, &proc).await,
                Begun::Failed(error) => Err(error),
            }
        }
    }
}

enum Begun {
    Kill(Kill),
    Squeeze(Box<Squeeze>, Out),
    Failed(ActionError),
}

pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A group that the OOM killer ends as a whole is often empty a moment later.
const GROUP_DIES_WITHIN: Duration = Duration::from_millis(500);
/// Then it is looked who lives, so often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

async fn relieve(
    squeeze: Squeeze,
    method: Method,
    patience: Duration,
    out: Out,
    proc: &Path,
) -> Result<Ended, ActionError> {
    let squeezed = squeeze.finish(&out).await;
    let victim = &squeezed.cgroup;
    match (squeezed.relief, squeezed.restored) {
        (Ok(Relief::Killed { processes, after }), restored) => {
            // Who died is dead, whatever became of the limit.
            if let Err(error) = restored {
                tracing::error!("{}: {error}", victim.path().display());
            }
            let began = Instant::now();
            let left = left_by_the_oom_killer(victim, squeezed.group_kills_before, patience, proc).await;
            let since = |kills: u64| kills.saturating_sub(squeezed.oom_kills_before);
            let all = victim.memory().map_or(processes, |memory| since(memory.oom_kills));
            let (processes, after_ms) = (all.max(processes), ms(after));
            Ok(match left {
                None => Ended::OomKilled { processes, after_ms, alive: false },
                Some(Life::Dies) => Ended::Lingering { write_us: 0, waited_ms: ms(after + began.elapsed()) },
                Some(_) => Ended::OomKilled { processes, after_ms, alive: true },
            })
        }
        (Ok(Relief::Gone), _) => Ok(Ended::Dead { write_us: 0, empty_after_ms: 0 }),
        (relief, restored) if method == Method::OomThenKill => {
            for error in [relief.err(), restored.err()].into_iter().flatten() {
                tracing::warn!(%error, "cgroup.kill instead");
            }
            Kill::begin(squeezed.cgroup, out).confirm(patience).await
        }
        (Ok(Relief::Nothing { waited }), Ok(())) => Ok(Ended::NobodyDied { waited_ms: ms(waited) }),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// How those do who are left after the OOM killer has acted; `None` if nobody is. Where it has ended a group as a whole
/// (`memory.oom.group`, the kubelet's default), they are waited for as after a kill; otherwise only until it is seen, twice
/// in a row, that somebody lives.
async fn left_by_the_oom_killer(
    cgroup: &CgroupHandle,
    group_kills_before: u64,
    patience: Duration,
    proc: &Path,
) -> Option<Life> {
    let deadline = Instant::now() + patience;
    let (mut pause, mut lives) = (GROUP_DIES_WITHIN, 0);
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        if matches!(until_empty(cgroup, pause.min(rest)).await, Left::Nobody) {
            return None;
        }
        pause = LOOK_AGAIN;
        let over = Instant::now() >= deadline;
        let group = cgroup.oom_group_kills().is_ok_and(|kills| kills > group_kills_before);
        if group && !over {
            continue;
        }
        let life = life(proc, cgroup.path()).await;
        lives = if life == Life::Lives { lives + 1 } else { 0 };
        if over || lives >= 2 {
            let all_got_it = group && life == Life::Unknown;
            return Some(if all_got_it { Life::Dies } else { life });
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
        _out: Out,
    ) -> impl Future<Output = Result<Ended, ActionError>> + Send + 'static {
        std::future::ready(Ok(Ended::DryRun))
    }
}
