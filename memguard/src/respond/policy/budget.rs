//! How much may be ended: budgets of kills, the delay within a pod, and the stop when the machine is sick.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use serde::Serialize;

use super::Mode;
use crate::{engine::UnitId, respond::Suppressed};

/// So many kills within so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// On this node.
    pub kills: u32,
    /// In one namespace of it.
    pub kills_per_namespace: u32,
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

/// An action, or a dry run of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Of any monotonic clock.
    pub at: Duration,
    pub mode: Mode,
    /// Of the pod, where it is known.
    pub namespace: Option<String>,
    /// As in [`Place::pod_uid`](crate::workload::Place::pod_uid), where it is a pod's.
    pub pod_uid: Option<String>,
}

/// The actions of the last while. Dry runs are counted for themselves, so that a log of observe mode tells what enforce mode
/// would do, and what is only observed takes nothing from what is enforced. Pure: time is an argument.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By a clock that is [`KEPT_FOR`](Self::KEPT_FOR) ahead, so that what was before the machine's start has its time too.
    spent: VecDeque<Spent>,
}

impl Ledger {
    /// As long as any budget or delay may look back.
    pub const KEPT_FOR: Duration = Duration::from_hours(24);
    /// More than two modes' budgets can let through within one span.
    const MOST: usize = 32_768;

    #[must_use]
    pub const fn new() -> Self {
        Self { spent: VecDeque::new() }
    }

    pub fn spend(&mut self, spent: Spent) {
        self.recall(spent, Duration::ZERO);
    }

    /// Counts one that was so long before its `at`, by an earlier memguard and maybe before the machine's start.
    pub fn recall(&mut self, spent: Spent, age: Duration) {
        let now = spent.at.saturating_add(Self::KEPT_FOR);
        self.spent.push_back(Spent { at: now.saturating_sub(age), ..spent });
        let old = |spent: &Spent| now.saturating_sub(spent.at) >= Self::KEPT_FOR;
        while self.spent.front().is_some_and(old) || self.spent.len() > Self::MOST {
            self.spent.pop_front();
        }
    }

    /// Counts one less, that was counted for this `at` and age: it was not done after all.
    pub fn take_back(&mut self, spent: Spent, age: Duration) {
        let spent = Spent { at: spent.at.saturating_add(Self::KEPT_FOR).saturating_sub(age), ..spent };
        if let Some(index) = self.spent.iter().position(|other| *other == spent) {
            self.spent.remove(index);
        }
    }

    fn since(&self, now: Duration, mode: Mode, within: Duration) -> impl Iterator<Item = &Spent> {
        self.spent.iter().filter(move |spent| spent.mode == mode && Self::age(now, spent) < within)
    }

    fn age(now: Duration, spent: &Spent) -> Duration {
        now.saturating_add(Self::KEPT_FOR).saturating_sub(spent.at)
    }

    /// Whether one more is within the budgets of the node and of this namespace.
    pub fn allows(&self, now: Duration, mode: Mode, namespace: Option<&str>, limit: Limit) -> Result<(), Suppressed> {
        let Limit { kills, kills_per_namespace, per } = limit;
        if self.since(now, mode, per).count() >= kills as usize {
            return Err(Suppressed::BudgetSpent { kills, per_s: per.as_secs() });
        }
        let Some(namespace) = namespace else { return Ok(()) };
        let of_it = |spent: &&Spent| spent.namespace.as_deref() == Some(namespace);
        if self.since(now, mode, per).filter(of_it).count() >= kills_per_namespace as usize {
            let in_namespace = crate::telemetry::escaped(namespace);
            return Err(Suppressed::NamespaceBudgetSpent { in_namespace, kills_per_namespace, per_s: per.as_secs() });
        }
        Ok(())
    }

    /// Whether nothing of this pod was acted on for so long.
    pub fn delay_is_over(
        &self,
        now: Duration,
        mode: Mode,
        pod_uid: Option<&str>,
        delay: Duration,
    ) -> Result<(), Suppressed> {
        let of_it = |spent: &Spent| pod_uid.is_some() && spent.pod_uid.as_deref() == pod_uid;
        let last = self.since(now, mode, delay).filter(|spent| of_it(spent)).map(|spent| Self::age(now, spent)).min();
        match last {
            Some(age) => Err(Suppressed::PodDelay { acted_ago_s: age.as_secs(), pod_delay_s: delay.as_secs() }),
            None => Ok(()),
        }
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
    use crate::respond::Policy;

    const PER: Duration = Duration::from_mins(10);
    const LIMIT: Limit = Limit { kills: 2, kills_per_namespace: 2, per: PER };

    fn spent(second: u64, namespace: &str, pod_uid: &str) -> Spent {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Spent {
            at: Duration::from_secs(second),
            mode: Mode::Enforce,
            namespace: text(namespace),
            pod_uid: text(pod_uid),
        }
    }

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
        let mut ledger = Ledger::default();
        let mut kills = Vec::new();
        for second in (0..3000).step_by(7) {
            let now = Duration::from_secs(second);
            if ledger.allows(now, Mode::Enforce, None, LIMIT).is_ok() {
                ledger.spend(spent(second, "", ""));
                kills.push(second);
            }
        }
        assert!(kills.len() >= 8, "{kills:?}");
        for (first, third) in kills.iter().zip(kills.iter().skip(2)) {
            assert!(third - first >= 600, "three kills from {first} to {third}");
        }
        let none = Limit { kills: 0, ..LIMIT };
        assert!(Ledger::default().allows(Duration::ZERO, Mode::Enforce, None, none).is_err(), "none is none");
    }

