//! Lists, watches and what breaks them, request by request.

mod memory;

use futures_util::stream::{self, Stream, StreamExt as _};
use http::Method;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};

use super::*;
use crate::{
    kubernetes::fixture::{Asked, Server, runner_pod, server, status},
    workload::{Place, Qos},
};

/// No pod that has ended.
const SELECTED: &str = "fieldSelector=spec.nodeName%3Dnode-1%2Cstatus.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed&";

struct NoPause;

impl Iterator for NoPause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(1))
    }
}

impl Backoff for NoPause {
    fn reset(&mut self) {}
}

fn start() -> (Pods, Server) {
    let (client, server) = server();
    let pods = Pods::default();
    let watched = pods.clone();
    tokio::spawn(async move { watch_with(&client, "node-1", &watched, NoPause).await });
    (pods, server)
}

async fn list(server: &mut Server) -> Asked {
    let asked = server.next().await;
    assert_eq!(asked.method, Method::GET);
    assert!(asked.path.starts_with("/api/v1/pods?"), "{}", asked.path);
    assert!(asked.path.contains(SELECTED), "{}", asked.path);
    assert!(!asked.path.contains("watch=") && !asked.path.contains("sendInitialEvents"), "{}", asked.path);
    assert!(asked.path.contains("resourceVersion=0"), "{}", asked.path);
    asked
}

async fn watch_from(server: &mut Server, version: &str) -> Asked {
    let asked = server.next().await;
    for part in ["watch=true", SELECTED, "timeoutSeconds=120", "allowWatchBookmarks=true"] {
        assert!(asked.path.contains(part), "{}", asked.path);
    }
    assert!(asked.path.ends_with(&format!("resourceVersion={version}")), "{}", asked.path);
    asked
}

fn items(pods: &[Value], version: &str) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": pods})
}

fn event(kind: &str, object: &Value) -> Frame<Bytes> {
    Frame::data(format!("{}\n", json!({"type": kind, "object": object})).into())
}

/// A watch that stays open.
fn open<const N: usize>(events: [Frame<Bytes>; N]) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send {
    stream::iter(events.map(Ok)).chain(stream::pending())
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..2000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it does not come");
}

fn has(pods: &Pods, uid: &str) -> bool {
    let place = Place { pod_uid: uid.to_owned(), qos: Qos::Burstable, container_id: None, nested: false };
    pods.of(&place).is_some()
}

#[tokio::test]
async fn a_list_then_changes_then_the_next_watch_from_the_last_bookmark() {
    let (pods, mut server) = start();
    list(&mut server).await.json(200, &items(&[runner_pod("a", "a"), runner_pod("b", "b")], "10"));
    let mut gone = runner_pod("a", "a");
    gone["metadata"]["resourceVersion"] = "11".into();
    let bookmark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "99"}});
    let events = [
        event("DELETED", &gone),
        event("ADDED", &runner_pod("c", "c")),
        event("MODIFIED", &runner_pod("b", "renamed")),
        event("BOOKMARK", &bookmark),
    ];
    // Its end is a server's that has had enough: no outage.
    watch_from(&mut server, "10").await.stream(stream::iter(events.map(Ok)));
    watch_from(&mut server, "99").await.stream(open([]));
    until(|| !has(&pods, "a") && has(&pods, "b") && has(&pods, "c")).await;
    assert_eq!(pods.stale_since(), None);
}

#[tokio::test]
async fn what_is_gone_after_an_expired_version_is_forgotten_and_nothing_before() {
    let (pods, mut server) = start();
    list(&mut server).await.json(200, &items(&[runner_pod("a", "a")], "10"));
    watch_from(&mut server, "10").await.stream(open([event("ERROR", &status(410, "too old resource version"))]));
    let asked = list(&mut server).await;
    assert!(has(&pods, "a"));
    assert_eq!(pods.stale_since(), None, "no outage");
    asked.json(200, &items(&[runner_pod("b", "b")], "20"));
    // Said at the start of a watch, it needs a list as well.
    watch_from(&mut server, "20").await.refuse(410, "expired");
    assert!(has(&pods, "b") && !has(&pods, "a"));
    list(&mut server).await.json(200, &items(&[], "30"));
    watch_from(&mut server, "30").await.stream(open([]));
    assert!(pods.is_empty());
}

