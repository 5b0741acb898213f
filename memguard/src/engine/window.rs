//! A sliding window of samples.

use std::{collections::VecDeque, time::Duration};

use super::sample::{Memory, Sample};

/// Samples of the last `span`, and one that is at least as old, so that the whole span is covered.
#[derive(Debug)]
pub(super) struct Window {
    span: Duration,
    samples: VecDeque<Sample>,
}

/// A window is complete when it covers this share of its span. Ticks jitter, and a tick that comes 50 ms early must
/// not make a 10 s window wait for an eleventh second.
const COMPLETE: f64 = 0.95;

/// More samples than this are thinned out from the old end; a guard against a caller that samples without end.
pub(super) const MOST_SAMPLES: usize = 256;

impl Window {
    pub(super) const fn new(span: Duration) -> Self {
        Self { span, samples: VecDeque::new() }
    }

    /// Takes a sample in. One that is not newer than the last replaces nothing and is dropped; one whose counters went
    /// backwards (the cgroup was made anew, a counter was reset) starts the window afresh.
    pub(super) fn push(&mut self, sample: Sample) {
        if let Some(last) = self.samples.back() {
            if sample.at <= last.at {
                return;
            }
            // After a gap as long as the window nobody knows what happened in between.
            if went_backwards(last, &sample) || sample.at.saturating_sub(last.at) > self.span {
                self.samples.clear();
            }
        }
        // Before and not after, or the buffer would grow to twice its size for one sample.
        if self.samples.len() >= MOST_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        while self.second_covers_span() {
            self.samples.pop_front();
        }
    }

    fn second_covers_span(&self) -> bool {
        match (self.samples.get(1), self.samples.back()) {
            (Some(second), Some(last)) => last.at.saturating_sub(second.at) >= self.span,
            _ => false,
        }
    }

    /// The oldest and the newest sample, once the window is complete.
    pub(super) fn ends(&self) -> Option<(&Sample, &Sample)> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        (last.at.saturating_sub(first.at).as_secs_f64() >= self.span.as_secs_f64() * COMPLETE).then_some((first, last))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    pub(super) fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    /// Mean of a value over the samples.
    pub(super) fn mean(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        self.samples.iter().map(value).sum::<f64>() / self.samples.len().max(1) as f64
    }
}

/// Whether one of the kernel's counters did that tells for a livelock by not rising: then what it says about the window
/// is no evidence. Those of the tracer tell against one when they stand still.
fn went_backwards(before: &Sample, now: &Sample) -> bool {
    let counters = |memory: &Memory| {
        [
            memory.steals,
            memory.refaults,
            memory.major_faults,
            memory.max_events,
            memory.high_events,
            memory.oom_events,
            memory.oom_kills,
        ]
    };
    let memory = counters(&before.memory).iter().zip(counters(&now.memory)).any(|(before, now)| now < *before);
    let local = before.memory.local.zip(now.memory.local).is_some_and(|(before, now)| {
        now.max < before.max || now.high < before.high || now.oom < before.oom || now.oom_kills < before.oom_kills
    });
    let cpu = before.cpu.zip(now.cpu).is_some_and(|(before, now)| {
        now.user < before.user || now.system < before.system || now.throttled < before.throttled
    });
    let denied = before.pressure.cpu.zip(now.pressure.cpu).is_some_and(|(before, now)| now.full < before.full);
    memory || local || cpu || denied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Pressure;

    fn at(seconds: f64, steals: u64) -> Sample {
        Sample {
            at: Duration::from_secs_f64(seconds),
            memory: Memory { steals, ..Memory::default() },
            pressure: Pressure::default(),
            cpu: None,
            tracer: None,
            hung_below: false,
        }
    }

    #[test]
    fn complete_after_its_span_and_no_sooner() {
        let mut window = Window::new(Duration::from_secs(10));
        for second in 0..10 {
            window.push(at(f64::from(second), 0));
            assert!(window.ends().is_none(), "complete after {second} s");
        }
        window.push(at(9.96, 0));
        assert!(window.ends().is_some(), "a tick that came 40 ms early");
    }

    #[test]
    fn slides_and_stays_bounded() {
        let mut window = Window::new(Duration::from_secs(10));
        for tick in 0..1000 {
            window.push(at(f64::from(tick), 1));
        }
        assert_eq!(window.samples.len(), 11);
        let (first, last) = window.ends().unwrap();
        assert_eq!(last.at.saturating_sub(first.at), Duration::from_secs(10));
        for tick in 0..100_000 {
            window.push(at(1000.0 + f64::from(tick) / 1000.0, 1));
        }
        assert!(window.samples.len() <= MOST_SAMPLES);
    }

    #[test]
    fn starts_afresh_after_a_reset_a_gap_and_ignores_time_that_stands_still() {
        let mut window = Window::new(Duration::from_secs(10));
        for second in 0..=10 {
            window.push(at(f64::from(second), 100));
        }
        window.push(at(10.0, 999));
        assert_eq!(window.last().unwrap().memory.steals, 100, "time stood still");
        window.push(at(5.0, 999));
        assert_eq!(window.last().unwrap().memory.steals, 100, "time went back");
        window.push(at(11.0, 3));
        assert!(window.ends().is_none(), "counters were reset");

        let mut window = Window::new(Duration::from_secs(10));
        window.push(at(0.0, 0));
        window.push(at(60.0, 1));
        assert!(window.ends().is_none(), "a gap is not a window");
    }
}
