//! Tokens: had, kept, renewed, refused; and files that are replaced.

use std::{fs, time::Duration};

use memguard::github::{GitHub, Source};
use memguard_stubs::github::{Fault, Run, Setup, What};

use crate::fixture::{
    KEY, RUN, app, later, never, repository, settings, stub, with_app, with_app_and, with_token, write_token,
};

#[tokio::test]
async fn an_app_logs_in_once_for_many_requests() {
    let fixture = with_app().await;
    let requests = (0..4).map(|_| fixture.github.run(&fixture.repository, RUN));
    for result in futures_util::future::join_all(requests).await {
        result.unwrap();
    }
    let kinds: Vec<_> = fixture.stub.requests().iter().map(|request| request.authorization).collect();
    assert_eq!(kinds, ["app", "installation", "installation", "installation", "installation"]);
    assert_eq!(fixture.asked()[0], "POST /app/installations/8/access_tokens");
}

#[tokio::test]
async fn a_token_about_to_end_is_replaced_before() {
    // Less than the margin.
    let setup = Setup { token_life_s: 200, ..Setup::default() };
    let fixture = with_app_and(setup, Duration::from_secs(10)).await;
    for _ in 0..2 {
        fixture.github.run(&fixture.repository, RUN).await.unwrap();
    }
    assert_eq!(fixture.count("access_tokens"), 2);
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let fixture = with_app().await;
    fixture.github.run(&fixture.repository, RUN).await.unwrap();
    fixture.stub.expire_tokens();
    fixture.stub.forget_requests();
    fixture.github.cancel(&fixture.repository, RUN).await.unwrap();
    assert_eq!(
        fixture.asked(),
        ["POST /actions/runs/7/cancel", "POST /app/installations/8/access_tokens", "POST /actions/runs/7/cancel"]
    );
    assert_eq!(fixture.stub.run(RUN).unwrap().cancels, 1);
    // Refused for ever: no endless circle, and another try may help.
    fixture.stub.forget_requests();
    fixture.stub.fault(Fault::at("/cancel", What::refusal(401, "Bad credentials")).always());
    let (_, why) = later(fixture.github.cancel(&fixture.repository, RUN).await);
    assert!(why.contains("Bad credentials"), "{why}");
    assert_eq!((fixture.count("/cancel"), fixture.count("access_tokens")), (2, 1));
}

#[tokio::test]
async fn refusals_of_a_login_are_told_apart() {
    let fixture = with_app().await;
    let login = |what| Fault::at("access_tokens", what);
    for (what, word) in [
        (What::refusal(401, "A JSON web token could not be decoded"), "private key"),
        (What::refusal(404, "Not Found"), "no such installation"),
        (What::refusal(404, "Integration not found"), "no such installation"),
        (What::refusal(403, "This installation has been suspended"), "suspended"),
        (What::refusal(422, "The permissions requested are not granted"), "not granted"),
    ] {
        fixture.stub.fault(login(what));
        let why = never(fixture.github.run(&fixture.repository, RUN).await);
        assert!(why.contains(word) && why.contains("installation 8"), "{why}");
    }
    for (what, wait) in [
        (What::refusal_with(403, "secondary rate limit", &[("retry-after", "9")]), Some(9)),
        (What::refusal_with(429, "x", &[("retry-after", "9")]), Some(9)),
        (What::refusal(500, "x"), None),
        (What::Cut, None),
        (What::Half, None),
        (What::Garbage, None),
        (What::Answer { code: 201, headers: Vec::new(), body: serde_json::json!({"token": "a\r\nb: c"}) }, None),
        (What::Answer { code: 401, headers: Vec::new(), body: "<html>".into() }, None),
    ] {
        fixture.stub.fault(login(what.clone()));
        let (after, why) = later(fixture.github.run(&fixture.repository, RUN).await);
        assert_eq!(after, wait, "{what:?} {why}");
    }
    assert!(fixture.github.run(&fixture.repository, RUN).await.is_ok());
    assert_eq!(fixture.count("/actions/"), 1);
}

