//! What an agent takes over from the one before it.

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::task::JoinError;

use super::{
    Agent,
    ending::{told, unix_ms},
};
use crate::{
    cgroup::{CgroupError, CgroupHandle, find},
    journal::{Found, Incident, Stage},
    respond::{Actions, Ended, Ledger, Left, Life, Spent, aside, life},
};

/// How often it is looked what became of a cgroup.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The same where it can't be seen.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A look by files of cgroups, which hang for nobody.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);

impl<A: Actions> Agent<A> {
    /// Kills of before count against the budgets and delays, or a crash loop would begin with new ones each time. What became
    /// of what was about to be done, or was under way, when the last memguard ended is looked at, by tasks; nothing of it is
    /// done again. What remained to be done elsewhere is gone on with.
    #[must_use]
    pub fn continuing(mut self, incidents: Vec<Incident>) -> Self {
        self.go_on_with(incidents);
        self
    }

    /// The same for what the journal could not say at the start.
    pub(super) fn go_on_with(&mut self, incidents: Vec<Incident>) {
        let (seconds, now) = (super::unix_seconds(), super::now());
        for incident in incidents {
            let counted = recall(&mut self.ledger, &incident, seconds, now);
            if incident.is_pending() {
                self.under_way.extend(incident.victim);
                let (watch, ending) = (self.watch_over(), self.ending.subscribe());
                self.taken_over.spawn(async move {
                    let stage = tokio::select! {
                        stage = watch.see(&incident) => stage,
                        () = told(ending) => at_the_end(&incident.stage),
                    };
                    TakenOver { incident, stage, counted }
                });
            } else if let Some(remote) = self.remote.as_ref().filter(|_| incident.is_open()) {
                remote.follow(incident);
            }
        }
    }

    fn watch_over(&self) -> Watch {
        Watch {
            root: self.tree.root().to_owned(),
            proc: PathBuf::from("/proc"),
            boot_id: self.boot_id.clone(),
            patience: self.config.kill_patience,
        }
    }

    pub(super) fn took_over(&mut self, taken: Result<TakenOver, JoinError>) {
        let TakenOver { mut incident, stage, counted } = match taken {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(%error, "a look at what the last memguard had begun was lost; the next start looks again");
                return;
            }
        };
        if let Some(victim) = incident.victim {
            self.under_way.remove(&victim);
        }
        // It can't be told before the end: the next start looks again.
        let Some(stage) = stage else { return };
        incident.stage = stage;
        tracing::warn!(incident = incident.id, "{}: {}", incident.cgroup, incident.outcome());
        self.journal.after(&mut incident);
        if let Some((spent, age)) = counted.filter(|_| !incident.spent()) {
            self.ledger.take_back(spent, age);
        }
        if let Some(remote) = self.remote.as_ref().filter(|_| incident.is_open()) {
            remote.follow(incident);
        }
    }
}

/// What became of something that an earlier memguard had begun.
#[derive(Debug)]
pub(super) struct TakenOver {
    incident: Incident,
    /// `None` if it can't be told yet.
    stage: Option<Stage>,
    /// For what it was counted against the budgets.
    counted: Option<(Spent, Duration)>,
}

/// Counts a kill of before, as long ago as any budget or delay may look back: another configuration may have longer ones.
/// `seconds` since 1970 and `now` of the monotonic clock are the same moment.
fn recall(ledger: &mut Ledger, incident: &Incident, seconds: u64, now: Duration) -> Option<(Spent, Duration)> {
    let age = Duration::from_secs(seconds.saturating_sub(incident.decided_at));
    if !incident.spent() || age >= Ledger::KEPT_FOR {
        return None;
    }
    let workload = incident.workload.as_ref();
    let namespace = workload.map(|workload| workload.namespace.clone());
    let pod_uid = workload.map(|workload| workload.pod_uid.clone());
    let spent = Spent { at: now, mode: incident.mode, namespace, pod_uid };
    ledger.recall(spent.clone(), age);
    Some((spent, age))
}

/// What counts when memguard itself ends before more is known.
fn at_the_end(stage: &Stage) -> Option<Stage> {
    match stage {
        Stage::Out { at, so_far } => Some(Stage::Done { ended: so_far.waited(unix_ms().saturating_sub(*at)) }),
        _ => None,
    }
}

/// What is seen in place of the cgroup that was to be ended.
#[derive(Debug)]
enum Seen {
    /// No process is left in it, or it is gone, for certain.
    Gone,
    Populated(Life),
    /// It can't be told, which is not the same as that it is gone.
    Unknown(CgroupError),
}

