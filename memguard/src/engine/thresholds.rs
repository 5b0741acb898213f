//! Every number that a verdict depends on, in one place.
//!
//! The defaults are the rule that scored no false alarm in 32 healthy runs and met every permanent hang in the lab;
//! each threshold names the runs that it lies between. Figures are medians over 10 s windows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the engine watches a cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Length of the sliding window over which signals are computed. Shorter ones flap on bursts.
    #[serde(with = "super::ns")]
    pub window: Duration,
    /// For how long the rule has to hold, on windows one after another, before it is a livelock.
    #[serde(with = "super::ns")]
    pub hold: Duration,
    /// So many evaluations in a row that fail end a suspicion; time in fewer does not count as held.
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
            window: Duration::from_secs(10),
            hold: Duration::from_secs(30),
            grace_ticks: 3,
            post_action_delay: Duration::from_secs(30),
            page_size: 4096,
            thresholds: Thresholds::default(),
        }
    }
}

/// What each term of the rule asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Mean memory.current, as a share of memory.max. A livelock sits at its limit all the time.
    pub at_limit: f64,
    /// anon + shmem as a share of memory.max. Hangs: 69 to 98 %; streaming and scanning: 0 to 59 %.
    pub unreclaimable: f64,
    /// Refaults for each page freed. Hangs 0.76 to 1; a stream through fresh data 0.
    pub refault_share: f64,
    /// How often per second the page cache is replaced as a whole: 1 / mean lifetime of a cached page. Permanent hangs
    /// 0.18 to 37; overcommit that still works 0.03 to 0.11.
    pub turnover_per_s: f64,
    /// Major faults per second on program text (all major ones where the mapping is not known). Hangs 8 to 660.
    pub text_faults_per_s: f64,
    /// PSI memory `some`, as a share of time.
    pub memory_some: f64,
    /// The greater of PSI memory `some` and io `some`, as a share of time.
    pub any_some: f64,
    /// Hangs of real programs stayed below both PSI thresholds (memory some 7 to 24 %). What they had in plenty was
    /// text that came back as soon as it was dropped, with hardly anything else to drop. All four of these together
    /// stand in for PSI: unreclaimable share (hangs 95 to 98 %) ...
    pub text_thrash_unreclaimable: f64,
    /// ... refaults for each page freed (about 1) ...
    pub text_thrash_refault_share: f64,
    /// ... turnover per second (0.27 in a hang on a slow disk, whose PSI memory some swings around 15 %; else 0.5 to 37;
    /// overcommit that works with as much anonymous memory: 0.03 to 0.05) ...
    pub text_thrash_turnover_per_s: f64,
    /// ... and major faults on text per second (65 to 660; slow but working programs with as much anonymous memory: up
    /// to 8).
    pub text_thrash_faults_per_s: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            at_limit: 0.95,
            unreclaimable: 0.70,
            refault_share: 0.5,
            turnover_per_s: 0.10,
            text_faults_per_s: 3.0,
            memory_some: 0.15,
            any_some: 0.50,
            text_thrash_unreclaimable: 0.90,
            text_thrash_refault_share: 0.8,
            text_thrash_turnover_per_s: 0.15,
            text_thrash_faults_per_s: 20.0,
        }
    }
}
