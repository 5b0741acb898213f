//! What a guest is asked to do, and the records that it sends over a port of its own, one JSON object a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    chain::{Round, Told},
    containers::{Case, Facts, Plan},
    scenario::Scenario,
};

/// How memguard takes part in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemguardMode {
    Off,
    Observe,
    #[default]
    Enforce,
    /// Enforce, by the kernel's OOM killer.
    Relieve,
}

impl MemguardMode {
    /// What `memguard run` is told.
    #[must_use]
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Off => &[],
            Self::Observe => &["--mode", "observe"],
            Self::Enforce => &["--mode", "enforce"],
            Self::Relieve => &["--mode", "enforce", "--action", "oom-then-kill"],
        }
    }
}

impl std::fmt::Display for MemguardMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Enforce => "enforce",
            Self::Relieve => "relieve",
        })
    }
}

/// What the guest is asked to do: `/job.json` of its initramfs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// Run a scenario.
    Scenario {
        scenario: Box<Scenario>,
        memguard: MemguardMode,
        /// Further arguments for `memguard run`.
        arguments: Vec<String>,
    },
    /// Play rounds of the whole chain, one after the other.
    Chain {
        scenario: Box<Scenario>,
        rounds: Vec<Round>,
        /// The private key of a GitHub App, as PEM.
        app_key: String,
    },
    /// Play cases with real containers, one after the other.
    Containers { plan: Box<Plan> },
    /// Run a command with memguard's binary as its first argument and pass its output on; for `doctor` and benchmarks.
    Command { argv: Vec<String> },
}

/// One line on the serial port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Counts up from 0, so that a lost line is noticed.
    pub seq: u64,
    /// `CLOCK_MONOTONIC` of the guest in seconds.
    pub t: f64,
    #[serde(flatten)]
    pub record: Record,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// PID 1 runs.
    Boot { kernel: String, cpus: u32 },
    /// What comes next, in words.
    Step { what: String },
    /// A workload was started.
    Started { workload: String, pid: u32, cgroup: String },
    /// The trouble begins.
    Trouble,
    /// A container is at its limit for the first time.
    AtLimit { container: String },
    /// Once a second.
    Sample(Box<Sample>),
    /// A workload ended: its exit code, or the signal that killed it.
    Exited { workload: String, code: Option<i32>, signal: Option<i32> },
    /// The last process of a container is gone.
    Dead { container: String },
    /// A line of memguard's log (JSON), or of a command's output.
    Log { line: String },
    /// What a workload wrote to standard error.
    Output { workload: String, line: String },
    /// A piece of memguard's recording, base64, with length and checksum of the whole.
    Recording { length: u64, crc32: u32, piece: String },
    /// What `memguard incidents --output json` says once memguard has ended.
    Incidents { list: String },
    /// A round of the chain begins.
    Round {
        round: Round,
        /// What it is played with. The guest does not know; who keeps its records adds it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        with: Option<PlayedWith>,
    },
    /// What the program says that plays GitHub and Kubernetes.
    Stubs { told: Told },
    /// A case with real containers begins.
    Case { case: Case },
    /// What the container runtime, or a program in a container, says: of which container, when or asked what, and that.
    Seen { of: String, what: String, told: serde_json::Value },
    /// An event of the container runtime, as `ctr events` writes it.
    Event { line: String },
    /// memguard's process, and the cgroup of its container.
    Facts(Box<Facts>),
    /// What is in the journal's store alone, once memguard has ended.
    Stored { list: String },
    /// What `memguard report latest --output json` says then, if there is one.
    Report { report: serde_json::Value },
    /// memguard or a command ended.
    Ended { code: Option<i32>, signal: Option<i32> },
    /// The guest is done. `error` says why it could not do what it was asked.
    End { error: Option<String> },
}

/// What a round of the chain was played with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlayedWith {
    /// `uname -r`
    pub kernel: String,
    /// The beginning of memguard's sha256.
    pub memguard: String,
}

/// A look at all containers and all progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// By `pod/container`.
    pub containers: BTreeMap<String, Figures>,
    /// Cumulative, by workload.
    pub progress: BTreeMap<String, u64>,
    /// User and system time of memguard's process, in seconds, and its resident memory in KiB.
    pub memguard_cpu_s: Option<f64>,
    pub memguard_resident_kib: Option<u64>,
}

/// The files of one container's cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    pub current: u64,
    /// memory.max of the container itself in bytes; `None` is `max`.
    #[serde(default)]
    pub limit: Option<u64>,
    pub max_events: u64,
    #[serde(default)]
    pub high_events: u64,
    pub oom: u64,
    pub oom_kill: u64,
    pub anon: u64,
    pub file: u64,
    pub shmem: u64,
    pub refaults: u64,
    pub steals: u64,
    pub major_faults: u64,
    /// PSI totals in microseconds.
    pub memory_some_us: u64,
    pub memory_full_us: u64,
    pub io_some_us: u64,
    pub populated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_survives_the_wire() {
        let sample = Sample {
            containers: BTreeMap::from([(
                "a/b".to_owned(),
                Figures { current: 1, populated: true, ..Figures::default() },
            )]),
            ..Sample::default()
        };
        for record in [
            Record::Sample(Box::new(sample)),
            Record::Exited { workload: "hog".to_owned(), code: None, signal: Some(9) },
            Record::End { error: None },
        ] {
            let line = Line { seq: 3, t: 1.5, record };
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'));
            let back: Line = serde_json::from_str(&text).unwrap();
            assert_eq!((back.seq, &back.record), (3, &line.record), "{text}");
        }
    }
}
