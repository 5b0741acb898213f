//! What is kept of one verdict, bounded in every part.

use serde::{Deserialize, Serialize};

use super::{look::Look, timeline::Point};
use crate::{
    engine::{Memory, Settings, Terms},
    kernel::Plan,
    remote::Workload,
    respond::Mode,
    telemetry::escaped,
};

/// The format that is written. A reader takes this one and all before it.
pub const VERSION: u32 = 1;
/// A record as JSON has at most so many bytes.
pub const LARGEST: usize = 256 * 1024;

/// Everything known about one verdict at its time. What was done about it and elsewhere stands in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub incident: String,
    /// Seconds since 1970.
    pub decided_at: u64,
    pub mode: Mode,
    /// The cgroup whose limit was hit: its id, and its path below the root, escaped.
    pub unit: u64,
    pub cgroup: String,
    /// What was to be ended on its behalf, escaped.
    #[serde(default)]
    pub victim: Option<String>,
    #[serde(default)]
    pub workload: Option<Workload>,
    pub machine: Machine,
    pub suspect_for_s: f64,
    /// That of the least certain term, from 0 to 1.
    pub confidence: f64,
    pub terms: Vec<TermRecord>,
    /// In force at the time.
    pub settings: Settings,
    pub memory: Memory,
    /// Oldest first, in seconds before the verdict.
    #[serde(default)]
    pub timeline: Vec<Point>,
    /// The tasks of the victim and below; `None` where nothing could be read in time.
    #[serde(default)]
    pub look: Option<Look>,
    /// What is missing, and why.
    #[serde(default)]
    pub gaps: Vec<String>,
}

/// The node and how memguard sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As Kubernetes calls it, or the host's name.
    pub node: String,
    pub kernel: String,
    pub architecture: String,
    /// `None` where the kernel has no multi-gen LRU.
    #[serde(default)]
    pub mglru: Option<bool>,
    /// How much of the tracer was at work.
    pub level: String,
    /// Each signal, and where it comes from.
    pub signals: Vec<(String, String)>,
    pub memguard: String,
}

impl Machine {
    #[must_use]
    pub fn new(node: &str, kernel: &crate::kernel::Kernel, plan: &Plan) -> Self {
        let source = |signal: &crate::kernel::SignalPlan| {
            let programs = signal.programs.join(", ");
            match signal.lost {
                None => programs,
                Some(instead) if programs.is_empty() => instead.to_owned(),
                Some(lost) => format!("{programs}; lost: {lost}"),
            }
        };
        Self {
            node: shown(node, 253),
            kernel: shown(&kernel.release, 64),
            architecture: shown(&kernel.machine, 64),
            mglru: kernel.mglru,
            level: plan.level.to_string(),
            signals: plan.signals.iter().map(|signal| (signal.signal.to_string(), source(signal))).collect(),
            memguard: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A term of the rule, with both of its thresholds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TermRecord {
    pub name: String,
    #[serde(default)]
    pub value: Option<f64>,
    /// Where it begins to hold.
    pub threshold: f64,
    /// Where it leaves no doubt.
    #[serde(default)]
    pub sure: Option<f64>,
    pub met: bool,
    pub confidence: f64,
    pub why: String,
}

impl TermRecord {
    #[must_use]
    pub fn all(terms: &Terms) -> Vec<Self> {
        let kept = |term: &crate::engine::Term| Self {
            name: term.name.to_owned(),
            value: term.value.filter(|value| value.is_finite()),
            threshold: term.threshold,
            sure: Some(term.sure),
            met: term.met,
            confidence: term.confidence,
            why: shown(&term.why, 400),
        };
        terms.0.iter().map(kept).collect()
    }
}

/// Text that others named: shortened, then escaped, so that neither its length nor its characters do harm.
pub(super) fn shown(text: &str, most: usize) -> String {
    let mut shortened: String = text.chars().take(most).collect();
    if shortened.len() < text.len() {
        shortened.push('…');
    }
    escaped(&shortened)
}

impl Record {
    /// As JSON of at most [`LARGEST`] bytes: what is of least use is left out of one that is larger.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut json = serde_json::to_vec(self)?;
        if json.len() <= LARGEST {
            return Ok(json);
        }
        let mut smaller = self.clone();
        smaller.gaps.push("some of it was left out, because it had become too large".to_owned());
        loop {
            let left = smaller.shrink();
            json = serde_json::to_vec(&smaller)?;
            if json.len() <= LARGEST || !left {
                return Ok(json);
            }
        }
    }

    /// Leaves out half of the longest lists. Whether there is anything more to leave out.
    fn shrink(&mut self) -> bool {
        let half = |length: usize| length / 2;
        let mut left = !self.timeline.is_empty();
        let keep = half(self.timeline.len());
        self.timeline.drain(..self.timeline.len() - keep);
        if let Some(look) = &mut self.look {
            left |= look.halve();
        }
        left
    }
}

/// Why a report can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("it is no report: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is of format {found}, and this memguard knows {VERSION} and older: use the memguard that wrote it")]
    Newer { found: u32 },
}

/// Reads a record of this format or an older one.
pub fn parse(json: &[u8]) -> Result<Record, FormatError> {
    #[derive(Deserialize)]
    struct Any {
        version: u32,
    }
    // First the version: a newer format need not look like this one.
    let Any { version } = serde_json::from_slice(json)?;
    if version > VERSION {
        return Err(FormatError::Newer { found: version });
    }
    Ok(serde_json::from_slice(json)?)
}
