//! Answers to whoever wants to know how things are.

use memguard_common::Counters;

use super::Agent;
use crate::{
    metrics::{Metrics, Outside, Present, Questions, Totals},
    respond::Actions,
    tracer::{Ring, Tracer},
};

impl<A: Actions> Agent<A> {
    /// Counts there, and answers these.
    #[must_use]
    pub fn measured_by(self, metrics: Metrics, questions: Questions) -> Self {
        Self { metrics, questions, ..self }
    }

    /// How things are now.
    pub(super) fn present(&mut self, ring: Option<&Ring>) -> Present {
        let mut present = Present {
            mode: self.config.policy.mode,
            looks_at_files: ring.is_none(),
            watched: self.summary.under_reclaim,
            suspected: self.summary.suspected,
            turned_away: self.turned_away,
            unseen: self.tree.left_out(),
            records: self.records,
            wake_ups: self.wake_ups,
            totals: self.totals(),
            tracer: self.tracer.as_ref().zip(ring).map(|(tracer, ring)| tracer.cost(ring)),
            table: self.tracer.as_mut().map(Tracer::table),
            journal: self.journal.disk(),
            outside: self.remote.as_ref().map(|remote| Outside {
                pods: remote.pods().len() as u64,
                stale_since: remote.pods().stale_since(),
                waiting: remote.waiting(),
                pulse: remote.pulse(),
            }),
            ..Present::default()
        };
        for id in self.units.keys() {
            present.count(self.engine.state(*id));
        }
        present
    }

    /// Only what a hook counts: 0 would say that there was none.
    fn totals(&self) -> Totals {
        let sums = self.activity.totals;
        let Some(coverage) = self.coverage else { return Totals { refaults: self.refaults, ..Totals::default() } };
        let counted = |covered: bool, value: u64| covered.then_some(value);
        Totals {
            cycles: counted(coverage.reclaim, sums.cycles),
            empty_cycles: counted(coverage.reclaim, sums.empty_cycles),
            pages_reclaimed: counted(coverage.reclaim, sums.pages_reclaimed),
            reclaim_ns: counted(coverage.reclaim, sums.reclaim_ns),
            stall_ns: counted(coverage.stalls, sums.stall_ns),
            refaults: if coverage.refaults { sums.refaults } else { self.refaults },
            text_returns: counted(coverage.major_faults, sums.text_returns),
            oom_victims: counted(coverage.oom_victims, sums.oom_victims),
        }
    }
}

/// Adds up what cgroups counted since their last snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) cycles: u64,
    pub(super) empty_cycles: u64,
    pub(super) pages_reclaimed: u64,
    pub(super) reclaim_ns: u64,
    pub(super) stall_ns: u64,
    pub(super) refaults: u64,
    pub(super) text_returns: u64,
    pub(super) oom_victims: u64,
}

/// Whether the counters are of before the last ones that were seen: two CPUs may hand a cgroup's over in the wrong order, if
/// one of them was held up meanwhile. They are nearly the same then, while those of a slot that begins anew are small.
pub(super) const fn is_late(seen: &Counters, now: &Counters) -> bool {
    now.cycles < seen.cycles && now.cycles >= seen.cycles / 2
}

impl Sums {
    /// A cgroup's counters go on from where they were, or begin anew because its slot was given to another one meanwhile.
    /// Those that [are late](is_late) are not for this.
    pub(super) fn add(&mut self, before: &Counters, now: &Counters) {
        let anew = now.cycles < before.cycles;
        let nothing = Counters::default();
        let before = if anew { &nothing } else { before };
        let grown = |of: fn(&Counters) -> u64| of(now).saturating_sub(of(before));
        let add = |sum: &mut u64, grown: u64| *sum = sum.saturating_add(grown);
        add(&mut self.cycles, grown(|c| c.cycles));
        add(&mut self.empty_cycles, grown(|c| c.empty_cycles));
        add(&mut self.pages_reclaimed, grown(|c| c.pages_reclaimed));
        add(&mut self.reclaim_ns, grown(|c| c.reclaim_ns));
        add(&mut self.stall_ns, grown(|c| c.stall_ns));
        add(&mut self.refaults, grown(|c| c.refaults));
        add(
            &mut self.text_returns,
            grown(|c| c.text_returns.iter().fold(0, |sum: u64, returns| sum.saturating_add(*returns))),
        );
        add(&mut self.oom_victims, grown(|c| c.oom_victims));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::MetadataExt as _,
        time::{Duration, Instant},
    };

