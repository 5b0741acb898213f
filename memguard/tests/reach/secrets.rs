//! ARC's secrets are nowhere to be found in what memguard writes: log, journal, Events, requests.

use std::fmt::Write as _;

use memguard::{
    github::{Settings, Source},
    kubernetes,
    remote::{Kind, Progress, look_at_arc_secrets},
};
use memguard_stubs::{
    captured::Captured,
    github::{Fault, What},
    kubernetes::objects::{Container, of_runner, pod},
};
use tracing_subscriber::filter::LevelFilter;

use crate::fixture::{TOKEN, World, arcs_secret, outward, until};

/// Everything in the files of a folder.
fn all_files(folder: &std::path::Path, into: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            all_files(&entry.path(), into);
        } else {
            into.extend(std::fs::read(entry.path()).unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn arcs_secret_is_in_nothing_that_is_written() {
    const OTHER: &str = "c2VjcmV0LW9mLXNvbWVib2R5LWVsc2U";
    let logged = Captured::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(logged.writer()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    tracing::trace!("the log is caught");

    let mut world = World::new().await;
    let mut settings = outward(Some((&world.github, Source::Arc)));
    settings.kubernetes.events = true;
    world.kube.grant("get", "secrets");
    world.kube.put(arcs_secret(&[("github_token", TOKEN), ("password", OTHER)])).unwrap();
    let container = Container { name: "runner", id: &"a".repeat(64), memory_limit: None };
    let runners_pod = of_runner(pod("node-1", "ci", "r-1", "pod-r-1", &[container]), "runner-r-1");
    world.kube.put(runners_pod).unwrap();
    world.start(settings);

    // A GitHub that repeats what it was sent.
    let echo = format!("you sent Authorization: Bearer {TOKEN}, {TOKEN}");
    world.github.fault(Fault::next(What::refusal(500, &echo)));
    world.github.fault(Fault::next(What::refusal(401, &echo)));
    let id = world.follow("mg-1");
    assert!(matches!(world.end(&id, Kind::Cancel).await, Progress::Done { .. }));
    world.end(&id, Kind::CheckRun).await;
    // Values that are no good.
    let mut words = String::new();
    for (number, wrong) in [format!("{TOKEN} {OTHER}"), format!("{TOKEN}\u{7f}"), String::new()].iter().enumerate() {
        world.kube.put(arcs_secret(&[("github_token", wrong.as_str())])).unwrap();
        let client =
            kubernetes::client(Some(&world.path("kubeconfig")), std::time::Duration::from_secs(5)).await.unwrap();
        let github = Settings { url: world.github.url(), ..Settings::new(Source::Arc) };
        let _ = write!(words, "{number} {:?}", look_at_arc_secrets(&client, "node-1", &github).await);
    }
    until("the journal", || world.kept(&id).is_some_and(|kept| !kept.is_open())).await;
    let _ = write!(words, "{:?} {:?} {:?}", world.kept(&id), world.remote(), world.kube.requests());
    let _ = write!(words, "{:?}", world.github.requests());
    assert!(words.contains("github_token of Secret ci/arc-secret"), "{words}");
    let mut written = words.into_bytes();
    all_files(world.folder.path(), &mut written);
    written.extend(logged.text().as_bytes());
    let written = String::from_utf8_lossy(&written);
    assert!(written.contains("the log is caught") && written.contains("[token]"));
    for secret in [TOKEN, OTHER, "MDEyMzQ1Njc4OS1hLXRva2Vu"] {
        let at = written.find(secret);
        let around = at.map(|at| &written[written.floor_char_boundary(at.saturating_sub(200))..at]);
        assert_eq!(around, None);
    }
}
