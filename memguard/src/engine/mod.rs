//! The decision engine: samples of cgroups go in, states and verdicts come out.
//!
//! Pure. It has no clock, reads no file and talks to nobody: time is a member of each [`Sample`], so the same samples
//! give the same verdicts, bit for bit, live or replayed.

pub mod baselines;
mod detector;
#[doc(hidden)]
pub mod fixture;
pub(crate) mod ns;
#[cfg(test)]
mod properties;
mod rule;
mod sample;
mod signals;
mod thresholds;
mod window;

pub use detector::{Engine, Observation, State, Verdict};
pub use rule::{Term, Terms};
pub use sample::{
    Cpu, FaultTime, Limit, LocalEvents, Memory, Pressure, ReclaimSample, Sample, Stall, StallSample, TracerSample,
};
pub use signals::Signals;
pub use thresholds::{KNOBS, Knob, Profile, Ramp, Settings, Thresholds};

/// Names a watched cgroup: its id in cgroup v2, the inode number of its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UnitId(pub u64);

impl std::fmt::Display for UnitId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
