//! What is remembered of a watched cgroup so that somebody can look at it: a minute of refault rates, and the latest
//! signals. Pure; some 60 numbers for each cgroup.

use std::{collections::VecDeque, time::Duration};

use crate::engine::{Memory, Observation, Signals, State, Term, Terms};

/// Seconds of refault rates.
pub const HISTORY: usize = 60;

/// The near past of a cgroup.
#[derive(Clone, Debug)]
pub struct Trail {
    began: Duration,
    state: State,
    state_since: Duration,
    last: Option<(Duration, u64)>,
    refaults: VecDeque<f64>,
    signals: Option<Signals>,
    terms: Option<Terms>,
}

impl Trail {
    /// `at`, as everywhere here, is `CLOCK_MONOTONIC`.
    #[must_use]
    pub const fn new(at: Duration) -> Self {
        Self {
            began: at,
            state: State::Calm,
            state_since: at,
            last: None,
            refaults: VecDeque::new(),
            signals: None,
            terms: None,
        }
    }

    /// The engine was given a sample with this memory, and made this of it.
    pub fn observed(&mut self, at: Duration, memory: &Memory, observation: &Observation) {
        if let Some((before, refaults)) = self.last {
            let Some(seconds) = at.checked_sub(before).filter(|time| !time.is_zero()).map(|time| time.as_secs_f64())
            else {
                return;
            };
            let rate = memory.refaults.saturating_sub(refaults) as f64 / seconds;
            // A look that was late stands for as many seconds as it took.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 60")]
            let places = seconds.round().clamp(1.0, HISTORY as f64) as usize;
            for _ in 0..places {
                if self.refaults.len() >= HISTORY {
                    self.refaults.pop_front();
                }
                self.refaults.push_back(rate);
            }
        }
        self.last = Some((at, memory.refaults));
        if observation.state != self.state {
            (self.state, self.state_since) = (observation.state, at);
        }
        self.signals.clone_from(&observation.signals);
        self.terms.clone_from(&observation.terms);
    }

    #[must_use]
    pub const fn began(&self) -> Duration {
        self.began
    }

    #[must_use]
    pub const fn state_since(&self) -> Duration {
        self.state_since
    }

    /// Pages per second, for each of the last seconds.
    pub fn refaults(&self) -> impl Iterator<Item = f64> {
        self.refaults.iter().copied()
    }

    #[must_use]
    pub const fn signals(&self) -> Option<&Signals> {
        self.signals.as_ref()
    }

    pub fn terms(&self) -> impl Iterator<Item = &Term> {
        self.terms.iter().flat_map(|terms| &terms.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(trail: &mut Trail, at_s: f64, refaults: u64, state: State) {
        let memory = Memory { refaults, ..Memory::default() };
        let observation = Observation { before: State::Calm, state, signals: None, terms: None, verdict: None };
        trail.observed(Duration::from_secs_f64(at_s), &memory, &observation);
    }

    #[test]
    fn a_rate_for_each_second_and_no_more_than_a_minute() {
        let mut trail = Trail::new(Duration::from_secs(100));
        for second in 0..=90_u32 {
            look(&mut trail, 100.0 + f64::from(second), u64::from(second * second), State::Calm);
        }
        let rates: Vec<f64> = trail.refaults().collect();
        assert_eq!((rates.len(), rates[0], rates[HISTORY - 1]), (HISTORY, 61.0, 179.0));
    }

    #[test]
    fn a_late_look_stands_for_the_time_it_took_and_one_of_the_past_for_nothing() {
        let mut trail = Trail::new(Duration::ZERO);
        look(&mut trail, 1.0, 0, State::Calm);
        look(&mut trail, 4.0, 30, State::Calm);
        look(&mut trail, 4.0, 99, State::Calm);
        look(&mut trail, 2.0, 99, State::Calm);
        assert_eq!(trail.refaults().collect::<Vec<_>>(), [10.0; 3]);
        look(&mut trail, 5.0, 10, State::Calm);
        assert_eq!(trail.refaults().last(), Some(0.0), "the counter was reset");
    }

    #[test]
    fn a_state_has_a_beginning() {
        let mut trail = Trail::new(Duration::from_secs(1));
        look(&mut trail, 2.0, 0, State::Calm);
        assert_eq!(trail.state_since(), Duration::from_secs(1));
        look(&mut trail, 3.0, 0, State::Suspect);
        look(&mut trail, 4.0, 0, State::Suspect);
        assert_eq!(trail.state_since(), Duration::from_secs(3));
    }
}
