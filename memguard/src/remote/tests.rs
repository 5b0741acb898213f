//! The worker and its steps against a world that is made up, one answer after the other.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    outside::{Cancelled, Check, Outside, Run, RunJob, RunRef},
    plan::{adapt, due, follow_ups, next_due, settle_dependents},
    steps::{attempt, clock},
    worker::{Ask, KnownRunners, Worker},
    *,
};
use crate::{
    journal::{Found, Incident, Journal, Stage},
    kubernetes::{Deleted, Generation, JobFacts, Notice, NoticeAction, RunnerFacts, RunnerRef},
    remote::follow_up::{Attempt, Refused},
    respond::{Ended, Method, Mode},
};

mod cancel;
mod plans;
mod steps;
mod worker;

const ALL: Reach = Reach { events: true, delete_runner: true, github: true, cancel: true, check_run: true };
const DEAD: Stage = Stage::Done { ended: Ended::Dead { write_us: 1, empty_after_ms: 2 } };

/// Answers from lists; what a list lacks is a success. Notes what was asked.
#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    asked: Vec<String>,
    runner: VecDeque<Result<RunnerFacts, Failure>>,
    run: VecDeque<Result<Run, Failure>>,
    jobs: VecDeque<Result<Vec<RunJob>, Failure>>,
    cancel: VecDeque<Result<Cancelled, Failure>>,
    delete: VecDeque<Result<Deleted, Failure>>,
    notify: VecDeque<Result<(), Failure>>,
    notices: Vec<Notice>,
    checks: Vec<Check>,
}

impl World {
    fn with(self, set: impl FnOnce(&mut State)) -> Self {
        set(&mut self.0.lock().unwrap());
        self
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }

    fn note<T>(&self, what: String, take: impl FnOnce(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.0.lock().unwrap();
        state.asked.push(what);
        take(&mut state)
    }
}

impl Outside for World {
    async fn runner(&self, runner: &RunnerRef) -> Result<RunnerFacts, Failure> {
        self.note(format!("runner {}", runner.name), |s| s.runner.pop_front()).unwrap_or_else(|| Ok(facts()))
    }

    async fn delete_runner(&self, runner: &RunnerRef) -> Result<Deleted, Failure> {
        let what = format!("delete {} {}", runner.name, runner.uid.as_deref().unwrap_or("?"));
        self.note(what, |s| s.delete.pop_front()).unwrap_or(Ok(Deleted::Accepted))
    }

    async fn notify(&self, notice: Notice) -> Result<(), Failure> {
        let what = format!("notify {} {}", notice.regarding.kind, notice.action.name());
        self.note(what, |s| {
            s.notices.push(notice);
            s.notify.pop_front()
        })
        .unwrap_or(Ok(()))
    }

    async fn run(&self, run: &RunRef) -> Result<Run, Failure> {
        self.note(format!("run {} {}", run.repository, run.run_id), |s| s.run.pop_front())
            .unwrap_or_else(|| Ok(going()))
    }

    async fn jobs_on(&self, _: &RunRef, runner: &str) -> Result<Vec<RunJob>, Failure> {
        self.note(format!("jobs on {runner}"), |s| s.jobs.pop_front()).unwrap_or_else(|| Ok(vec![running()]))
    }

    async fn cancel(&self, run: &RunRef, force: bool) -> Result<Cancelled, Failure> {
        let what = format!("{} {}", if force { "force-cancel" } else { "cancel" }, run.run_id);
        self.note(what, |s| s.cancel.pop_front()).unwrap_or(Ok(Cancelled::Accepted))
    }

    async fn check(&self, _: &RunRef, check: Check) -> Result<String, Failure> {
        self.note(format!("check on {}", check.head_sha), |s| {
            s.checks.push(check);
            None
        })
        .unwrap_or_else(|| Ok("made".to_owned()))
    }
}

fn going() -> Run {
    Run { over: None, attempt: 1, head_sha: "abc".to_owned(), url: None }
}

fn over() -> Run {
    Run { over: Some("cancelled".to_owned()), ..going() }
}

fn running() -> RunJob {
    RunJob { name: "build".to_owned(), over: None, url: None }
}

fn facts() -> RunnerFacts {
    RunnerFacts {
        api: Generation::ScaleSets,
        namespace: "ci".to_owned(),
        name: "runner-1".to_owned(),
        uid: "u-1".to_owned(),
        phase: None,
        scale_set: Some("set".to_owned()),
        config_url: Some("https://github.com/o/r".to_owned()),
        job: Some(JobFacts {
            repository: "o/r".to_owned(),
            run_id: 42,
            workflow_ref: None,
            display_name: None,
            job_id: None,
            runner_name: "runner-1".to_owned(),
        }),
        github_secret: None,
        arc_version: Some("0.9.2".to_owned()),
        vault: false,
        proxied: false,
    }
}

fn workload() -> Workload {
    Workload {
        node: "node-1".to_owned(),
        namespace: "ci".to_owned(),
        pod: "runner-1".to_owned(),
        pod_uid: "p-1".to_owned(),
        container: Some("runner".to_owned()),
        is_runner: true,
        nested: false,
        memory_limit: Some("4Gi".to_owned()),
        stale_since: None,
        runner: Some(facts().runner()),
        facts: None,
    }
}

fn incident() -> Incident {
    Incident {
        id: "mg-1-7".to_owned(),
        revision: 0,
        decided_at: clock() / 1000,
        boot_id: String::new(),
        mode: Mode::Enforce,
        unit: 7,
        cgroup: "a.scope".to_owned(),
        victim: Some(7),
        method: Some(Method::Kill),
        rule: "ci".to_owned(),
        evidence: "memory at 100 % of memory.max; limit hit 9.0 times/s".to_owned(),
        workload: Some(workload()),
        stage: DEAD,
        follow_ups: follow_ups(Mode::Enforce, Some(&workload()), ALL),
        wishes: Wishes::default(),
    }
}

/// As it is once the run is known.
fn identified() -> Incident {
    let mut incident = incident();
    incident.workload.as_mut().unwrap().facts = Some(facts());
    set(&mut incident, Kind::Identify, Progress::Done { at: 0, what: String::new() });
    incident
}

fn set(incident: &mut Incident, kind: Kind, progress: Progress) {
    incident.follow_ups.iter_mut().find(|follow_up| follow_up.kind == kind).unwrap().progress = progress;
}

fn open_kinds(incident: &Incident) -> Vec<Kind> {
    incident.follow_ups.iter().filter(|follow_up| follow_up.is_open()).map(|follow_up| follow_up.kind).collect()
}
