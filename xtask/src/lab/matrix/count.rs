//! Sums over runs. Pure.

use memguard_lab::scenario::Half;

use super::evaluate::{Class, Evaluated, Outcome};

/// What a rule did in a set of runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Count {
    /// Runs in which something hung that has to be seen, for long enough, and those of them in which it was not.
    pub(super) hung: usize,
    pub(super) missed: usize,
    /// Runs in which something hung that has to be seen, but not for long enough.
    pub(super) shorter: usize,
    /// Runs in which all worked, and those of them with a verdict.
    pub(super) works: usize,
    pub(super) false_alarms: usize,
    /// Runs in which something hung or the kernel acted, with a verdict on something else, or long before.
    pub(super) beside: usize,
    /// Verdicts on slow work.
    pub(super) on_slow: usize,
    /// Seconds from onset to verdict, of the hangs that count; sorted.
    delays: Vec<f64>,
    /// Seconds from onset to suspicion; sorted.
    suspects: Vec<f64>,
}

impl Count {
    /// Of hangs only those that lasted so many seconds, caught and missed ones alike: `needs_s` of the rule, or 0 for all.
    pub(super) fn of<'e>(runs: impl Iterator<Item = &'e Evaluated>, rule: &str, lasted_s: f64) -> Self {
        let mut count = Self::default();
        for run in runs.filter(|run| !matches!(run.class, Class::Contrary | Class::Unproven)) {
            let counts = run.class == Class::Hung && run.hung_s() >= lasted_s;
            count.hung += usize::from(counts);
            count.shorter += usize::from(run.class == Class::Hung && !counts);
            count.works += usize::from(run.class == Class::Works);
            match run.outcome(rule) {
                Outcome::Missed => count.missed += usize::from(counts),
                Outcome::FalseAlarm if run.class == Class::Works => count.false_alarms += 1,
                Outcome::FalseAlarm => count.beside += 1,
                Outcome::OnSlowWork => count.on_slow += 1,
                Outcome::Caught if counts => {
                    let judged = run.rules.get(rule);
                    count.delays.extend(judged.and_then(|judged| judged.verdict_s));
                    count.suspects.extend(judged.and_then(|judged| judged.suspect_s));
                }
                Outcome::Caught | Outcome::Silent => {}
            }
        }
        count.delays.sort_by(f64::total_cmp);
        count.suspects.sort_by(f64::total_cmp);
        count
    }

    pub(super) fn alarms(&self) -> String {
        let beside = if self.beside > 0 { format!(" + {} in other runs", self.beside) } else { String::new() };
        format!("{} of {}{beside}", self.false_alarms, self.works)
    }

    pub(super) fn misses(&self) -> String {
        format!("{} of {}", self.missed, self.hung)
    }

    pub(super) fn median(&self) -> Option<f64> {
        median(&self.delays)
    }

    pub(super) fn worst(&self) -> Option<f64> {
        self.delays.last().copied()
    }

    pub(super) fn suspect(&self) -> Option<f64> {
        median(&self.suspects)
    }
}

/// Of sorted numbers.
pub(super) fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The halves, and both together (`None`).
pub(super) const HALVES: [Option<Half>; 3] = [Some(Half::Tuning), Some(Half::HeldOut), None];

pub(super) fn in_half(runs: &[Evaluated], half: Option<Half>) -> impl Iterator<Item = &Evaluated> {
    runs.iter().filter(move |run| half.is_none_or(|half| run.half == half))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use memguard_lab::scenario::Kind;

    use super::*;
    use crate::lab::{
        judge::course::{Course, Hang},
        matrix::{evaluate::Judged, replay::needs_s},
    };

    /// A hang of so many seconds, in which "careful" gave its verdict after so many.
    fn hung(seconds: f64, verdict_s: Option<f64>) -> Evaluated {
        let hang = Hang { onset: 30.0, end: 30.0 + seconds, share: 0.01, lasts: true };
        let outcome = if verdict_s.is_some() { Outcome::Caught } else { Outcome::Missed };
        Evaluated {
            scenario: "lock".to_owned(),
            kernel: "6.12".to_owned(),
            release: "6.12.73".to_owned(),
            kind: Kind::Livelock,
            half: Half::Tuning,
            class: Class::Hung,
            file: String::new(),
            build: None,
            courses: vec![Course { hangs: vec![hang], ..Course::default() }],
            rules: BTreeMap::from([(
                "careful".to_owned(),
                Judged { outcome, suspect_s: None, verdict_s, cgroup: None },
            )]),
            recording: std::path::PathBuf::new(),
        }
    }

    #[test]
    fn a_hang_too_short_for_a_rule_counts_neither_way() {
        let runs = [hung(62.0, Some(61.0)), hung(64.0, None), hung(120.0, Some(73.0)), hung(130.0, None)];
        let count = Count::of(runs.iter(), "careful", needs_s("careful"));
        assert_eq!((count.missed, count.hung, count.shorter), (1, 2, 2));
        assert_eq!(count.median(), Some(73.0), "a catch in a short hang goes with the miss");
        let all = Count::of(runs.iter(), "careful", 0.0);
        assert_eq!((all.missed, all.hung, all.shorter), (2, 4, 0));
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
    }
}
