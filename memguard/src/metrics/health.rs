//! Whether memguard is alive, whether it does its work, and what it lacks. Pure.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{page::About, present::Present};
use crate::{journal::Disk, kernel::Level};

/// A break of the watch that is shorter is nothing: API servers are restarted.
const STALE: Duration = Duration::from_mins(1);

/// All that is judged.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) about: &'a About,
    /// What the detection loop answered, if it did.
    pub(super) present: Option<&'a Present>,
    /// Whether the thread that talks to Kubernetes and GitHub answered; `None` where there is none, or where the loop
    /// that knows it did not answer.
    pub(super) outside: Option<bool>,
    pub(super) configuration_good: bool,
    pub(super) now: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    /// It does its work, with less than it could have.
    Degraded,
    Failed,
}

/// The answer, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    pub(super) status: Status,
    /// What does not work.
    pub(super) failed: Vec<&'static str>,
    /// What memguard lacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) degraded: Vec<String>,
}

/// For `/healthz`: fails for what a restart heals, and nothing else.
pub(super) fn alive(facts: &Facts<'_>) -> Health {
    let mut failed = Vec::new();
    if facts.present.is_none() {
        failed.push("the detection loop does not answer");
    }
    if facts.outside == Some(false) {
        failed.push("the thread that talks to Kubernetes and GitHub does not answer");
    }
    let status = if failed.is_empty() { Status::Ok } else { Status::Failed };
    Health { status, failed, degraded: Vec::new() }
}

/// For `/readyz`: the tracer is attached, or files are looked at, and the loop is at work. Tells what it lacks besides.
pub(super) fn ready(facts: &Facts<'_>) -> Health {
    let alive = alive(facts);
    let Some(present) = facts.present else { return alive };
    let mut degraded = Vec::new();
    let plan = &facts.about.plan;
    match (plan.level, &plan.no_tracer) {
        (Level::Files, Some(why)) => degraded.push(format!("no tracer, only cgroup files: {why}")),
        (Level::Files, None) => degraded.push("no tracer, only cgroup files".to_owned()),
        (Level::Degraded, _) => {
            let lost =
                plan.signals.iter().filter_map(|signal| Some(format!("{}: lost {}", signal.signal, signal.lost?)));
            degraded.extend(lost);
        }
        (Level::Full, _) => {}
    }
    if present.looks_at_files && plan.level != Level::Files {
        degraded.push("the tracer's ring broke: all cgroups are looked at every second instead".to_owned());
    }
    if !facts.about.memory_locked {
        degraded.push("its memory is not locked: on a node that thrashes it may wait for pages of its own".to_owned());
    }
    if !facts.configuration_good {
        degraded.push("the configuration file has mistakes: the one of before is in force".to_owned());
    }
    match present.journal {
        Disk::NotWanted | Disk::Works => {}
        Disk::Late => degraded.push("the journal's disk does not answer: incidents are in the run folder".to_owned()),
        Disk::Fails => degraded.push("the journal can't be written: incidents are in the run folder".to_owned()),
    }
    if let Some(since) = present.outside.as_ref().and_then(|outside| outside.stale_since) {
        let stale = facts.now.duration_since(since).unwrap_or_default();
        if stale >= STALE {
            degraded.push(format!("the watch of this node's pods has not worked for {} s", stale.as_secs()));
        }
    }
    let status = match alive.status {
        Status::Ok if !degraded.is_empty() => Status::Degraded,
        status => status,
    };
    Health { status, degraded, ..alive }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::fixture::{about, degraded_plan, files_plan, whole};

    fn facts<'a>(about: &'a About, present: &'a Present) -> Facts<'a> {
        Facts { about, present: Some(present), outside: Some(true), configuration_good: true, now: SystemTime::now() }
    }

    #[tokio::test]
    async fn all_is_well_and_says_so() {
        let (about, present) = (about(), whole());
        let well = Health { status: Status::Ok, failed: Vec::new(), degraded: Vec::new() };
        assert_eq!(ready(&facts(&about, &present)), well);
        assert_eq!(serde_json::to_string(&alive(&facts(&about, &present))).unwrap(), r#"{"status":"ok","failed":[]}"#);
    }

    #[tokio::test]
    async fn a_loop_or_a_thread_that_hangs_is_neither_alive_nor_ready() {
        let (about, present) = (about(), whole());
        for (facts, what) in [
            (Facts { present: None, outside: None, ..facts(&about, &present) }, "loop"),
            (Facts { outside: Some(false), ..facts(&about, &present) }, "thread"),
        ] {
            for health in [alive(&facts), ready(&facts)] {
                assert_eq!(health.status, Status::Failed);
                assert!(health.failed.len() == 1 && health.failed[0].contains(what), "{health:?}");
            }
        }
    }

    fn stale(present: &mut Present, age: Duration) {
        if let Some(outside) = &mut present.outside {
            outside.stale_since = Some(SystemTime::now() - age);
        }
    }

    #[tokio::test]
    async fn each_thing_that_is_lacking_is_told_and_keeps_it_ready_and_alive() {
        type Change = fn(&mut About, &mut Present);
        let cases: [(Change, &str); 7] = [
            (|about, _| about.plan = files_plan(), "--no-tracer"),
            (|about, _| about.plan = degraded_plan(), "file faults: lost which"),
            (|_, present| present.looks_at_files = true, "ring"),
            (|about, _| about.memory_locked = false, "locked"),
            (|_, present| present.journal = Disk::Late, "does not answer"),
            (|_, present| present.journal = Disk::Fails, "be written"),
            (|_, present| stale(present, STALE), " 60 s"),
        ];
        for (change, what) in cases {
            let (mut about, mut present) = (about(), whole());
            change(&mut about, &mut present);
            let facts = facts(&about, &present);
            assert_eq!(alive(&facts).status, Status::Ok);
            let health = ready(&facts);
            assert_eq!(health.status, Status::Degraded, "{what}");
            assert!(health.degraded.len() == 1 && health.degraded[0].contains(what), "{what}: {health:?}");
        }
        let (about, present) = (about(), whole());
        let health = ready(&Facts { configuration_good: false, ..facts(&about, &present) });
        assert!(health.degraded[0].contains("configuration"), "{health:?}");
    }

    #[tokio::test]
    async fn a_short_break_of_the_watch_is_nothing_and_neither_is_no_kubernetes() {
        let (about, mut present) = (about(), whole());
        stale(&mut present, STALE / 2);
        assert_eq!(ready(&facts(&about, &present)).status, Status::Ok);
        present.outside = None;
        assert_eq!(ready(&Facts { outside: None, ..facts(&about, &present) }).status, Status::Ok);
    }
}
