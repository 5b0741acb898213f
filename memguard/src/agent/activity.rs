//! What the tracer said last about each cgroup.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use memguard_common::{Counters, record::Snapshot};

use super::present::{Sums, is_late};
use crate::{
    cgroup::Tree,
    engine::{FaultTime, ReclaimSample, StallSample, TracerSample, UnitId},
    kernel::Coverage,
};

/// Latest counters by cgroup.
#[derive(Debug, Default)]
pub(super) struct Activity {
    cgroups: HashMap<u64, Seen>,
    /// Counters of cgroups that are gone, by the unit above them: a sum over a subtree must not shrink.
    retired: HashMap<UnitId, Counters>,
    /// Of each unit, [`Counters::fault_wall_ns`] of whichever cgroup in its subtree had most of it, tick by tick.
    fault_walls: HashMap<UnitId, u64>,
    /// Of all cgroups, since memguard began.
    pub(super) totals: Sums,
    /// Let go though their counters may go on: not in the watched part of the tree, mostly.
    let_go: HashSet<u64>,
}

/// As many are remembered.
const MOST_LET_GO: usize = 4096;

#[derive(Debug)]
struct Seen {
    counters: Counters,
    /// [`Counters::fault_wall_ns`] at the last tick.
    fault_wall_before: u64,
    limit_owner: Option<u64>,
    /// The cgroup itself and all above it; empty until its path is known.
    lineage: Vec<UnitId>,
    /// A cycle ended since the last tick.
    fresh: bool,
}

/// A cgroup whose tasks reclaimed since the last tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reclaiming {
    pub(super) cgroup: u64,
    /// Whose limit it was for, if the tracer told.
    pub(super) limit_owner: Option<u64>,
}

impl Activity {
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) {
        let cgroup = snapshot.header.cgroup_id;
        let counted_before = self.let_go.contains(&cgroup);
        let seen = self.cgroups.entry(cgroup).or_insert_with(|| Seen {
            counters: if counted_before { snapshot.counters } else { Counters::default() },
            // What it had before it was known is not of this tick.
            fault_wall_before: snapshot.counters.fault_wall_ns,
            limit_owner: None,
            lineage: Vec::new(),
            fresh: false,
        });
        seen.fresh = true;
        if is_late(&seen.counters, &snapshot.counters) {
            return;
        }
        self.totals.add(&seen.counters, &snapshot.counters);
        seen.counters = snapshot.counters;
        seen.limit_owner = (snapshot.limit_owner != 0).then_some(snapshot.limit_owner);
    }

    /// The cgroup was removed: its counters stay in the sums of the units above it.
    pub(super) fn removed(&mut self, cgroup: u64) {
        if let Some(gone) = self.cgroups.remove(&cgroup) {
            for unit in gone.lineage.iter().filter(|unit| unit.0 != cgroup) {
                self.retired.entry(*unit).or_default().accumulate(&gone.counters);
            }
        }
        self.forget_unit(UnitId(cgroup));
    }

    /// Forgets what was kept for a unit that is not watched any more.
    pub(super) fn forget_unit(&mut self, unit: UnitId) {
        self.retired.remove(&unit);
        self.fault_walls.remove(&unit);
    }

    /// Whether a cgroup reclaimed since the last tick.
    pub(super) fn any_fresh(&self) -> bool {
        self.cgroups.values().any(|seen| seen.fresh)
    }

    /// Those that reclaimed since the last call.
    pub(super) fn take_fresh(&mut self) -> Vec<Reclaiming> {
        let mut fresh: Vec<_> = self
            .cgroups
            .iter_mut()
            .filter_map(|(cgroup, seen)| {
                std::mem::take(&mut seen.fresh).then_some(Reclaiming { cgroup: *cgroup, limit_owner: seen.limit_owner })
            })
            .collect();
        fresh.sort_unstable_by_key(|reclaiming| reclaiming.cgroup);
        fresh
    }

    /// Looks up who stands above the cgroups that are new.
    pub(super) fn place(&mut self, tree: &Tree, ids: &HashMap<&Path, u64>) {
        for (cgroup, seen) in self.cgroups.iter_mut().filter(|(_, seen)| seen.lineage.is_empty()) {
            if let Some(path) = tree.path(*cgroup) {
                let above = path.ancestors().take_while(|above| above.starts_with(tree.root()));
                seen.lineage = above.filter_map(|above| ids.get(above).copied().map(UnitId)).collect();
            }
        }
    }

    /// Whether a cgroup has no place in the tree yet.
    pub(super) fn any_unplaced(&self) -> bool {
        self.cgroups.values().any(|seen| seen.lineage.is_empty() && seen.fresh)
    }

    /// Drops cgroups that exist no more, for when their removal can't be hooked, or was not told.
    pub(super) fn keep_only(&mut self, exists: impl Fn(u64) -> bool) {
        let gone: Vec<u64> = self.cgroups.keys().copied().filter(|id| !exists(*id)).collect();
        for cgroup in gone {
            self.removed(cgroup);
            if self.let_go.len() >= MOST_LET_GO {
                self.let_go.clear();
            }
            self.let_go.insert(cgroup);
        }
        // After the above, which may have added to one that is gone as well.
        self.retired.retain(|unit, _| exists(unit.0));
        self.fault_walls.retain(|unit, _| exists(unit.0));
    }

    /// The counters of each of `units`, summed over its subtree; to be called once a tick.
    pub(super) fn sums(&mut self, units: &HashSet<UnitId>) -> HashMap<UnitId, Counters> {
        let mut sums: HashMap<UnitId, Counters> = HashMap::with_capacity(units.len());
        for (unit, retired) in self.retired.iter().filter(|(unit, _)| units.contains(unit)) {
            sums.entry(*unit).or_default().accumulate(retired);
        }
        let mut walls: HashMap<UnitId, u64> = HashMap::new();
        for seen in self.cgroups.values_mut() {
            let wall = seen.counters.fault_wall_ns.saturating_sub(seen.fault_wall_before);
            seen.fault_wall_before = seen.counters.fault_wall_ns;
            for unit in seen.lineage.iter().filter(|unit| units.contains(unit)) {
                sums.entry(*unit).or_default().accumulate(&seen.counters);
                let most = walls.entry(*unit).or_default();
                *most = wall.max(*most);
            }
        }
        for (unit, counters) in &mut sums {
            let wall = self.fault_walls.entry(*unit).or_default();
            *wall = wall.saturating_add(walls.get(unit).copied().unwrap_or_default());
            counters.fault_wall_ns = *wall;
        }
        sums
    }
}

