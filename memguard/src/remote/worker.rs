//! The loop that tries what remains to be done, as often as it takes.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc::Receiver, watch},
    task::{Id, JoinSet},
    time::{sleep, timeout},
};

use super::{
    follow_up::{FollowUp, Kind, Open, Progress},
    outside::Outside,
    plan::{adapt, due, next_due, settle_dependents},
    steps::{self, Points, Took, clock},
    waiting::{Board, Waiting},
};
use crate::{
    crash,
    journal::{Incident, Pen},
    kubernetes::{RunnerFacts, RunnerRef},
    telemetry::{Event, FollowUpEvent, emit},
};

/// Requests at once, for all incidents: the limits of GitHub are for all nodes of an installation together.
const AT_ONCE: usize = 4;
/// Nothing is slept through for longer, should somebody set the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// At the end, what is under way gets so long. What it does not settle is left to the next start.
const AT_THE_END: Duration = Duration::from_secs(2);
/// Runners looked up before their container was ended.
const MOST_KNOWN: usize = 256;

/// What the agent wants of the worker.
#[derive(Debug)]
pub(super) enum Ask {
    /// See to what remains to be done about it.
    Follow(Box<Incident>),
    /// Find out, early, which job a runner has.
    LookUp(Box<RunnerRef>),
}

/// What is known of runners whose containers look hung. Read by the agent without waiting.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownRunners(Arc<Mutex<Vec<RunnerFacts>>>);

impl KnownRunners {
    /// The same object, and no other one of its name.
    pub(super) fn of(&self, runner: &RunnerRef) -> Option<RunnerFacts> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().rev().find(|facts| facts.job.is_some() && is(runner, facts)).cloned()
    }

    fn put(&self, facts: RunnerFacts) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| other.uid != facts.uid);
        if known.len() >= MOST_KNOWN {
            known.remove(0);
        }
        known.push(facts);
    }
}

/// A runner that only a label names has no uid yet, and its claim was checked when it was looked up.
fn is(runner: &RunnerRef, facts: &RunnerFacts) -> bool {
    let uid = runner.uid.as_ref().is_none_or(|uid| *uid == facts.uid);
    uid && (runner.api, &runner.namespace, &runner.name) == (facts.api, &facts.namespace, &facts.name)
}

/// An attempt that has come to its end.
struct Finished {
    incident: String,
    kind: Kind,
    before: Open,
    took: Took,
}

type Tell = Box<dyn Fn(&Event) + Send + Sync>;

pub(super) struct Worker<O> {
    /// Each attempt takes what is there when it begins.
    outside: watch::Receiver<O>,
    pen: Pen,
    known: KnownRunners,
    /// How much remains to be done.
    board: Board,
    /// Where events go.
    tell: Tell,
    incidents: BTreeMap<String, Incident>,
    under_way: HashMap<Id, (String, Kind)>,
    attempts: JoinSet<Option<Finished>>,
}

impl<O: Outside> Worker<O> {
    pub(super) fn new(outside: watch::Receiver<O>, pen: Pen, known: KnownRunners) -> Self {
        let board = Board::default();
        Self {
            outside,
            pen,
            known,
            board,
            tell: Box::new(emit),
            incidents: BTreeMap::new(),
            under_way: HashMap::new(),
            attempts: JoinSet::new(),
        }
    }

    /// Tells there how much remains to be done.
    pub(super) fn telling(self, board: Board) -> Self {
        Self { board, ..self }
    }

    /// Hands events to somebody else than the log and the metrics.
    #[cfg(test)]
    pub(super) fn telling_events(self, tell: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { tell: Box::new(tell), ..self }
    }

