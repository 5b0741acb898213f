//! What a run saw and did, in a few plain lines.

use std::fmt;

use serde::Serialize;

use super::events::Action;
use crate::respond::{Ended, Mode};

/// Incidents listed one by one; of the rest only the number is told.
const MOST_LISTED: usize = 20;

/// Collected over a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    pub mode: Mode,
    /// Seconds.
    pub watched_for_s: f64,
    /// Cgroups that were seen under reclaim.
    pub under_reclaim: u64,
    /// Of those, how many were ever suspect.
    pub suspected: u64,
    pub verdicts: u64,
    pub killed: u64,
    /// Hangs that the kernel's OOM killer ended, asked by a lowered limit.
    pub relieved: u64,
    pub suppressed: u64,
    pub failed: u64,
    pub incidents: Vec<Incident>,
}

/// One verdict and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Incident {
    #[expect(clippy::struct_field_names, reason = "as events and audit lines call its id")]
    pub incident: String,
    pub cgroup: String,
    /// Seconds since memguard began to watch.
    pub at_s: f64,
    pub evidence: String,
    pub done: String,
}

impl Summary {
    pub(crate) fn verdict(&mut self, incident: &str, cgroup: &str, at_s: f64, evidence: String) {
        self.verdicts += 1;
        if self.incidents.len() < MOST_LISTED {
            self.incidents.push(Incident {
                incident: incident.to_owned(),
                cgroup: cgroup.to_owned(),
                at_s,
                evidence,
                done: "nothing yet".to_owned(),
            });
        }
    }

    fn done(&mut self, incident: &str, done: String) {
        if let Some(entry) = self.incidents.iter_mut().find(|entry| entry.incident == incident) {
            entry.done = done;
        }
    }

    pub(crate) fn action(&mut self, action: &Action) {
        let done = match (&action.error, action.ended) {
            (Some(error), _) => {
                self.failed += 1;
                format!("could not be ended: {error}")
            }
            (None, Some(Ended::Dead { empty_after_ms, .. })) => {
                self.killed += 1;
                format!(
                    "killed {:.1} ms after the verdict, empty {empty_after_ms} ms later",
                    action.verdict_to_action_ms
                )
            }
            (None, Some(Ended::Lingering { waited_ms, .. })) => {
                self.killed += 1;
                format!("killed, a process was still there after {waited_ms} ms")
            }
            (None, Some(Ended::OomKilled { processes, after_ms, alive })) => {
                self.relieved += 1;
                let rest = if alive { "the others live" } else { "none is left" };
                format!(
                    "the kernel's OOM killer ended {processes} processes {after_ms} ms after its limit was lowered, {rest}"
                )
            }
            (None, Some(Ended::NobodyDied { waited_ms })) => {
                self.failed += 1;
                format!("its limit was lowered for {waited_ms} ms, and nobody died of it")
            }
            (None, Some(Ended::DryRun) | None) => "nothing: mode observe".to_owned(),
        };
        self.done(&action.incident, done);
    }

    pub(crate) fn suppressed(&mut self, incident: &str, reason: &str) {
        self.suppressed += 1;
        self.done(incident, format!("nothing: {reason}"));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "summary: {:.0} s in {} mode, {} under reclaim, {} suspect, {}, {} killed, {} relieved",
            self.watched_for_s,
            self.mode,
            counted(self.under_reclaim, "cgroup"),
            self.suspected,
            counted(self.verdicts, "livelock"),
            self.killed,
            self.relieved
        )?;
        for incident in &self.incidents {
            write!(
                f,
                "\n  after {:.0} s: livelock in {} ({})\n    seen: {}\n    done: {}",
                incident.at_s, incident.cgroup, incident.incident, incident.evidence, incident.done
            )?;
        }
        let unlisted = self.verdicts.saturating_sub(self.incidents.len() as u64);
        if unlisted > 0 {
            write!(f, "\n  and {unlisted} more")?;
        }
        Ok(())
    }
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
