//! What may be ended, how, and how much of it: set by the operator, read by the planner.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use glob::Pattern;
use serde::{Deserialize, Serialize};

use super::actions::Method;
use crate::engine::UnitId;

/// Whether memguard acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Verdicts are written, nothing is done.
    #[default]
    Observe,
    /// Livelocks are ended.
    Enforce,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        })
    }
}

/// What may be killed, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub method: Method,
    /// Only cgroups that match one of these are killed, as patterns on their path below the root; any if empty.
    pub only: Vec<Pattern>,
    /// Cgroups that are never killed, in the same way, whatever else is said.
    pub protect: Vec<Pattern>,
    pub budget: Limit,
    pub sick: Sick,
}

/// So many kills within so much time, on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    pub kills: u32,
    pub per: Duration,
}

/// When so many cgroups look hung at once that it must be the machine: a disk that went away, say, and no job's fault.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sick {
    /// As many suspects at least; fewer are never too many.
    pub least: u32,
    /// Of the cgroups under reclaim, more than this share. 1 never stops anything.
    pub share: f64,
}

impl Sick {
    /// Whether so many suspects, of so many cgroups under reclaim, are too many to be true.
    #[must_use]
    pub fn stops(&self, suspects: usize, under_reclaim: usize) -> bool {
        suspects >= self.least as usize && suspects as f64 > under_reclaim as f64 * self.share
    }
}

impl Policy {
    /// Services without which a node is lost. Slices, the root and memguard's own cgroup are never killed anyway.
    pub const PROTECTED: &'static [&'static str] = &[
        "init.scope",
        "**/init.scope",
        "**/kubelet.service",
        "**/containerd.service",
        "**/crio.service",
        "**/docker.service",
        "**/dbus*.service",
        "**/systemd-*.service",
        "**/ssh*.service",
    ];
}

impl Default for Policy {
    fn default() -> Self {
        let protect = Self::PROTECTED.iter().filter_map(|pattern| Pattern::new(pattern).ok()).collect();
        Self {
            method: Method::default(),
            only: Vec::new(),
            protect,
            budget: Limit { kills: 10, per: Duration::from_mins(10) },
            sick: Sick { least: 5, share: 0.5 },
        }
    }
}

/// The kills of the last while. Pure: time, of any monotonic clock, is an argument.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    kills: VecDeque<Duration>,
}

impl Budget {
    /// Whether one more kill is within the limit.
    pub fn allows(&mut self, now: Duration, limit: Limit) -> bool {
        while self.kills.front().is_some_and(|at| now.saturating_sub(*at) >= limit.per) {
            self.kills.pop_front();
        }
        self.kills.len() < limit.kills as usize
    }

    pub fn spend(&mut self, now: Duration) {
        self.kills.push_back(now);
    }
}

/// Cgroups that looked hung a short while ago. The engine is silent about a cgroup for a time once something was decided
/// about it, also against it: counted by their states alone, those of a sick machine would become fewer with each kill that
/// was held back, until one is let through.
#[derive(Clone, Debug, Default)]
pub struct Suspects {
    seen: HashMap<UnitId, Duration>,
}

impl Suspects {
    pub fn seen(&mut self, unit: UnitId, now: Duration) {
        self.seen.insert(unit, now);
    }

    /// It is gone, or was ended.
    pub fn forget(&mut self, unit: UnitId) {
        self.seen.remove(&unit);
    }

    /// How many there were within this time.
    #[must_use]
    pub fn count(&self, now: Duration, within: Duration) -> usize {
        self.seen.values().filter(|at| now.saturating_sub(**at) <= within).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_that_are_held_back_do_not_let_the_next_one_through() {
        let (sick, silence) = (Policy::default().sick, Duration::from_secs(35));
        let mut suspects = Suspects::default();
        for unit in 0..6 {
            suspects.seen(UnitId(unit), Duration::from_secs(100));
        }
        // One verdict a second, each cgroup silent after its own.
        for second in 0..6 {
            let now = Duration::from_secs(100 + second);
            assert!(sick.stops(suspects.count(now, silence), 6), "let through after {second}");
            for unit in second + 1..6 {
                suspects.seen(UnitId(unit), now);
            }
        }
        suspects.forget(UnitId(0));
        suspects.forget(UnitId(1));
        assert!(!sick.stops(suspects.count(Duration::from_secs(106), silence), 6), "two are gone");
        assert_eq!(suspects.count(Duration::from_mins(10), silence), 0, "the rest is well again");
    }

    #[test]
    fn a_budget_is_for_any_such_span_and_not_by_the_calendar() {
        let limit = Limit { kills: 2, per: Duration::from_mins(10) };
        let mut budget = Budget::default();
        let mut kills = Vec::new();
        for second in (0..3000).step_by(7) {
            let now = Duration::from_secs(second);
            if budget.allows(now, limit) {
                budget.spend(now);
                kills.push(second);
            }
        }
        assert!(kills.len() >= 8, "{kills:?}");
        for (first, third) in kills.iter().zip(kills.iter().skip(2)) {
            assert!(third - first >= 600, "three kills from {first} to {third}");
        }
        assert!(!Budget::default().allows(Duration::ZERO, Limit { kills: 0, ..limit }), "none is none");
    }

    #[test]
    fn few_suspects_are_never_too_many_and_many_only_if_the_rest_is_not_well() {
        let sick = Policy::default().sick;
        assert!(!sick.stops(2, 2), "two jobs that hang at once");
        assert!(!sick.stops(4, 4));
        assert!(sick.stops(5, 5));
        assert!(!sick.stops(5, 10), "half of them are well");
        assert!(sick.stops(6, 11));
        assert!(!Sick { share: 1.0, ..sick }.stops(500, 500), "turned off");
    }
}