/// What has been seen of it so far.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// Somebody without SIGKILL, in so many looks in a row: one alone may have been between two states.
    lives: u32,
    waited_ms: u64,
    /// It was watched for as long as after a kill.
    over: bool,
}

/// How a cgroup is watched that an earlier memguard was about to end, or has ended.
#[derive(Clone, Debug)]
struct Watch {
    root: PathBuf,
    proc: PathBuf,
    boot_id: String,
    patience: Duration,
}

impl Watch {
    /// Watches until something can be said. Without a note that the kill is out it can be out all the same: memguard may
    /// have ended between the two. Then everybody in there has SIGKILL.
    async fn see(&self, incident: &Incident) -> Option<Stage> {
        let (began, mut course, mut pause) = (Instant::now(), Course::default(), LOOK_AGAIN);
        let mut cgroup = None;
        let mut complained = false;
        loop {
            let seen = self.look(incident, &mut cgroup).await;
            pause = match &seen {
                Seen::Unknown(error) => {
                    if !complained {
                        complained = true;
                        tracing::warn!(incident = incident.id, %error, "what the last memguard had begun can't be seen; looking again");
                    }
                    (pause * 2).min(LONGEST_PAUSE)
                }
                _ => LOOK_AGAIN,
            };
            let waited = began.elapsed();
            course.lives = if matches!(seen, Seen::Populated(Life::Lives)) { course.lives + 1 } else { 0 };
            course.waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            course.over = waited >= self.patience;
            if let Some(stage) = settled(&incident.stage, &seen, course, unix_ms()) {
                return Some(stage);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&self, incident: &Incident, cgroup: &mut Option<CgroupHandle>) -> Seen {
        // After another start of the machine the id may be anybody's.
        let Some(victim) = incident.victim.filter(|_| incident.boot_id == self.boot_id) else { return Seen::Gone };
        if cgroup.is_none() {
            match self.open(victim).await {
                Ok(Some(opened)) => *cgroup = Some(opened),
                Ok(None) => return Seen::Gone,
                Err(error) => return Seen::Unknown(error),
            }
        }
        let Some(cgroup) = cgroup else { return Seen::Gone };
        match Left::of(cgroup) {
            Left::Nobody => Seen::Gone,
            Left::Unknown(error) => Seen::Unknown(error),
            Left::Somebody => Seen::Populated(life(&self.proc, cgroup.path()).await),
        }
    }

    /// The cgroup with this id; `None` if it is gone for certain.
    async fn open(&self, victim: u64) -> Result<Option<CgroupHandle>, CgroupError> {
        let (root, unseen) = (self.root.clone(), |error| CgroupError::io("look for a cgroup in", &self.root, error));
        let found = aside("find", move || {
            let Some(path) = find(&root, victim)? else { return Ok(None) };
            open(&path, victim)
        })
        .map_err(unseen)?;
        match tokio::time::timeout(LOOK_PATIENCE, found).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Err(unseen(std::io::ErrorKind::TimedOut.into())),
        }
    }
}

fn open(path: &Path, victim: u64) -> Result<Option<CgroupHandle>, CgroupError> {
    match CgroupHandle::open(path) {
        Ok(handle) if handle.inode() == victim => Ok(Some(handle)),
        // Another one was made in its place since.
        Ok(_) => Ok(None),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is to be made of it, if that can be said yet. `now`: ms since 1970.
fn settled(stage: &Stage, seen: &Seen, course: Course, now: u64) -> Option<Stage> {
    let lives = course.lives >= 2;
    if let Stage::Out { at, so_far } = stage {
        let since = now.saturating_sub(*at);
        let others_live = lives && matches!(so_far, Ended::OomKilled { .. });
        let ended = match seen {
            Seen::Gone => so_far.emptied(since),
            // The whole group has it, and goes on dying.
            Seen::Populated(Life::Dies) if course.over && matches!(so_far, Ended::OomKilled { .. }) => {
                Ended::Lingering { write_us: 0, waited_ms: since }
            }
            _ if course.over || others_live => so_far.waited(since),
            _ => return None,
        };
        return Some(Stage::Done { ended });
    }
    let interrupted = |found| Some(Stage::Interrupted { found });
    match seen {
        Seen::Gone => interrupted(Found::Gone),
        Seen::Populated(Life::Dies) if course.over => {
            Some(Stage::Done { ended: Ended::Lingering { write_us: 0, waited_ms: course.waited_ms } })
        }
        Seen::Populated(Life::Unknown) if course.over => interrupted(Found::Alive),
        Seen::Populated(Life::Lives) if course.over || lives => interrupted(Found::Alive),
        Seen::Populated(_) | Seen::Unknown(_) => None,
    }
}
