//! What has to be done elsewhere about an incident, and what of it can be done now. Pure.

use super::{
    follow_up::{FollowUp, Kind, Progress},
    workload::Workload,
};
use crate::{
    journal::{Found, Incident, Stage},
    respond::{Ended, Mode},
};

/// What memguard can and may do elsewhere.
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own in the configuration")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub events: bool,
    pub delete_runner: bool,
    /// GitHub, with credentials.
    pub github: bool,
    pub cancel: bool,
    pub check_run: bool,
}

/// What the rule that led to the incident wants of GitHub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wishes {
    /// Cancel the run also where the kernel's OOM killer ended a process and the runner lives.
    #[serde(default)]
    pub cancel_after_oom: bool,
    /// Force a cancellation that has not come through.
    #[serde(default)]
    pub force_cancel: bool,
    /// So many seconds a cancelled run is watched, before it is forced or let be.
    #[serde(default = "a_minute")]
    pub watch_s: u64,
}

const fn a_minute() -> u64 {
    60
}

impl Default for Wishes {
    fn default() -> Self {
        Self { cancel_after_oom: false, force_cancel: false, watch_s: a_minute() }
    }
}

/// What there will be to do once the container was ended. Kept with the incident before that is begun.
#[must_use]
pub fn follow_ups(mode: Mode, workload: Option<&Workload>, reach: Reach) -> Vec<FollowUp> {
    let Some(workload) = workload else { return Vec::new() };
    let runner = workload.runner.is_some() && mode == Mode::Enforce;
    let wanted = |kind: Kind| match kind {
        Kind::PodEvent => reach.events,
        Kind::RunnerEvent => runner && reach.events,
        Kind::DeleteRunner => runner && reach.delete_runner,
        Kind::Cancel => runner && reach.github && reach.cancel,
        Kind::CheckRun => runner && reach.github && reach.check_run,
        Kind::Identify => runner,
    };
    Kind::ALL.into_iter().filter(|kind| wanted(*kind)).map(FollowUp::new).collect()
}

/// Takes out what need not be done, now that it is known how it ended. Whether anything is left to do.
pub fn adapt(incident: &mut Incident) -> bool {
    const NOT_ENDED: &str = "the container was not ended";
    let wishes = incident.wishes;
    let runner_died = incident.workload.as_ref().is_some_and(|workload| workload.is_runner);
    for follow_up in &mut incident.follow_ups {
        match (&incident.stage, follow_up.kind) {
            (Stage::Failed { .. } | Stage::Suppressed { .. }, _) => follow_up.not_needed(NOT_ENDED),
            (Stage::Interrupted { found: Found::Alive }, _) => {
                follow_up.not_needed("memguard ended before it was ended");
            }
            (Stage::Done { ended: Ended::NobodyDied { .. } }, _) => follow_up.not_needed("nobody died"),
            (Stage::Done { ended: Ended::OomKilled { alive: true, .. } }, Kind::DeleteRunner) => {
                follow_up.not_needed("the runner lives");
            }
            (Stage::Done { ended: Ended::OomKilled { alive: true, .. } }, Kind::Cancel) if !wishes.cancel_after_oom => {
                follow_up.not_needed("the runner lives, and reports the failed step itself");
            }
            (Stage::Done { .. } | Stage::Interrupted { .. }, Kind::DeleteRunner) if !runner_died => {
                follow_up.not_needed("it was not the runner's own container, so the runner ends with its job");
            }
            (Stage::Planned | Stage::Out { .. } | Stage::Done { .. } | Stage::Interrupted { .. }, _) => {}
        }
    }
    settle_dependents(incident);
    incident.follow_ups.iter().any(FollowUp::is_open)
}

/// What can't be done, or need not, because of how something before it ended.
pub(super) fn settle_dependents(incident: &mut Incident) {
    let known = incident.workload.as_ref().and_then(|workload| workload.facts.as_ref());
    let has_job = known.is_some_and(|facts| facts.job.is_some());
    let identify = incident.follow_ups.iter().find(|follow_up| follow_up.kind == Kind::Identify);
    let unknown = match identify.map(|identify| &identify.progress) {
        Some(Progress::GaveUp { why, .. } | Progress::NotNeeded { why }) if known.is_none() => Some(why.clone()),
        _ => None,
    };
    let identified = known.is_some();
    for follow_up in &mut incident.follow_ups {
        match follow_up.kind {
            Kind::Identify | Kind::PodEvent => {}
            _ if unknown.is_some() => follow_up.not_needed("the runner is not known"),
            Kind::Cancel | Kind::CheckRun if identified && !has_job => follow_up.not_needed("the runner had no job"),
            _ => {}
        }
    }
}

/// What can be tried now, at `now` ms since 1970.
#[must_use]
pub(super) fn due(incident: &Incident, now: u64) -> Vec<Kind> {
    ready(incident).filter(|(_, not_before)| *not_before <= now).map(|(kind, _)| kind).collect()
}

/// When something can be tried next.
#[must_use]
pub(super) fn next_due(incident: &Incident) -> Option<u64> {
    ready(incident).map(|(_, not_before)| not_before).min()
}

fn ready(incident: &Incident) -> impl Iterator<Item = (Kind, u64)> {
    let of = |kind: Kind| incident.follow_ups.iter().find(move |follow_up| follow_up.kind == kind);
    let settled = move |kind: Kind| of(kind).is_none_or(|follow_up| !follow_up.is_open());
    // GitHub took it: what is left is to watch it.
    let asked = move |kind: Kind| of(kind).and_then(FollowUp::open).is_some_and(|open| open.asked.is_some());
    let may_begin = move |kind: Kind| match kind {
        Kind::Identify | Kind::PodEvent => true,
        Kind::Cancel | Kind::RunnerEvent => settled(Kind::Identify),
        // ARC keeps a runner's object until GitHub has let go of it.
        Kind::DeleteRunner | Kind::CheckRun => {
            settled(Kind::Identify) && (settled(Kind::Cancel) || asked(Kind::Cancel))
        }
    };
    incident
        .follow_ups
        .iter()
        .filter_map(|follow_up| Some((follow_up.kind, follow_up.open()?.not_before)))
        .filter(move |(kind, _)| may_begin(*kind))
}
