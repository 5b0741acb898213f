//! What there is to see, as data. Travels as JSON over the socket, and is what `memguard status --output json` prints.

use serde::{Deserialize, Serialize};

use crate::{
    engine::{Engine, Limit, Memory, Signals, State, Term, UnitId},
    journal::Incident,
    remote::Workload,
    report,
    respond::Mode,
    telemetry::{CgroupName, escaped},
};

/// Counts up when a member changes in a way that older readers would misread. New members have defaults instead.
pub const FORMAT: u32 = 1;
/// Cgroups in a snapshot at the most: those with the most going on.
pub const MOST_UNITS: usize = 256;
/// Files of a cgroup.
pub const MOST_FILES: usize = 8;
/// The latest incidents.
pub const MOST_INCIDENTS: usize = 20;

/// One look at all that memguard sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`FORMAT`].
    pub format: u32,
    /// memguard's version.
    pub version: String,
    /// ms since 1970.
    pub unix_ms: u64,
    /// `CLOCK_MONOTONIC` seconds.
    pub at_s: f64,
    pub mode: Mode,
    /// How much of the tracer is at work: `full`, `degraded`, `files`.
    pub signals_from: String,
    /// Signals that come from a lesser source, and what is lost with that.
    #[serde(default)]
    pub lost: Vec<LostSignal>,
    /// Why there is no tracer.
    #[serde(default)]
    pub no_tracer: Option<String>,
    pub engine: EngineStatus,
    pub cost: CostStatus,
    /// `None` without Kubernetes.
    #[serde(default)]
    pub pods: Option<PodsStatus>,
    pub totals: Totals,
    /// Cgroups under reclaim, or that were a moment ago: those with the most going on first, [`MOST_UNITS`] at the most.
    pub units: Vec<UnitStatus>,
    #[serde(default)]
    pub units_left_out: u64,
    /// The latest first, [`MOST_INCIDENTS`] at the most.
    #[serde(default)]
    pub incidents: Vec<IncidentStatus>,
}

/// A signal that comes from a lesser source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostSignal {
    pub signal: String,
    pub lost: String,
}

/// How the engine is set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Seconds.
    pub window_s: f64,
    /// Seconds of evidence that make a livelock.
    pub hold_s: f64,
}

/// What memguard itself costs and loses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CostStatus {
    /// User and system time so far, and wall time since the start, in seconds.
    pub cpu_s: f64,
    pub up_s: f64,
    /// Share of one CPU lately: over the last minute, or, if nobody looked meanwhile, since somebody did or since the start.
    /// `None` from those that don't tell.
    pub cpu_lately: Option<f64>,
    pub resident_kib: u64,
    pub records: u64,
    pub wake_ups: u64,
    /// Events and records that the tracer lost; `None` without a tracer.
    pub events_lost: Option<u64>,
    /// Run time of the tracer's programs in seconds, where the kernel measures it.
    pub programs_s: Option<f64>,
}

/// What is known of this node's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodsStatus {
    pub known: u64,
    /// Since when the Kubernetes API has not told of changes, s since 1970.
    #[serde(default)]
    pub stale_since: Option<u64>,
}

/// Since memguard's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Cgroups that were ever under reclaim, and suspect.
    pub under_reclaim: u64,
    pub suspected: u64,
    pub verdicts: u64,
    pub killed: u64,
    pub relieved: u64,
    pub suppressed: u64,
    pub failed: u64,
}

/// Whose cgroup it is, as the Kubernetes API said. Escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    pub namespace: String,
    pub pod: String,
    #[serde(default)]
    pub container: Option<String>,
    /// The GitHub run, as `owner/repository`, where it was looked up.
    #[serde(default)]
    pub repository: Option<String>,
    #[serde(default)]
    pub run_id: Option<u64>,
}

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitStatus {
    #[serde(flatten)]
    pub name: CgroupName,
    #[serde(default)]
    pub workload: Option<WorkloadStatus>,
    pub state: State,
    /// For how long it has been in this state, and watched at all, in seconds.
    pub state_for_s: f64,
    pub watched_for_s: f64,
    /// Evidence so far, and for how long there has been suspicion, in seconds; `None` while there is none.
    #[serde(default)]
    pub held_s: Option<f64>,
    #[serde(default)]
    pub suspect_for_s: Option<f64>,
    /// Nothing is decided about it for so many seconds more, because something was done.
    #[serde(default)]
    pub quiet_for_s: f64,
    /// An action on it is under way.
    #[serde(default)]
    pub ending: bool,
    pub memory: MemoryStatus,
    /// File pages that came back, per second: the last [`HISTORY`](super::HISTORY) seconds, the latest at the end.
    #[serde(default)]
    pub refaults: Vec<f64>,
    /// `None` until there is a whole window.
    #[serde(default)]
    pub signals: Option<Signals>,
    #[serde(default)]
    pub terms: Vec<TermStatus>,
    /// The files that came back most; empty where that is not known.
    #[serde(default)]
    pub files: Vec<HotFile>,
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStatus {
    pub current: u64,
    pub limit: Option<u64>,
    pub limited_by: Limit,
    /// What can't be reclaimed without swap: anonymous memory and shmem.
    pub anon_shmem: u64,
    /// Page cache that a file stands behind.
    pub file: u64,
    /// Processes that the kernel's OOM killer ended, since the cgroup was made.
    pub oom_kills: u64,
}

/// A term of the rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TermStatus {
    pub name: String,
    /// `None` where the signal can't be had.
    #[serde(default)]
    pub value: Option<f64>,
    /// Where it begins to hold, and where it leaves no doubt.
    pub from: f64,
    pub sure: f64,
    pub met: bool,
    /// 0 when it is not met, up to 1 when there is no doubt.
    pub confidence: f64,
    /// The value in words.
    pub why: String,
}