    use memguard_common::{Record, RecordHeader, record::Snapshot};

    use super::*;
    use crate::{
        agent::Config,
        cgroup::{CgroupRoot, fake_cgroup},
        journal::{Disk, Journal},
        kernel::{Facts, plan},
        metrics::questions,
        respond::{DryRun, Mode},
    };

    #[tokio::test]
    async fn an_agent_that_nothing_wakes_up_answers_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let root = CgroupRoot::new(dir.path());
        let (facts, _) = Facts::gather(&root, false);
        let hour = Duration::from_hours(1);
        let config = Config { tick: hour, duration: Some(hour), ..Config::default() };
        let (asker, inbox) = questions();
        let agent = Agent::new(config, DryRun, Journal::none(), &root, None, &plan(&facts), None);
        let agent = agent.measured_by(Metrics::default(), inbox).run(None);
        let present = tokio::select! {
            present = asker.present() => present.unwrap(),
            _ = agent => panic!("it ended"),
        };
        assert_eq!((present.mode, present.states), (Mode::Observe, [0; 4]));
        assert!(present.looks_at_files && present.tracer.is_none() && present.outside.is_none());
        assert_eq!((present.totals, present.journal), (Totals::default(), Disk::NotWanted));
    }

    /// What a full ring holds: its records have had their wake-ups, or never had any, and no other one finds room.
    #[tokio::test]
    async fn records_that_wake_nobody_up_are_read_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.scope");
        fake_cgroup(&path);
        let header = RecordHeader { kind: 1, size: 0, at_ns: 1, cgroup_id: fs::metadata(&path).unwrap().ino() };
        let counters = Counters { cycles: 7, ..Counters::default() };
        let snapshot = Snapshot { header, counters, limit_owner: header.cgroup_id, tasks_in_reclaim: 0 };
        let removed = Record::CgroupRemoved(RecordHeader { kind: 3, cgroup_id: u64::MAX, ..header });
        let ring = Ring::silent(vec![removed, removed, Record::Snapshot(snapshot)]);

        let root = CgroupRoot::new(dir.path());
        let (facts, _) = Facts::gather(&root, false);
        let soon = Duration::from_millis(20);
        let config = Config { tick: soon, read_every: soon, ..Config::default() };
        let (asker, inbox) = questions();
        let agent = Agent::new(config, DryRun, Journal::none(), &root, None, &plan(&facts), None);
        let agent = agent.measured_by(Metrics::default(), inbox).run(Some(ring));
        let watched = async {
            let patience = Instant::now() + Duration::from_secs(20);
            loop {
                let present = asker.present().await.unwrap();
                if present.watched > 0 || Instant::now() > patience {
                    return present;
                }
                tokio::time::sleep(soon).await;
            }
        };
        let present = tokio::select! {
            present = watched => present,
            _ = agent => panic!("it ended"),
        };
        assert_eq!((present.records, present.wake_ups), (3, 0));
        assert_eq!(present.watched, 1, "the cgroup of the snapshot is looked at from then on");
    }

    #[test]
    fn sums_grow_by_what_is_new_and_survive_a_slot_that_begins_anew() {
        let counters =
            |cycles, refaults| Counters { cycles, refaults, text_returns: [1, 2, 0, 0], ..Counters::default() };
        let mut sums = Sums::default();
        sums.add(&Counters::default(), &counters(10, 100));
        sums.add(&counters(10, 100), &counters(12, 150));
        assert_eq!((sums.cycles, sums.refaults, sums.text_returns), (12, 150, 3));
        sums.add(&counters(12, 150), &counters(1, 5));
        assert_eq!((sums.cycles, sums.refaults, sums.text_returns), (13, 155, 6));
    }
}
