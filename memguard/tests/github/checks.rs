//! The word to the developer.

use memguard::github::{Conclusion, Told};
use memguard_stubs::github::{Fault, What};
use serde_json::json;

use crate::fixture::{check, later, never, with_app, with_token};

#[tokio::test]
async fn a_check_run_is_made_once() {
    let fixture = with_app().await;
    let (github, repository) = (&fixture.github, &fixture.repository);
    let told = github.tell_check(repository, &check("mg-1")).await.unwrap();
    let Told::Check { id, already: false, html_url: Some(_) } = told else { panic!("{told:?}") };
    let again = github.tell_check(repository, &check("mg-1")).await.unwrap();
    assert!(matches!(again, Told::Check { id: other, already: true, .. } if other == id), "{again:?}");
    // Another incident on the same commit.
    let other = github.tell_check(repository, &check("mg-2")).await.unwrap();
    assert!(matches!(other, Told::Check { already: false, .. }), "{other:?}");
    let made = fixture.stub.check_runs();
    assert_eq!(made.len(), 2);
    let body = &made[0].body;
    assert_eq!(body["conclusion"], "failure");
    assert_eq!(body["status"], "completed");
    assert_eq!(body["external_id"], "mg-1");
    assert_eq!(body["output"]["title"], "The job hung at its memory limit");
    assert_eq!(body["output"]["text"], "| limit | 512 MiB |");
    assert!(body["started_at"].as_str().unwrap() < body["completed_at"].as_str().unwrap());
    assert!(fixture.asked()[1].contains("check_name=memguard%20%2F%20out%20of%20memory%20%26%20hung&filter=all"));
}

#[tokio::test]
async fn one_whose_answer_was_lost_is_found() {
    let fixture = with_app().await;
    for what in [What::Lost, What::Half, What::Garbage] {
        let id = format!("mg-{what:?}");
        fixture.stub.fault(Fault {
            on: memguard_stubs::github::On {
                method: Some("POST".to_owned()),
                path: Some("/check-runs".to_owned()),
                number: None,
            },
            times: Some(1),
            what,
        });
        later(fixture.github.tell_check(&fixture.repository, &check(&id)).await);
        let told = fixture.github.tell_check(&fixture.repository, &check(&id)).await;
        assert!(matches!(told, Ok(Told::Check { already: true, .. })), "{told:?}");
    }
    assert_eq!(fixture.stub.check_runs().len(), 3);
}

#[tokio::test]
async fn among_many_the_own_one_is_found() {
    let fixture = with_app().await;
    for number in 0..120 {
        fixture.github.tell_check(&fixture.repository, &check(&format!("mg-{number}"))).await.unwrap();
    }
    let told = fixture.github.tell_check(&fixture.repository, &check("mg-119")).await;
    assert!(matches!(told, Ok(Told::Check { already: true, .. })), "{told:?}");
    assert_eq!(fixture.stub.check_runs().len(), 120);
}

#[tokio::test]
async fn with_a_token_it_is_a_commit_status() {
    let fixture = with_token().await;
    for _ in 0..2 {
        let told = fixture.github.tell_check(&fixture.repository, &check("mg-1")).await.unwrap();
        assert!(matches!(&told, Told::Status { instead } if instead.contains("GitHub App")), "{told:?}");
    }
    let statuses = fixture.stub.statuses();
    let expected = json!({
        "state": "failure", "context": "memguard/mg-1", "description": "The job hung at its memory limit",
        "target_url": "https://example.org/memguard",
    });
    // The second takes the place of the first: GitHub shows the latest of each context.
    assert!(statuses.len() == 2 && statuses.iter().all(|status| status.body == expected), "{statuses:?}");
    assert!(fixture.stub.check_runs().is_empty());
}

#[tokio::test]
async fn where_neither_is_allowed_both_reasons_are_told() {
    let fixture = with_app().await;
    fixture.stub.permit("checks", Some("read"));
    let why = never(fixture.github.tell_check(&fixture.repository, &check("mg-1")).await);
    for part in
        ["make a check run", "\"checks: write\"", "set a commit status", "commit statuses: write", "github.check_run"]
    {
        assert!(why.contains(part), "{why}");
    }
    // Not even looking is allowed.
    fixture.stub.permit("checks", None);
    fixture.stub.permit("statuses", Some("write"));
    let told = fixture.github.tell_check(&fixture.repository, &check("mg-1")).await.unwrap();
    assert!(matches!(told, Told::Status { .. }), "{told:?}");
    // "Not now" is no reason for a status.
    fixture.stub.permit("checks", Some("write"));
    fixture.stub.fault(Fault::at("/check-runs", What::secondary_limit()));
    assert_eq!(later(fixture.github.tell_check(&fixture.repository, &check("mg-2")).await).0, Some(60));
    assert_eq!(fixture.stub.statuses().len(), 1);
}

#[tokio::test]
async fn texts_are_cut_to_what_github_takes() {
    let fixture = with_app().await;
    let mut long = check("mg-1");
    long.title = format!("a\nb{}", "ü".repeat(1000));
    long.summary = "é".repeat(70_000);
    long.text = Some("x".repeat(70_000));
    long.conclusion = Conclusion::Neutral;
    std::mem::swap(&mut long.started_at, &mut long.completed_at);
    fixture.github.tell_check(&fixture.repository, &long).await.unwrap();
    let body = &fixture.stub.check_runs()[0].body;
    let length = |name: &str| body["output"][name].as_str().unwrap().chars().count();
    assert_eq!((length("title"), length("summary"), length("text")), (255, 65_535, 65_535));
    assert!(body["output"]["title"].as_str().unwrap().starts_with("a\\nb"));
    assert_eq!(body["started_at"], body["completed_at"], "never ends before it begins");
}

#[tokio::test]
async fn what_is_no_commit_is_not_sent() {
    let fixture = with_app().await;
    for sha in ["", "main", "../../x", "0123456789abcdef0123456789abcdef0123456/", &"0".repeat(65)] {
        let mut check = check("mg-1");
        check.head_sha = sha.to_owned();
        let why = never(fixture.github.tell_check(&fixture.repository, &check).await);
        assert!(why.contains("no commit"), "{why}");
    }
    assert!(fixture.asked().is_empty());
}
