//! Whatever goes wrong is told as what it is: another try helps, or it does not.

use std::time::{Duration, Instant};

use memguard::github::Cancelled;
use memguard_stubs::github::{Fault, Setup, What};
use serde_json::json;

use crate::fixture::{RUN, later, never, stub, with_app, with_app_and};

#[tokio::test]
async fn broken_answers_are_tried_again_and_do_no_harm() {
    let fixture = with_app().await;
    let (github, repository) = (&fixture.github, &fixture.repository);
    for (what, word) in [
        (What::Cut, "connection"),
        (What::Lost, "connection"),
        (What::Half, ""),
        (What::Garbage, "GitHub's description"),
        (What::Answer { code: 200, headers: Vec::new(), body: json!(null) }, "ends too early"),
        (What::Answer { code: 200, headers: Vec::new(), body: json!("{\"id\": 7, \"status\"") }, "ends too early"),
        (What::Answer { code: 404, headers: Vec::new(), body: json!("<html>nothing here</html>") }, "GitHub's words"),
        (What::Answer { code: 401, headers: Vec::new(), body: json!("<html>captive portal</html>") }, "GitHub's words"),
        (What::Answer { code: 302, headers: Vec::new(), body: json!("where?") }, "does not say where"),
        (What::refusal(500, "Server Error"), "Server Error"),
        (What::refusal(502, "Bad Gateway"), "502"),
        (What::refusal(503, "Unicorn"), "503"),
        (What::refusal(504, "timeout"), "504"),
    ] {
        // A portal refuses twice, with the renewed token as well.
        fixture.stub.fault(Fault { times: Some(2), ..Fault::at("/actions/runs/7", what.clone()) });
        let (after, why) = later(github.run(repository, RUN).await);
        assert!(after.is_none() && why.contains(word) && why.contains("look at run 7"), "{what:?}: {after:?} {why}");
        fixture.stub.clear_faults();
        assert!(github.run(repository, RUN).await.is_ok(), "{what:?}");
    }
}

#[tokio::test]
async fn a_server_that_keeps_one_waiting_is_given_up() {
    let timeout = Duration::from_millis(300);
    let fixture = with_app_and(Setup::default(), timeout).await;
    // Logged in before, so that the time is that of one request.
    fixture.github.run(&fixture.repository, RUN).await.unwrap();
    for what in [What::Hang, What::Slow { pause_ms: 20 }, What::Endless] {
        fixture.stub.fault(Fault::at("/actions/runs/7", what.clone()));
        let began = Instant::now();
        let (_, why) = later(fixture.github.run(&fixture.repository, RUN).await);
        let took = began.elapsed();
        assert!(took < timeout + Duration::from_secs(2), "{what:?} took {took:?}");
        assert!(why.contains("within 0.3 s") || why.contains("more than 4 MiB"), "{what:?}: {why}");
    }
    fixture.stub.fault(Fault::at("/access_tokens", What::Hang));
    fixture.stub.expire_tokens();
    let (_, why) = later(fixture.github.run(&fixture.repository, RUN).await);
    assert!(why.contains("get a token for installation 8"), "{why}");
    assert!(fixture.github.run(&fixture.repository, RUN).await.is_ok());
}

#[tokio::test]
async fn a_cancellation_whose_answer_was_lost_can_be_repeated() {
    let fixture = with_app().await;
    for what in [What::Lost, What::Half] {
        fixture.stub.fault(Fault::at("/cancel", what));
        // Half of `{}` is enough to know: the status said so. It is the connection that counts.
        let first = fixture.github.cancel(&fixture.repository, RUN).await;
        assert!(first.is_err(), "{first:?}");
        assert_eq!(fixture.github.cancel(&fixture.repository, RUN).await, Ok(Cancelled::Accepted));
    }
    assert_eq!(fixture.stub.run(RUN).unwrap().cancels, 4);
}

