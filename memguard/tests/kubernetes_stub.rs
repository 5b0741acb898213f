//! memguard's Kubernetes client against a server with state: what request by request looks right can still be wrong in a
//! row.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use memguard::{
    kubernetes::{
        Deleted, Generation, Known, Notice, NoticeAction, PodFacts, Pods, Regarding, RunnerFacts, RunnerRef, check,
        client, delete_runner, job, tell, watch,
    },
    remote::Failure,
    workload::{Place, Qos},
};
use memguard_stubs::kubernetes::{
    Fault, KubeStub, Setup, What,
    objects::{Container, Runner, ephemeral_runner, of_runner, pod},
};
use serde_json::Value;

const NODE: &str = "node-1";
const TOKEN: &str = "a-token";

fn runner_pod(name: &str) -> Value {
    let container = Container { name: "runner", id: &"a".repeat(64), memory_limit: Some("256Mi") };
    of_runner(pod(NODE, "ci", name, &format!("pod-{name}"), &[container]), &format!("runner-{name}"))
}

fn runner(name: &str, uid: &str, job: Option<(&str, u64)>) -> Value {
    let config_url = "https://github.com/octo";
    ephemeral_runner(&Runner { namespace: "ci", name, uid, job, config_url, arc_version: "0.14.2" })
}

fn setup() -> Setup {
    let elsewhere = pod("node-2", "ci", "elsewhere", "pod-elsewhere", &[]);
    Setup {
        objects: vec![runner_pod("r-1"), runner("r-1", "runner-r-1", Some(("octo/repo", 42))), elsewhere],
        token: Some(TOKEN.to_owned()),
        ..Setup::default()
    }
}

async fn start(setup: Setup) -> (KubeStub, kube::Client) {
    start_with(setup, Duration::from_secs(5)).await
}

async fn start_with(setup: Setup, timeout: Duration) -> (KubeStub, kube::Client) {
    let stub = KubeStub::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), setup).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    std::fs::write(&path, stub.kubeconfig()).unwrap();
    let client = client(Some(&path), timeout).await.unwrap();
    (stub, client)
}

fn watched(client: &kube::Client) -> Pods {
    let pods = Pods::default();
    let (client, known) = (client.clone(), pods.clone());
    tokio::spawn(async move { watch(client, NODE, known).await });
    pods
}

