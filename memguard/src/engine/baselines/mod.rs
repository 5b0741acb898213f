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
    /// What the first ruleset of oomd's documentation (docs/configuration.md) asks of a workload, by its plugin
    /// `pressure_rising_beyond`: memory pressure `full avg60` over 5 % for 15 s, `avg10` over 5 % too and not falling fast.
    /// That is half of the ruleset: it also asks for 40 % in `system.slice`, of which a container's files tell nothing, so
    /// oomd itself acts less often.
    OomdWorkload,
    /// To wait until the kernel's own OOM killer acts: `oom_kill` of memory.events.
    WaitForOom,
}

impl Baseline {
    pub const ALL: [Self; 5] =
        [Self::ReportTrigger, Self::PsiFull10, Self::SystemdOomd, Self::OomdWorkload, Self::WaitForOom];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReportTrigger => "report-trigger",
            Self::PsiFull10 => "psi-full-10",
            Self::SystemdOomd => "systemd-oomd",
            Self::OomdWorkload => "oomd-workload",
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
            Self::OomdWorkload => {
                "half of oomd's example rule, the workload's: full avg60 > 5 % for 15 s, avg10 > 5 %, not falling fast"
            }
            Self::WaitForOom => "wait for the kernel's oom_kill",
        }
    }
}

/// systemd-oomd leaves a cgroup alone that has not reclaimed for this long (`RECLAIM_DURATION_USEC`, oomd-manager.h).
const SCANNED_WITHIN: Duration = Duration::from_secs(30);

/// `avg10` falls fast for oomd where it is less than so much of what it was the time before (`fast_fall_ratio`).
const FAST_FALL: f64 = 0.85;
/// oomd looks this often (`--interval`).
const OOMD_LOOKS: Duration = Duration::from_secs(5);

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
    full: Average<10>,
    full60: Average<60>,
    /// Since when the pressure is over the threshold.
    over_since: Option<Duration>,
    /// When oomd last looked, what `avg10` was then, and whether its rule held.
    looked: Option<(Duration, f64, bool)>,
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
            seen.full60.update(sample.at, full);
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
                    seen.over(seen.full.share(), sample.at, 0.60) >= Duration::from_secs(30) && scanned
                }
                Baseline::OomdWorkload => seen.rises_beyond(sample.at, 0.05, Duration::from_secs(15)),
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
        Baseline::PsiFull10 | Baseline::SystemdOomd | Baseline::OomdWorkload => true,
    }
}

impl Seen {
    /// For how long a share has been over a threshold.
    fn over(&mut self, share: f64, now: Duration, threshold: f64) -> Duration {
        if share > threshold {
            now.saturating_sub(*self.over_since.get_or_insert(now))
        } else {
            self.over_since = None;
            Duration::ZERO
        }
    }

    /// oomd's `pressure_rising_beyond`, which says the same until it looks again.
    fn rises_beyond(&mut self, now: Duration, threshold: f64, duration: Duration) -> bool {
        if let Some((at, _, held)) = self.looked
            && now.saturating_sub(at) < OOMD_LOOKS
        {
            return held;
        }
        let long_enough = self.over(self.full60.share(), now, threshold) >= duration;
        let share = self.full.share();
        let falls_fast = self.looked.is_some_and(|(_, before, _)| share < before * FAST_FALL);
        let holds = long_enough && share > threshold && !falls_fast;
        self.looked = Some((now, share, holds));
        holds
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
            Sample { pressure: Pressure { memory: stall, ..Pressure::default() }, ..hang(second) }
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
        let at = acts(Baseline::OomdWorkload, (0..90).map(pressed(20)));
        assert!(at.len() == 1 && (31..=45).contains(&at[0]), "avg60 of 20 % passes 5 % after 17 s: {at:?}");
        assert!(acts(Baseline::OomdWorkload, (0..90).map(pressed(4))).is_empty());
    }

    #[test]
    fn oomd_leaves_alone_what_is_over_in_a_moment() {
        // Full for ten seconds: avg60 is over 5 % for a minute more, and avg10 falls all that time.
        let short = |second: u64| {
            let full = Duration::from_secs(second.min(10));
            let stall = Some(Stall { some: full, full });
            Sample { pressure: Pressure { memory: stall, ..Pressure::default() }, ..hang(second) }
        };
        assert!(acts(Baseline::OomdWorkload, (0..120).map(short)).is_empty());
        // A share of avg10 alone would have held for fifteen seconds.
        assert!(acts(Baseline::PsiFull10, (0..20).map(short)).len() == 1);
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
