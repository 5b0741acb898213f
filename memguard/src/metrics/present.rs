//! What is so now, as the detection loop tells it.

use std::time::SystemTime;

use super::labels::STATES;
use crate::{
    engine::State,
    journal::Disk,
    remote::{Pulse, Waiting},
    respond::Mode,
    tracer::{Table, TracerCost},
};

/// An answer of the detection loop. Numbers of what happened are since the start of memguard.
#[derive(Clone, Debug, Default)]
pub struct Present {
    pub mode: Mode,
    /// Cgroups that are watched, by state, in the order of [`State`].
    pub states: [u64; STATES.len()],
    /// It looks at all cgroups every second, because nothing wakes it up: there is no tracer, or its ring broke.
    pub looks_at_files: bool,
    /// Cgroups that were seen under reclaim, and how many of them were ever suspect.
    pub watched: u64,
    pub suspected: u64,
    /// Cgroups that were not watched because there were too many.
    pub turned_away: u64,
    /// Cgroups that the last walk of the tree did not get to, because there are too many.
    pub unseen: u64,
    pub records: u64,
    pub wake_ups: u64,
    pub totals: Totals,
    /// `None` without a tracer.
    pub tracer: Option<TracerCost>,
    pub table: Option<Table>,
    pub journal: Disk,
    /// `None` without Kubernetes.
    pub outside: Option<Outside>,
}

/// Sums over all cgroups. `None` where no hook counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub cycles: Option<u64>,
    pub empty_cycles: Option<u64>,
    pub pages_reclaimed: Option<u64>,
    /// Time that tasks spent in reclaim, ns.
    pub reclaim_ns: Option<u64>,
    /// Time that tasks were stalled for want of memory, ns.
    pub stall_ns: Option<u64>,
    /// Pages that came back: of all cgroups from the tracer, else of those watched from their files.
    pub refaults: u64,
    /// Major faults on program text that was there a moment ago.
    pub text_returns: Option<u64>,
    pub oom_victims: Option<u64>,
}

/// What is known of the world outside.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Pods of this node that are known.
    pub pods: u64,
    /// Since when the watch does not work.
    pub stale_since: Option<SystemTime>,
    pub waiting: Waiting,
    /// Tells whether the thread that talks to Kubernetes and GitHub is alive.
    pub pulse: Pulse,
}

impl Present {
    /// Counts a watched cgroup.
    pub fn count(&mut self, state: State) {
        if let Some(place) = STATES.iter().position(|other| *other == state) {
            self.states[place] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_place() {
        let mut present = Present::default();
        for state in STATES {
            present.count(state);
        }
        present.count(State::Livelock);
        assert_eq!(present.states, [1, 1, 1, 2]);
    }
}
