//! The other steps: deletion, and what people are told.

use super::*;

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
    let took = attempt(&World::default(), &incident, Kind::DeleteRunner, now - 36_000_000).await;
    assert_eq!(took.attempt, Attempt::Done("deleted".to_owned()), "the clock was set back");
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
    for part in ["Container runner hung", "of 4Gi", "memguard killed it", "Raise limits.memory", "mg-1-7", "limit hit"]
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

/// The note on the pod and the check run's summary.
async fn told(incident: &Incident) -> [String; 2] {
    let world = World::default();
    attempt(&world, incident, Kind::PodEvent, 1).await;
    attempt(&world, incident, Kind::CheckRun, 1).await;
    let state = world.0.lock().unwrap();
    [state.notices[0].note.clone(), format!("{}\n{}", state.checks[0].title, state.checks[0].summary)]
}

#[tokio::test]
async fn people_are_told_that_other_jobs_of_the_run_end_too() {
    let mut incident = identified();
    for text in told(&incident).await {
        assert!(text.contains("memguard is cancelling run 42 of o/r"), "{text}");
    }
    let asked = Open { asked: Some(1), ..Open::default() };
    let mut done = FollowUp { progress: Progress::Open(asked), ..FollowUp::new(Kind::Cancel) };
    let open = done.progress.clone();
    done.took(Attempt::Done("the run ended".to_owned()), 0, 1, 0.0);
    for progress in [open, done.progress] {
        set(&mut incident, Kind::Cancel, progress);
        incident.follow_ups.iter_mut().find(|f| f.kind == Kind::Cancel).unwrap().taken = done.taken;
        for text in told(&incident).await {
            assert!(text.contains("memguard cancelled run 42 of o/r; other jobs of it ended"), "{text}");
        }
    }
    let mut incident = identified();
    set(&mut incident, Kind::Cancel, Progress::Done { at: 1, what: "the run was over (success)".to_owned() });
    for text in told(&incident).await {
        assert!(!text.contains("cancel"), "it did not: {text}");
    }
}

#[tokio::test]
async fn a_part_of_a_container_is_not_told_with_the_containers_limit() {
    let mut incident = identified();
    incident.workload.as_mut().unwrap().nested = true;
    for text in told(&incident).await {
        assert!(text.contains("A cgroup with a limit of its own in container runner"), "{text}");
        assert!(!text.contains("4Gi") && !text.contains("limits.memory"), "{text}");
    }
    assert!(told(&incident).await[1].starts_with("A part of this job"));
}

/// Of the older ARC, whose objects say what a job could have written.
fn of_older_arc() -> Incident {
    let mut incident = identified();
    incident.workload.as_mut().unwrap().facts.as_mut().unwrap().api = Generation::Summerwind;
    incident
}

#[tokio::test]
async fn a_commit_that_a_job_may_have_made_up_is_not_written_to() {
    let with = |jobs: Vec<RunJob>| World::default().with(|s| s.jobs.push_back(Ok(jobs)));
    let incident = of_older_arc();
    let world = with(vec![running()]);
    let told = attempt(&world, &incident, Kind::CheckRun, 1000).await.attempt;
    assert_eq!((told, world.asked().len()), (Attempt::Done("made".to_owned()), 3));
    let world = with(vec![RunJob { over: Some("success".to_owned()), ..running() }]);
    let told = attempt(&world, &incident, Kind::CheckRun, 1000).await.attempt;
    assert!(matches!(&told, Attempt::NotNeeded(why) if why.contains("made up")), "{told:?}");
    assert_eq!(world.asked(), ["jobs on runner-1"]);
    let world = with(Vec::new());
    let Attempt::Again { open, .. } = attempt(&world, &incident, Kind::CheckRun, 1000).await.attempt else { panic!() };
    let mut later = incident.clone();
    set(&mut later, Kind::CheckRun, Progress::Open(open));
    let told = attempt(&with(Vec::new()), &later, Kind::CheckRun, 121_000).await.attempt;
    assert!(matches!(&told, Attempt::Failed(Failure::Final { why }) if why.contains("no job of run 42")), "{told:?}");
    // GitHub has said so before the run was cancelled, and its job is over since.
    let mut cancelled = incident;
    set(&mut cancelled, Kind::Cancel, Progress::Open(Open { asked: Some(1), ..Open::default() }));
    let world = World::default();
    attempt(&world, &cancelled, Kind::CheckRun, 1000).await;
    assert_eq!(world.asked(), ["run o/r 42", "check on abc"]);
}