#[tokio::test]
async fn a_clock_that_differs_from_githubs_is_allowed_for() {
    let fixture = with_app().await;
    let early = "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued";
    let theirs = jiff::Timestamp::now() + Duration::from_hours(2);
    let theirs = theirs.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    fixture.stub.fault(Fault::at("access_tokens", What::refusal_with(401, early, &[("date", &theirs)])));
    fixture.github.run(&fixture.repository, RUN).await.unwrap();
    assert_eq!(fixture.count("access_tokens"), 2);
    // With the right time it is no matter of the clock, and is not tried at once.
    fixture.stub.expire_tokens();
    fixture.stub.forget_requests();
    fixture.stub.fault(Fault::at("access_tokens", What::refusal_with(401, early, &[("date", &theirs)])));
    let (_, why) = later(fixture.github.run(&fixture.repository, RUN).await);
    assert!(why.contains("Issued at"), "{why}");
    assert_eq!(fixture.count("access_tokens"), 1);
}

#[tokio::test]
async fn a_token_that_was_replaced_is_used_at_once() {
    let fixture = with_token().await;
    let (github, repository) = (&fixture.github, &fixture.repository);
    github.run(repository, RUN).await.unwrap();
    fixture.stub.set_token("another-token");
    let (_, why) = later(github.run(repository, RUN).await);
    assert!(why.contains("put a new one into its file"), "{why}");
    assert_eq!(fixture.count("/runs/7"), 2, "the same token is not sent twice");
    write_token(fixture.folder.path(), "another-token\n");
    github.run(repository, RUN).await.unwrap();
}

#[tokio::test]
async fn files_that_are_away_for_a_moment_change_nothing() {
    let fixture = with_token().await;
    let (github, repository) = (&fixture.github, &fixture.repository);
    let file = fixture.folder.path().join("github_token");
    fs::remove_file(&file).unwrap();
    github.run(repository, RUN).await.unwrap();
    fs::write(&file, "two words").unwrap();
    github.run(repository, RUN).await.unwrap();
    let checks = github.doctor().await;
    assert!(checks.iter().any(|check| check.found.contains("the token alone")), "{checks:?}");
    write_token(fixture.folder.path(), crate::fixture::TOKEN);
    github.run(repository, RUN).await.unwrap();
    let checks = github.doctor().await;
    assert!(!checks.iter().any(|check| check.found.contains("the token alone")), "{checks:?}");
}

#[tokio::test]
async fn another_app_in_the_folder_is_another_login() {
    let stub = stub(Setup { runs: vec![Run::on("octo/repo", RUN, "r")], ..Setup::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("github_app_id", "1");
    write("github_app_installation_id", "8");
    write("github_app_private_key", &fs::read_to_string(KEY).unwrap());
    let github = GitHub::new(&settings(&stub.url(), Source::Folder(folder.path().to_owned()))).unwrap();
    github.run(&repository(), RUN).await.unwrap();
    write("github_app_installation_id", "99");
    github.run(&repository(), RUN).await.unwrap();
    let logins: Vec<_> = stub.requests().into_iter().filter(|request| request.authorization == "app").collect();
    assert_eq!(logins.len(), 2);
    assert!(logins[1].path.ends_with("/installations/99/access_tokens"), "{logins:?}");
}

#[tokio::test]
async fn a_server_that_comes_and_goes_is_reached_again() {
    let first = stub(Setup { runs: vec![Run::on("octo/repo", RUN, "r")], ..Setup::default() }).await;
    let address = first.address();
    let github = GitHub::new(&settings(&first.url(), app())).unwrap();
    github.run(&repository(), RUN).await.unwrap();
    first.shutdown().await;
    let (_, why) = later(github.run(&repository(), RUN).await);
    assert!(why.contains("run 7"), "{why}");
    let second = memguard_stubs::github::GitHubStub::start(
        address,
        Setup { runs: vec![Run::on("octo/repo", RUN, "r")], ..Setup::default() },
    );
    let second = second.await.unwrap();
    // It does not know the token of before.
    github.run(&repository(), RUN).await.unwrap();
    assert_eq!(second.requests().len(), 3);
}
