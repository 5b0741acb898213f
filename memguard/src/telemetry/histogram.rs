//! Refault rates of a cgroup: over time, and how long at which rate.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

/// Lower bounds of the levels, pages per second: three to a decade.
const LEVELS: [u64; 11] = [0, 1, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];

/// The timeline keeps so many buckets at the most. When it is full, neighbours are merged and buckets become twice as
/// long, so a report of any length stays one line.
const MOST_BUCKETS: usize = 30;

/// Collects the refault rate of one cgroup between two reports. Bounded.
#[derive(Clone, Debug, Default)]
pub struct RefaultHistogram {
    /// Time spent at each level.
    levels: [Duration; LEVELS.len()],
    timeline: Vec<Bucket>,
    /// Spans that make a full bucket of the timeline.
    spans_per_bucket: u32,
    total: Bucket,
    highest: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    length: Duration,
    pages: u64,
    spans: u32,
}

impl Bucket {
    fn rate(self) -> f64 {
        if self.length.is_zero() { 0.0 } else { self.pages as f64 / self.length.as_secs_f64() }
    }

    fn add(&mut self, other: Self) {
        self.length += other.length;
        self.pages = self.pages.saturating_add(other.pages);
        self.spans += other.spans;
    }
}

/// A finished histogram.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Length of the whole in seconds.
    pub seconds: f64,
    /// Pages per second.
    pub mean: f64,
    pub highest: f64,
    /// Length of a bucket of the timeline in seconds; the last one can be shorter.
    pub bucket_seconds: f64,
    /// Pages per second in each bucket of the timeline, oldest first.
    pub timeline: Vec<f64>,
    pub levels: Vec<Level>,
}

/// Time spent at rates of at least `from` and below the next level's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Level {
    /// Pages per second.
    pub from: u64,
    pub seconds: f64,
}

impl RefaultHistogram {
    /// So many pages came back within a span of time.
    pub fn add(&mut self, length: Duration, pages: u64) {
        if length.is_zero() {
            return;
        }
        let span = Bucket { length, pages, spans: 1 };
        let rate = span.rate();
        let level = LEVELS.iter().rposition(|from| rate >= *from as f64).unwrap_or(0);
        self.levels[level] += length;
        self.highest = self.highest.max(rate);
        self.total.add(span);
        self.spans_per_bucket = self.spans_per_bucket.max(1);
        match self.timeline.last_mut() {
            Some(last) if last.spans < self.spans_per_bucket => last.add(span),
            _ => {
                if self.timeline.len() == MOST_BUCKETS {
                    self.timeline = self
                        .timeline
                        .chunks(2)
                        .map(|pair| {
                            let mut merged = pair[0];
                            pair[1..].iter().for_each(|other| merged.add(*other));
                            merged
                        })
                        .collect();
                    self.spans_per_bucket *= 2;
                }
                self.timeline.push(span);
            }
        }
    }

    /// Whether anything came back at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total.pages == 0
    }

    /// Finishes this histogram and begins the next.
    pub fn take(&mut self) -> Rates {
        let done = std::mem::take(self);
        Rates {
            seconds: done.total.length.as_secs_f64(),
            mean: done.total.rate(),
            highest: done.highest,
            bucket_seconds: done.timeline.first().map_or(0.0, |bucket| bucket.length.as_secs_f64()),
            timeline: done.timeline.iter().map(|bucket| bucket.rate()).collect(),
            levels: LEVELS
                .iter()
                .zip(done.levels)
                .filter(|(_, time)| !time.is_zero())
                .map(|(from, time)| Level { from: *from, seconds: time.as_secs_f64() })
                .collect(),
        }
    }
}

impl Rates {
    /// The timeline as bars, scaled to its highest bucket; an empty bucket is a dot.
    #[must_use]
    pub fn bars(&self) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let highest = self.timeline.iter().copied().fold(0.0, f64::max);
        self.timeline
            .iter()
            .map(|rate| {
                if *rate <= 0.0 {
                    return '·';
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 8")]
                let step = (rate / highest * BARS.len() as f64).ceil() as usize;
                BARS[step.clamp(1, BARS.len()) - 1]
            })
            .collect()
    }

    /// How long at which rate, in words.
    #[must_use]
    pub fn levels_in_words(&self) -> String {
        let mut text = String::new();
        for level in &self.levels {
            let separator = if text.is_empty() { "" } else { ", " };
            let next = LEVELS.iter().find(|from| **from > level.from);
            // Writing to a string does not fail.
            let _ = match (level.from, next) {
                (0, _) => write!(text, "{separator}none for {:.0} s", level.seconds),
                (from, Some(next)) => write!(text, "{separator}{from} to {next}/s for {:.0} s", level.seconds),
                (from, None) => write!(text, "{separator}over {from}/s for {:.0} s", level.seconds),
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn tells_rates_over_time_and_time_over_rates() {
        let mut histogram = RefaultHistogram::default();
        for pages in [0, 5, 2000, 4000, 0] {
            histogram.add(SECOND, pages);
        }
        let rates = histogram.take();
        assert_eq!(rates.timeline, [0.0, 5.0, 2000.0, 4000.0, 0.0]);
        assert_eq!((rates.mean, rates.highest, rates.seconds), (1201.0, 4000.0, 5.0));
        assert_eq!(rates.bars(), "·▁▄█·");
        assert_eq!(
            rates.levels_in_words(),
            "none for 2 s, 1 to 10/s for 1 s, 1000 to 3000/s for 1 s, 3000 to 10000/s for 1 s"
        );
        assert!(histogram.is_empty(), "and begins anew");
    }

    #[test]
    fn stays_bounded_and_keeps_the_sum() {
        let mut histogram = RefaultHistogram::default();
        for _ in 0..10_000 {
            histogram.add(SECOND, 7);
        }
        assert!(histogram.timeline.len() <= MOST_BUCKETS);
        let pages: u64 = histogram.timeline.iter().map(|bucket| bucket.pages).sum();
        assert_eq!(pages, 70_000);
        assert!(histogram.take().timeline.iter().all(|rate| (*rate - 7.0).abs() < 1e-9));
    }

    #[test]
    fn spans_of_no_length_and_huge_counts_do_no_harm() {
        let mut histogram = RefaultHistogram::default();
        histogram.add(Duration::ZERO, 5);
        assert!(histogram.is_empty());
        histogram.add(Duration::from_nanos(1), u64::MAX);
        histogram.add(Duration::from_nanos(1), u64::MAX);
        let rates = histogram.take();
        assert!(rates.bars().chars().count() == 2 && rates.levels_in_words().contains("over 100000/s"));
    }
}
