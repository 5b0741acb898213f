//! Other people's rules, to be run over the same samples beside ours.
//!
//! Each is what is documented or shipped, at its documented thresholds, as far as a single cgroup's files tell it. None
//! of them decides anything in memguard.

mod pressure;

use std::{collections::HashMap, time::Duration};

use self::pressure::Average;
use super::{UnitId, sample::Sample};

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Baseline {
    /// What the report of the hang (actions/actions-runner-controller#4436) proposes as a trigger: usage at 95 % of
    /// memory.max or more, and `max` of memory.events rising.
    ReportTrigger,
    /// Memory pressure `full avg10` over 10 %: what dashboards and hand-made watchers use.
    PsiFull10,
    /// systemd-oomd's defaults (oomd.conf(5)): memory pressure `full avg10` over 60 % for 30 s, on a cgroup that
    /// reclaims meanwhile (`pgscan`).
    SystemdOomd,
    /// The first ruleset of oomd's documentation (docs/configuration.md): a workload's memory pressure `full` over 5 %
    /// for 15 s.
    Oomd,
    /// To wait until the kernel's own OOM killer acts: `oom_kill` of memory.events.
    WaitForOom,
}

impl Baseline {
    pub const ALL: [Self; 5] = [Self::ReportTrigger, Self::PsiFull10, Self::SystemdOomd, Self::Oomd, Self::WaitForOom];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReportTrigger => "report-trigger",
            Self::PsiFull10 => "psi-full-10",
            Self::SystemdOomd => "systemd-oomd",
            Self::Oomd => "oomd",
            Self::WaitForOom => "wait-for-oom",
        }
    }

    /// In a few words, for tables.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::ReportTrigger => "usage >= 95 % of memory.max, and events.max rising",
            Self::PsiFull10 => "PSI memory full avg10 > 10 %",
            Self::SystemdOomd => "systemd-oomd's default: full avg10 > 60 % for 30 s, and scanning",
            Self::Oomd => "oomd's documented workload rule: full > 5 % for 15 s",
            Self::WaitForOom => "wait for the kernel's oom_kill",
        }
    }
}

/// systemd-oomd leaves a cgroup alone that has not reclaimed for this long (`RECLAIM_DURATION_USEC`, oomd-manager.h).
const SCANNED_WITHIN: Duration = Duration::from_secs(30);

/// One rule over any number of cgroups.
#[derive(Debug)]
pub struct Watch {
    rule: Baseline,
    cgroups: HashMap<UnitId, Seen>,
}

/// What a rule remembers of a cgroup.
#[derive(Debug, Default)]
struct Seen {
    last: Option<Sample>,
    full: Average,
    /// Since when the pressure is over the threshold.
    over_since: Option<Duration>,
    /// When reclaim last looked at a page.
    scanned: Option<Duration>,
    acting: bool,
}

impl Watch {
    #[must_use]
    pub fn new(rule: Baseline) -> Self {
        Self { rule, cgroups: HashMap::new() }
    }

    /// Takes in a sample; true if the rule would act now and would not have a sample before.
    pub fn observe(&mut self, unit: UnitId, sample: &Sample) -> bool {
        let seen = self.cgroups.entry(unit).or_default();
        if seen.last.as_ref().is_some_and(|last| sample.at <= last.at) {
            return false;
        }
        if let Some(full) = sample.pressure.memory.map(|stall| stall.full) {
            seen.full.update(sample.at, full);
        }
        if seen.last.as_ref().is_some_and(|last| sample.memory.scans > last.memory.scans) {
            seen.scanned = Some(sample.at);
        }
        let acts = seen.last.as_ref().is_some_and(|last| holds(self.rule, last, sample))
            && match self.rule {
                Baseline::ReportTrigger | Baseline::WaitForOom => true,
                Baseline::PsiFull10 => seen.full.share() > 0.10,
                Baseline::SystemdOomd => {
                    let scanned = seen.scanned.is_some_and(|at| sample.at.saturating_sub(at) <= SCANNED_WITHIN);
                    seen.over(sample.at, 0.60) >= Duration::from_secs(30) && scanned
                }
                Baseline::Oomd => seen.over(sample.at, 0.05) >= Duration::from_secs(15),
            };
        seen.last = Some(sample.clone());
        let acted = std::mem::replace(&mut seen.acting, acts);
        acts && !acted
    }