#[tokio::test]
async fn not_now_is_obeyed() {
    let fixture = with_app().await;
    let reset =
        (std::time::SystemTime::now() + Duration::from_secs(100)).duration_since(std::time::UNIX_EPOCH).unwrap();
    let reset = reset.as_secs().to_string();
    for (what, least, most) in [
        (What::refusal_with(429, "slow down", &[("retry-after", "17")]), 17, 17),
        (What::refusal(429, "slow down"), 60, 60),
        (What::secondary_limit(), 60, 60),
        (What::refusal_with(403, "secondary rate limit", &[("retry-after", "5")]), 5, 5),
        (
            What::refusal_with(
                403,
                "API rate limit exceeded",
                &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)],
            ),
            90,
            101,
        ),
        (What::refusal_with(503, "maintenance", &[("retry-after", "120")]), 120, 120),
    ] {
        fixture.stub.fault(Fault::at("/cancel", what.clone()));
        let (after, why) = later(fixture.github.cancel(&fixture.repository, RUN).await);
        assert!(after.is_some_and(|after| (least..=most).contains(&after)), "{what:?}: {after:?} {why}");
    }
    assert_eq!(fixture.count("/cancel"), 6, "none was repeated by itself");
}

#[tokio::test]
async fn no_is_final() {
    let fixture = with_app().await;
    for code in [400, 403, 404, 410, 422] {
        fixture.stub.fault(Fault::at("/cancel", What::refusal(code, "No")));
        let why = never(fixture.github.cancel(&fixture.repository, RUN).await);
        assert!(why.contains(&format!("\"No\" ({code})")), "{why}");
    }
    fixture
        .stub
        .fault(Fault::at("/cancel", What::refusal(409, "Cannot cancel a workflow re-run that has not yet queued.")));
    let over = fixture.github.cancel(&fixture.repository, RUN).await;
    assert!(matches!(&over, Ok(Cancelled::NotPossible { why }) if why.contains("re-run")), "{over:?}");
}

#[tokio::test]
async fn a_renamed_repository_is_followed_with_the_same_method() {
    let fixture = with_app().await;
    for code in [301, 302, 307, 308] {
        for to in [
            "/api/v3/repos/octo/repo/actions/runs/7/cancel".to_owned(),
            format!("{}/api/v3/repos/octo/repo/actions/runs/7/cancel", fixture.stub.url()),
        ] {
            let before = fixture.stub.run(RUN).unwrap().cancels;
            fixture.stub.fault(Fault::at(
                "/old/",
                What::Answer { code, headers: vec![("location".to_owned(), to)], body: json!({}) },
            ));
            let old = "old/name".parse().unwrap();
            assert_eq!(fixture.github.cancel(&old, RUN).await, Ok(Cancelled::Accepted), "{code}");
            assert_eq!(fixture.stub.run(RUN).unwrap().cancels, before + 1, "{code}");
        }
    }
    let here = vec![("location".to_owned(), "/api/v3/repos/octo/repo/actions/runs/7".to_owned())];
    fixture.stub.fault(Fault::at("/runs/7", What::Answer { code: 307, headers: here, body: json!({}) }).always());
    let (_, why) = later(fixture.github.run(&fixture.repository, RUN).await);
    assert!(why.contains("from one address to the next"), "{why}");
}

#[tokio::test]
async fn no_token_goes_to_another_host() {
    let fixture = with_app().await;
    let other = stub(Setup::default()).await;
    for code in [301, 302, 307, 308] {
        let to = format!("{}/api/v3/repos/octo/repo/actions/runs/7", other.url());
        fixture.stub.fault(Fault::at(
            "/runs/7",
            What::Answer { code, headers: vec![("location".to_owned(), to)], body: json!({}) },
        ));
        let result = fixture.github.run(&fixture.repository, RUN).await;
        let why = if matches!(code, 301 | 308) { never(result) } else { later(result).1 };
        assert!(why.contains(&other.address().to_string()) && why.contains("no token is sent"), "{why}");
    }
    assert!(other.requests().is_empty());
}
