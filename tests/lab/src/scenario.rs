//! A scenario: one TOML file that says which machine to boot, which cgroups to make, what to run in them, and what
//! should come of it.

mod check;
mod program;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::program::{Access, Counted, HogMemory, Program, Turns};

/// What is expected of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Hangs without memguard, and is ended by it.
    Livelock,
    /// Works, and must be left alone.
    Healthy,
    /// The kernel's own OOM killer ends it, and memguard stays out of it.
    Oom,
    /// Nobody knows beforehand: it was drawn by chance, and its progress tells what became of it.
    Open,
}

impl Kind {
    /// Whether a hang is nothing that its name speaks against.
    #[must_use]
    pub const fn may_hang(self) -> bool {
        matches!(self, Self::Livelock | Self::Open)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Livelock => "livelock",
            Self::Healthy => "healthy",
            Self::Oom => "oom",
            Self::Open => "open",
        })
    }
}

/// The scenarios are split in two before anything is fitted to them: thresholds are chosen on one half and reported on
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Half {
    Tuning,
    HeldOut,
}

/// A size in bytes, written as `"512M"`, `"8G"`, `"100K"` or `"max"` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub Option<u64>);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self(None));
        }
        let wrong = || format!("expected a size such as \"512M\", or \"max\", found {text:?}");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match &text[digits.len()..] {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        count.checked_mul(1 << shift).map(|bytes| Self(Some(bytes))).ok_or_else(wrong)
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.0.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string())
    }
}

impl Size {
    /// What is written to memory.max.
    #[must_use]
    pub fn file_text(self) -> String {
        self.into()
    }
}

/// A limit in CPUs, as Kubernetes' `limits.cpu`: time that may be spent in each second, over all of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Cpus(f64);

impl Cpus {
    /// What Kubernetes takes, in microseconds.
    const PERIOD_US: u32 = 100_000;
    /// The kernel takes no quota under a millisecond (`tg_set_cfs_bandwidth()`).
    const LEAST: f64 = 0.01;

    /// What is written to cpu.max.
    #[must_use]
    pub fn file_text(self) -> String {
        format!("{:.0} {}", self.0 * f64::from(Self::PERIOD_US), Self::PERIOD_US)
    }
}

impl TryFrom<f64> for Cpus {
    type Error = String;

    fn try_from(cpus: f64) -> Result<Self, String> {
        if (Self::LEAST..=1024.0).contains(&cpus) {
            Ok(Self(cpus))
        } else {
            Err(format!("expected a number of CPUs from {} to 1024, found {cpus}", Self::LEAST))
        }
    }
}

impl From<Cpus> for f64 {
    fn from(cpus: Cpus) -> Self {
        cpus.0
    }
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without `.toml`.
    #[serde(default)]
    pub name: String,
    /// One sentence.
    pub summary: String,
    pub kind: Kind,
    pub half: Half,
    /// What it has in common with others: each family is in both halves, where it has more than one member.
    pub family: Option<String>,
    #[serde(default)]
    pub vm: Vm,
    #[serde(default)]
    pub kernel: KernelSwitches,
    /// So many cgroups are made and removed after memguard's start and before any workload's, while nothing reclaims.
    #[serde(default)]
    pub come_and_go: u32,
    pub time: Time,
    pub pod: Vec<Pod>,
    #[serde(default)]
    pub expect: Expect,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vm {
    pub cpus: u32,
    pub memory_mib: u32,
    pub disk: Disk,
}

impl Default for Vm {
    fn default() -> Self {
        Self { cpus: 2, memory_mib: 2048, disk: Disk::default() }
    }
}

/// How fast the root disk may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    pub iops: u32,
    pub mib_per_s: u32,
    /// `None` leaves the kernel's default, which differs between kernels.
    pub readahead_kib: Option<u32>,
}

