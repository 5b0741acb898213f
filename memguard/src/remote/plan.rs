//! What has to be done elsewhere about an incident, and what of it can be done now. Pure.

use std::time::Duration;

use super::{
    follow_up::{FollowUp, Kind, LONGEST_WISH, Progress, milliseconds},
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
    /// Cancel the run also where the runner lives: the kernel's OOM killer ended a process, or what was killed was another
    /// container or a part of one.
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
    let lives = runner_lives(incident);
    let runner_died = incident.workload.as_ref().is_some_and(|workload| workload.is_runner);
    for follow_up in &mut incident.follow_ups {
        match (&incident.stage, follow_up.kind) {
            (Stage::Failed { .. } | Stage::Suppressed { .. }, _) => follow_up.not_needed(NOT_ENDED),
            (Stage::Interrupted { found: Found::Alive }, _) => {
                follow_up.not_needed("memguard ended before it was ended");
            }
            (Stage::Done { ended: Ended::NobodyDied { .. } }, _) => follow_up.not_needed("nobody died"),
            (Stage::Done { .. } | Stage::Interrupted { .. }, kind) => match (kind, lives) {
                (Kind::DeleteRunner, Some(why)) => follow_up.not_needed(&format!("{why}, and the runner lives")),
                (Kind::DeleteRunner, None) if !runner_died => {
                    follow_up.not_needed("it is not known to be the runner's own container");
                }
                (Kind::Cancel, Some(why)) if !wishes.cancel_after_oom => {
                    follow_up.not_needed(&format!("{why}: the runner lives, and reports the failed step itself"));
                }
                _ => {}
            },
            (Stage::Planned | Stage::Out { .. }, _) => {}
        }
    }
    settle_dependents(incident);
    incident.follow_ups.iter().any(FollowUp::is_open)
}

/// Why the runner lives, for all that was ended. It then sees itself what became of its step, and its job can go on to say so,
/// or even to do well: the run is not ended over its head, with all the other jobs in it.
fn runner_lives(incident: &Incident) -> Option<&'static str> {
    let workload = incident.workload.as_ref()?;
    if matches!(incident.ended(), Some(Ended::OomKilled { alive: true, .. })) {
        Some("others in the container live")
    } else if workload.nested {
        Some("only a part of the container was ended")
    } else if workload.container.is_some() && !workload.is_runner {
        Some("it was not the runner's own container")
    } else {
        None
    }
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
    ready(incident, now).filter(|(_, not_before)| *not_before <= now).map(|(kind, _)| kind).collect()
}

/// When something can be tried next.
#[must_use]
pub(super) fn next_due(incident: &Incident, now: u64) -> Option<u64> {
    ready(incident, now).map(|(_, not_before)| not_before).min()
}

/// When GitHub has let go of a run, or at least was asked to: ARC keeps a runner's object until then, and what people are
/// told says whether the run was cancelled. So these wait for the cancellation, but not for ever: credentials that are no
/// good any more must not keep a dead runner's object for a day.
const DELETE_AT_LAST: Duration = Duration::from_mins(15);
const TELL_AT_LAST: Duration = Duration::from_secs(30);

fn ready(incident: &Incident, now: u64) -> impl Iterator<Item = (Kind, u64)> {
    let of = |kind: Kind| incident.follow_ups.iter().find(move |follow_up| follow_up.kind == kind);
    let settled = move |kind: Kind| of(kind).is_none_or(|follow_up| !follow_up.is_open());
    // GitHub took it, or would not: what is left is to watch the run.
    let cancel = of(Kind::Cancel).and_then(FollowUp::open);
    let asked = settled(Kind::Cancel) || cancel.is_some_and(|open| open.asked.is_some() || open.refused.is_some());
    let known = incident.workload.as_ref().is_some_and(Workload::job_is_known) || settled(Kind::Identify);
    let decided_at = incident.decided_at.saturating_mul(1000);
    // Before the verdict it can only be because somebody set the clock back.
    let after = move |patience: Duration| if decided_at > now { 0 } else { decided_at + milliseconds(patience) };
    let begins = move |kind: Kind| match kind {
        Kind::Identify | Kind::PodEvent => Some(0),
        Kind::Cancel => known.then_some(0),
        Kind::CheckRun => (known && asked).then_some(0),
        Kind::RunnerEvent => known.then(|| if asked { 0 } else { after(TELL_AT_LAST) }),
        Kind::DeleteRunner => known.then(|| if asked { 0 } else { after(DELETE_AT_LAST) }),
    };
    incident.follow_ups.iter().filter_map(move |follow_up| {
        let not_before = follow_up.open()?.not_before;
        // Nothing is put off for longer: the clock was set back since.
        let not_before = if not_before > now.saturating_add(milliseconds(LONGEST_WISH)) { 0 } else { not_before };
        Some((follow_up.kind, begins(follow_up.kind)?.max(not_before)))
    })
}

/// When GitHub took the cancellation of the incident's run, if it did.
pub(super) fn cancelled(incident: &Incident) -> Option<u64> {
    incident.follow_ups.iter().find(|follow_up| follow_up.kind == Kind::Cancel)?.taken()
}
