//! One attempt at one follow-up. Each can be made again after a crash in the middle of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    Failure,
    follow_up::{Attempt, Kind, Open, Refused, milliseconds},
    outside::{Cancelled, Check, Outside, Run, RunJob, RunRef},
    plan::{Wishes, cancelled},
    words,
    workload::Workload,
};
use crate::{
    crash,
    journal::Incident,
    kubernetes::{Deleted, JobFacts, Notice, NoticeAction, Regarding, RunnerFacts},
    respond::{Ended, Mode},
};

/// Between two looks at a run that is being cancelled.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// GitHub may list a job some time after a runner has it.
const UNTIL_LISTED: Duration = Duration::from_mins(2);
/// ARC from this version on deletes the runner of a failed job itself; it is given so long for it.
const ARC_DELETES: (u32, u32) = (0, 13);
const ARC_PATIENCE: Duration = Duration::from_secs(30);

/// What came of an attempt, and what was learnt on the way.
#[derive(Debug)]
pub(super) struct Took {
    pub(super) attempt: Attempt,
    pub(super) facts: Option<RunnerFacts>,
}

impl From<Attempt> for Took {
    fn from(attempt: Attempt) -> Self {
        Self { attempt, facts: None }
    }
}

/// Names of the points at which the lab ends memguard: see [`crash::POINTS`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Points {
    before: &'static str,
    answered: &'static str,
    pub(super) kept: &'static str,
}

impl Points {
    /// `open` is as it was before the attempt.
    pub(super) const fn of(kind: Kind, open: &Open) -> Self {
        let (before, answered, kept) = match kind {
            Kind::Identify => ("identify-before", "identify-answered", "identify-kept"),
            Kind::Cancel if open.asked.is_none() => ("cancel-before", "cancel-answered", "cancel-kept"),
            Kind::Cancel => ("cancel-watch-before", "cancel-watch-answered", "cancel-watch-kept"),
            Kind::DeleteRunner => ("delete-runner-before", "delete-runner-answered", "delete-runner-kept"),
            Kind::PodEvent => ("pod-event-before", "pod-event-answered", "pod-event-kept"),
            Kind::RunnerEvent => ("runner-event-before", "runner-event-answered", "runner-event-kept"),
            Kind::CheckRun => ("check-run-before", "check-run-answered", "check-run-kept"),
        };
        Self { before, answered, kept }
    }
}

/// Tries one. `now` is ms since 1970.
pub(super) async fn attempt<O: Outside>(outside: &O, incident: &Incident, kind: Kind, now: u64) -> Took {
    let Some(workload) = &incident.workload else {
        return Attempt::NotNeeded("it is no pod's".to_owned()).into();
    };
    let open = incident.follow_ups.iter().find(|follow_up| follow_up.kind == kind).and_then(|this| this.open());
    let open = open.cloned().unwrap_or_default();
    let points = Points::of(kind, &open);
    if kind != Kind::Cancel || open.asked.is_some() {
        crash::point(points.before);
    }
    let step = Step { outside, incident, workload, open, now };
    let took = match kind {
        Kind::Identify => {
            let took = step.identify().await;
            crash::point(points.answered);
            return took;
        }
        Kind::Cancel => step.cancel().await,
        Kind::DeleteRunner => step.delete_runner().await,
        Kind::PodEvent => step.notify(workload.regarding_pod()).await,
        Kind::RunnerEvent => match step.facts() {
            Ok(facts) => step.notify(facts.into()).await,
            Err(why) => Ok(Attempt::NotNeeded(why.to_owned())),
        },
        Kind::CheckRun => step.check().await,
    };
    crash::point(points.answered);
    took.unwrap_or_else(Attempt::Failed).into()
}

/// One follow-up that is tried.
struct Step<'a, O> {
    outside: &'a O,
    incident: &'a Incident,
    workload: &'a Workload,
    /// What is known of it from earlier attempts.
    open: Open,
    now: u64,
}