/// A file whose pages came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HotFile {
    /// Escaped; by device and inode where no path is known.
    pub path: String,
    /// Major faults on it per second.
    pub faults_per_s: f64,
}

/// A verdict and what came of it. Escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentStatus {
    pub id: String,
    /// s since 1970.
    pub decided_at: u64,
    pub mode: Mode,
    pub cgroup: String,
    #[serde(default)]
    pub workload: Option<String>,
    pub outcome: String,
    pub evidence: String,
    /// What remains to be done elsewhere, each with how far it has come.
    #[serde(default)]
    pub follow_ups: Vec<String>,
    /// How many of them are open.
    #[serde(default)]
    pub open: u64,
}

impl Snapshot {
    /// Puts those with the most going on first, and leaves the rest out.
    pub fn bound(&mut self) {
        self.units.sort_by(|a, b| {
            (b.state, b.refaults_per_s())
                .partial_cmp(&(a.state, a.refaults_per_s()))
                .unwrap_or(std::cmp::Ordering::Equal)
                .then(a.name.id.cmp(&b.name.id))
        });
        self.units_left_out += self.units.len().saturating_sub(MOST_UNITS) as u64;
        self.units.truncate(MOST_UNITS);
        self.incidents.truncate(MOST_INCIDENTS);
    }
}

impl UnitStatus {
    /// What the engine and the agent know of a cgroup. `now` is `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn new(
        name: CgroupName,
        memory: &Memory,
        trail: &super::Trail,
        engine: &Engine,
        now: std::time::Duration,
    ) -> Self {
        let id = UnitId(name.id);
        let seconds = |since: std::time::Duration| now.saturating_sub(since).as_secs_f64();
        let evidence = engine.evidence(id);
        Self {
            name,
            workload: None,
            state: engine.state(id),
            state_for_s: seconds(trail.state_since()),
            watched_for_s: seconds(trail.began()),
            held_s: evidence.map(|(_, held)| held.as_secs_f64()),
            suspect_for_s: evidence.map(|(since, _)| seconds(since)),
            quiet_for_s: engine.quiet_until(id).saturating_sub(now).as_secs_f64(),
            ending: false,
            memory: MemoryStatus::of(memory),
            refaults: trail.refaults().collect(),
            signals: trail.signals().cloned(),
            terms: trail.terms().map(TermStatus::of).collect(),
            files: Vec::new(),
        }
    }

    /// Now.
    #[must_use]
    pub fn refaults_per_s(&self) -> f64 {
        self.refaults.last().copied().unwrap_or(0.0)
    }

    /// For a list: pod and container where the API knows them, else the shortened cgroup.
    #[must_use]
    pub fn shown_name(&self) -> String {
        match &self.workload {
            Some(workload) => workload.to_string(),
            None => self.name.short(),
        }
    }
}

impl HotFile {
    /// `None` until there is a rate.
    #[must_use]
    pub fn of(file: &report::HotFile) -> Option<Self> {
        let path = match &file.path {
            Some(path) if file.by_inode => format!("{path} (by its inode number)"),
            Some(path) => path.clone(),
            None => format!("device {}, inode {}", file.device, file.inode),
        };
        Some(Self { path, faults_per_s: file.per_s? })
    }
}

impl MemoryStatus {
    #[must_use]
    pub fn of(memory: &Memory) -> Self {
        let limit = memory.limit();
        Self {
            current: memory.current,
            limit: limit.map(|(limit, _)| limit),
            limited_by: limit.map_or(Limit::Max, |(_, which)| which),
            anon_shmem: memory.unreclaimable(),
            file: memory.page_cache(),
            oom_kills: memory.oom_kills,
        }
    }

    /// Of the limit, from 0 to 1.
    #[must_use]
    pub fn share(&self, bytes: u64) -> Option<f64> {
        self.limit.filter(|limit| *limit > 0).map(|limit| bytes as f64 / limit as f64)
    }
}

impl TermStatus {
    #[must_use]
    pub fn of(term: &Term) -> Self {
        Self {
            name: term.name.to_owned(),
            value: term.value,
            from: term.threshold,
            sure: term.sure,
            met: term.met,
            confidence: term.confidence,
            why: term.why.clone(),
        }
    }
}

impl WorkloadStatus {
    #[must_use]
    pub fn of(workload: &Workload) -> Self {
        let job = workload.facts.as_ref().and_then(|facts| facts.job.as_ref());
        Self {
            namespace: escaped(&workload.namespace),
            pod: escaped(&workload.pod),
            container: workload.container.as_deref().map(escaped),
            repository: job.map(|job| escaped(&job.repository)),
            run_id: job.map(|job| job.run_id),
        }
    }
}

impl std::fmt::Display for WorkloadStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)?;
        match &self.container {
            Some(container) => write!(f, "/{container}"),
            None => Ok(()),
        }
    }
}

impl IncidentStatus {
    #[must_use]
    pub fn of(incident: &Incident) -> Self {
        Self {
            id: escaped(&incident.id),
            decided_at: incident.decided_at,
            mode: incident.mode,
            cgroup: escaped(&incident.cgroup),
            workload: incident.workload.as_ref().map(|workload| escaped(&workload.name())),
            outcome: escaped(&incident.outcome()),
            evidence: escaped(&incident.evidence),
            follow_ups: incident.follow_ups.iter().map(|follow_up| escaped(&follow_up.outcome())).collect(),
            open: incident.follow_ups.iter().filter(|follow_up| follow_up.is_open()).count() as u64,
        }
    }
}
