//! One attempt at one follow-up. Each can be made again after a crash in the middle of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    Failure,
    follow_up::{Attempt, Kind, Open, milliseconds},
    outside::{Cancelled, Check, Outside, RunJob, RunRef},
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
            Err(attempt) => Ok(attempt),
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
    /// What is known of the runner, or what it means that nothing is.
    fn facts(&self) -> Result<&RunnerFacts, Attempt> {
        self.workload.facts.as_ref().ok_or_else(|| Attempt::NotNeeded("the runner is not known".to_owned()))
    }

    fn job(&self) -> Result<(RunRef, &JobFacts), Attempt> {
        let facts = self.facts()?;
        let job = facts.job.as_ref().ok_or_else(|| Attempt::NotNeeded("the runner had no job".to_owned()))?;
        let run = RunRef {
            config_url: facts.config_url.clone(),
            repository: job.repository.clone(),
            run_id: job.run_id,
            arc_secret: facts.arc_secret(),
            proxied: facts.proxied,
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
    /// Before each request that changes something GitHub has to say that a job of this run is on this runner, and is not
    /// over: what stands in the runner's object may be older than the run, or, in the older ARC, a job's own words.
    async fn cancel(self) -> Result<Attempt, Failure> {
        let (run, job) = match self.job() {
            Ok(job) => job,
            Err(attempt) => return Ok(attempt),
        };
        let Self { outside, now, ref open, .. } = self;
        let wishes = self.incident.wishes;
        let state = outside.run(&run).await?;
        if let Some(conclusion) = state.over {
            return Ok(Attempt::Done(match open.asked {
                Some(asked) => format!("the run ended as {conclusion} {} s after it was asked for", since(asked, now)),
                None => format!("the run was over ({conclusion})"),
            }));
        }
        let again = |open: Open| Attempt::Again { after: LOOK_AGAIN, open };
        let waited = |since: u64| now.saturating_sub(since) >= wishes.watch_s.saturating_mul(1000);
        let force = match (open.asked, open.forced) {
            (None, _) => false,
            (Some(asked), None) if waited(asked) && wishes.force_cancel => true,
            (Some(asked), None) if waited(asked) => {
                return Ok(Attempt::Done(format!(
                    "GitHub took it, and the run goes on {} s later: its jobs with always() are run, or GitHub waits for the \
                     runner; force_cancel in the policy would end it",
                    since(asked, now)
                )));
            }
            (Some(_), Some(forced)) if waited(forced) => {
                return Ok(Attempt::Done(format!(
                    "GitHub took it and its repetition by force, and the run goes on {} s later",
                    since(forced, now)
                )));
            }
            _ => return Ok(again(open.clone())),
        };
        if !force {
            let jobs = outside.jobs_on(&run, &job.runner_name).await?;
            if jobs.is_empty() {
                return not_listed(&run, job, open, now);
            }
            if let Some(over) = all_over(&jobs) {
                return Ok(Attempt::Done(format!("the job was over ({over})")));
            }
        }
        crash::point(if force { "force-cancel-before" } else { "cancel-before" });
        let answer = outside.cancel(&run, force).await?;
        if force {
            crash::point("force-cancel-answered");
        }
        Ok(again(match answer {
            Cancelled::Accepted if force => Open { forced: Some(now), ..open.clone() },
            Cancelled::Accepted => Open { asked: Some(now), ..open.clone() },
            // It is being cancelled, by us before a crash or by somebody else, or it ends: the next look tells.
            Cancelled::NotPossible => {
                let asked = Some(open.asked.unwrap_or(now));
                let forced = if force { Some(now) } else { open.forced };
                Open { asked, forced, ..open.clone() }
            }
        }))
    }

    async fn delete_runner(self) -> Result<Attempt, Failure> {
        let facts = match self.facts() {
            Ok(facts) => facts,
            Err(attempt) => return Ok(attempt),
        };
        let deletes_itself = facts.job.is_some() && facts.arc_version.as_deref().is_some_and(at_least_0_13);
        let age = Duration::from_millis(self.now.saturating_sub(self.incident.decided_at.saturating_mul(1000)));
        if deletes_itself && age < ARC_PATIENCE {
            return Ok(Attempt::Again { after: ARC_PATIENCE.saturating_sub(age), open: self.open });
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
        let (run, _) = match self.job() {
            Ok(job) => job,
            Err(attempt) => return Ok(attempt),
        };
        let state = outside.run(&run).await?;
        let check = Check {
            head_sha: state.head_sha,
            incident: incident.id.clone(),
            title: words::title(incident),
            summary: words::summary(incident, workload),
            at: incident.decided_at.saturating_mul(1000),
            url: state.url,
        };
        Ok(Attempt::Done(outside.check(&run, check).await?))
    }
}

/// The year 9999: what an API takes as a time.
const SECONDS_OF_A_CLOCK: u64 = 253_402_300_799;

fn not_listed(run: &RunRef, job: &JobFacts, open: &Open, now: u64) -> Result<Attempt, Failure> {
    let looked = open.looked.unwrap_or(now);
    if now.saturating_sub(looked) < milliseconds(UNTIL_LISTED) {
        return Ok(Attempt::Again { after: 3 * LOOK_AGAIN, open: Open { looked: Some(looked), ..open.clone() } });
    }
    Err(Failure::Final {
        why: format!(
            "GitHub knows of no job of run {} of {} on runner {}, so it is not cancelled",
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
