//! ARC's own secret by reference.

use memguard::{
    github::{Settings, Source, Verdict},
    kubernetes,
    remote::{Kind, Progress, look_at_arc_secrets},
};
use memguard_stubs::{
    github::{Fault, Run, What},
    kubernetes::objects::{Container, of_runner, pod},
};
use serde_json::json;

use crate::fixture::{TOKEN, World, arcs_secret, outward, runner, until};

async fn started() -> World {
    let mut world = World::new().await;
    world.start(outward(Some((&world.github, Source::Arc))));
    world
}

fn gave_up(progress: Progress) -> String {
    match progress {
        Progress::GaveUp { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_run_is_cancelled_with_the_secret_that_the_runner_names() {
    let world = started().await;
    assert_eq!(world.secrets_read(), 0, "nothing is read before it is needed");
    world.kube.grant("get", "secrets");
    let id = world.follow("mg-1");
    assert!(matches!(world.end(&id, Kind::Cancel).await, Progress::Done { .. }));
    assert!(matches!(world.end(&id, Kind::CheckRun).await, Progress::Done { .. }));
    assert_eq!(world.github.run(42).unwrap().cancels, 1);
    assert_eq!(world.secrets_read(), 1, "one session for all that is asked");
    assert!(world.kube.requests().iter().all(|request| {
        !request.path.contains("/secrets") || request.path.contains("/namespaces/ci/secrets/arc-secret")
    }));
}

#[tokio::test]
async fn a_token_that_github_refuses_is_read_again() {
    let world = started().await;
    world.kube.grant("get", "secrets");
    let first = world.follow("mg-1");
    assert!(matches!(world.end(&first, Kind::Cancel).await, Progress::Done { .. }));
    let read = world.secrets_read();
    world.github.put_run(Run::on("octo/repo", 42, "r-1"));
    world.github.set_token("another-token");
    world.kube.put(arcs_secret(&[("github_token", "another-token\n")])).unwrap();
    world.kube.put(runner(&world.github.url(), &json!({}))).unwrap();
    let second = world.follow("mg-2");
    assert!(matches!(world.end(&second, Kind::Cancel).await, Progress::Done { .. }));
    assert_eq!((world.github.run(42).unwrap().cancels, world.secrets_read()), (1, read + 1));
    // Taken away: what was read before is not used for long, and the words say what is missing.
    world.github.set_token("a-third-token");
    world.kube.deny("get", "secrets");
    world.kube.put(runner(&world.github.url(), &json!({}))).unwrap();
    let third = world.follow("mg-3");
    let why = gave_up(world.end(&third, Kind::Cancel).await);
    assert!(why.contains("Role in namespace ci"), "{why}");
}

const KEY: &str = include_str!("../../../tests/fixtures/github/app-key.pem");

fn of_app(id: &str) -> serde_json::Value {
    let values = [("github_app_id", id), ("github_app_installation_id", "8"), ("github_app_private_key", KEY)];
    arcs_secret(&values)
}

#[tokio::test]
async fn an_apps_login_lasts_and_is_made_anew_with_what_the_secret_says_then() {
    let world = started().await;
    world.kube.grant("get", "secrets");
    world.kube.put(of_app("Iv23liABC")).unwrap();
    let logins = || world.github.requests().iter().filter(|request| request.path.contains("/access_tokens")).count();
    let first = world.follow("mg-1");
    assert!(matches!(world.end(&first, Kind::Cancel).await, Progress::Done { .. }));
    assert!(matches!(world.end(&first, Kind::CheckRun).await, Progress::Done { .. }));
    assert_eq!((logins(), world.secrets_read(), world.github.check_runs().len()), (1, 1, 1));
    // The App was replaced, and its tokens ended.
    world.github.expire_tokens();
    world.kube.put(of_app("Iv23liXYZ")).unwrap();
    let second = again(&world, "mg-2");
    assert!(matches!(world.end(&second, Kind::Cancel).await, Progress::Done { .. }));
    assert_eq!((world.github.run(42).unwrap().cancels, world.secrets_read()), (1, 2));
}

/// The same run once more.
fn again(world: &World, id: &str) -> String {
    world.github.put_run(Run::on("octo/repo", 42, "r-1"));
    world.kube.put(runner(&world.github.url(), &json!({}))).unwrap();
    world.follow(id)
}

#[tokio::test]
async fn a_login_that_github_refuses_is_tried_with_what_the_secret_says_now() {
    // Too short to be used twice, so each request is preceded by a login.
    let mut world = World::with_token_life(1).await;
    world.start(outward(Some((&world.github, Source::Arc))));
    world.kube.grant("get", "secrets");
    world.kube.put(of_app("Iv23liABC")).unwrap();
    let first = world.follow("mg-1");
    assert!(matches!(world.end(&first, Kind::Cancel).await, Progress::Done { .. }));
    world.end(&first, Kind::CheckRun).await;
    assert_eq!(world.secrets_read(), 1);
    world.github.fault(Fault::at("/access_tokens", What::refusal(401, "Integration not found")));
    world.kube.put(of_app("Iv23liXYZ")).unwrap();
    let second = again(&world, "mg-2");
    assert!(matches!(world.end(&second, Kind::Cancel).await, Progress::Done { .. }));
    // With the same words it is final.
    world.end(&second, Kind::CheckRun).await;
    world.github.fault(Fault::at("/access_tokens", What::refusal(401, "Integration not found")));
    let third = again(&world, "mg-3");
    let why = gave_up(world.end(&third, Kind::Cancel).await);
    assert!(why.contains("private key"), "{why}");
}

#[tokio::test]
async fn what_is_missing_is_said_in_the_incident() {
    let world = started().await;
    let id = world.follow("no-right");
    let why = gave_up(world.end(&id, Kind::Cancel).await);
    for part in ["can't get secrets ci/arc-secret", "Role in namespace ci", "github.arcSecrets"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    world.kube.grant("get", "secrets");
    let mut number = 0;
    let mut next = async |secret: &[(&str, &str)], spec: serde_json::Value| {
        number += 1;
        world.kube.put(arcs_secret(secret)).unwrap();
        world.kube.put(runner(&world.github.url(), &spec)).unwrap();
        let id = world.follow(&format!("mg-{number}"));
        gave_up(world.end(&id, Kind::Cancel).await)
    };
    for (secret, spec, part) in [
        (
            &[("password", "c2VjcmV0")][..],
            json!({}),
            "Secret ci/arc-secret for GitHub: it has neither github_token nor",
        ),
        (&[("github_token", "c2VjcmV0 c2VjcmV0")], json!({}), "github_token of Secret ci/arc-secret"),
        (&[("github_app_id", "1")], json!({}), "lacks github_app_installation_id and github_app_private_key"),
        (&[], json!({"githubConfigSecret": "gone"}), "names as githubConfigSecret"),
        (&[], json!({"githubConfigSecret": "../../x"}), "no name"),
        (&[], json!({"vaultConfig": {"type": "azure_key_vault"}}), "vault"),
        (&[], json!({"githubConfigUrl": "https://evil.example/octo"}), "github.url"),
    ] {
        let why = next(secret, spec).await;
        assert!(why.contains(part) && !why.contains("c2VjcmV0") && !why.contains("password"), "{part}: {why}");
    }
}

#[tokio::test]
async fn another_host_costs_no_read_and_no_request() {
    let world = started().await;
    world.kube.grant("get", "secrets");
    world.kube.put(runner(&world.github.url(), &json!({"githubConfigUrl": "http://127.0.0.1:1/octo"}))).unwrap();
    let id = world.follow("mg-1");
    let why = gave_up(world.end(&id, Kind::Cancel).await);
    assert!(why.contains("127.0.0.1:1"), "{why}");
    assert_eq!((world.secrets_read(), world.github.requests().len()), (0, 0));
}

#[tokio::test]
async fn a_proxy_that_only_the_runner_names_is_not_used_and_is_mentioned() {
    let mut world = World::new().await;
    let mut settings = outward(Some((&world.github, Source::Arc)));
    // Nobody listens there.
    settings.github.as_mut().unwrap().connection.api_url = Some("http://127.0.0.1:1/api/v3".to_owned());
    world.start(settings);
    world.kube.grant("get", "secrets");
    world
        .kube
        .put(runner(&world.github.url(), &json!({"proxy": {"https": {"url": "http://evil.example:3128"}}})))
        .unwrap();
    let id = world.follow("mg-1");
    let failing = || match world.progress(&id, Kind::Cancel) {
        Some(Progress::Open(open)) => open.last,
        _ => None,
    };
    until("a failure", || failing().is_some()).await;
    let why = failing().unwrap();
    assert!(why.contains("github.proxy or HTTPS_PROXY") && !why.contains("evil"), "{why}");
}

#[tokio::test]
async fn the_doctor_says_what_the_secrets_of_this_nodes_runners_are_good_for() {
    let world = World::new().await;
    let client = kubernetes::client(Some(&world.path("kubeconfig")), std::time::Duration::from_secs(5)).await.unwrap();
    let settings = Settings { url: world.github.url(), ..Settings::new(Source::Arc) };
    let look = async || look_at_arc_secrets(&client, "node-1", &settings).await.unwrap();
    let checks = look().await;
    assert!(checks.iter().any(|check| check.found.contains("no runner of ARC's") && check.verdict == Verdict::Unknown));

    let container = Container { name: "runner", id: &"a".repeat(64), memory_limit: None };
    let runners_pod = of_runner(pod("node-1", "ci", "r-1", "pod-r-1", &[container]), "runner-r-1");
    world.kube.put(runners_pod).unwrap();
    let checks = look().await;
    let told = |checks: &[memguard::github::Check], part: &str, verdict| {
        assert!(
            checks.iter().any(|check| check.found.contains(part) && check.verdict == verdict),
            "{part}: {checks:?}"
        );
    };
    told(&checks, "Role in namespace ci", Verdict::Bad);
    world.kube.grant("get", "secrets");
    let checks = look().await;
    told(&checks, "with ci/arc-secret: as Secret ci/arc-secret says", Verdict::Good);
    assert!(!format!("{checks:?}").contains(TOKEN));
    world.kube.put(arcs_secret(&[("github_token", "wrong-token")])).unwrap();
    told(&look().await, "Bad credentials", Verdict::Bad);
    world.kube.put(runner(&world.github.url(), &json!({"githubConfigUrl": "https://github.com/octo"}))).unwrap();
    told(&look().await, "the runner belongs to github.com", Verdict::Bad);
}
