//! Secrets are nowhere to be found in what memguard can print.

use std::fmt::Write as _;

use memguard::github::{GitHub, Source};
use memguard_stubs::{
    captured::Captured,
    github::{Fault, What},
};
use tracing_subscriber::filter::LevelFilter;

use crate::fixture::{Fixture, KEY, RUN, TOKEN, check, settings, with_app, with_token};

/// Everything that can be had of a `GitHub` in words, while the server repeats what it was sent.
async fn all_words(fixture: &Fixture, secret: &str) -> String {
    let Fixture { stub, github, repository, .. } = fixture;
    let mut words = format!("{github:?} {github:#?}");
    let echo = format!("you sent Authorization: Bearer {secret}\n{secret}, and {secret}");
    for what in [
        What::refusal(401, &echo),
        What::refusal(403, &echo),
        What::refusal(404, &echo),
        What::refusal(409, &echo),
        What::refusal(422, &echo),
        What::refusal(429, &echo),
        What::refusal(500, &echo),
        What::Answer { code: 200, headers: Vec::new(), body: echo.clone().into() },
        What::Answer {
            code: 302,
            headers: vec![("location".to_owned(), format!("https://{secret}@x.example/"))],
            body: echo.clone().into(),
        },
        What::Answer { code: 200, headers: Vec::new(), body: serde_json::json!({"id": echo, "status": echo}) },
        What::Cut,
        What::Half,
    ] {
        stub.fault(Fault::next(what).always());
        let _ = write!(words, "{:?}", github.run(repository, RUN).await);
        let _ = write!(words, "{:?}", github.jobs_on(repository, RUN, "x").await);
        let _ = write!(words, "{:?}", github.cancel(repository, RUN).await);
        let _ = write!(words, "{:?}", github.force_cancel(repository, RUN).await);
        let _ = write!(words, "{:?}", github.tell_check(repository, &check("mg-1")).await);
        let _ = write!(words, "{:?}", github.doctor().await);
        stub.clear_faults();
    }
    let _ = write!(words, "{:?}", github.tell_check(repository, &check("mg-1")).await);
    let _ = write!(words, "{:?} {:?}", github.serves("https://github.com"), stub.requests());
    words
}

/// Where a secret stands.
fn around<'a>(words: &'a str, secret: &str) -> Option<&'a str> {
    let at = words.find(secret)?;
    Some(&words[words.floor_char_boundary(at.saturating_sub(200))..at + secret.len()])
}

#[tokio::test]
async fn no_secret_is_in_anything_that_can_be_printed() {
    let logged = Captured::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(logged.writer()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    tracing::trace!("the log is caught");

    let fixture = with_token().await;
    let words = all_words(&fixture, TOKEN).await;
    assert!(words.len() > 5_000 && words.contains("[token]"), "{words}");
    assert_eq!(around(&words, TOKEN), None);

    let fixture = with_app().await;
    let words = all_words(&fixture, "ghs_stub1").await;
    assert!(words.contains("[token]"), "{words}");
    assert_eq!(around(&words, "ghs_stub"), None);
    let key = std::fs::read_to_string(KEY).unwrap();
    let hidden = |text: &str| {
        let line =
            key.lines().filter(|line| line.len() > 20 && !line.contains("---")).find(|line| text.contains(*line));
        line.is_none() && !text.contains("eyJ") && !text.contains("PRIVATE")
    };
    assert!(hidden(&words));

    // A key or token in the wrong file.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "ghp_0123456789 c2VjcmV0").unwrap();
    std::fs::write(folder.path().join("token"), &key).unwrap();
    let url = fixture.stub.url();
    for source in [
        Source::Token(folder.path().join("token")),
        Source::App { id: "1".to_owned(), installation: 1, key: folder.path().join("key") },
    ] {
        let error = GitHub::new(&settings(&url, source)).unwrap_err();
        let words = format!("{error} {error:?}");
        assert!(hidden(&words) && !words.contains("ghp_") && !words.contains("c2VjcmV0"), "{words}");
    }
    let logged = logged.text();
    assert!(logged.contains("the log is caught"));
    assert_eq!((around(&logged, TOKEN), around(&logged, "ghs_stub")), (None, None));
    assert!(hidden(&logged));
}
