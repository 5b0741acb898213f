//! The cancellation, answer by answer.

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
    assert!(matches!(&last, Attempt::Failed(Failure::Final { why }) if why.contains("no job of run 42")), "{last:?}");
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
    let world = World::default();
    let force = Wishes { force_cancel: true, ..Wishes::default() };
    let forced = cancel(&world, asked(1000), force, 61_000).await;
    let Attempt::Again { open, .. } = forced else { panic!("{forced:?}") };
    assert_eq!(open.forced, Some(61_000));
    assert_eq!(world.asked(), ["run o/r 42", "jobs on runner-1", "run o/r 42", "force-cancel 42"]);
    let watched = cancel(&world, open.clone(), force, 62_000).await;
    assert!(matches!(watched, Attempt::Again { .. }));
    let in_vain = cancel(&world, open.clone(), force, 121_000).await;
    assert!(matches!(&in_vain, Attempt::Done(what) if what.contains("goes on")), "{in_vain:?}");
    let world = World::default().with(|s| s.run.push_back(Ok(over())));
    let done = cancel(&world, open, force, 71_000).await;
    assert_eq!(done, Attempt::Done("the run ended as cancelled 70 s after it was asked for".to_owned()));
}

/// Attempt 2 of the run, which has nothing to do with the job that was ended.
fn started_again() -> Run {
    Run { attempt: 2, ..going() }
}

#[tokio::test]
async fn a_run_that_was_started_again_is_left_alone_and_never_forced() {
    let force = Wishes { force_cancel: true, ..Wishes::default() };
    let Attempt::Again { open, .. } = cancel(&World::default(), Open::default(), force, 1000).await else { panic!() };
    assert_eq!((open.asked, open.attempt), (Some(1000), Some(1)));
    for (wishes, now) in [(force, 6000), (force, 3_600_000), (Wishes::default(), 3_600_000)] {
        let world = World::default().with(|s| s.run.push_back(Ok(started_again())));
        let end = cancel(&world, open.clone(), wishes, now).await;
        assert!(matches!(&end, Attempt::Done(what) if what.contains("attempt 2 was begun since")), "{end:?}");
        assert_eq!(world.asked(), ["run o/r 42"]);
    }
    // It is started again, or ends, while the jobs are listed.
    for (later, words) in [(started_again(), "attempt 2"), (over(), "ended as cancelled")] {
        let world = World::default().with(|s| s.run.extend([Ok(going()), Ok(later)]));
        let end = cancel(&world, open.clone(), force, 61_000).await;
        assert!(matches!(&end, Attempt::Done(what) if what.contains(words)), "{end:?}");
        assert!(!world.asked().iter().any(|asked| asked.contains("force")));
    }
    // An older memguard kept no attempt: GitHub lists no job of the latest one on this runner.
    let world = World::default().with(|s| {
        s.run.push_back(Ok(started_again()));
        s.jobs.push_back(Ok(Vec::new()));
    });
    let end = cancel(&world, asked(1000), force, 61_000).await;
    assert!(matches!(&end, Attempt::Done(what) if what.contains("lists no job on runner runner-1")), "{end:?}");
    // Nor is it cancelled where the cancellation itself comes late.
    let world = World::default().with(|s| s.run.push_back(Ok(started_again())));
    let looked = Open { attempt: Some(1), looked: Some(1), ..Open::default() };
    assert!(matches!(cancel(&world, looked, force, 9000).await, Attempt::Done(_)));
    assert_eq!(world.asked(), ["run o/r 42"]);
}

/// A world in which GitHub says 409 so often.
fn refusing(times: usize) -> World {
    let refusal = || Ok(Cancelled::NotPossible { why: "Cannot cancel a run that is not yet queued".to_owned() });
    World::default().with(|s| s.cancel.extend((0..times).map(|_| refusal())))
}

#[tokio::test]
async fn a_cancellation_that_github_refuses_is_sent_again_and_is_no_success() {
    let world = refusing(2);
    let mut open = Open::default();
    for now in [7000, 12_000] {
        let Attempt::Again { open: next, .. } = cancel(&world, open, Wishes::default(), now).await else { panic!() };
        assert_eq!((next.asked, next.refused.as_ref().map(|refused| refused.since)), (None, Some(7000)));
        open = next;
    }
    let words = FollowUp { progress: Progress::Open(open.clone()), ..FollowUp::new(Kind::Cancel) };
    assert!(words.taken().is_none() && words.outcome().contains("not yet queued"), "{}", words.outcome());
    // Taken at last: the clock runs from then.
    let Attempt::Again { open: taken, .. } = cancel(&world, open.clone(), Wishes::default(), 27_000).await else {
        panic!()
    };
    assert_eq!((taken.asked, &taken.refused), (Some(27_000), &None));
    let requests: Vec<_> = world.asked().into_iter().filter(|asked| asked.starts_with("cancel")).collect();
    assert_eq!(requests.len(), 3);
    // Never taken: what GitHub said is told.
    let end = cancel(&World::default(), open.clone(), Wishes::default(), 67_000).await;
    assert!(matches!(&end, Attempt::Failed(Failure::Final { why }) if why.contains("not yet queued")), "{end:?}");
    // Because it was about to end.
    let world = World::default().with(|s| s.run.push_back(Ok(over())));
    let end = cancel(&world, open, Wishes::default(), 17_000).await;
    assert_eq!(end, Attempt::Done("the run was over (cancelled)".to_owned()));
}

#[tokio::test]
async fn what_github_refuses_is_forced_where_that_is_wanted_and_that_can_be_refused_too() {
    let force = Wishes { force_cancel: true, ..Wishes::default() };
    let refused = |forced| Some(Refused { since: 1000, forced, why: "no".to_owned() });
    let open = Open { refused: refused(false), attempt: Some(1), ..Open::default() };
    let world = World::default();
    let Attempt::Again { open: forced, .. } = cancel(&world, open.clone(), force, 61_000).await else { panic!() };
    assert_eq!((forced.forced, world.asked().last().unwrap().as_str()), (Some(61_000), "force-cancel 42"));
    let Attempt::Again { open: again, .. } = cancel(&refusing(1), open, force, 61_000).await else { panic!() };
    assert_eq!(again.refused.as_ref().map(|refused| (refused.since, refused.forced)), Some((61_000, true)));
    let end = cancel(&World::default(), again, force, 121_000).await;
    assert!(matches!(&end, Attempt::Failed(Failure::Final { why }) if why.contains("by force")), "{end:?}");
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_nobody_wait() {
    let Attempt::Again { open, .. } = cancel(&World::default(), asked(9_000_000), Wishes::default(), 1000).await else {
        panic!()
    };
    assert_eq!(open.asked, Some(1000));
    let late = cancel(&World::default(), open, Wishes::default(), 61_000).await;
    assert!(matches!(late, Attempt::Done(_)), "{late:?}");
}
