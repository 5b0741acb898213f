//! What the agent sees, for who wants to look at it.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::Agent;
use crate::{
    engine::UnitId,
    report::MOST_SHOWN,
    respond::Actions,
    status::{
        CostStatus, EngineStatus, FORMAT, HotFile, LostSignal, MOST_FILES, PodsStatus, Publisher, Snapshot, Totals,
        UnitStatus, WorkloadStatus,
    },
    tracer::Ring,
};

/// What memguard took of a CPU lately.
#[derive(Debug)]
pub(super) struct Lately {
    /// When its CPU time was how much. The oldest is from before the minute.
    marks: VecDeque<(Duration, f64)>,
}

impl Lately {
    const SPAN: Duration = Duration::from_mins(1);
    /// Less says nothing: the work of a moment.
    const LEAST: Duration = Duration::from_secs(5);

    /// What it took until now does not count: loading and attaching programs is over.
    pub(super) fn new(now: Duration, cpu_s: f64) -> Self {
        Self { marks: VecDeque::from([(now, cpu_s)]) }
    }

    /// Share of one CPU. `None` right after the start.
    fn share(&mut self, now: Duration, cpu_s: f64) -> Option<f64> {
        let age = |mark: &(Duration, f64)| now.saturating_sub(mark.0);
        // An old one makes way as soon as the next says enough.
        while let (Some(oldest), Some(next)) = (self.marks.front(), self.marks.get(1))
            && age(oldest) > Self::SPAN
            && age(next) >= Self::LEAST
        {
            self.marks.pop_front();
        }
        let since = *self.marks.front()?;
        if self.marks.back().is_some_and(|last| age(last) >= Self::LEAST) {
            self.marks.push_back((now, cpu_s));
        }
        let seconds = age(&since).as_secs_f64();
        (seconds >= 1.0).then(|| (cpu_s - since.1).max(0.0) / seconds)
    }
}

impl<A: Actions> Agent<A> {
    /// Shows what it sees to those who connect.
    #[must_use]
    pub fn shown_by(self, publisher: Option<Publisher>) -> Self {
        Self { publisher, ..self }
    }

    /// Whether somebody looks. Then there is a tick even if nothing is under reclaim.
    pub(super) fn watched(&self) -> bool {
        self.publisher.as_ref().is_some_and(Publisher::watched)
    }

    /// Does not let them wait for the next tick, of which an idle node has none.
    pub(super) fn somebody_came(&mut self, ring: Option<&Ring>) {
        if self.publisher.as_ref().is_some_and(|publisher| !publisher.fresh()) {
            self.show(ring);
        }
    }

    /// Costs nothing while nobody looks.
    pub(super) fn show(&mut self, ring: Option<&Ring>) {
        if !self.watched() {
            return;
        }
        let snapshot = self.snapshot(ring);
        if let Some(publisher) = &mut self.publisher {
            publisher.publish(snapshot);
        }
    }

    fn snapshot(&mut self, ring: Option<&Ring>) -> Snapshot {
        let now = super::now();
        let cost = self.cost(ring);
        let cpu_lately = self.lately.share(now, cost.cpu_s);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let units = self.units.values().filter_map(|unit| {
            let latest = unit.latest.as_ref()?;
            let mut shown = UnitStatus::new(unit.name.clone(), &latest.memory, &unit.trail, &self.engine, now);
            shown.ending = unit.kill_under_way;
            let workload = self.remote.as_ref().zip(unit.name.place.as_ref());
            shown.workload = workload.and_then(|(remote, place)| Some(WorkloadStatus::of(&remote.workload(place)?)));
            Some(shown)
        });
        let tracer = cost.tracer.as_ref();
        let lost =
            self.plan.signals.iter().filter_map(|signal| {
                Some(LostSignal { signal: signal.signal.to_string(), lost: signal.lost?.to_owned() })
            });
        let mut snapshot = Snapshot {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            at_s: now.as_secs_f64(),
            mode: self.config.policy.usual_mode(),
            signals_from: self.level.to_string(),
            lost: lost.collect(),
            no_tracer: self.plan.no_tracer.clone(),
            engine: EngineStatus {
                window_s: self.config.engine.window.as_secs_f64(),
                hold_s: self.config.engine.hold.as_secs_f64(),
            },
            cost: CostStatus {
                cpu_s: cost.cpu_s,
                up_s: cost.up_s,
                cpu_lately,
                resident_kib: cost.resident_kib,
                records: cost.records,
                wake_ups: cost.wake_ups,
                events_lost: tracer.map(crate::tracer::TracerCost::lost),
                programs_s: tracer
                    .map(|tracer| tracer.programs.iter().map(|program| program.run_ns).sum::<u64>() as f64 / 1e9)
                    .filter(|seconds| *seconds > 0.0),
            },
            pods: self.remote.as_ref().map(|remote| PodsStatus {
                known: remote.pods().len() as u64,
                stale_since: remote
                    .pods()
                    .stale_since()
                    .map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()),
            }),
            totals: Totals {
                under_reclaim: self.summary.under_reclaim,
                suspected: self.summary.suspected,
                verdicts: self.summary.verdicts,
                killed: self.summary.killed,
                relieved: self.summary.relieved,
                suppressed: self.summary.suppressed,
                failed: self.summary.failed,
            },
            units: units.collect(),
            units_left_out: 0,
            // The thread that serves them reads these from the run folder.
            incidents: Vec::new(),
        };
        snapshot.bound();
        for shown in snapshot.units.iter_mut().take(MOST_SHOWN) {
            let id = UnitId(shown.name.id);
            if let Some((reporter, unit)) = self.reporter.as_ref().zip(self.units.get(&id)) {
                let files = reporter.files(id, unit.handle.path());
                shown.files = files.iter().filter_map(HotFile::of).take(MOST_FILES).collect();
            }
        }
        snapshot
    }
}