    #[test]
    fn one_namespace_cannot_use_up_the_budget_of_all() {
        let limit = Limit { kills: 3, kills_per_namespace: 1, per: PER };
        let mut ledger = Ledger::default();
        ledger.spend(spent(0, "ci", ""));
        let allows = |ledger: &Ledger, namespace, second| {
            ledger.allows(Duration::from_secs(second), Mode::Enforce, namespace, limit)
        };
        let reason = allows(&ledger, Some("ci"), 1).unwrap_err();
        assert_eq!(reason.label(), "namespace_budget_spent");
        assert!(reason.to_string().contains("1 kill in 600 s in namespace ci"), "{reason}");
        assert!(allows(&ledger, Some("other"), 1).is_ok() && allows(&ledger, None, 1).is_ok());
        assert!(allows(&ledger, Some("ci"), 600).is_ok(), "later");
        ledger.spend(spent(1, "other", ""));
        ledger.spend(spent(2, "", ""));
        assert_eq!(allows(&ledger, Some("third"), 3).unwrap_err().label(), "budget_spent");
    }

    #[test]
    fn dry_runs_take_nothing_from_what_is_enforced() {
        let mut ledger = Ledger::default();
        for second in 0..5 {
            ledger.spend(Spent { mode: Mode::Observe, ..spent(second, "ci", "u") });
        }
        let now = Duration::from_secs(5);
        assert!(ledger.allows(now, Mode::Enforce, Some("ci"), LIMIT).is_ok());
        assert!(ledger.delay_is_over(now, Mode::Enforce, Some("u"), PER).is_ok());
        assert!(ledger.allows(now, Mode::Observe, Some("ci"), LIMIT).is_err());
    }

    #[test]
    fn after_an_action_the_rest_of_the_pod_gets_its_chance() {
        let mut ledger = Ledger::default();
        ledger.spend(spent(100, "ci", "u"));
        let over = |pod, second| {
            ledger.delay_is_over(Duration::from_secs(second), Mode::Enforce, pod, Duration::from_secs(10))
        };
        let reason = over(Some("u"), 104).unwrap_err();
        assert_eq!(reason, Suppressed::PodDelay { acted_ago_s: 4, pod_delay_s: 10 });
        assert!(over(Some("u"), 110).is_ok() && over(Some("other"), 104).is_ok());
        assert!(over(None, 104).is_ok(), "no pod's");
    }

    #[test]
    fn what_is_old_is_let_go_and_a_clock_that_goes_back_is_no_trouble() {
        let mut ledger = Ledger::default();
        ledger.spend(spent(0, "", ""));
        ledger.spend(spent(86_400, "", ""));
        assert_eq!(ledger.spent.len(), 1);
        assert!(ledger.allows(Duration::ZERO, Mode::Enforce, None, Limit { kills: 1, ..LIMIT }).is_err());
    }

    #[test]
    fn what_an_earlier_memguard_did_counts_by_its_age_also_before_the_machine_was_started() {
        let (hour, day) = (Duration::from_hours(1), Duration::from_hours(24));
        let mut ledger = Ledger::default();
        ledger.recall(spent(30, "ci", "u"), hour);
        let limit = |per| Limit { kills: 1, per, ..LIMIT };
        let allows =
            |ledger: &Ledger, per| ledger.allows(Duration::from_secs(30), Mode::Enforce, None, limit(per)).is_ok();
        assert!(allows(&ledger, hour) && !allows(&ledger, hour * 2));
        let delay = |delay| ledger.delay_is_over(Duration::from_secs(30), Mode::Enforce, Some("u"), delay);
        assert_eq!(delay(hour * 2), Err(Suppressed::PodDelay { acted_ago_s: 3600, pod_delay_s: 7200 }));
        assert!(delay(hour).is_ok());
        ledger.take_back(spent(30, "ci", "u"), day);
        assert_eq!(ledger.spent.len(), 1, "another one");
        ledger.take_back(spent(30, "ci", "u"), hour);
        assert_eq!(ledger.spent.len(), 0);
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
