//! Keeps [`Pods`] up to date.

use std::{
    pin::pin,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    runtime::{
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event, InitialListStrategy, ListSemantic, watcher},
    },
};

use super::{
    failure::Call,
    pods::{Incoming, Pods},
};
use crate::remote::Failure;

/// The server ends a watch after this long, and it is resumed; a connection that died silently is noticed soon after.
pub(super) const WATCH: Duration = Duration::from_mins(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Follows the pods of a node for ever. Whatever breaks, what was known stays, marked as stale, and it is tried again.
///
/// It says so once when it breaks, and once when it works again.
pub async fn watch(client: Client, node_name: &str, pods: Pods) {
    watch_with(client, node_name, &pods, DefaultBackoff::default()).await;
}

async fn watch_with(client: Client, node_name: &str, pods: &Pods, mut backoff: impl Backoff) {
    let api: Api<Incoming> = Api::all(client);
    let mut link = Link::default();
    loop {
        let error = follow(&api, node_name, pods, &mut link).await;
        let failure = failure(&error, node_name);
        // The server has forgotten where we were: what a full list is for, and no outage.
        let expired = code(&error) == Some(410);
        if !expired {
            let since = link.broke(SystemTime::now(), &failure);
            pods.set_stale(Some(since));
        }
        let asked = if let Failure::Later { after, .. } = failure { after } else { None };
        let pause = backoff.next().unwrap_or(LONGEST_PAUSE).max(asked.unwrap_or_default());
        tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
    }
}

/// Lists, then watches, until something breaks. That a server ends a watch is no breakage: it is resumed where it was.
///
/// After an error there is always a full list, for two reasons: nothing else shows that the server answers again (a watch
/// of a quiet node says nothing for hours), and kube's watcher would ask for ever for a version that is gone, should the
/// server say so at the start of a watch.
async fn follow(api: &Api<Incoming>, node_name: &str, pods: &Pods, link: &mut Link) -> watcher::Error {
    let config = watcher::Config {
        field_selector: Some(format!("spec.nodeName={node_name}")),
        timeout: Some(u32::try_from(WATCH.as_secs()).unwrap_or(u32::MAX)),
        // From the server's cache, as the kubelet does it: read from etcd, the list would touch every pod of the cluster.
        // The cache has no pages.
        list_semantic: ListSemantic::Any,
        page_size: None,
        // Servers before 1.27 refuse the other one.
        initial_list_strategy: InitialListStrategy::ListWatch,
        ..watcher::Config::default()
    };
    let mut events = pin!(watcher(api.clone(), config));
    let mut listed = Vec::new();
    loop {
        match events.next().await {
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(pod))) => listed.extend(pod.facts()),
            Some(Ok(Event::InitDone)) => {
                pods.replace(std::mem::take(&mut listed));
                pods.set_stale(None);
                link.works(SystemTime::now(), pods.len());
            }
            Some(Ok(Event::Apply(pod))) => {
                if let Some(pod) = pod.facts() {
                    pods.put(pod);
                }
            }
            Some(Ok(Event::Delete(pod))) => {
                if let Some(uid) = pod.uid() {
                    pods.remove(uid);
                }
            }
            Some(Err(error)) => return error,
            // kube's stream has no end.
            None => return watcher::Error::NoResourceVersion,
        }
    }
}

fn failure(error: &watcher::Error, node_name: &str) -> Failure {
    let call = |verb| Call { verb, resource: "pods", of: format!("of node {node_name}") };
    match error {
        watcher::Error::InitialListFailed(error) => call("list").failed(error),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => call("watch").failed(error),
        watcher::Error::WatchError(status) => call("watch").failed(&kube::Error::Api(status.clone())),
        watcher::Error::NoResourceVersion => call("watch").later("the answer has no resourceVersion"),
    }
}

fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::WatchError(status)
        | watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

/// Whether the watch works, and what was said of it.
#[derive(Debug, Default)]
struct Link {
    broken_since: Option<SystemTime>,
    /// Lines that were written; tests count them.
    told: u32,
}

impl Link {
    /// Since when it is broken.
    fn broke(&mut self, now: SystemTime, why: &Failure) -> SystemTime {
        *self.broken_since.get_or_insert_with(|| {
            self.told += 1;
            tracing::warn!("the watch of this node's pods is broken; what is known of them stays: {why}");
            now
        })
    }

    fn works(&mut self, now: SystemTime, pods: usize) {
        if let Some(since) = self.broken_since.take() {
            self.told += 1;
            let seconds = now.duration_since(since).unwrap_or_default().as_secs();
            tracing::info!("the watch of this node's pods works again after {seconds} s; it has {pods}");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, Stream};
    use http::Method;
    use hyper::body::{Bytes, Frame};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        kubernetes::fixture::{Asked, Server, runner_pod, server, status},
        workload::{Place, Qos},
    };

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
        tokio::spawn(async move { watch_with(client, "node-1", &watched, NoPause).await });
        (pods, server)
    }

    async fn list(server: &mut Server) -> Asked {
        let asked = server.next().await;
        assert_eq!(asked.method, Method::GET);
        assert!(asked.path.starts_with("/api/v1/pods?"), "{}", asked.path);
        assert!(asked.path.contains("fieldSelector=spec.nodeName%3Dnode-1"), "{}", asked.path);
        assert!(!asked.path.contains("watch=") && !asked.path.contains("sendInitialEvents"), "{}", asked.path);
        assert!(asked.path.contains("resourceVersion=0"), "{}", asked.path);
        asked
    }

    async fn watch_from(server: &mut Server, version: &str) -> Asked {
        let asked = server.next().await;
        for part in
            ["watch=true", "fieldSelector=spec.nodeName%3Dnode-1", "timeoutSeconds=120", "allowWatchBookmarks=true"]
        {
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
    fn open<const N: usize>(events: [Frame<Bytes>; N]) -> impl Stream<Item = std::io::Result<Frame<Bytes>>> + Send {
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
        let cut = [Ok(event("ADDED", &runner_pod("b", "b"))), Err(std::io::ErrorKind::ConnectionReset.into())];
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
        watch_from(&mut server, "50").await.stream(open([]));
        assert_eq!(pods.stale_since(), None);
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

    #[test]
    fn a_missing_right_to_list_or_watch_is_named() {
        let refused = || kube::Error::Api(Box::new(kube::core::Status::failure("no", "").with_code(403)));
        for (error, verb) in [
            (watcher::Error::InitialListFailed(refused()), "\"list\" on pods"),
            (watcher::Error::WatchStartFailed(refused()), "\"watch\" on pods"),
        ] {
            let why = failure(&error, "node-1").to_string();
            assert!(why.contains(verb) && why.contains("of node node-1"), "{why}");
        }
    }
}
