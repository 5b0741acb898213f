//! The cancellation of a run, with a GitHub that has a mind of its own.

use std::time::Duration;

use memguard::{
    kubernetes::{Generation, RunnerRef},
    remote::{Kind, Outward, Progress, Workload},
};
use memguard_stubs::{
    github::{Ending, Fault, Run, What},
    kubernetes::objects::older_runner,
};

use crate::fixture::{RUN, TOKEN, World, outward, token_file, until, workload};

/// Credentials of memguard's own.
fn with_token(world: &World) -> Outward {
    outward(Some((&world.github, token_file(&world.path("token"), TOKEN))))
}

async fn started(change: impl FnOnce(&mut Outward)) -> World {
    let mut world = World::new().await;
    let mut outward = with_token(&world);
    change(&mut outward);
    world.start(outward);
    world
}

fn cancels(world: &World) -> u32 {
    world.github.run(RUN).unwrap().cancels
}

#[tokio::test]
async fn a_run_that_is_started_again_before_the_next_look_is_not_forced() {
    let world = started(|outward| {
        let github = outward.github.as_mut().unwrap();
        // The next look, five seconds later, would be late enough.
        (github.force_cancel, github.force_cancel_after) = (true, Duration::from_secs(1));
    })
    .await;
    let id = world.follow("mg-1");
    until("the cancellation", || cancels(&world) == 1).await;
    // Its first attempt is over, and somebody has started it again, on another runner.
    let again = || Run { attempt: 2, ..Run::on("octo/repo", RUN, "r-2") };
    world.github.put_run(again());
    let end = world.end(&id, Kind::Cancel).await;
    assert!(matches!(&end, Progress::Done { what, .. } if what.contains("attempt 2")), "{end:?}");
    assert_eq!(world.github.run(RUN), Some(again()), "nobody has asked for its end");
}

#[tokio::test]
async fn a_run_that_goes_on_is_forced_if_it_is_the_same_attempt() {
    let world = started(|outward| {
        let github = outward.github.as_mut().unwrap();
        (github.force_cancel, github.force_cancel_after) = (true, Duration::from_secs(1));
    })
    .await;
    world.github.put_run(Run { ending: Ending::Stuck, attempt: 3, ..Run::on("octo/repo", RUN, "r-1") });
    let id = world.follow("mg-1");
    let end = world.end(&id, Kind::Cancel).await;
    assert!(matches!(&end, Progress::Done { what, .. } if what.contains("ended as cancelled")), "{end:?}");
    let run = world.github.run(RUN).unwrap();
    assert_eq!((run.cancels, run.force_cancels), (1, 1));
}

#[tokio::test]
async fn a_refused_cancellation_is_sent_again() {
    let world = started(|_| {}).await;
    world
        .github
        .fault(Fault::at("/cancel", What::refusal(409, "Cannot cancel a workflow run that has not yet queued.")));
    let id = world.follow("mg-1");
    let end = world.end(&id, Kind::Cancel).await;
    assert!(matches!(&end, Progress::Done { what, .. } if what.contains("ended as cancelled")), "{end:?}");
    assert_eq!(cancels(&world), 1);
}

/// Runner r-1 as one of the older ARC.
fn of_older_arc() -> Workload {
    let runner = RunnerRef { api: Generation::Summerwind, ..workload().runner.unwrap() };
    Workload { runner: Some(runner), ..workload() }
}

#[tokio::test]
async fn the_run_of_a_runner_of_the_older_arc_is_cancelled_and_explained_once_github_names_it() {
    let world = started(|_| {}).await;
    world.kube.put(older_runner("ci", "r-1", "runner-r-1", "octo/repo", RUN)).unwrap();
    let id = world.follow_for("mg-1", of_older_arc());
    for kind in [Kind::Cancel, Kind::CheckRun, Kind::DeleteRunner] {
        let end = world.end(&id, kind).await;
        assert!(matches!(end, Progress::Done { .. }), "{kind:?}: {end:?}");
    }
    assert_eq!((cancels(&world), world.github.statuses().len()), (1, 1));
    let words = world.github.requests();
    assert!(words.iter().any(|request| request.path.contains("/jobs?")), "GitHub was asked whose runner it is");
    // What the job made up: a run that has its jobs elsewhere is waited for, and neither cancelled nor written to.
    world.github.put_run(Run::on("octo/other", 43, "r-9"));
    world.kube.put(older_runner("ci", "r-1", "runner-r-1", "octo/other", 43)).unwrap();
    world.github.forget_requests();
    let id = world.follow_for("mg-2", of_older_arc());
    let looked = || world.github.requests().iter().any(|request| request.path.contains("/43/jobs?"));
    until("a look at its jobs", looked).await;
    let kept = || {
        world.kept(&id).is_some_and(|kept| kept.follow_ups.iter().any(|f| f.open().is_some_and(|o| o.looked.is_some())))
    };
    until("what came of it", kept).await;
    assert!(world.github.requests().iter().all(|request| request.method == "GET"));
    assert_eq!(world.github.run(43).unwrap().cancels, 0);
}