#[tokio::test]
async fn facts_outlive_outages_of_every_kind_and_are_marked() {
    let (pods, mut server) = start();
    list(&mut server).await.json(200, &items(&[runner_pod("a", "a")], "10"));
    let cut = [Ok(event("ADDED", &runner_pod("b", "b"))), Err(io::ErrorKind::ConnectionReset.into())];
    watch_from(&mut server, "10").await.stream(stream::iter(cut));
    let asked = list(&mut server).await;
    assert!(has(&pods, "a") && has(&pods, "b"));
    let since = pods.stale_since();
    assert!(since.is_some());
    asked.break_off();
    for code in [401, 403, 429, 500, 503] {
        list(&mut server).await.refuse(code, "no");
    }
    list(&mut server).await.text(502, "<html>bad gateway</html>".to_owned());
    list(&mut server).await.text(200, "{\"items\":".to_owned());
    let asked = list(&mut server).await;
    assert_eq!(pods.stale_since(), since, "since the first failure");
    assert!(has(&pods, "a"));
    asked.json(200, &items(&[runner_pod("a", "a")], "50"));
    let asked = watch_from(&mut server, "50").await;
    assert_eq!(pods.stale_since(), since, "until the watch has begun");
    asked.stream(open([]));
    until(|| pods.stale_since().is_none()).await;
    assert!(!has(&pods, "b"));
}

#[test]
fn an_outage_is_told_twice_however_long_it_is() {
    let mut link = Link::default();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    link.works(at(1), 0);
    assert_eq!(link.told, 0);
    let why = Failure::Later { after: None, why: "gone".to_owned() };
    for seconds in 10..10_000 {
        assert_eq!(link.broke(at(seconds), &why), at(10));
    }
    link.works(at(10_001), 5);
    link.works(at(10_002), 5);
    assert_eq!(link.told, 2);
}

#[tokio::test]
async fn a_missing_right_to_list_or_watch_is_named() {
    let (client, mut server) = server();
    let (pods, mut link) = (Pods::default(), Link::default());
    for verb in ["list", "watch"] {
        let serve = async {
            if verb == "watch" {
                list(&mut server).await.json(200, &items(&[], "10"));
            }
            server.next().await.refuse(403, "no");
        };
        let (broken, ()) = tokio::join!(follow(&client, "node-1", &pods, &mut link), serve);
        let why = broken.failure.to_string();
        assert!(why.contains(&format!("{verb:?} on pods")) && why.contains("of node node-1"), "{why}");
    }
}

#[tokio::test]
async fn a_watch_that_is_refused_while_lists_work_is_one_outage() {
    let (client, mut server) = server();
    let (pods, mut link) = (Pods::default(), Link::default());
    let mut since = None;
    for _ in 0..3 {
        let serve = async {
            list(&mut server).await.json(200, &items(&[runner_pod("a", "a")], "10"));
            watch_from(&mut server, "10").await.refuse(403, "no");
        };
        let (broken, ()) = tokio::join!(follow(&client, "node-1", &pods, &mut link), serve);
        let began = link.broke(SystemTime::now(), &broken.failure);
        assert_eq!(*since.get_or_insert(began), began);
    }
    assert_eq!(link.told, 1);
    assert!(has(&pods, "a"), "what the lists had is known");
}

#[tokio::test]
async fn a_pod_that_ends_is_forgotten_and_what_cant_be_read_costs_nobody_else() {
    let (pods, mut server) = start();
    let mut odd = runner_pod("odd", "odd");
    odd["status"]["phase"] = 7.into();
    list(&mut server).await.json(200, &items(&[runner_pod("a", "a"), odd, runner_pod("b", "b")], "10"));
    // As a server tells it: the pod as it was when it was selected.
    watch_from(&mut server, "10").await.stream(open([event("DELETED", &runner_pod("a", "a"))]));
    until(|| has(&pods, "b") && !has(&pods, "a")).await;
    assert!(!has(&pods, "odd"));
    assert_eq!(pods.stale_since(), None);
}

#[tokio::test]
async fn a_watch_that_is_cut_is_resumed_without_a_list_and_half_a_line_is_no_event() {
    let (pods, mut server) = start();
    list(&mut server).await.json(200, &items(&[], "10"));
    let half = Frame::data(event("ADDED", &runner_pod("b", "b")).into_data().unwrap().split_to(100));
    let cut = [Ok(event("ADDED", &runner_pod("a", "a"))), Ok(half), Err(io::ErrorKind::UnexpectedEof.into())];
    watch_from(&mut server, "10").await.stream(stream::iter(cut));
    watch_from(&mut server, "5").await.stream(open([]));
    assert!(has(&pods, "a") && !has(&pods, "b"));
    assert_eq!(pods.stale_since(), None);
}

#[test]
fn what_is_left_out_is_told_once_and_what_cant_be_read_when_it_grows() {
    let mut link = Link::default();
    link.left_out(None);
    for pods in [0, 0] {
        link.unreadable(pods);
    }
    assert_eq!(link.told, 0);
    for _ in 0..3 {
        link.left_out(Some("ci/huge".to_owned()));
        link.unreadable(2);
    }
    assert_eq!(link.told, 2);
    link.unreadable(3);
    assert_eq!(link.told, 3);
}
