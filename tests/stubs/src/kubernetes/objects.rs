//! Objects as ARC and the kubelet make them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// The finalizers of ARC 0.14: the second one waits until GitHub has let go of the runner.
pub const RUNNER_FINALIZERS: [&str; 2] = [
    "ephemeralrunner.actions.github.com/finalizer",
    "ephemeralrunner.actions.github.com/runner-registration-finalizer",
];

/// A container of a pod.
#[derive(Clone, Debug)]
pub struct Container<'a> {
    pub name: &'a str,
    /// Of 64 hexadecimal digits, as containerd gives them.
    pub id: &'a str,
    /// A quantity: `256Mi`.
    pub memory_limit: Option<&'a str>,
}

/// A running pod of no owner.
#[must_use]
pub fn pod(node: &str, namespace: &str, name: &str, uid: &str, containers: &[Container<'_>]) -> Value {
    let spec = containers.iter().map(|container| {
        let limits = container.memory_limit.map(|limit| json!({"memory": limit}));
        json!({"name": container.name, "image": "image", "resources": {"limits": limits}})
    });
    let status = containers.iter().map(|container| {
        let id = format!("containerd://{}", container.id);
        json!({"name": container.name, "containerID": id, "ready": true, "state": {"running": {}}})
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "labels": {}, "annotations": {}},
        "spec": {"nodeName": node, "containers": spec.collect::<Vec<_>>()},
        "status": {"phase": "Running", "containerStatuses": status.collect::<Vec<_>>()},
    })
}

/// Makes a pod that of an `EphemeralRunner` of its name.
#[must_use]
pub fn of_runner(mut pod: Value, runner_uid: &str) -> Value {
    let name = pod["metadata"]["name"].clone();
    pod["metadata"]["labels"] = json!({
        "actions-ephemeral-runner": "True", "app.kubernetes.io/component": "runner",
        "actions.github.com/scale-set-name": "set", "actions.github.com/scale-set-namespace": pod["metadata"]["namespace"],
    });
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "actions.github.com/v1alpha1", "kind": "EphemeralRunner", "name": name, "uid": runner_uid,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    pod
}

/// An `EphemeralRunner`.
#[derive(Clone, Copy, Debug)]
pub struct Runner<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    /// Repository and run. `None` for an idle one.
    pub job: Option<(&'a str, u64)>,
    /// Of the organization that it is registered for.
    pub config_url: &'a str,
    pub arc_version: &'a str,
}

/// The object, with ARC's finalizers.
#[must_use]
pub fn ephemeral_runner(runner: &Runner<'_>) -> Value {
    let Runner { namespace, name, uid, job, config_url, arc_version } = runner;
    let mut status = json!({"phase": "Running", "ready": true, "runnerId": 1, "runnerName": name});
    if let Some((repository, run_id)) = job {
        status["jobRepositoryName"] = (*repository).into();
        status["workflowRunId"] = (*run_id).into();
        status["jobDisplayName"] = "build".into();
        status["jobId"] = "11111111-2222-3333-4444-555555555555".into();
        status["jobRequestId"] = 7.into();
        status["jobWorkflowRef"] = format!("{repository}/.github/workflows/ci.yml@refs/heads/main").into();
    }
    json!({
        "apiVersion": "actions.github.com/v1alpha1", "kind": "EphemeralRunner",
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid, "finalizers": RUNNER_FINALIZERS,
            "labels": {"actions.github.com/scale-set-name": "set", "app.kubernetes.io/version": arc_version},
        },
        "spec": {
            "githubConfigUrl": config_url, "githubConfigSecret": "arc-secret", "runnerScaleSetId": 1,
            "spec": {"containers": []},
        },
        "status": status,
    })
}

/// A `Runner` of the older ARC, registered for an organization. Its status is what its pod wrote.
#[must_use]
pub fn older_runner(namespace: &str, name: &str, uid: &str, repository: &str, run_id: u64) -> Value {
    json!({
        "apiVersion": "actions.summerwind.dev/v1alpha1", "kind": "Runner",
        "metadata": {"name": name, "namespace": namespace, "uid": uid},
        "spec": {"organization": "octo"},
        "status": {
            "phase": "Running",
            "workflow": {
                "name": "CI", "repository": repository, "repositoryOwner": "octo", "runNumber": "12",
                "runID": run_id.to_string(), "job": "build", "action": "__run",
            },
        },
    })
}

/// A Secret with these values.
#[must_use]
pub fn secret(namespace: &str, name: &str, values: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> =
        values.iter().map(|(name, value)| ((*name).to_owned(), STANDARD.encode(value).into())).collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "type": "Opaque",
        "data": data,
    })
}
