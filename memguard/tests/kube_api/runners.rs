//! ARC's objects, by its own CRD.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use memguard::{
    kubernetes::{Deleted, Generation, RunnerRef, delete_runner, job},
    remote::Failure,
};
use serde_json::{Value, json};

use super::{
    install::{Installed, apply},
    server::{Server, until},
};

/// ARC's own, from its chart; what is not in it is told in the README.md beside it.
const CRD: &str = include_str!("../../../tests/fixtures/arc/ephemeralrunners.yaml");
const RUNNERS: &str = "/apis/actions.github.com/v1alpha1/namespaces/ci/ephemeralrunners";
const OLD_RUNNERS: &str = "/apis/actions.summerwind.dev/v1alpha1/namespaces/ci/runners";

fn runner(api: Generation, name: &str, uid: Option<String>) -> RunnerRef {
    RunnerRef { api, namespace: "ci".to_owned(), name: name.to_owned(), uid }
}

fn uid(object: &Value) -> Option<String> {
    object["metadata"]["uid"].as_str().map(str::to_owned)
}

/// A CRD without any schema to speak of.
fn plain_crd(group: &str, kind: &str) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// kube-apiserver 1.20 reads a default of `""` as one of null, and refuses it. Keys of lists need some default.
fn without_empty_defaults(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(default) = fields.get_mut("default").filter(|default| **default == "") {
                *default = "none".into();
            }
            fields.values_mut().for_each(without_empty_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(without_empty_defaults),
        _ => {}
    }
}

/// Waits until the objects of a CRD are served.
async fn until_served(server: &Server, objects: &str) -> anyhow::Result<()> {
    let are_there = until(Duration::from_secs(30), async || server.admin.get(objects).await.is_ok()).await;
    ensure!(are_there, "{objects} is not served");
    Ok(())
}

async fn install_arc(server: &Server) -> anyhow::Result<()> {
    if server.admin.get(RUNNERS).await.is_ok() {
        return Ok(());
    }
    let mut crd: Value = serde_saphyr::from_str(CRD)?;
    if let Err(error) = apply(server, &crd).await {
        ensure!(format!("{error:#}").contains("default: Invalid value"), "{error:#}");
        println!("kube_api: ARC's CRD is not taken as it is, so with other defaults in place of the empty ones");
        without_empty_defaults(&mut crd);
        apply(server, &crd).await?;
    }
    until_served(server, RUNNERS).await
}

/// As ARC's controller makes it, with a finalizer.
async fn ephemeral_runner(server: &Server, name: &str) -> anyhow::Result<Value> {
    let object = json!({
        "apiVersion": "actions.github.com/v1alpha1", "kind": "EphemeralRunner",
        "metadata": {
            "name": name, "namespace": "ci", "finalizers": ["ephemeralrunner.actions.github.com/finalizer"],
            "labels": {"actions.github.com/scale-set-name": "linux", "app.kubernetes.io/version": "0.14.2"},
        },
        "spec": {
            "githubConfigUrl": "https://github.com/acme/shop", "githubConfigSecret": "arc-github", "runnerScaleSetId": 7,
            "spec": {"containers": [{"name": "runner", "image": "runner", "resources": {"limits": {"memory": "4Gi"}}}]},
        },
    });
    server.admin.post(RUNNERS, &object).await
}

/// What the controller writes when the runner gets a job.
async fn give_job(server: &Server, name: &str) -> anyhow::Result<()> {
    let status = json!({"status": {
        "phase": "Running", "runnerId": 17, "runnerName": name, "ready": true, "jobRequestId": 5, "workflowRunId": 9_007_199_254_i64,
        "jobRepositoryName": "acme/shop", "jobWorkflowRef": "acme/shop/.github/workflows/ci.yml@refs/heads/main",
        "jobDisplayName": "build", "jobId": "5d2f6a3e-0000-4000-8000-000000000001",
        "failures": {"5d2f6a3e": "2026-01-01T00:00:00Z"},
    }});
    server.admin.patch(&format!("{RUNNERS}/{name}/status"), &status).await.map(drop)
}