fn of(pods: &Pods, name: &str) -> Option<Known<PodFacts>> {
    let pod_uid = format!("pod-{name}");
    pods.of(&Place { pod_uid, qos: Qos::Burstable, container_id: Some("a".repeat(64)), nested: false })
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_mins(1), "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Requests of a method to a path that begins so.
fn asked(stub: &KubeStub, method: &str, path: &str) -> usize {
    stub.requests().iter().filter(|request| request.method == method && request.path.starts_with(path)).count()
}

fn effects(stub: &KubeStub) -> Vec<String> {
    stub.requests().into_iter().filter_map(|request| request.effect).collect()
}

fn fault(method: &str, path: &str, times: u32, what: What) -> Fault {
    Fault { method: Some(method.to_owned()), path: path.to_owned(), times: Some(times), what }
}

#[tokio::test]
async fn pods_of_this_node_come_and_change_and_go() {
    let (stub, client) = start(setup()).await;
    let pods = watched(&client);
    until("the list", || of(&pods, "r-1").is_some()).await;
    assert!(of(&pods, "elsewhere").is_none(), "of another node");
    let facts = of(&pods, "r-1").unwrap();
    assert_eq!((facts.facts.name.as_str(), facts.stale_since), ("r-1", None));

    stub.put(runner_pod("r-2")).unwrap();
    until("a new pod", || of(&pods, "r-2").is_some()).await;
    let mut ending = runner_pod("r-2");
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    stub.put(ending).unwrap();
    until("its end", || of(&pods, "r-2").is_some_and(|known| known.facts.terminating)).await;
    stub.remove("pods", "ci", "r-2");
    until("that it is gone", || of(&pods, "r-2").is_none()).await;
    assert_eq!(asked(&stub, "GET", "/api/v1/pods"), 2, "a list and a watch were enough");
}

#[tokio::test]
async fn a_version_that_expired_costs_a_list_and_no_facts() {
    let (stub, client) = start(setup()).await;
    let pods = watched(&client);
    until("the watch", || asked(&stub, "GET", "/api/v1/pods") == 2).await;
    stub.remove("pods", "ci", "r-1");
    stub.put(runner_pod("r-3")).unwrap();
    until("the new one", || of(&pods, "r-3").is_some()).await;
    stub.expire();
    until("list and watch anew", || asked(&stub, "GET", "/api/v1/pods") == 4).await;
    assert!(of(&pods, "r-3").is_some() && of(&pods, "r-1").is_none());
    stub.put(runner_pod("r-4")).unwrap();
    until("what comes after", || of(&pods, "r-4").is_some()).await;
    assert_eq!(pods.stale_since(), None);
}

#[tokio::test]
async fn facts_outlive_an_outage_and_catch_up_after_it() {
    let (stub, client) = start(setup()).await;
    let pods = watched(&client);
    until("the watch", || asked(&stub, "GET", "/api/v1/pods") == 2).await;
    let refuse = |code| What::Refuse { code, retry_after_s: None };
    for what in [refuse(503), What::Cut] {
        stub.fault(fault("GET", "/api/v1/pods", 1, what));
    }
    // Ends the open watch; what follows meets the faults.
    stub.expire();
    until("the outage", || pods.stale_since().is_some()).await;
    assert!(of(&pods, "r-1").is_some_and(|known| known.stale_since.is_some()), "known, and marked");
    stub.remove("pods", "ci", "r-1");
    stub.put(runner_pod("r-5")).unwrap();
    until("the end of the outage", || pods.stale_since().is_none()).await;
    assert!(of(&pods, "r-1").is_none() && of(&pods, "r-5").is_some());
}

async fn facts(client: &kube::Client, pods: &Pods, name: &str) -> RunnerFacts {
    let runner = RunnerRef::of(&of(pods, name).unwrap().facts).unwrap();
    job(client, &runner).await.unwrap()
}

#[tokio::test]
async fn from_a_pod_to_its_job_to_the_end_of_its_runner() {
    let (stub, client) = start(setup()).await;
    let pods = watched(&client);
    until("the list", || of(&pods, "r-1").is_some()).await;
    let facts = facts(&client, &pods, "r-1").await;
    let job = facts.job.clone().unwrap();
    assert_eq!((job.repository.as_str(), job.run_id, facts.uid.as_str()), ("octo/repo", 42, "runner-r-1"));

    assert_eq!(delete_runner(&client, &facts.runner()).await, Ok(Deleted::Accepted));
    assert!(stub.get("ephemeralrunners", "ci", "r-1").unwrap()["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(delete_runner(&client, &facts.runner()).await, Ok(Deleted::Accepted), "while it waits, once more");
    assert_eq!(stub.runners_to_be_let_go(), [("ci".to_owned(), "r-1".to_owned())]);
    stub.remove_finalizers("ci", "r-1");
    assert_eq!(delete_runner(&client, &facts.runner()).await, Ok(Deleted::AlreadyGone));

    // ARC never gives a name twice, but if it did: the other one stays.
    stub.put(runner("r-1", "runner-other", None)).unwrap();
    assert_eq!(delete_runner(&client, &facts.runner()).await, Ok(Deleted::AlreadyGone));
    assert!(stub.get("ephemeralrunners", "ci", "r-1").unwrap()["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(effects(&stub), ["deleted ephemeralrunners ci/r-1 runner-r-1"], "once in effect");
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_repeated_without_harm() {
    let (stub, client) = start(setup()).await;
    let runner = RunnerRef {
        api: Generation::ScaleSets,
        namespace: "ci".to_owned(),
        name: "r-1".to_owned(),
        uid: Some("runner-r-1".to_owned()),
    };
    stub.fault(fault("DELETE", "/ephemeralrunners/r-1", 1, What::LoseAnswer));
    stub.fault(fault("DELETE", "/ephemeralrunners/r-1", 1, What::CutAnswer));
    for _ in 0..2 {
        let lost = delete_runner(&client, &runner).await;
        assert!(matches!(lost, Err(Failure::Later { .. })), "{lost:?}");
    }
    assert_eq!(delete_runner(&client, &runner).await, Ok(Deleted::Accepted));
    assert_eq!(effects(&stub).len(), 1);
}

#[tokio::test]
async fn an_event_is_told_once_however_often_it_is_tried() {
    let (stub, client) = start(setup()).await;
    let pods = watched(&client);
    until("the list", || of(&pods, "r-1").is_some()).await;
    let runner = facts(&client, &pods, "r-1").await;
    let notice = |regarding| Notice {
        regarding,
        action: NoticeAction::Killed,
        note: "hung in reclaim for 12 s, and was ended".to_owned(),
        incident: "mg-1764000000-7".to_owned(),
        node: NODE.to_owned(),
        at: SystemTime::now(),
    };
    stub.fault(fault("POST", "/events", 1, What::LoseAnswer));
    let about_pod = notice(Regarding::from(&*of(&pods, "r-1").unwrap().facts));
    let lost = tell(&client, about_pod.clone()).await;
    assert!(matches!(lost, Err(Failure::Later { .. })), "{lost:?}");
    assert_eq!(tell(&client, about_pod).await, Ok(()), "it is there already");
    assert_eq!(tell(&client, notice(Regarding::from(&runner))).await, Ok(()));
    assert_eq!(effects(&stub), ["told about Pod ci/r-1", "told about EphemeralRunner ci/r-1"]);
}

#[tokio::test]
async fn what_the_api_says_of_another_try_is_heard() {
    let (stub, client) = start_with(setup(), Duration::from_millis(300)).await;
    let runner = RunnerRef {
        api: Generation::ScaleSets,
        namespace: "ci".to_owned(),
        name: "r-1".to_owned(),
        uid: Some("runner-r-1".to_owned()),
    };
    let get = |what| fault("GET", "/ephemeralrunners/r-1", 1, what);
    stub.fault(get(What::Refuse { code: 429, retry_after_s: Some(7) }));
    match job(&client, &runner).await {
        Err(Failure::Later { after, .. }) => assert_eq!(after, Some(Duration::from_secs(7))),
        other => panic!("{other:?}"),
    }
    for what in [What::Hang, What::Cut, What::CutAnswer, What::Refuse { code: 401, retry_after_s: None }] {
        stub.fault(get(what.clone()));
        let later = job(&client, &runner).await;
        assert!(matches!(&later, Err(Failure::Later { .. })), "{what:?}: {later:?}");
    }
    assert_eq!(job(&client, &runner).await.unwrap().job.unwrap().run_id, 42);
    stub.remove("ephemeralrunners", "ci", "r-1");
    assert!(matches!(job(&client, &runner).await, Err(Failure::Final { .. })));
}

#[tokio::test]
async fn rights_that_are_missing_are_named() {
    let denied = vec![("delete".to_owned(), "ephemeralrunners".to_owned())];
    let (stub, client) = start(Setup { denied, ..setup() }).await;
    for right in check(&client, NODE).await {
        let missing = (right.verb, right.resource) == ("delete", "ephemeralrunners");
        assert_eq!(right.granted, Some(!missing), "{right:?}");
    }
    let runner = RunnerRef {
        api: Generation::ScaleSets,
        namespace: "ci".to_owned(),
        name: "r-1".to_owned(),
        uid: Some("runner-r-1".to_owned()),
    };
    let refused = delete_runner(&client, &runner).await;
    assert!(
        matches!(&refused, Err(Failure::Final { why }) if why.contains("\"delete\" on ephemeralrunners")),
        "{refused:?}"
    );
    assert_eq!(effects(&stub), [""; 0]);
}

#[tokio::test]
async fn without_the_token_nothing_is_answered() {
    let (stub, _) = start(setup()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    std::fs::write(&path, stub.kubeconfig().replace(TOKEN, "another")).unwrap();
    let stranger = client(Some(&path), Duration::from_secs(5)).await.unwrap();
    let rights = check(&stranger, NODE).await;
    assert!(rights.iter().all(|right| right.granted.is_none()), "{rights:?}");
    assert!(rights[0].problem.as_ref().is_some_and(|problem| problem.contains("401")), "{rights:?}");
}