impl Default for Disk {
    /// What an EBS gp3 volume gives without extra charge.
    fn default() -> Self {
        Self { iops: 3000, mib_per_s: 125, readahead_kib: Some(128) }
    }
}

/// Kernel settings; `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelSwitches {
    /// The multi-gen LRU.
    pub mglru: Option<bool>,
}

/// How long things take, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// From the start of the workloads that begin at once to the trouble, which starts the workloads with
    /// `at = "trouble"`. The last ten seconds of it are what progress is compared with.
    pub warm_up_s: u32,
    /// From the moment at the limit, or from the trouble if the limit is never reached, to the end of the run.
    pub run_s: u32,
}

/// A pod, as the kubelet lays one out: a slice with a pause container and others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    pub name: String,
    pub memory_max: Option<Size>,
    pub cpu_max: Option<Cpus>,
    #[serde(default)]
    pub container: Vec<Container>,
}

/// A container: a scope in the pod's slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    pub name: String,
    pub memory_max: Option<Size>,
    pub memory_high: Option<Size>,
    pub cpu_max: Option<Cpus>,
    /// memory.oom.group, which the kubelet sets since Kubernetes 1.28.
    #[serde(default)]
    pub oom_group: bool,
    #[serde(default)]
    pub workload: Vec<Workload>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub name: String,
    /// A cgroup below the container's, as Docker in Docker makes them. A container with nested cgroups runs all of its
    /// workloads in them.
    pub nested: Option<String>,
    #[serde(default)]
    pub at: Start,
    #[serde(default)]
    pub limits: Limits,
    /// It ends with an error, as it should.
    #[serde(default)]
    pub fails: bool,
    pub run: Program,
}

impl Workload {
    /// Whether its progress tells how its container is doing: it works from the beginning on.
    #[must_use]
    pub fn is_victim(&self) -> bool {
        self.at == Start::Beginning && self.run.reports_progress()
    }
}

/// What a process is given before it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: Option<i16>,
    /// `RLIMIT_AS`: `ulimit -v`.
    pub address_space: Option<Size>,
}

/// When a workload is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    #[default]
    Beginning,
    Trouble,
}

/// What should come of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The container that gets into trouble, as `pod/container`. Required, but for healthy scenarios.
    pub container: Option<String>,
    /// Further containers to which the same happens.
    pub also: Vec<String>,
    /// Without memguard: for how many seconds, from the limit on, its work stays below a fifth of its progress.
    pub hang_s: Option<u32>,
    /// With memguard enforcing: within how many seconds of reaching the limit it is dead.
    pub dead_within_s: Option<u32>,
    /// Compare the tracer's counts with the kernel's own.
    pub counts: bool,
    /// Healthy: the limit has to be hit, or the scenario proves nothing.
    pub at_limit: bool,
    /// Healthy: the share of its progress before the trouble that work keeps, in any 30 seconds. A fifth if not given.
    pub works_at: Option<f64>,
}

impl Expect {
    /// All containers that get into trouble, as `pod/container`.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.container.iter().chain(&self.also).map(String::as_str)
    }
}

/// What is wrong with a scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("can't read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}", path.display())]
    Syntax { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{}: {what}", path.display())]
    Nonsense { path: PathBuf, what: String },
}

impl Scenario {
    /// Reads one file.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        let mut scenario: Self = toml::from_str(&text)
            .map_err(|source| ScenarioError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        scenario.check().map_err(|what| ScenarioError::Nonsense { path: path.to_owned(), what })?;
        Ok(scenario)
    }

    /// All scenarios of a folder, by name.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, ScenarioError> {
        let wrong = |source| ScenarioError::Read { path: folder.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// All workloads with the pod and the container that they are in.
    pub fn workloads(&self) -> impl Iterator<Item = (&Pod, &Container, &Workload)> {
        self.pod.iter().flat_map(|pod| {
            pod.container
                .iter()
                .flat_map(move |container| container.workload.iter().map(move |workload| (pod, container, workload)))
        })
    }
}
