//! Runs, their jobs and their end.

use memguard::{
    github::{Cancelled, GitHub},
    remote::Failure,
};
use memguard_stubs::github::{Ending, Fault, Job, Run, What};
use serde_json::json;

use crate::fixture::{RUN, later, never, with_app, with_token};

#[tokio::test]
async fn a_run_is_cancelled_and_ends_in_its_own_time() {
    let fixture = with_app().await;
    fixture.stub.put_run(Run { ending: Ending::AfterLooks(2), ..Run::on("octo/repo", RUN, "runner-1") });
    let (github, repository) = (&fixture.github, &fixture.repository);
    let run = github.run(repository, RUN).await.unwrap();
    assert_eq!((run.status.as_str(), run.completed(), run.attempt), ("in_progress", false, 1));
    assert_eq!(run.head_sha.len(), 40);
    assert_eq!(run.html_url, "https://github.com/octo/repo/actions/runs/7");
    assert_eq!(github.cancel(repository, RUN).await, Ok(Cancelled::Accepted));
    assert_eq!(github.cancel(repository, RUN).await, Ok(Cancelled::Accepted), "again");
    assert!(!github.run(repository, RUN).await.unwrap().completed());
    let run = github.run(repository, RUN).await.unwrap();
    assert_eq!((run.completed(), run.conclusion.as_deref()), (true, Some("cancelled")));
    let over = github.cancel(repository, RUN).await.unwrap();
    assert!(matches!(&over, Cancelled::NotPossible { why } if why.contains("completed")), "{over:?}");
    assert_eq!(fixture.stub.run(RUN).unwrap().cancels, 2);
}

#[tokio::test]
async fn a_run_that_goes_on_is_forced() {
    let fixture = with_app().await;
    fixture.stub.put_run(Run { ending: Ending::Stuck, ..Run::on("octo/repo", RUN, "runner-1") });
    let (github, repository) = (&fixture.github, &fixture.repository);
    assert_eq!(github.cancel(repository, RUN).await, Ok(Cancelled::Accepted));
    for _ in 0..3 {
        assert!(!github.run(repository, RUN).await.unwrap().completed());
    }
    assert_eq!(github.force_cancel(repository, RUN).await, Ok(Cancelled::Accepted));
    assert!(github.run(repository, RUN).await.unwrap().completed());
    let over = github.force_cancel(repository, RUN).await.unwrap();
    assert!(matches!(over, Cancelled::NotPossible { .. }), "{over:?}");
}

#[tokio::test]
async fn the_jobs_of_a_runner_are_found_on_every_page() {
    let fixture = with_app().await;
    let job = |id: u64| Job {
        id,
        name: format!("test\u{1b}[2K ({id})"),
        status: "in_progress".to_owned(),
        conclusion: None,
        runner_name: match id {
            3 | 120 => Some("runner-1".to_owned()),
            4 => None,
            _ => Some(format!("runner-1{id}")),
        },
    };
    fixture.stub.put_run(Run { jobs: (1..=121).map(job).collect(), ..Run::on("octo/repo", RUN, "x") });
    let jobs = fixture.github.jobs_on(&fixture.repository, RUN, "runner-1").await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [3, 120]);
    assert_eq!((jobs[0].name.as_str(), jobs[0].status.as_str()), ("test\\u{1b}[2K (3)", "in_progress"));
    assert!(jobs[0].html_url.as_ref().is_some_and(|url| url.ends_with("/job/3")));
    assert_eq!(fixture.count("/jobs?filter=latest"), 3);
    assert_eq!(fixture.github.jobs_on(&fixture.repository, RUN, "nobody").await, Ok(vec![]));
}

