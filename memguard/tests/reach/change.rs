//! Settings that change while the thread works.

use std::time::Duration;

use memguard::{
    github::Source,
    remote::{Kind, Progress},
};
use memguard_stubs::github::{Fault, What};
use serde_json::json;

use crate::fixture::{TOKEN, World, github, outward, runner, token_file, until};

fn is_done(progress: &Progress) -> bool {
    matches!(progress, Progress::Done { .. })
}

#[tokio::test]
async fn github_comes_and_goes_and_what_was_planned_uses_what_is_in_force() {
    let mut world = World::new().await;
    world.start(outward(None));
    assert!(!world.remote().reach().github);
    let before = world.follow("before");
    assert!(is_done(&world.end(&before, Kind::DeleteRunner).await));
    assert_eq!(world.progress(&before, Kind::Cancel), None, "was not planned");
    assert_eq!(world.github.requests().len(), 0);

    let on = outward(Some((&world.github, token_file(&world.path("token"), TOKEN))));
    world.remote().change(&on, false);
    until("[github]", || world.remote().reach().github).await;
    assert_eq!(world.remote().outcome(), None, "nothing went wrong");
    world.kube.put(runner(&world.github.url(), &json!({}))).unwrap();
    // Planned with a GitHub that does not answer, and done when there is another one.
    world.github.fault(Fault::next(What::refusal(503, "not now")).always());
    let planned = world.follow("planned");
    until("the first try", || world.github.requests().iter().any(|request| request.path.contains("/runs/"))).await;
    let other = github("another-token", 3600).await;
    world.kube.put(runner(&other.url(), &json!({}))).unwrap();
    let moved = outward(Some((&world.github, token_file(&world.path("token"), "another-token"))));
    let moved = memguard::remote::Outward {
        github: moved.github.map(|mut github| {
            github.connection.api_url = Some(format!("{}/api/v3", other.url()));
            github
        }),
        ..moved
    };
    world.remote().change(&moved, false);
    assert!(is_done(&world.end(&planned, Kind::Cancel).await));
    assert_eq!((world.github.run(42).unwrap().cancels, other.run(42).unwrap().cancels), (0, 1));

    // Gone: what was planned says so, and the next incident plans nothing.
    other.fault(Fault::next(What::refusal(503, "not now")).always());
    other.put_run(memguard_stubs::github::Run::on("octo/repo", 42, "r-1"));
    world.kube.put(runner(&world.github.url(), &json!({}))).unwrap();
    let late = world.follow("late");
    until("a try", || {
        world
            .progress(&late, Kind::Cancel)
            .is_some_and(|progress| matches!(progress, Progress::Open(open) if open.failures > 0))
    })
    .await;
    world.remote().change(&outward(None), false);
    until("its end", || !world.remote().reach().github).await;
    let end = world.end(&late, Kind::Cancel).await;
    assert!(matches!(&end, Progress::GaveUp { why, .. } if why.contains("no credentials for GitHub")), "{end:?}");
}

#[tokio::test]
async fn switches_of_both_tables_are_in_force_at_once() {
    let mut world = World::new().await;
    let mut settings = outward(Some((&world.github, token_file(&world.path("token"), TOKEN))));
    world.start(settings.clone());
    assert!(world.remote().reach().cancel && world.remote().reach().delete_runner);
    let github = settings.github.as_mut().unwrap();
    (github.cancel, github.force_cancel, github.force_cancel_after) = (false, true, Duration::from_secs(90));
    settings.kubernetes.delete_runner = false;
    settings.kubernetes.timeout = Duration::from_secs(3);
    world.remote().change(&settings, false);
    until("the change", || !world.remote().reach().cancel).await;
    let (reach, wishes) = (world.remote().reach(), world.remote().wishes());
    assert!(!reach.delete_runner && reach.check_run && wishes.force_cancel && wishes.watch_s == 90);
    let id = world.follow("after");
    assert!(is_done(&world.end(&id, Kind::CheckRun).await));
    assert_eq!(world.github.run(42).unwrap().cancels, 0);
}

#[tokio::test]
async fn credentials_that_can_not_be_read_leave_the_old_ones_in_force() {
    let mut world = World::new().await;
    let good = outward(Some((&world.github, token_file(&world.path("token"), TOKEN))));
    world.start(good);
    let missing = world.path("missing");
    let mut bad = outward(Some((&world.github, Source::Token(missing.clone()))));
    bad.github.as_mut().unwrap().cancel = false;
    bad.kubernetes.delete_runner = false;
    world.remote().change(&bad, false);
    until("the other table", || !world.remote().reach().delete_runner).await;
    until("the outcome", || world.remote().outcome() == Some(false)).await;
    assert!(world.remote().reach().cancel, "[github] is as it was");
    let id = world.follow("with-the-old");
    assert!(is_done(&world.end(&id, Kind::Cancel).await));
    // Asked for again, it is told again; and once it can be used, that is told too.
    world.remote().change(&bad, true);
    until("the outcome", || world.remote().outcome() == Some(false)).await;
    token_file(&missing, TOKEN);
    world.remote().change(&bad, true);
    until("the outcome", || world.remote().outcome() == Some(true)).await;
    assert!(!world.remote().reach().cancel);
}

#[tokio::test]
async fn a_request_under_way_ends_as_it_was_begun() {
    let mut world = World::new().await;
    world.start(outward(Some((&world.github, token_file(&world.path("token"), TOKEN)))));
    world.github.fault(Fault::next(What::Slow { pause_ms: 2 }));
    let id = world.follow("slow");
    until("the request", || world.github.requests().iter().any(|request| request.path.contains("/runs/"))).await;
    world.remote().change(&outward(None), false);
    until("the change", || !world.remote().reach().github).await;
    assert_eq!(world.github.run(42).unwrap().cancels, 0, "the first look is not over yet");
    // That attempt goes on to its end, and the next one has no GitHub any more.
    until("its end", || world.github.run(42).is_some_and(|run| run.cancels == 1)).await;
    let end = world.end(&id, Kind::Cancel).await;
    assert!(matches!(&end, Progress::GaveUp { why, .. } if why.contains("no credentials for GitHub")), "{end:?}");
}
