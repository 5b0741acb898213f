//! The watch of a node's pods.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use memguard::{
    kubernetes::{PodFacts, Pods, watch},
    workload::{Place, Qos},
};
use serde_json::{Value, json};

use super::{
    install::Installed,
    server::{Server, until},
};

pub(crate) const PODS: &str = "/api/v1/namespaces/ci/pods";
const SOON: Duration = Duration::from_secs(20);

pub(crate) fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "ci", "annotations": {"memguard.dev/mode": "observe"}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "runner", "image": "runner", "resources": {"limits": {"memory": "4Gi"}}}],
        },
    })
}

async fn make(server: &Server, name: &str, node: &str) -> anyhow::Result<String> {
    let made = server.admin.post(PODS, &pod(name, node)).await?;
    made["metadata"]["uid"].as_str().map(str::to_owned).context("a pod without a uid")
}

/// What the watch knows of a pod.
fn known(pods: &Pods, uid: &str) -> Option<PodFacts> {
    let place = Place { pod_uid: uid.to_owned(), qos: Qos::Burstable, container_id: None, nested: false };
    pods.of(&place).map(|known| PodFacts::clone(&known.facts))
}

/// A watch that ends with its scenario.
struct Watching {
    pods: Pods,
    task: tokio::task::JoinHandle<()>,
}

impl Watching {
    fn of(installed: &Installed, node: &'static str) -> Self {
        let pods = Pods::default();
        let (client, watched) = (installed.memguard.clone(), pods.clone());
        let task = tokio::spawn(async move { watch(client, node, watched).await });
        Self { pods, task }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn come_and_go(server: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    let before = make(server, "before", "node-1").await?;
    let watching = Watching::of(installed, "node-1");
    let pods = &watching.pods;
    ensure!(until(SOON, async || known(pods, &before).is_some()).await, "what was there before is not known");
    let (here, elsewhere) = (make(server, "here", "node-1").await?, make(server, "elsewhere", "node-2").await?);
    ensure!(until(SOON, async || known(pods, &here).is_some()).await, "a new pod is not known");
    let facts = known(pods, &here).context("gone")?;
    ensure!(
        (facts.name.as_str(), facts.namespace.as_str(), facts.node.as_str()) == ("here", "ci", "node-1"),
        "{facts:?}"
    );
    ensure!(facts.annotations.get("memguard.dev/mode").is_some_and(|mode| mode == "observe"), "{facts:?}");

    let id = "a".repeat(64);
    let started = json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "runner", "image": "runner", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": format!("containerd://{id}"),
    }]}});
    server.admin.patch(&format!("{PODS}/here/status"), &started).await?;
    let place = Place { pod_uid: here.clone(), qos: Qos::Burstable, container_id: Some(id), nested: false };
    let container =
        async || known(pods, &here).is_some_and(|pod| pod.container(&place).is_some_and(|c| c.name == "runner"));
    ensure!(until(SOON, container).await, "a container that was started is not known");
    ensure!(known(pods, &here).is_some_and(|pod| pod.containers[0].memory_limit.as_deref() == Some("4Gi")));

    server.admin.delete(&format!("{PODS}/here")).await?;
    ensure!(until(SOON, async || known(pods, &here).is_none()).await, "a pod that was deleted is still known");
    ensure!(known(pods, &elsewhere).is_none(), "a pod of another node is known");
    ensure!(pods.len() == 1 && pods.stale_since().is_none());
    Ok(())
}

pub(crate) async fn restart(server: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    let (stays, goes) = (make(server, "stays", "node-3").await?, make(server, "goes", "node-3").await?);
    let watching = Watching::of(installed, "node-3");
    let pods = &watching.pods;
    ensure!(until(SOON, async || pods.len() == 2).await, "{} pods", pods.len());
    server.kill_api();
    ensure!(until(SOON, async || pods.stale_since().is_some()).await, "an outage is not noticed");
    ensure!(known(pods, &stays).is_some() && known(pods, &goes).is_some(), "facts are lost with the server");
    server.start_api(&[]).await?;
    server.admin.delete(&format!("{PODS}/goes")).await?;
    let new = make(server, "new", "node-3").await?;
    let began = Instant::now();
    // Its pauses grow to half a minute.
    let caught_up =
        async || pods.stale_since().is_none() && known(pods, &new).is_some() && known(pods, &goes).is_none();
    ensure!(until(Duration::from_secs(90), caught_up).await, "the watch does not come back");
    println!("kube_api: the watch was back {:.1} s after the server", began.elapsed().as_secs_f64());
    ensure!(known(pods, &stays).is_some());
    Ok(())
}

/// Requests that the server counted, by the name of a series in its metrics.
async fn lists(server: &Server) -> anyhow::Result<u64> {
    let metrics = server.admin.text("/metrics").await?;
    let of_lists = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains(r#"resource="pods""#)
            && line.contains(r#"verb="LIST""#)
            && line.contains(r#"code="200""#)
    });
    Ok(of_lists.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}

pub(crate) async fn compaction(server: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    // A server without a cache has no bookmarks either, so the version by which the watch goes on grows old while nothing
    // happens on its node; and then etcd has forgotten it.
    server.kill_api();
    server.start_api(&["--watch-cache=false"]).await?;
    let quiet = make(server, "quiet", "node-4").await?;
    let watching = Watching::of(installed, "node-4");
    let pods = &watching.pods;
    ensure!(until(SOON, async || known(pods, &quiet).is_some()).await, "the pod is not known");
    for number in 0..20 {
        make(server, &format!("elsewhere-{number}"), "node-5").await?;
    }
    let before = lists(server).await?;
    server.compact().await?;
    // That is how the server refuses such a version.
    let old = format!("{PODS}?watch=true&timeoutSeconds=5&resourceVersion=1");
    let refusal = server.admin.text(&old).await;
    ensure!(format!("{refusal:?}").contains("410"), "{refusal:?}");
    // The server ends the watch after two minutes, and memguard resumes it.
    let began = Instant::now();
    let relisted = async || pods.stale_since().is_some() || lists(server).await.is_ok_and(|now| now > before);
    ensure!(until(Duration::from_secs(150), relisted).await, "the version that is gone was not missed");
    println!("kube_api: a full list {:.0} s after the compaction", began.elapsed().as_secs_f64());
    ensure!(pods.stale_since().is_none(), "it was taken for an outage");
    let after = make(server, "after", "node-4").await?;
    ensure!(until(SOON, async || known(pods, &after).is_some()).await, "the watch is dead");
    ensure!(known(pods, &quiet).is_some() && pods.stale_since().is_none());
    ensure!(lists(server).await? == before + 1, "more than one list");
    Ok(())
}