impl<O: Outside> Step<'_, O> {
    /// What is known of the runner, or why there is nothing to do.
    fn facts(&self) -> Result<&RunnerFacts, &'static str> {
        self.workload.facts.as_ref().ok_or("the runner is not known")
    }

    fn job(&self) -> Result<(RunRef, &JobFacts), &'static str> {
        let facts = self.facts()?;
        let job = facts.job.as_ref().ok_or("the runner had no job")?;
        let run = RunRef {
            config_url: facts.config_url.clone(),
            repository: job.repository.clone(),
            run_id: job.run_id,
            arc_secret: facts.arc_secret(),
            proxied: facts.proxied,
            older_arc: facts.api.says_what_jobs_wrote(),
        };
        Ok((run, job))
    }

    async fn identify(&self) -> Took {
        let Some(runner) = &self.workload.runner else {
            return Attempt::NotNeeded("it is no runner's pod".to_owned()).into();
        };
        match self.outside.runner(runner).await {
            Ok(facts) => {
                let what = match &facts.job {
                    Some(job) => format!("run {} of {}", job.run_id, job.repository),
                    None => "the runner had no job".to_owned(),
                };
                Took { attempt: Attempt::Done(what), facts: Some(facts) }
            }
            Err(failure) => Attempt::Failed(failure).into(),
        }
    }

    /// Looks, cancels, looks again for a minute or as configured, and forces it if that is wanted.
    ///
    /// Before each request that changes something GitHub has to say that a job of this run is on this runner: what stands in
    /// the runner's object may be older than the run, or, in the older ARC, a job's own words. A run that was started again
    /// has the same id, so the attempt that was seen first is kept, and a later one is left alone.
    async fn cancel(self) -> Result<Attempt, Failure> {
        let (run, job) = match self.job() {
            Ok(job) => job,
            Err(why) => return Ok(Attempt::NotNeeded(why.to_owned())),
        };
        let Self { outside, now, .. } = self;
        let state = outside.run(&run).await?;
        let open = self.open.clone().until(now);
        let open = Open { attempt: open.attempt.or(Some(state.attempt)), ..open };
        if let Some(end) = ended(&state, &open, now) {
            return Ok(Attempt::Done(end));
        }
        let again = |open: Open| Ok(Attempt::Again { after: LOOK_AGAIN, open });
        let force = match next(&open, self.incident.wishes, now) {
            Next::Watch => return again(open),
            Next::Done(what) => return Ok(Attempt::Done(what)),
            Next::GiveUp(why) => return Err(Failure::Final { why: format!("run {}: {why}", run.run_id) }),
            Next::Ask { force } => force,
        };
        let jobs = outside.jobs_on(&run, &job.runner_name).await?;
        if jobs.is_empty() && force {
            return Ok(Attempt::Done(format!(
                "GitHub lists no job on runner {} any more, so the run was started again; it is left alone",
                job.runner_name
            )));
        } else if jobs.is_empty() {
            return not_listed(&run, job, &open, now);
        } else if force {
            // The list may have taken its time, and this one ends whatever runs by now.
            if let Some(end) = ended(&outside.run(&run).await?, &open, now) {
                return Ok(Attempt::Done(end));
            }
        } else if let Some(over) = all_over(&jobs) {
            return Ok(Attempt::Done(format!("the job was over ({over})")));
        }
        crash::point(if force { "force-cancel-before" } else { "cancel-before" });
        let answer = outside.cancel(&run, force).await?;
        if force {
            crash::point("force-cancel-answered");
        }
        match answer {
            Cancelled::Accepted if force => again(Open { forced: Some(now), refused: None, ..open }),
            Cancelled::Accepted => again(Open { asked: Some(now), refused: None, ..open }),
            // It ends, or it is being cancelled, by us before a crash or by somebody else, and the next look tells; or it
            // can't be cancelled yet.
            Cancelled::NotPossible { why } => {
                let before = open.refused.as_ref().filter(|refused| refused.forced == force);
                let since = before.map_or(now, |refused| refused.since);
                let after = if before.is_some() { 3 * LOOK_AGAIN } else { LOOK_AGAIN };
                let refused = Some(Refused { since, forced: force, why });
                Ok(Attempt::Again { after, open: Open { refused, ..open } })
            }
        }
    }

    async fn delete_runner(self) -> Result<Attempt, Failure> {
        let facts = match self.facts() {
            Ok(facts) => facts,
            Err(why) => return Ok(Attempt::NotNeeded(why.to_owned())),
        };
        let deletes_itself = facts.job.is_some() && facts.arc_version.as_deref().is_some_and(at_least_0_13);
        // Before the verdict it can only be because somebody set the clock back; then nothing is waited for.
        let age = self.now.checked_sub(self.incident.decided_at.saturating_mul(1000)).map(Duration::from_millis);
        if let Some(left) = age.and_then(|age| ARC_PATIENCE.checked_sub(age)).filter(|left| !left.is_zero())
            && deletes_itself
        {
            return Ok(Attempt::Again { after: left, open: self.open });
        }
        Ok(Attempt::Done(match self.outside.delete_runner(&facts.runner()).await? {
            Deleted::Accepted => "deleted".to_owned(),
            Deleted::AlreadyGone => "it was gone".to_owned(),
        }))
    }

    async fn notify(&self, regarding: Regarding) -> Result<Attempt, Failure> {
        let Self { incident, workload, .. } = self;
        let action = match (incident.mode, incident.ended()) {
            (Mode::Enforce, Some(Ended::OomKilled { .. })) => NoticeAction::Relieved,
            (Mode::Enforce, _) => NoticeAction::Killed,
            _ => NoticeAction::Observed,
        };
        let notice = Notice {
            regarding,
            action,
            note: words::note(incident, workload),
            incident: incident.id.clone(),
            node: workload.node.clone(),
            at: UNIX_EPOCH + Duration::from_secs(incident.decided_at.min(SECONDS_OF_A_CLOCK)),
        };
        self.outside.notify(notice).await?;
        Ok(Attempt::Done("told".to_owned()))
    }

    async fn check(&self) -> Result<Attempt, Failure> {
        let Self { outside, incident, workload, .. } = self;
        let (run, job) = match self.job() {
            Ok(job) => job,
            Err(why) => return Ok(Attempt::NotNeeded(why.to_owned())),
        };
        // A job must not have memguard write to a commit that it made up. Before the run was cancelled GitHub was asked.
        if run.older_arc && cancelled(incident).is_none() {
            let jobs = outside.jobs_on(&run, &job.runner_name).await?;
            if jobs.is_empty() {
                return not_listed(&run, job, &self.open.clone().until(self.now), self.now);
            }
            if let Some(over) = all_over(&jobs) {
                return Ok(Attempt::NotNeeded(format!(
                    "its job on runner {} was over before ({over}), and the runner's object may say what the job made up",
                    job.runner_name
                )));
            }
        }
        let state = outside.run(&run).await?;
        let check = Check {
            head_sha: state.head_sha,
            incident: incident.id.clone(),
            title: words::title(incident, workload),
            summary: words::summary(incident, workload),
            at: incident.decided_at.saturating_mul(1000),
            url: state.url,
        };
        Ok(Attempt::Done(outside.check(&run, check).await?))
    }
}

