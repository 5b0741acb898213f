//! Sums over runs. Pure.

use memguard_lab::scenario::Half;

use super::evaluate::{Class, Evaluated, Outcome};

/// What a rule did in a set of runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Count {
    /// Runs in which something hung that has to be seen, and those of them in which it was not.
    pub(super) hung: usize,
    pub(super) missed: usize,
    /// Runs in which all worked, and those of them with a verdict.
    pub(super) works: usize,
    pub(super) false_alarms: usize,
    /// Runs in which something hung, with a verdict on something else, or long before.
    pub(super) beside: usize,
    /// Verdicts on slow work.
    pub(super) on_slow: usize,
    /// Seconds from onset to verdict, of the runs in which it was due and given; sorted.
    delays: Vec<f64>,
    /// Seconds from onset to suspicion; sorted.
    suspects: Vec<f64>,
}

impl Count {
    pub(super) fn of<'e>(runs: impl Iterator<Item = &'e Evaluated>, rule: &str) -> Self {
        let mut count = Self::default();
        for run in runs.filter(|run| !matches!(run.class, Class::Contrary | Class::Unproven)) {
            count.hung += usize::from(run.class == Class::Hung && run.outcome(rule) != Outcome::TooShort);
            count.works += usize::from(run.class == Class::Works);
            match run.outcome(rule) {
                Outcome::Missed => count.missed += 1,
                Outcome::FalseAlarm if run.class == Class::Works => count.false_alarms += 1,
                Outcome::FalseAlarm => count.beside += 1,
                Outcome::OnSlowWork => count.on_slow += 1,
                Outcome::Caught if run.class == Class::Hung => {
                    let judged = run.rules.get(rule);
                    count.delays.extend(judged.and_then(|judged| judged.verdict_s));
                    count.suspects.extend(judged.and_then(|judged| judged.suspect_s));
                }
                Outcome::Caught | Outcome::TooShort | Outcome::Silent => {}
            }
        }
        count.delays.sort_by(f64::total_cmp);
        count.suspects.sort_by(f64::total_cmp);
        count
    }

    pub(super) fn alarms(&self) -> String {
        let beside = if self.beside > 0 { format!(" + {} in hangs", self.beside) } else { String::new() };
        format!("{} of {}{beside}", self.false_alarms, self.works)
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
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
    }
}
