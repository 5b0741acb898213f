//! What the doctor finds.

use memguard::github::{Check, GitHub, Verdict};
use memguard_stubs::github::{Fault, What};
use serde_json::json;

use crate::fixture::{app, settings, with_app, with_token};

fn shown(checks: &[Check]) -> Vec<String> {
    let line = |check: &Check| {
        format!("{:?} {}: {} [{}]", check.verdict, check.name, check.found, check.remedy.as_deref().unwrap_or(""))
    };
    checks.iter().map(line).collect()
}

#[tokio::test]
async fn an_app_with_all_it_needs_is_good() {
    let fixture = with_app().await;
    let checks = fixture.github.doctor().await;
    assert!(checks.iter().all(|check| check.verdict == Verdict::Good && check.remedy.is_none()), "{checks:#?}");
    let lines = shown(&checks).join("\n");
    for part in [
        "/api/v3",
        "installation 8 of App Iv23liABC",
        "actions: write",
        "checks: write",
        "metadata: read",
        "of 5000 requests",
    ] {
        assert!(lines.contains(part), "{lines}");
    }
    assert_eq!(fixture.asked(), ["POST /app/installations/8/access_tokens", "GET /rate_limit"]);
}

#[tokio::test]
async fn what_an_app_lacks_is_told_with_its_purpose() {
    let fixture = with_app().await;
    fixture.stub.permit("actions", Some("read"));
    fixture.stub.permit("checks", None);
    let lines = shown(&fixture.github.doctor().await);
    for part in
        ["Bad permission: actions: read [give the App", "Bad permission: checks: none [", "Good permission: metadata"]
    {
        assert!(lines.iter().any(|line| line.starts_with(part)), "{lines:#?}");
    }
}

#[tokio::test]
async fn of_a_token_as_much_is_told_as_github_tells() {
    let fixture = with_token().await;
    let lines = shown(&fixture.github.doctor().await);
    assert!(
        lines.iter().any(|line| line.starts_with("Unknown permission") && line.contains("actions: write")),
        "{lines:#?}"
    );
    let limit = json!({"resources": {"core": {"limit": 5000, "remaining": 3}}});
    for (scopes, verdict) in [("repo, gist", "Good"), ("public_repo", "Good"), ("gist, repo:status", "Bad")] {
        let headers = vec![("x-oauth-scopes".to_owned(), scopes.to_owned())];
        fixture.stub.fault(Fault::at("/rate_limit", What::Answer { code: 200, headers, body: limit.clone() }));
        let lines = shown(&fixture.github.doctor().await);
        assert!(
            lines.iter().any(|line| line.starts_with(&format!("{verdict} permission")) && line.contains(scopes)),
            "{lines:#?}"
        );
        assert!(lines.iter().any(|line| line.starts_with("Bad rate limit: 3 of 5000")), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_server_without_limits_is_good() {
    let fixture = with_app().await;
    fixture.stub.fault(Fault::at("/rate_limit", What::refusal(404, "Rate limiting is not enabled.")));
    let lines = shown(&fixture.github.doctor().await);
    assert!(lines.iter().any(|line| line.starts_with("Good rate limit: none")), "{lines:#?}");
}

#[tokio::test]
async fn what_stands_in_the_way_is_told() {
    let fixture = with_token().await;
    fixture.stub.set_token("another");
    let lines = shown(&fixture.github.doctor().await).join("\n");
    assert!(
        lines.contains("Bad login") && lines.contains("Bad credentials") && lines.contains("put a new one"),
        "{lines}"
    );
    let fixture = with_app().await;
    fixture.stub.fault(Fault::at("access_tokens", What::refusal(401, "A JSON web token could not be decoded")));
    let lines = shown(&fixture.github.doctor().await).join("\n");
    assert!(lines.contains("Bad login") && lines.contains("private key"), "{lines}");
    let url = fixture.stub.url();
    fixture.stub.shutdown().await;
    let away = GitHub::new(&settings(&url, app())).unwrap();
    let lines = shown(&away.doctor().await).join("\n");
    assert!(lines.contains("Bad login") && lines.contains("refused") && lines.contains("network"), "{lines}");
}