/// The year 9999: what an API takes as a time.
const SECONDS_OF_A_CLOCK: u64 = 253_402_300_799;

/// What became of the attempt that had the job, if nothing of it runs any more.
fn ended(state: &Run, open: &Open, now: u64) -> Option<String> {
    match (open.attempt, &state.over, open.asked.or(open.forced)) {
        (Some(ours), _, _) if state.attempt > ours => Some(format!(
            "attempt {ours} of the run, which had the job, is over; attempt {} was begun since, and is left alone",
            state.attempt
        )),
        (_, Some(conclusion), Some(asked)) => {
            Some(format!("the run ended as {conclusion} {} s after it was asked for", since(asked, now)))
        }
        (_, Some(conclusion), None) => Some(format!("the run was over ({conclusion})")),
        (_, None, _) => None,
    }
}

/// What to do about a run that is not over.
enum Next {
    Watch,
    Ask { force: bool },
    Done(String),
    GiveUp(String),
}

fn next(open: &Open, wishes: Wishes, now: u64) -> Next {
    let waited = |since: u64| now.saturating_sub(since) >= wishes.watch_s.saturating_mul(1000);
    match (open.forced, &open.refused, open.asked) {
        (Some(forced), _, _) if waited(forced) => Next::Done(format!(
            "GitHub took it and its repetition by force, and the run goes on {} s later",
            since(forced, now)
        )),
        (Some(_), _, _) => Next::Watch,
        (None, Some(refused), _) if !waited(refused.since) => Next::Ask { force: refused.forced },
        (None, Some(Refused { forced: false, .. }), _) if wishes.force_cancel => Next::Ask { force: true },
        (None, Some(Refused { since: first, forced, why }), _) => Next::GiveUp(format!(
            "for {} s GitHub would not cancel it{}, and it goes on: {why}",
            since(*first, now),
            if *forced { " by force" } else { "" }
        )),
        (None, None, None) => Next::Ask { force: false },
        (None, None, Some(asked)) if !waited(asked) => Next::Watch,
        (None, None, Some(_)) if wishes.force_cancel => Next::Ask { force: true },
        (None, None, Some(asked)) => Next::Done(format!(
            "GitHub took it, and the run goes on {} s later: its jobs with always() are run, or GitHub waits for the \
             runner; force_cancel in the policy would end it",
            since(asked, now)
        )),
    }
}

fn not_listed(run: &RunRef, job: &JobFacts, open: &Open, now: u64) -> Result<Attempt, Failure> {
    let looked = open.looked.unwrap_or(now);
    if now.saturating_sub(looked) < milliseconds(UNTIL_LISTED) {
        return Ok(Attempt::Again { after: 3 * LOOK_AGAIN, open: Open { looked: Some(looked), ..open.clone() } });
    }
    Err(Failure::Final {
        why: format!(
            "GitHub knows of no job of run {} of {} on runner {}, so it is left alone",
            run.run_id, run.repository, job.runner_name
        ),
    })
}

/// How they ended, if all of them have.
fn all_over(jobs: &[RunJob]) -> Option<String> {
    let ends: Option<Vec<&str>> = jobs.iter().map(|job| job.over.as_deref()).collect();
    ends.map(|ends| ends.join(", "))
}

fn since(then: u64, now: u64) -> u64 {
    now.saturating_sub(then) / 1000
}

fn at_least_0_13(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.').map(str::parse::<u32>);
    matches!((parts.next(), parts.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= ARC_DELETES)
}

/// ms since 1970.
pub(super) fn clock() -> u64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
