//! The worker and its steps against a world that is made up, one answer after the other.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    outside::{Cancelled, Check, Outside, Run, RunJob, RunRef},
    plan::{adapt, due, follow_ups, settle_dependents},
    steps::{attempt, clock},
    worker::{Ask, KnownRunners, Worker},
    *,
};
use crate::{
    journal::{Found, Incident, Journal, Stage},
    kubernetes::{Deleted, Generation, JobFacts, Notice, NoticeAction, RunnerFacts, RunnerRef},
    remote::follow_up::Attempt,
    respond::{Ended, Method, Mode},
};

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
    Run { over: None, head_sha: "abc".to_owned(), url: None }
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
        memory_limit: Some("4Gi".to_owned()),
        stale_since: None,
        runner: Some(facts().runner()),
        facts: None,
    }
}

fn incident() -> Incident {
    Incident {
        id: "mg-1-7".to_owned(),
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

mod plans {
    use super::*;

    #[test]
    fn what_there_is_to_do_follows_from_the_pod_the_mode_and_what_is_within_reach() {
        let kinds = |mode, workload: &Workload, reach| {
            follow_ups(mode, Some(workload), reach).iter().map(|f| f.kind).collect::<Vec<_>>()
        };
        assert_eq!(kinds(Mode::Enforce, &workload(), ALL), Kind::ALL);
        assert_eq!(kinds(Mode::Observe, &workload(), ALL), [Kind::PodEvent]);
        let plain = Workload { runner: None, ..workload() };
        assert_eq!(kinds(Mode::Enforce, &plain, ALL), [Kind::PodEvent]);
        let no_github = Reach { github: false, ..ALL };
        assert_eq!(
            kinds(Mode::Enforce, &workload(), no_github),
            [Kind::Identify, Kind::PodEvent, Kind::RunnerEvent, Kind::DeleteRunner]
        );
        assert_eq!(follow_ups(Mode::Enforce, None, ALL), []);
    }

    #[test]
    fn nothing_is_done_about_what_was_not_ended() {
        for stage in [
            Stage::Failed { error: String::new() },
            Stage::Suppressed { why: String::new() },
            Stage::Interrupted { found: Found::Alive },
            Stage::Done { ended: Ended::NobodyDied { waited_ms: 1 } },
        ] {
            let mut incident = Incident { stage, ..incident() };
            assert!(!adapt(&mut incident), "{:?}", incident.stage);
        }
        for stage in [DEAD, Stage::Interrupted { found: Found::Gone }] {
            let mut incident = Incident { stage, ..incident() };
            assert!(adapt(&mut incident));
            assert_eq!(open_kinds(&incident), Kind::ALL);
        }
    }

    #[test]
    fn a_runner_that_lives_is_neither_cancelled_nor_deleted() {
        let relieved = Stage::Done { ended: Ended::OomKilled { processes: 1, after_ms: 2, alive: true } };
        let mut incident = Incident { stage: relieved, ..incident() };
        assert!(adapt(&mut incident));
        assert_eq!(open_kinds(&incident), [Kind::Identify, Kind::PodEvent, Kind::RunnerEvent, Kind::CheckRun]);
        let wishes = Wishes { cancel_after_oom: true, ..Wishes::default() };
        let mut incident = Incident { follow_ups: super::incident().follow_ups, wishes, ..incident };
        adapt(&mut incident);
        assert!(open_kinds(&incident).contains(&Kind::Cancel));
    }

    #[test]
    fn a_sidecar_or_a_jobs_own_pod_does_not_cost_the_runner_its_object() {
        let mut incident = incident();
        incident.workload.as_mut().unwrap().is_runner = false;
        adapt(&mut incident);
        assert!(!open_kinds(&incident).contains(&Kind::DeleteRunner) && open_kinds(&incident).contains(&Kind::Cancel));
    }

    #[test]
    fn each_waits_for_what_it_needs() {
        let mut incident = incident();
        assert_eq!(due(&incident, u64::MAX), [Kind::Identify, Kind::PodEvent]);
        set(&mut incident, Kind::Identify, Progress::Done { at: 0, what: String::new() });
        set(&mut incident, Kind::PodEvent, Progress::Done { at: 0, what: String::new() });
        assert_eq!(due(&incident, u64::MAX), [Kind::Cancel, Kind::RunnerEvent]);
        set(&mut incident, Kind::Cancel, Progress::Open(Open { asked: Some(1), not_before: 9, ..Open::default() }));
        assert_eq!(due(&incident, 8), [Kind::RunnerEvent, Kind::DeleteRunner, Kind::CheckRun], "GitHub took it");
        set(&mut incident, Kind::Cancel, Progress::GaveUp { at: 0, why: String::new() });
        assert_eq!(due(&incident, 8), [Kind::RunnerEvent, Kind::DeleteRunner, Kind::CheckRun]);
    }

    #[test]
    fn without_a_runner_or_a_job_the_rest_is_settled_too() {
        let mut incident = incident();
        set(&mut incident, Kind::Identify, Progress::GaveUp { at: 0, why: "404".to_owned() });
        settle_dependents(&mut incident);
        assert_eq!(open_kinds(&incident), [Kind::PodEvent]);
        let mut idle = identified();
        idle.workload.as_mut().unwrap().facts.as_mut().unwrap().job = None;
        settle_dependents(&mut idle);
        assert_eq!(open_kinds(&idle), [Kind::PodEvent, Kind::RunnerEvent, Kind::DeleteRunner]);
    }
}

mod steps_tests {
    use super::*;

    async fn cancel(world: &World, open: Open, wishes: Wishes, now: u64) -> Attempt {
        let mut incident = Incident { wishes, ..identified() };
        set(&mut incident, Kind::Cancel, Progress::Open(open));
        attempt(world, &incident, Kind::Cancel, now).await.attempt
    }

    fn asked(at: u64) -> Open {
        Open { asked: Some(at), ..Open::default() }
    }

    #[tokio::test]
    async fn github_is_asked_whether_the_job_is_on_this_runner_before_anything_is_cancelled() {
        let world = World::default();
        let attempt = cancel(&world, Open::default(), Wishes::default(), 5000).await;
        assert!(matches!(attempt, Attempt::Again { open: Open { asked: Some(5000), .. }, .. }), "{attempt:?}");
        assert_eq!(world.asked(), ["run o/r 42", "jobs on runner-1", "cancel 42"]);
    }

    #[tokio::test]
    async fn a_run_that_is_over_and_a_job_that_is_over_are_left_alone() {
        let world = World::default().with(|s| s.run.push_back(Ok(over())));
        assert_eq!(
            cancel(&world, Open::default(), Wishes::default(), 1).await,
            Attempt::Done("the run was over (cancelled)".to_owned())
        );
        let done = RunJob { over: Some("failure".to_owned()), ..running() };
        let world = World::default().with(|s| s.jobs.push_back(Ok(vec![done.clone()])));
        assert_eq!(
            cancel(&world, Open::default(), Wishes::default(), 1).await,
            Attempt::Done("the job was over (failure)".to_owned())
        );
        assert!(!world.asked().iter().any(|asked| asked.starts_with("cancel")));
        // One of two attempts of it still runs.
        let world = World::default().with(|s| s.jobs.push_back(Ok(vec![done, running()])));
        cancel(&world, Open::default(), Wishes::default(), 1).await;
        assert!(world.asked().contains(&"cancel 42".to_owned()));
    }

    #[tokio::test]
    async fn a_run_without_a_job_on_this_runner_is_never_cancelled() {
        let none = || World::default().with(|s| s.jobs.push_back(Ok(Vec::new())));
        let world = none();
        let first = cancel(&world, Open::default(), Wishes::default(), 1000).await;
        let Attempt::Again { open, .. } = first else { panic!("{first:?}") };
        assert_eq!(open.looked, Some(1000));
        let world = none();
        let last = cancel(&world, open, Wishes::default(), 121_000).await;
        assert!(
            matches!(&last, Attempt::Failed(Failure::Final { why }) if why.contains("no job of run 42")),
            "{last:?}"
        );
        assert!(!world.asked().iter().any(|asked| asked.contains("cancel")));
    }

    #[tokio::test]
    async fn a_cancelled_run_is_watched_and_forced_only_where_that_is_wanted() {
        let world = World::default();
        let early = cancel(&world, asked(1000), Wishes::default(), 30_000).await;
        assert!(matches!(early, Attempt::Again { .. }));
        let late = cancel(&world, asked(1000), Wishes::default(), 61_000).await;
        assert!(matches!(&late, Attempt::Done(what) if what.contains("force_cancel")), "{late:?}");
        assert_eq!(world.asked(), ["run o/r 42", "run o/r 42"], "nothing but looks");
        let force = Wishes { force_cancel: true, ..Wishes::default() };
        let forced = cancel(&world, asked(1000), force, 61_000).await;
        let Attempt::Again { open, .. } = forced else { panic!("{forced:?}") };
        assert_eq!((open.forced, world.asked().last().unwrap().as_str()), (Some(61_000), "force-cancel 42"));
        let watched = cancel(&world, open.clone(), force, 62_000).await;
        assert!(matches!(watched, Attempt::Again { .. }));
        let in_vain = cancel(&world, open.clone(), force, 121_000).await;
        assert!(matches!(&in_vain, Attempt::Done(what) if what.contains("goes on")), "{in_vain:?}");
        let world = World::default().with(|s| s.run.push_back(Ok(over())));
        let done = cancel(&world, open, force, 71_000).await;
        assert_eq!(done, Attempt::Done("the run ended as cancelled 70 s after it was asked for".to_owned()));
    }

    #[tokio::test]
    async fn a_refusal_because_it_is_being_cancelled_already_is_as_good_as_success() {
        let world = World::default().with(|s| s.cancel.push_back(Ok(Cancelled::NotPossible)));
        let attempt = cancel(&world, Open::default(), Wishes::default(), 7000).await;
        assert!(matches!(attempt, Attempt::Again { open: Open { asked: Some(7000), .. }, .. }), "{attempt:?}");
    }

    #[tokio::test]
    async fn newer_arc_is_given_time_to_delete_the_runner_itself() {
        let mut incident = identified();
        let now = incident.decided_at * 1000;
        let world = World::default();
        let took = attempt(&world, &incident, Kind::DeleteRunner, now).await;
        assert_eq!(took.attempt, Attempt::Done("deleted".to_owned()), "0.9.2 does not");
        assert_eq!(world.asked(), ["delete runner-1 u-1"]);
        incident.workload.as_mut().unwrap().facts.as_mut().unwrap().arc_version = Some("0.13.1".to_owned());
        let took = attempt(&world, &incident, Kind::DeleteRunner, now + 10_000).await;
        assert!(matches!(took.attempt, Attempt::Again { after, .. } if after == Duration::from_secs(20)));
        let world = World::default().with(|s| s.delete.push_back(Ok(Deleted::AlreadyGone)));
        let took = attempt(&world, &incident, Kind::DeleteRunner, now + 30_000).await;
        assert_eq!(took.attempt, Attempt::Done("it was gone".to_owned()));
    }

    #[tokio::test]
    async fn people_are_told_what_happened_and_what_to_do() {
        let world = World::default();
        let incident = identified();
        attempt(&world, &incident, Kind::PodEvent, 1).await;
        attempt(&world, &incident, Kind::RunnerEvent, 1).await;
        attempt(&world, &incident, Kind::CheckRun, 1).await;
        let observed = Incident { mode: Mode::Observe, stage: Stage::Done { ended: Ended::DryRun }, ..identified() };
        attempt(&world, &observed, Kind::PodEvent, 1).await;
        let state = world.0.lock().unwrap();
        let [pod, runner, seen] = &state.notices[..] else { panic!("{:?}", state.notices) };
        assert_eq!((pod.regarding.kind.as_str(), pod.regarding.uid.as_str()), ("Pod", "p-1"));
        assert_eq!((runner.regarding.kind.as_str(), runner.regarding.uid.as_str()), ("EphemeralRunner", "u-1"));
        for part in
            ["Container runner hung", "of 4Gi", "memguard killed it", "Raise limits.memory", "mg-1-7", "limit hit"]
        {
            assert!(pod.note.contains(part), "{part}: {}", pod.note);
        }
        assert_eq!((pod.action, seen.action), (NoticeAction::Killed, NoticeAction::Observed));
        assert!(seen.note.contains("did nothing"));
        let [check] = &state.checks[..] else { panic!("{:?}", state.checks) };
        assert_eq!((check.head_sha.as_str(), check.incident.as_str()), ("abc", "mg-1-7"));
        for part in ["did not fail by itself", "limits.memory", "| limit hit 9.0 times/s |", "ci/runner-1", "mg-1-7"] {
            assert!(check.summary.contains(part), "{part}: {}", check.summary);
        }
    }

    #[tokio::test]
    async fn names_can_not_break_out_of_a_check_run() {
        let mut incident = identified();
        incident.evidence = "a | b; [x](http://evil) <script> @everyone `c`\n# d".to_owned();
        let world = World::default();
        attempt(&world, &incident, Kind::CheckRun, 1).await;
        let summary = world.0.lock().unwrap().checks[0].summary.clone();
        for bad in ["a | b", "[x]", "<script", "@everyone", "\n# d"] {
            assert!(!summary.contains(bad), "{bad}: {summary}");
        }
    }
}
