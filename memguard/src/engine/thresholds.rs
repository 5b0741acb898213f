//! How the engine is set: every number that a verdict depends on, with the reason for it, in this one place.
//!
//! A term of the rule has two thresholds, a [`Ramp`]: where it begins to hold, and where it leaves no doubt. What lies
//! between counts for less, so a clear hang is a livelock after [`Settings::hold`] and an unclear one later.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the engine watches a cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Length of the sliding window over which signals are computed. Shorter ones flap on bursts.
    #[serde(with = "super::ns")]
    pub window: Duration,
    /// Evidence that makes a livelock: for how long the rule has to hold beyond doubt.
    #[serde(with = "super::ns")]
    pub hold: Duration,
    /// So many evaluations in a row that fail end a suspicion; time in fewer does not count.
    pub grace_ticks: u32,
    /// After an action on a cgroup nothing is decided about it for this long.
    #[serde(with = "super::ns")]
    pub post_action_delay: Duration,
    /// Size of a page in bytes.
    pub page_size: u64,
    pub thresholds: Thresholds,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(5),
            hold: Duration::from_secs(10),
            grace_ticks: 3,
            post_action_delay: Duration::from_secs(30),
            page_size: 4096,
            thresholds: Thresholds::default(),
        }
    }
}

/// Where a term begins to hold, and where it leaves no doubt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    pub from: f64,
    pub sure: f64,
}

/// Confidence of a term that has only just begun to hold: a hang that is no clearer than this takes three times as long
/// to be called one.
const LEAST_CONFIDENCE: f64 = 1.0 / 3.0;

impl Ramp {
    const fn new(from: f64, sure: f64) -> Self {
        Self { from, sure }
    }

    /// 0 below `from`, [`LEAST_CONFIDENCE`] at it, 1 at `sure` and above.
    #[must_use]
    pub fn confidence(&self, value: f64) -> f64 {
        if value.is_nan() || value < self.from {
            0.0
        } else if value >= self.sure || self.sure <= self.from {
            1.0
        } else {
            LEAST_CONFIDENCE + (1.0 - LEAST_CONFIDENCE) * (value - self.from) / (self.sure - self.from)
        }
    }
}

/// What each term of the rule asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Mean memory.current, as a share of the limit. A livelock sits at its limit all the time.
    pub at_limit: f64,
    /// anon + shmem as a share of the limit: what reclaim can't touch without swap.
    pub unreclaimable: Ramp,
    /// Refaults for each page freed. A stream through fresh data has 0, a hang 0.7 to 1.
    pub refault_share: Ramp,
    /// Major faults per second on text that was there a moment ago ([`super::signals::SOON_S`]).
    pub text_returns_per_s: Ramp,
    /// Those, of all major faults on text: a start-up faults in much text, but each piece of it once.
    pub text_return_share: Ramp,
    /// Where the tracer can't tell which text comes back: major faults per second on text, or of any kind.
    pub text_faults_per_s: Ramp,
    /// ... and how often per second the page cache is replaced as a whole: 1 / mean lifetime of a cached page.
    pub turnover_per_s: Ramp,
    /// Of the time, how much the cgroup's tasks lose: 1 - user time / (user time + kernel time + waiting).
    pub lost: Ramp,
    /// Where there is no cpu.stat: the share of time in which a task waits.
    pub waiting: Ramp,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            at_limit: 0.95,
            unreclaimable: Ramp::new(0.50, 0.75),
            refault_share: Ramp::new(0.5, 0.8),
            text_returns_per_s: Ramp::new(5.0, 30.0),
            text_return_share: Ramp::new(0.35, 0.7),
            text_faults_per_s: Ramp::new(20.0, 100.0),
            turnover_per_s: Ramp::new(0.15, 0.5),
            lost: Ramp::new(0.80, 0.90),
            waiting: Ramp::new(0.50, 0.80),
        }
    }
}