/// Counters as the engine takes them: only those that the plan's hooks really count.
pub(super) fn sample(counters: &Counters, coverage: Coverage) -> TracerSample {
    let text_faults = if coverage.major_faults { counters.exec_major_faults } else { counters.exec_faults };
    TracerSample {
        reclaim: coverage.reclaim.then_some(ReclaimSample {
            cycles: counters.cycles,
            empty_cycles: counters.empty_cycles,
            pages: counters.pages_reclaimed,
            task_ns: counters.reclaim_ns,
            wall_ns: counters.reclaim_wall_ns,
        }),
        faults: coverage.faults.then_some(counters.faults),
        text_faults: coverage.text_faults.then_some(text_faults),
        text_returns: coverage.major_faults.then_some(counters.text_returns),
        text_refaults: (coverage.major_faults && coverage.refaults).then_some(counters.text_refaults),
        stall: coverage.stalls.then_some(StallSample { task_ns: counters.stall_ns, wall_ns: counters.stall_wall_ns }),
        major_faults: coverage.major_faults.then_some(counters.major_faults),
        fault_time: coverage.fault_time.then_some(FaultTime {
            in_ns: counters.fault_ns,
            between_ns: counters.between_faults_ns,
            wall_ns: Some(counters.fault_wall_ns),
        }),
        refaults: coverage.refaults.then_some(counters.refaults),
        oom_victims: coverage.oom_victims.then_some(counters.oom_victims),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use memguard_common::RecordHeader;

    use super::*;

    fn snapshot(cgroup_id: u64, cycles: u64) -> Snapshot {
        Snapshot {
            header: RecordHeader { kind: 1, size: 0, at_ns: 0, cgroup_id },
            counters: Counters { cycles, ..Counters::default() },
            limit_owner: 0,
            tasks_in_reclaim: 0,
        }
    }

    /// A container with two cgroups in it: ids of all three, and what places them.
    fn nested() -> (tempfile::TempDir, Tree, [u64; 3]) {
        let dir = tempfile::tempdir().unwrap();
        let scope = dir.path().join("a.scope");
        let paths = [scope.clone(), scope.join("one"), scope.join("two")];
        for path in &paths {
            fs::create_dir(path).unwrap();
        }
        let ids = paths.map(|path| fs::metadata(path).unwrap().ino());
        let mut tree = Tree::new(dir.path());
        tree.walk();
        (dir, tree, ids)
    }

    fn place(activity: &mut Activity, tree: &Tree) {
        let ids = tree.iter().map(|(id, path)| (path, id)).collect();
        activity.place(tree, &ids);
    }

    #[test]
    fn sums_cover_the_subtree_and_do_not_shrink() {
        let (_dir, tree, [scope, one, two]) = nested();
        let mut activity = Activity::default();
        activity.snapshot(&snapshot(one, 5));
        activity.snapshot(&snapshot(two, 7));
        assert!(activity.any_unplaced());
        place(&mut activity, &tree);
        assert!(!activity.any_unplaced());
        let unit = UnitId(scope);
        let units = HashSet::from([unit, UnitId(two)]);
        assert_eq!(activity.sums(&units)[&unit].cycles, 12);
        assert_eq!(activity.sums(&units)[&UnitId(two)].cycles, 7);

        activity.snapshot(&snapshot(one, 6));
        activity.removed(one);
        assert_eq!(activity.sums(&units)[&unit].cycles, 13, "what is gone still counts");
        activity.keep_only(|kept| kept == unit.0);
        assert_eq!(activity.sums(&units)[&unit].cycles, 13);
        assert_eq!(activity.retired.keys().copied().collect::<Vec<_>>(), [unit], "not for the root, which is gone too");
        activity.keep_only(|_| false);
        assert!(activity.retired.is_empty(), "without any record that it was removed");
    }

    #[test]
    fn wall_time_of_a_subtree_is_that_of_the_cgroup_with_most_of_it() {
        let (_dir, tree, [scope, one, two]) = nested();
        let mut activity = Activity::default();
        let units = HashSet::from([UnitId(scope)]);
        let mut tick = |walls: [u64; 2]| {
            for (cgroup, fault_wall_ns) in [one, two].into_iter().zip(walls) {
                let mut snapshot = snapshot(cgroup, 1);
                snapshot.counters.fault_wall_ns = fault_wall_ns;
                snapshot.counters.fault_ns = fault_wall_ns;
                activity.snapshot(&snapshot);
            }
            place(&mut activity, &tree);
            let sum = activity.sums(&units)[&UnitId(scope)];
            (sum.fault_wall_ns, sum.fault_ns)
        };
        assert_eq!(tick([9000, 100]), (0, 9100), "from before it was known");
        assert_eq!(tick([9300, 500]), (400, 9800), "half of it each, perhaps at once");
        assert_eq!(tick([9300, 1400]), (1300, 10_700), "one that was there for longer does not hide the other");
        activity.removed(two);
        assert_eq!(activity.sums(&units)[&UnitId(scope)].fault_wall_ns, 1300, "and does not shrink");
        activity.keep_only(|_| false);
        assert!(activity.fault_walls.is_empty());
    }

    #[test]
    fn totals_count_no_cgroup_twice() {
        let mut activity = Activity::default();
        activity.snapshot(&snapshot(3, 10));
        activity.snapshot(&snapshot(3, 12));
        assert_eq!(activity.totals.cycles, 12);
        // Outside the watched part of the tree: it is let go at each walk, and reclaims on.
        for cycles in 13..20 {
            activity.keep_only(|_| false);
            activity.snapshot(&snapshot(3, cycles));
        }
        assert_eq!(activity.totals.cycles, 12);
        activity.snapshot(&snapshot(3, 25));
        assert_eq!(activity.totals.cycles, 18, "what comes while it is known");
        activity.removed(3);
        activity.snapshot(&snapshot(4, 1));
        assert_eq!(activity.totals.cycles, 19);
    }

    #[test]
    fn a_snapshot_that_comes_late_takes_nothing_back() {
        let mut activity = Activity::default();
        for cycles in [1000, 1005, 1004, 1010] {
            activity.snapshot(&snapshot(3, cycles));
        }
        assert_eq!(activity.totals.cycles, 1010);
        assert_eq!(activity.cgroups[&3].counters.cycles, 1010);
        // A slot that begins anew.
        activity.snapshot(&snapshot(3, 2));
        activity.snapshot(&snapshot(3, 3));
        assert_eq!(activity.totals.cycles, 1013);
    }

    #[test]
    fn each_reclaiming_cgroup_is_told_once() {
        let mut activity = Activity::default();
        activity.snapshot(&snapshot(3, 1));
        activity.snapshot(&snapshot(3, 2));
        assert_eq!(activity.take_fresh(), [Reclaiming { cgroup: 3, limit_owner: None }]);
        assert!(activity.take_fresh().is_empty() && !activity.any_fresh());
    }

    #[test]
    fn what_no_hook_counts_is_unknown_and_not_zero() {
        let counters = Counters { exec_faults: 9, exec_major_faults: 4, ..Counters::default() };
        assert_eq!(sample(&counters, Coverage::ALL).text_faults, Some(4));
        assert_eq!(sample(&counters, Coverage { major_faults: false, ..Coverage::ALL }).text_faults, Some(9), "kprobe");
        let blind = Coverage { text_faults: false, major_faults: false, refaults: false, ..Coverage::ALL };
        assert_eq!((sample(&counters, blind).text_faults, sample(&counters, blind).refaults), (None, None));
    }
}