/// Waits until somebody comes or goes.
pub(super) async fn changed(publisher: &mut Option<Publisher>) {
    match publisher {
        Some(publisher) => publisher.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::*;
    use crate::{
        agent::Config,
        cgroup::{CgroupRoot, fake_cgroup},
        engine::State,
        journal::Journal,
        kernel::{Facts, plan},
        respond::DryRun,
        status::{Client, serve, socket},
    };

    /// Without a tracer it looks all the time; so rarely that a client who had to wait for that would give up.
    #[test]
    fn what_it_costs_is_that_of_the_last_minute_and_not_of_its_start() {
        let second = Duration::from_secs;
        // Three seconds of work before, and an hour in which nobody looks.
        let mut lately = Lately::new(second(100), 3.0);
        assert_eq!(lately.share(second(100), 3.0), None);
        let close = |share: Option<f64>, expected: f64| (share.unwrap() - expected).abs() < 1e-9;
        assert!(close(lately.share(second(3700), 39.0), 0.01));
        // Then half a CPU, while somebody does.
        for at in 3701..3705 {
            assert!(lately.share(second(at), 39.0).unwrap() < 0.011);
        }
        for at in 3705..4000 {
            let share = lately.share(second(at), 39.0 + (at - 3700) as f64 / 2.0);
            assert!(close(share, 0.5), "{at}: {share:?}");
        }
        assert!(lately.marks.len() < 20);
        // A burst is forgotten a minute later.
        let cpu_s = 39.0 + 300.0 / 2.0 + 30.0;
        assert!(lately.share(second(4000), cpu_s).unwrap() > 0.9);
        for at in 4001..4066 {
            lately.share(second(at), cpu_s);
        }
        assert!(close(lately.share(second(4066), cpu_s), 0.0));
    }

    fn agent(root: &Path, run_dir: &Path, tick: Duration) -> Agent<DryRun> {
        let root = CgroupRoot::new(root);
        let (facts, _) = Facts::gather(&root, false);
        let config = Config { tick, duration: Some(Duration::from_secs(20)), ..Config::default() };
        Agent::new(config, DryRun, Journal::none(), &root, None, &plan(&facts), None)
            .shown_by(Some(serve(run_dir).unwrap()))
    }

    /// Runs the agent while a client, in a thread of its own, does its part.
    async fn while_running<T: Send + 'static>(agent: Agent<DryRun>, part: impl FnOnce() -> T + Send + 'static) -> T {
        let client = tokio::task::spawn_blocking(part);
        tokio::select! {
            _ = agent.run(None) => panic!("the agent ended"),
            done = client => done.unwrap(),
        }
    }

    #[tokio::test]
    async fn an_idle_agent_answers_at_once() {
        let (root, run_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = socket(run_dir.path());
        let agent = agent(root.path(), run_dir.path(), Duration::from_hours(1));
        let snapshot = while_running(agent, move || Client::connect(&at).unwrap().snapshot().unwrap()).await;
        assert_eq!((snapshot.format, snapshot.signals_from.as_str(), snapshot.units.len()), (FORMAT, "files", 0));
        assert!(snapshot.no_tracer.is_some() && !snapshot.lost.is_empty());
        assert!(!socket(run_dir.path()).exists(), "the socket goes with the agent");
    }

    #[tokio::test]
    async fn a_cgroup_at_its_limit_is_seen_with_the_reason_why_it_is_no_livelock() {
        let (root, run_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = root.path().join("a.scope");
        fake_cgroup(&path);
        let at = socket(run_dir.path());
        let agent = agent(root.path(), run_dir.path(), Duration::from_millis(20));
        let unit = while_running(agent, move || {
            let mut client = Client::connect(&at).unwrap();
            for hits in 1..10_000 {
                fs::write(path.join("memory.events.local"), format!("max {hits}\n")).unwrap();
                let seen = client.snapshot().unwrap().units;
                if seen.iter().any(|unit| !unit.terms.is_empty()) {
                    return seen.into_iter().next().unwrap();
                }
            }
            panic!("never seen");
        })
        .await;
        assert_eq!((unit.name.cgroup.as_str(), unit.state), ("a.scope", State::Calm));
        assert!(unit.terms.iter().any(|term| !term.met) && !unit.refaults.is_empty());
    }
}
