//! What is written down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::{Observation, Sample, Settings, State, UnitId};

/// One thing that happened at the engine's door.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// memguard began to record. A file that is appended to has several.
    Start(Box<Start>),
    /// A cgroup is watched from now on.
    Watch { unit: UnitId, cgroup: String },
    /// The engine was given a sample, and made this of it.
    Sample { unit: UnitId, sample: Box<Sample>, decided: Decided },
    /// An action was taken on a cgroup.
    Acted {
        unit: UnitId,
        #[serde(with = "crate::engine::ns")]
        at: Duration,
    },
    /// A cgroup is gone or at rest.
    Forget { unit: UnitId },
    /// So many entries are missing here: the disk was too slow to take them.
    Lost { entries: u64 },
}

/// Under which circumstances a recording was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// memguard's version.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// How much of the tracer was at work: `full`, `degraded`, `files`.
    pub signals_from: String,
    /// Seconds since 1970.
    pub unix_time_s: u64,
    pub settings: Settings,
}

/// What the engine made of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub state: State,
    /// A verdict was given with this sample.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verdict: bool,
    /// Of the signals and terms as JSON, so that a replay can tell that it computes the very same numbers. A new signal or another
    /// word in a sentence changes it too.
    pub digest: u64,
}

impl Decided {
    #[must_use]
    pub fn of(observation: &Observation) -> Self {
        let numbers = serde_json::to_vec(&(&observation.signals, &observation.terms, &observation.verdict));
        Self {
            state: observation.state,
            verdict: observation.verdict.is_some(),
            digest: fnv(&numbers.unwrap_or_default()),
        }
    }

    /// Whether the same was decided, whatever the figures and words that it is explained with.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        (self.state, self.verdict) == (other.state, other.verdict)
    }
}

/// FNV-1a, 64 bits: not against anybody's will, only against chance.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
