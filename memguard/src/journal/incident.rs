//! One verdict, and what came of it.

use serde::{Deserialize, Serialize};

use crate::{
    remote::{FollowUp, Wishes, Workload},
    respond::{Ended, Method, Mode},
};

/// All that is kept of one verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub id: String,
    /// Counts how often it was kept: of two states the higher one is the later. 0 in what an older memguard wrote.
    #[serde(default)]
    pub revision: u64,
    /// When it was decided, seconds since 1970.
    pub decided_at: u64,
    /// Of the machine's start in which it was decided: ids of cgroups begin anew with each.
    pub boot_id: String,
    pub mode: Mode,
    /// The cgroup whose limit was hit: its id, and its path below the root, escaped.
    pub unit: u64,
    pub cgroup: String,
    /// The cgroup to end on its behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victim: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// The rule of the policy that led to it; empty in what an older memguard wrote.
    #[serde(default)]
    pub rule: String,
    /// The evidence in one sentence.
    pub evidence: String,
    /// Whose container it was, where the Kubernetes API said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    pub stage: Stage,
    /// What remains to be done elsewhere once it was ended, each with how far it has come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub follow_ups: Vec<FollowUp>,
    #[serde(default)]
    pub wishes: Wishes,
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// It is ended at any moment. Kept before it is done, so that the next start knows of it.
    Planned,
    /// The kill is out, and there is no way back; what came of it was not seen yet. Kept at once when it is, so that the
    /// next start knows who only takes long to die.
    Out {
        /// ms since 1970.
        at: u64,
        /// What is certain already.
        so_far: Ended,
    },
    /// It was done, or in observe mode would have been.
    Done { ended: Ended },
    /// It could not be done.
    Failed { error: String },
    /// It was not to be done.
    Suppressed { why: String },
    /// memguard itself ended between plan and outcome; this is what its next start found.
    Interrupted { found: Found },
}

/// What a later memguard found in place of the cgroup that was to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// No process is left in it, or it is gone: the kill came through, or it was not needed any more.
    Gone,
    /// Somebody in it lives, and has no SIGKILL. Nothing is done on the word of the past: the detector judges it anew.
    Alive,
}

impl Incident {
    /// Whether it has to be counted against the budget of kills.
    #[must_use]
    pub const fn spent(&self) -> bool {
        matches!(self.mode, Mode::Enforce)
            && matches!(
                self.stage,
                Stage::Planned
                    | Stage::Out { .. }
                    | Stage::Done { .. }
                    | Stage::Failed { .. }
                    | Stage::Interrupted { found: Found::Gone }
            )
    }

    /// How it ended, if it did.
    #[must_use]
    pub const fn ended(&self) -> Option<Ended> {
        match self.stage {
            Stage::Done { ended } => Some(ended),
            _ => None,
        }
    }

    /// Whether it is not known yet what came of it.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        matches!(self.stage, Stage::Planned | Stage::Out { .. })
    }

    /// Whether something remains to be done.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_pending() || self.follow_ups.iter().any(FollowUp::is_open)
    }

    /// What came of it, for people.
    #[must_use]
    pub fn outcome(&self) -> String {
        match &self.stage {
            Stage::Planned => "to be ended at any moment".to_owned(),
            Stage::Out { so_far: Ended::OomKilled { .. }, .. } => {
                "the OOM killer was made to act, and how many are left is not known yet".to_owned()
            }
            Stage::Out { .. } => "killed, and not seen empty yet".to_owned(),
            Stage::Done { ended } => match ended {
                Ended::Dead { empty_after_ms, .. } => {
                    format!("killed{}, empty after {empty_after_ms} ms", ended.late())
                }
                Ended::Lingering { waited_ms, .. } => {
                    format!("killed{}, a process was still there after {waited_ms} ms", ended.late())
                }
                Ended::OomKilled { processes, alive, .. } => format!(
                    "the OOM killer ended {processes} of its processes, {}",
                    if *alive { "the others live" } else { "none is left" }
                ),
                Ended::NobodyDied { .. } => "its limit was lowered, and nobody died".to_owned(),
                Ended::DryRun => "would have been ended (mode observe)".to_owned(),
            },
            Stage::Failed { error } => format!("could not be ended: {error}"),
            Stage::Suppressed { why } => format!("not ended: {why}"),
            Stage::Interrupted { found: Found::Gone } => {
                "memguard ended in the middle; its next start found no process left".to_owned()
            }
            Stage::Interrupted { found: Found::Alive } => {
                "memguard ended in the middle; its next start found it alive, and judges it anew".to_owned()
            }
        }
    }
}

/// That of this start of the machine (`/proc/sys/kernel/random/boot_id`); empty if it can't be read.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
pub(crate) fn example(id: &str, decided_at: u64) -> Incident {
    Incident {
        id: id.to_owned(),
        revision: 0,
        decided_at,
        boot_id: boot_id(),
        mode: Mode::Enforce,
        unit: 7,
        cgroup: "a.scope".to_owned(),
        victim: Some(8),
        method: Some(Method::Kill),
        rule: "default".to_owned(),
        evidence: "memory at 100 %".to_owned(),
        workload: None,
        stage: Stage::Planned,
        follow_ups: Vec::new(),
        wishes: Wishes::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_read_back_and_can_be_told() {
        let ended = [
            Ended::Dead { write_us: 1, empty_after_ms: 2 },
            Ended::Lingering { write_us: 1, waited_ms: 2 },
            Ended::OomKilled { processes: 1, after_ms: 2, alive: true },
            Ended::NobodyDied { waited_ms: 1 },
            Ended::DryRun,
        ];
        let stages = ended.into_iter().map(|ended| Stage::Done { ended }).chain([
            Stage::Planned,
            Stage::Out { at: 1, so_far: Ended::Lingering { write_us: 1, waited_ms: 0 } },
            Stage::Failed { error: "x".to_owned() },
            Stage::Suppressed { why: "x".to_owned() },
            Stage::Interrupted { found: Found::Gone },
            Stage::Interrupted { found: Found::Alive },
        ]);
        for stage in stages {
            let incident = Incident { stage, ..example("mg-1-2", 3) };
            let text = serde_json::to_string(&incident).unwrap();
            assert_eq!(serde_json::from_str::<Incident>(&text).unwrap(), incident, "{text}");
            assert!(!incident.outcome().is_empty());
        }
    }

    #[test]
    fn what_an_older_memguard_wrote_is_read() {
        let mut old = serde_json::to_value(example("mg-1-2", 3)).unwrap();
        for field in ["rule", "revision"] {
            old.as_object_mut().unwrap().remove(field);
        }
        let read = serde_json::from_value::<Incident>(old).unwrap();
        assert_eq!((read.rule.as_str(), read.revision), ("", 0));
    }

    #[test]
    fn what_was_not_done_costs_nothing_of_the_budget() {
        let with = |stage| Incident { stage, ..example("a", 1) }.spent();
        let so_far = Ended::Lingering { write_us: 1, waited_ms: 0 };
        assert!(with(Stage::Out { at: 1, so_far }));
        assert!(with(Stage::Planned) && with(Stage::Failed { error: String::new() }));
        assert!(with(Stage::Interrupted { found: Found::Gone }));
        assert!(!with(Stage::Interrupted { found: Found::Alive }));
        assert!(!with(Stage::Suppressed { why: String::new() }));
        assert!(!Incident { mode: Mode::Observe, ..example("a", 1) }.spent());
    }
}
