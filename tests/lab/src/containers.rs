//! A node with real containers in the lab: which cases there are, and what the two sides call things.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::scenario::Program;

/// What memguard's own container may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The chart's default.
    Privileged,
    /// `securityContext.mode=capabilities`.
    Capabilities,
    /// The same, with the runtime's default seccomp profile in place of none.
    DefaultSeccomp,
    /// As the first, without `hostPID`.
    OwnPids,
}

/// How the hang comes to its end, and what there is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// By cgroup.kill.
    Kill,
    /// The same, with the job's processes in cgroups of their own below the container's, as a docker daemon in it makes.
    KillNested,
    /// By the kernel's OOM killer, which takes the whole container (memory.oom.group, what a kubelet sets since 1.28).
    OomGroup,
    /// By the kernel's OOM killer, which takes one process.
    OomSingle,
}

impl Ending {
    /// `action` in memguard's configuration.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Kill | Self::KillNested => "kill",
            Self::OomGroup | Self::OomSingle => "oom",
        }
    }
}

/// One hang in a container, with memguard in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    pub variant: Variant,
    pub ending: Ending,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let variant = match self.variant {
            Variant::Privileged => "privileged",
            Variant::Capabilities => "capabilities",
            Variant::DefaultSeccomp => "capabilities, RuntimeDefault",
            Variant::OwnPids => "privileged, no hostPID",
        };
        let ending = match self.ending {
            Ending::Kill => "kill",
            Ending::KillNested => "kill, nested",
            Ending::OomGroup => "oom, as a group",
            Ending::OomSingle => "oom, one process",
        };
        f.pad(&format!("{variant}: {ending}"))
    }
}

/// Every ending in both variants of the chart, and whether these need what they ask for: no seccomp, the node's PIDs.
#[must_use]
pub fn all() -> Vec<Case> {
    let endings = [Ending::Kill, Ending::KillNested, Ending::OomGroup, Ending::OomSingle];
    let mut cases: Vec<Case> = [Variant::Privileged, Variant::Capabilities]
        .into_iter()
        .flat_map(|variant| endings.map(|ending| Case { variant, ending }))
        .collect();
    cases.extend([Variant::DefaultSeccomp, Variant::OwnPids].map(|variant| Case { variant, ending: Ending::Kill }));
    cases
}

/// Those that tell most in little time.
#[must_use]
pub fn few() -> Vec<Case> {
    vec![
        Case { variant: Variant::Privileged, ending: Ending::Kill },
        Case { variant: Variant::Capabilities, ending: Ending::OomGroup },
    ]
}

/// What the guest needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub cases: Vec<Case>,
    /// `spec.template` of memguard's `DaemonSet`, by variant, as the chart renders it.
    pub templates: Vec<(Variant, Value)>,
    /// The image of the job and of the sandboxes; memguard's is named in its template.
    pub image: String,
    /// The files of the images, below the node's root.
    pub archives: Vec<String>,
}

/// The node's name.
pub const NODE: &str = "lab";
/// memguard's pod and its container.
pub const MEMGUARD: &str = "memguard";
/// Containers by `pod/container`: the one that hangs, and those that have to live.
pub const VICTIM: &str = "runner/runner";
pub const SIDECAR: &str = "runner/sidecar";
pub const NEIGHBOUR: &str = "neighbour/app";
/// memory.max of the one that hangs.
pub const LIMIT_MIB: u32 = 256;
/// Whose words they are if a case could not be played to its end ([`crate::Record::Output`]).
pub const CASE: &str = "case";

/// What the first process of a job's container does: `lab-guest container JSON`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Processes {
    pub processes: Vec<Process>,
    /// They get cgroups of their own below the container's, with this folder between.
    #[serde(default)]
    pub nested: Option<String>,
}

/// One of its children.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub run: Program,
    /// It starts when the trouble is to begin.
    #[serde(default)]
    pub in_trouble: bool,
}

/// The folder that the node and the job's containers share, and the file in it that is there once the trouble is to begin.
pub const SHARED: &str = "/run/progress";
pub const TROUBLE: &str = "/run/progress/trouble";

/// The kernel's view of memguard's process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Fields of /proc/PID/status: `VmRSS`, `CapEff`, `NoNewPrivs`, `Seccomp`, `NSpid`.
    pub status: BTreeMap<String, String>,
    /// The soft and the hard limit of locked memory, as /proc/PID/limits has them.
    pub memlock: String,
    pub oom_score_adj: String,
    /// Of its cgroup, in bytes.
    pub memory_peak: u64,
    pub memory_max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_can_be_told_from_the_others() {
        let names: std::collections::BTreeSet<String> = all().iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), all().len());
        assert!(few().iter().all(|case| all().contains(case)));
    }
}