pub(crate) async fn job_of_a_runner(server: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    let client = &installed.memguard;
    install_arc(server).await?;
    let made = ephemeral_runner(server, "linux-abcde-runner-1").await?;
    let by_owner = runner(Generation::ScaleSets, "linux-abcde-runner-1", uid(&made));
    let idle = job(client, &by_owner).await?;
    ensure!(idle.job.is_none() && idle.scale_set.as_deref() == Some("linux"), "{idle:?}");
    give_job(server, "linux-abcde-runner-1").await?;
    let facts = job(client, &by_owner).await?;
    let found = facts.job.clone().context("no job")?;
    ensure!((found.repository.as_str(), found.run_id) == ("acme/shop", 9_007_199_254), "{found:?}");
    ensure!(found.runner_name == "linux-abcde-runner-1" && found.display_name.as_deref() == Some("build"), "{found:?}");
    ensure!(facts.arc_version.as_deref() == Some("0.14.2") && facts.phase.as_deref() == Some("Running"), "{facts:?}");

    // Kubernetes mode: the job's pod names its runner by a label, and the runner's own pod says which object that is.
    let by_label = runner(Generation::ScaleSets, "linux-abcde-runner-1", None);
    match job(client, &by_label).await {
        Err(Failure::Final { why }) if why.contains("404") => {}
        other => anyhow::bail!("without the runner's pod: {other:?}"),
    }
    let mut pod = super::watch::pod("linux-abcde-runner-1", "node-9");
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "actions.github.com/v1alpha1", "kind": "EphemeralRunner", "name": "linux-abcde-runner-1",
        "uid": uid(&made), "controller": true,
    }]);
    server.admin.post(super::watch::PODS, &pod).await?;
    ensure!(job(client, &by_label).await? == facts);
    server.admin.delete(&format!("{}/linux-abcde-runner-1", super::watch::PODS)).await?;

    let another = runner(Generation::ScaleSets, "linux-abcde-runner-1", Some("u-0".to_owned()));
    match job(client, &another).await {
        Err(Failure::Final { why }) if why.contains("another one") => Ok(()),
        other => anyhow::bail!("{other:?}"),
    }
}

pub(crate) async fn deletion(server: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    let client = &installed.memguard;
    install_arc(server).await?;
    let path = format!("{RUNNERS}/linux-abcde-runner-2");
    let made = ephemeral_runner(server, "linux-abcde-runner-2").await?;
    let this = runner(Generation::ScaleSets, "linux-abcde-runner-2", uid(&made));
    let predecessor = RunnerRef { uid: Some("7fb47c9c-45d8-4a2c-8f1e-0123456789ab".to_owned()), ..this.clone() };
    ensure!(delete_runner(client, &predecessor).await? == Deleted::AlreadyGone);
    let there = server.admin.get(&path).await?;
    ensure!(there["metadata"]["deletionTimestamp"].is_null(), "another one was deleted in its place");

    ensure!(delete_runner(client, &this).await? == Deleted::Accepted);
    let ending = server.admin.get(&path).await?;
    ensure!(!ending["metadata"]["deletionTimestamp"].is_null(), "the finalizer keeps it, on its way out");
    ensure!(delete_runner(client, &this).await? == Deleted::Accepted, "a repetition");
    server.admin.patch(&path, &json!({"metadata": {"finalizers": null}})).await?;
    let gone = async || matches!(server.admin.send("GET", &path, &Value::Null).await, Err(kube::Error::Api(s)) if s.code == 404);
    ensure!(until(Duration::from_secs(10), gone).await, "it is still there");
    ensure!(delete_runner(client, &this).await? == Deleted::AlreadyGone);

    // By the next one of its name that is taken for gone as well, and left alone.
    let next = ephemeral_runner(server, "linux-abcde-runner-2").await?;
    ensure!(uid(&next) != this.uid);
    ensure!(delete_runner(client, &this).await? == Deleted::AlreadyGone);
    ensure!(server.admin.get(&path).await?["metadata"]["deletionTimestamp"].is_null());
    Ok(())
}

pub(crate) async fn older_arc(server: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    let client = &installed.memguard;
    let claimed = runner(Generation::Summerwind, "old-1", Some("u-1".to_owned()));
    match job(client, &claimed).await {
        Err(Failure::Final { why }) if why.contains("404") => {}
        other => anyhow::bail!("on a cluster that never had it: {other:?}"),
    }
    ensure!(delete_runner(client, &claimed).await? == Deleted::AlreadyGone);
    apply(server, &plain_crd("actions.summerwind.dev", "Runner")).await?;
    until_served(server, OLD_RUNNERS).await?;
    let object = json!({
        "apiVersion": "actions.summerwind.dev/v1alpha1", "kind": "Runner", "metadata": {"name": "old-1", "namespace": "ci"},
    });
    let made = server.admin.post(OLD_RUNNERS, &object).await?;
    let status = json!({"status": {"phase": "Running", "workflow": {
        "name": "ci", "repository": "acme/shop", "repositoryOwner": "acme", "runNumber": "3", "runID": "42", "job": "build",
    }}});
    server.admin.patch(&format!("{OLD_RUNNERS}/old-1/status"), &status).await?;
    let this = runner(Generation::Summerwind, "old-1", uid(&made));
    let facts = job(client, &this).await?;
    ensure!(facts.job.as_ref().is_some_and(|job| job.run_id == 42 && job.repository == "acme/shop"), "{facts:?}");
    ensure!(delete_runner(client, &facts.runner()).await? == Deleted::Accepted);
    ensure!(delete_runner(client, &this).await? == Deleted::AlreadyGone);
    Ok(())
}
