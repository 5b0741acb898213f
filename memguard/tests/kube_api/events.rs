//! Events: what the API's validation makes of ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use memguard::{
    kubernetes::{Notice, NoticeAction, Regarding, tell},
    remote::Failure,
};
use serde_json::{Value, json};

use super::{
    install::{Installed, namespace},
    server::Server,
};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/ci/events";

fn notice(kind: &str, incident: &str, note: &str) -> Notice {
    let api_version = if kind == "Pod" { "v1" } else { "actions.github.com/v1alpha1" };
    Notice {
        regarding: Regarding {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: "ci".to_owned(),
            name: "runner-1".to_owned(),
            uid: format!("{}-45d8-4a2c-8f1e-0123456789ab", if kind == "Pod" { "7fb47c9c" } else { "0d3f1a2b" }),
        },
        action: NoticeAction::Killed,
        note: note.to_owned(),
        incident: incident.to_owned(),
        node: "node-1".to_owned(),
        at: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
    }
}

pub(crate) async fn taken(server: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    let client = &installed.memguard;
    let long = "ü€\n".repeat(2000);
    for (kind, incident, note) in [
        ("Pod", "mg-1795514762-267", "hung for 40 s"),
        ("EphemeralRunner", "mg-1795514762-267", "hung for 40 s"),
        ("Pod", "long", &long),
        ("Pod", "empty", ""),
        ("Pod", "Odd/../Id\n\u{1F600}", "x"),
        ("Pod", &"é".repeat(400), "x"),
    ] {
        let told = notice(kind, incident, note);
        tell(client, told.clone()).await.with_context(|| format!("{kind} {incident}"))?;
        // Known already, and success.
        tell(client, Notice { at: SystemTime::now(), ..told }).await?;
    }
    for (incident, node) in [("other-node", "n".repeat(253)), ("no-node", "ip-10-0-0-1.eu-west-1".to_owned())] {
        tell(client, Notice { node, ..notice("Pod", incident, "x") }).await?;
    }
    let events = server.admin.get(EVENTS).await?;
    let events = events["items"].as_array().context("no events")?;
    ensure!(events.len() == 8, "{} events", events.len());
    let find = |kind: &str, part: &str| {
        let mut of_kind = events.iter().filter(|event| event["regarding"]["kind"] == kind);
        of_kind.find(|event| event["metadata"]["name"].as_str().is_some_and(|name| name.contains(part)))
    };
    let first = find("EphemeralRunner", "267").context("no event on the runner")?;
    for (field, expected) in [
        ("reason", json!("MemoryLivelock")),
        ("action", json!("Killed")),
        ("type", json!("Warning")),
        ("note", json!("hung for 40 s")),
        ("eventTime", json!("2023-11-14T22:13:20.123456Z")),
        ("reportingInstance", json!("node-1")),
    ] {
        ensure!(first[field] == expected, "{field}: {}", first[field]);
    }
    let long = find("Pod", "long").and_then(|event| event["note"].as_str()).context("no long note")?;
    ensure!(long.ends_with('…') && long.len() > 1000, "{} bytes", long.len());
    // As `kubectl describe` sees it.
    let core =
        server.admin.get("/api/v1/namespaces/ci/events?fieldSelector=involvedObject.kind%3DEphemeralRunner").await?;
    ensure!(core["items"][0]["message"] == "hung for 40 s", "{core}");

    // A namespace that is being deleted takes none, and that is no matter of rights.
    namespace(server, "ending").await?;
    server.admin.delete("/api/v1/namespaces/ending").await?;
    let mut late = notice("Pod", "late", "x");
    "ending".clone_into(&mut late.regarding.namespace);
    match tell(client, late.clone()).await {
        Err(Failure::Final { why }) if why.contains("403") && !why.contains("ClusterRole") => {}
        other => anyhow::bail!("{other:?}"),
    }
    "nowhere".clone_into(&mut late.regarding.namespace);
    match tell(client, late).await {
        Err(Failure::Final { why }) if why.contains("404") => {}
        other => anyhow::bail!("{other:?}"),
    }
    // The limits are the server's and not only ours.
    let mut over: Value = first.clone();
    over["metadata"] = json!({"name": "over", "namespace": "ci"});
    over["note"] = "x".repeat(1025).into();
    match server.admin.send("POST", EVENTS, &over).await {
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(()),
        other => anyhow::bail!("{other:?}"),
    }
}