    /// Until nobody can ask for anything any more.
    pub(super) async fn run(mut self, mut asks: Receiver<Ask>) {
        loop {
            self.begin(clock());
            self.board.put(Waiting::new(self.incidents.values()));
            let pause = self.until_next(clock());
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(Ask::Follow(incident)) => self.take(*incident),
                    Some(Ask::LookUp(runner)) => self.look_up(*runner),
                    None => break,
                },
                Some(finished) = self.attempts.join_next_with_id() => self.finished(finished, clock()),
                () = sleep(pause) => {}
            }
        }
        let settle = async {
            while let Some(finished) = self.attempts.join_next_with_id().await {
                self.finished(finished, clock());
            }
        };
        let _ = timeout(AT_THE_END, settle).await;
    }

    fn take(&mut self, mut incident: Incident) {
        if incident.follow_ups.is_empty() {
            return;
        }
        let before = open_kinds(&incident);
        let open = adapt(&mut incident);
        self.pen.after(&mut incident);
        tell_settled(&self.tell, &incident, &before);
        if open {
            self.incidents.insert(incident.id.clone(), incident);
        }
    }

    fn look_up(&mut self, runner: RunnerRef) {
        let (outside, known) = (self.outside.borrow().clone(), self.known.clone());
        self.attempts.spawn(async move {
            match outside.runner(&runner).await {
                Ok(facts) => known.put(facts),
                Err(failure) => tracing::debug!("a runner can't be looked up early: {failure}"),
            }
            None
        });
    }

    /// Begins what is due.
    fn begin(&mut self, now: u64) {
        for incident in self.incidents.values() {
            for kind in due(incident, now) {
                if self.under_way.len() >= AT_ONCE {
                    return;
                }
                let key = (incident.id.clone(), kind);
                if self.under_way.values().any(|other| *other == key) {
                    continue;
                }
                let (outside, incident) = (self.outside.borrow().clone(), incident.clone());
                let task = self.attempts.spawn(async move {
                    let before = open(&incident, kind);
                    let took = steps::attempt(&outside, &incident, kind, now).await;
                    Some(Finished { incident: incident.id, kind, before, took })
                });
                self.under_way.insert(task.id(), key);
            }
        }
    }

    fn until_next(&self, now: u64) -> Duration {
        if self.under_way.len() >= AT_ONCE {
            return LONGEST_SLEEP;
        }
        let idle = |incident: &&Incident| self.under_way.values().all(|(id, _)| *id != incident.id);
        let next = self.incidents.values().filter(idle).filter_map(|incident| next_due(incident, now)).min();
        next.map_or(LONGEST_SLEEP, |next| Duration::from_millis(next.saturating_sub(now)).min(LONGEST_SLEEP))
    }

    fn finished(&mut self, finished: Result<(Id, Option<Finished>), tokio::task::JoinError>, now: u64) {
        let finished = match finished {
            Ok((id, finished)) => {
                self.under_way.remove(&id);
                finished
            }
            Err(error) => {
                self.under_way.remove(&error.id());
                tracing::error!(%error, "an attempt was lost");
                None
            }
        };
        let Some(Finished { incident, kind, before, took }) = finished else { return };
        let Some(incident) = self.incidents.get_mut(&incident) else { return };
        let Took { attempt, facts } = took;
        if let (Some(facts), Some(workload)) = (facts, &mut incident.workload) {
            workload.learn(facts);
        }
        let decided_at = incident.decided_at.saturating_mul(1000);
        let Some(follow_up) = incident.follow_ups.iter_mut().find(|follow_up| follow_up.kind == kind) else { return };
        follow_up.took(attempt, decided_at, now, jitter());
        let follow_up = follow_up.clone();
        let others = open_kinds(incident);
        settle_dependents(incident);
        self.pen.after(incident);
        let (forced, points) = (forced(&before, &follow_up), Points::of(kind, &before));
        crash::point(if forced { "force-cancel-kept" } else { points.kept });
        if worth_telling(&before, &follow_up) {
            (self.tell)(&Event::FollowUp(Box::new(FollowUpEvent::new(incident, &follow_up))));
        }
        tell_settled(&self.tell, incident, &others);
        if !incident.is_open() {
            let id = incident.id.clone();
            self.incidents.remove(&id);
        }
    }
}

fn open_kinds(incident: &Incident) -> Vec<Kind> {
    incident.follow_ups.iter().filter(|this| this.is_open()).map(|this| this.kind).collect()
}

/// Tells of those that nothing was tried for: what became of another one, or how the container ended, has settled them.
fn tell_settled(tell: &Tell, incident: &Incident, were_open: &[Kind]) {
    for follow_up in incident.follow_ups.iter().filter(|this| !this.is_open() && were_open.contains(&this.kind)) {
        tell(&Event::FollowUp(Box::new(FollowUpEvent::new(incident, follow_up))));
    }
}

fn open(incident: &Incident, kind: Kind) -> Open {
    let this = incident.follow_ups.iter().find(|follow_up| follow_up.kind == kind);
    this.and_then(FollowUp::open).cloned().unwrap_or_default()
}

fn forced(before: &Open, after: &FollowUp) -> bool {
    before.forced.is_none() && after.open().is_some_and(|open| open.forced.is_some())
}

/// The end, the first failure of a row, and that GitHub took a cancellation, or would not.
fn worth_telling(before: &Open, after: &FollowUp) -> bool {
    match &after.progress {
        Progress::Open(open) => {
            (open.failures == 1 && before.failures == 0)
                || (open.asked.is_some() && before.asked.is_none())
                || (open.refused.is_some() && before.refused.is_none())
                || forced(before, after)
        }
        _ => true,
    }
}

/// From 0 to 1. It need not be unpredictable, only another one on each node.
fn jitter() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1_u64 << 53) as f64
}