#[tokio::test]
async fn answers_with_more_and_with_less_than_usual_are_read() {
    let fixture = with_app().await;
    let answer = |body| Fault::at("/actions/runs/7", What::Answer { code: 200, headers: Vec::new(), body });
    fixture.stub.fault(answer(json!({
        "id": 7, "status": "waiting_for_a_new_thing", "conclusion": "a_new_one", "head_sha": "ab", "actor": null, "x": [1],
    })));
    let run = fixture.github.run(&fixture.repository, RUN).await.unwrap();
    assert_eq!((run.status.as_str(), run.conclusion.as_deref()), ("waiting_for_a_new_thing", Some("a_new_one")));
    assert_eq!((run.attempt, run.html_url.as_str()), (1, ""));
    fixture.stub.fault(answer(json!({"id": 8, "status": "completed", "head_sha": "ab"})));
    assert!(later(fixture.github.run(&fixture.repository, RUN).await).1.contains("run 8"), "another run's answer");
    fixture
        .stub
        .fault(answer(json!({"total_count": 1, "jobs": [{"id": 1, "runner_name": "runner-1", "steps": null}]})));
    assert_eq!(fixture.github.jobs_on(&fixture.repository, RUN, "runner-1").await.unwrap().len(), 1);
    // A count that never comes true.
    fixture.stub.fault(answer(json!({"total_count": 1_000_000, "jobs": []})));
    assert_eq!(fixture.github.jobs_on(&fixture.repository, RUN, "runner-1").await, Ok(vec![]));
}

#[tokio::test]
async fn what_the_credentials_may_not_is_said_with_the_remedy() {
    let fixture = with_app().await;
    let (github, repository) = (&fixture.github, &fixture.repository);
    let why = never(github.run(repository, 99).await);
    assert!(why.contains("look at run 99 of octo/repo") && why.contains("may not see"), "{why}");
    let why = never(github.cancel(&"octo/other".parse().unwrap(), RUN).await);
    assert!(why.contains("cancel run 7 of octo/other") && why.contains("installed"), "{why}");
    fixture.stub.permit("actions", Some("read"));
    assert!(github.run(repository, RUN).await.is_ok());
    for result in [github.cancel(repository, RUN).await, github.force_cancel(repository, RUN).await] {
        let why = never(result);
        assert!(why.contains("\"actions: write\"") && why.contains("actions=write"), "{why}");
    }
    fixture.stub.permit("actions", None);
    let why = never(github.jobs_on(repository, RUN, "runner-1").await);
    assert!(why.contains("\"actions: read\""), "{why}");
}

#[tokio::test]
async fn every_request_says_what_githubs_rules_ask_for() {
    let fixture = with_token().await;
    fixture.github.cancel(&fixture.repository, RUN).await.unwrap();
    let request = fixture.stub.requests().remove(0);
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/api/v3/repos/octo/repo/actions/runs/7/cancel")
    );
    assert_eq!(request.authorization, "token");
    assert_eq!(request.headers["accept"], "application/vnd.github+json");
    assert_eq!(request.headers["x-github-api-version"], "2022-11-28");
    assert_eq!(request.headers["content-length"], "0");
    assert!(request.headers["user-agent"].starts_with("memguard/"), "{:?}", request.headers);
}

#[tokio::test]
async fn only_runners_of_this_github_are_served() {
    let fixture = with_app().await;
    let url = fixture.stub.url();
    for served in [
        format!("{url}/octo/repo"),
        format!("{url}/enterprises/x"),
        format!("{}/octo", url.to_uppercase().replace("HTTP", "http")),
    ] {
        assert_eq!(fixture.github.serves(&served), Ok(()), "{served}");
    }
    for other in [
        "https://github.com/octo",
        "http://127.0.0.1/octo",
        "127.0.0.1",
        "",
        "https://u:c2VjcmV0@github.com/x",
        "\u{1b}x",
    ] {
        let Err(Failure::Final { why }) = fixture.github.serves(other) else { panic!("{other}") };
        assert!(why.contains("127.0.0.1:") && !why.contains('\u{1b}') && !why.contains("c2VjcmV0"), "{why}");
    }
    assert!(
        fixture.github.serves("https://github.com/octo").unwrap_err().to_string().contains("belongs to github.com")
    );
    assert!(fixture.asked().is_empty());
}

#[test]
fn it_can_be_set_up_outside_of_a_runtime() {
    let folder = tempfile::tempdir().unwrap();
    crate::fixture::write_token(folder.path(), "x");
    let source = memguard::github::Source::Folder(folder.path().to_owned());
    let github = GitHub::new(&crate::fixture::settings("http://127.0.0.1:1", source)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_, why) = later(runtime.block_on(github.run(&crate::fixture::repository(), 1)));
    assert!(why.contains("refused"), "{why}");
}