    /// The cgroup is gone.
    pub fn forget(&mut self, unit: UnitId) {
        self.cgroups.remove(&unit);
    }
}

/// What two samples tell by themselves.
fn holds(rule: Baseline, last: &Sample, now: &Sample) -> bool {
    match rule {
        Baseline::ReportTrigger => {
            now.memory.max.is_some_and(|max| now.memory.current as f64 >= 0.95 * max as f64)
                && now.memory.max_events > last.memory.max_events
        }
        Baseline::WaitForOom => now.memory.oom_kills > last.memory.oom_kills,
        Baseline::PsiFull10 | Baseline::SystemdOomd | Baseline::Oomd => true,
    }
}

impl Seen {
    /// For how long the average has been over a threshold.
    fn over(&mut self, now: Duration, threshold: f64) -> Duration {
        if self.full.share() > threshold {
            now.saturating_sub(*self.over_since.get_or_insert(now))
        } else {
            self.over_since = None;
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Pressure, Stall, fixture::hang};

    const UNIT: UnitId = UnitId(1);

    /// Seconds at which the rule begins to act.
    fn acts(rule: Baseline, samples: impl Iterator<Item = Sample>) -> Vec<u64> {
        let mut watch = Watch::new(rule);
        samples.filter(|sample| watch.observe(UNIT, sample)).map(|sample| sample.at.as_secs() - 1000).collect()
    }

    /// Nothing happens.
    fn idle(second: u64) -> Sample {
        let first = hang(0);
        Sample { at: hang(second).at, ..first }
    }

    fn pressed(percent: u64) -> impl Fn(u64) -> Sample {
        move |second| {
            let stall = Some(Stall {
                some: Duration::from_millis(10 * percent * second),
                full: Duration::from_millis(10 * percent * second),
            });
            Sample { pressure: Pressure { memory: stall, io: None }, ..hang(second) }
        }
    }

    #[test]
    fn each_acts_on_what_it_asks_for() {
        assert_eq!(acts(Baseline::ReportTrigger, (0..60).map(hang)), [1]);
        assert_eq!(acts(Baseline::WaitForOom, (0..60).map(hang)), Vec::<u64>::new());
        let killed = |second| {
            let mut sample = hang(second);
            sample.memory.oom_kills = u64::from(second >= 20);
            sample
        };
        assert_eq!(acts(Baseline::WaitForOom, (0..60).map(killed)), [20]);
        let at = acts(Baseline::PsiFull10, (0..60).map(pressed(20)));
        assert!(at.len() == 1 && (6..=9).contains(&at[0]), "avg10 of 20 % passes 10 % after 7 s: {at:?}");
        assert!(acts(Baseline::PsiFull10, (0..60).map(pressed(9))).is_empty());
        let at = acts(Baseline::SystemdOomd, (0..90).map(pressed(90)));
        assert!(at.len() == 1 && (38..=46).contains(&at[0]), "{at:?}");
        assert!(acts(Baseline::SystemdOomd, (0..90).map(pressed(51))).is_empty(), "the report's hang");
        let at = acts(Baseline::Oomd, (0..60).map(pressed(20)));
        assert!(at.len() == 1 && (15..=22).contains(&at[0]), "{at:?}");
    }

    #[test]
    fn nothing_is_done_about_nothing() {
        for rule in Baseline::ALL {
            assert!(acts(rule, (0..120).map(idle)).is_empty(), "{}", rule.name());
            let silent = |second| Sample { pressure: Pressure::default(), ..idle(second) };
            assert!(acts(rule, (0..120).map(silent)).is_empty(), "{}", rule.name());
        }
    }

    #[test]
    fn one_action_while_it_lasts_and_another_when_it_comes_back() {
        let twice = |second: u64| {
            let mut sample = hang(second);
            let hits = [second.min(10), second.clamp(30, 40) - 30].iter().sum::<u64>();
            sample.memory.max_events = hits;
            sample
        };
        assert_eq!(acts(Baseline::ReportTrigger, (0..60).map(twice)), [1, 31]);
    }
}
