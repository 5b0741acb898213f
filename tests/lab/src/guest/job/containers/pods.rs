//! The pods of a case, as the API would have them.

use anyhow::Context as _;
use memguard_lab::{
    chain::{NAMESPACE, RUNNER},
    containers::{Case, Ending, LIMIT_MIB, MEMGUARD, Process, Processes, SHARED},
    place,
    scenario::{HogMemory, Program, Size, Turns},
};
use serde_json::{Value, json};

/// Where the job's container has its own cgroups: a docker daemon makes `docker`.
const NESTED: &str = "docker";

/// memguard's pod, from the template of its `DaemonSet`.
pub(super) fn memguard(template: &Value, uid: &str) -> anyhow::Result<Value> {
    let mut pod = template.clone();
    pod["metadata"]["name"] = "memguard-x7k2p".into();
    pod["metadata"]["namespace"] = "memguard".into();
    pod["metadata"]["uid"] = uid.into();
    let arguments = pod["spec"]["containers"][0]["args"].as_array_mut().context("the template has no arguments")?;
    // There is no certificate of an API server in this pod, and no service account.
    arguments.extend(["--kubeconfig".into(), format!("/etc/{MEMGUARD}/{}", super::node::KUBECONFIG).into()]);
    Ok(pod)
}

/// A runner with a sidecar, and somebody else's pod.
pub(super) fn jobs(image: &str, case: Case) -> [(&'static str, Value); 2] {
    let nested = (case.ending == Ending::KillNested).then(|| NESTED.to_owned());
    let listener = Program::Listener {
        threads: 4,
        hot_mib: 48,
        calls: 200,
        pause_ms: 2,
        cold_per_mille: 0,
        mlockall: false,
        turns: Turns::None,
    };
    let hog = Program::Hog { memory: HogMemory::Anon, stop: Some(Size(Some(230 << 20))), mib_per_s: 100 };
    let process = |name: &str, run: Program, in_trouble: bool| Process { name: name.to_owned(), run, in_trouble };
    let job = [process("listener", listener, false), process("hog", hog, true)];
    // As a docker daemon's container is, which has to make cgroups.
    let security = if nested.is_some() { json!({"privileged": true}) } else { json!({}) };
    let steady = |name: &str| [process(name, Program::Steady, false)];
    let runner = container(image, "runner", LIMIT_MIB, &security, job.into(), nested);
    let sidecar = container(image, "sidecar", 64, &json!({}), steady("sidecar").into(), None);
    let app = container(image, "app", 64, &json!({}), steady("neighbour").into(), None);
    [(RUNNER, pod(RUNNER, &[runner, sidecar])), ("neighbour", pod("neighbour", &[app]))]
}

fn container(
    image: &str,
    name: &str,
    limit_mib: u32,
    security: &Value,
    processes: Vec<Process>,
    nested: Option<String>,
) -> Value {
    let processes = json!(Processes { processes, nested }).to_string();
    json!({
        "name": name, "image": image, "command": ["/lab-guest", "container", processes], "securityContext": security,
        "resources": {"limits": {"memory": format!("{limit_mib}Mi")}},
        "volumeMounts": [{"name": "shared", "mountPath": SHARED}],
    })
}

fn pod(name: &str, containers: &[Value]) -> Value {
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": place::uid(name), "labels": {}},
        "spec": {
            "containers": containers,
            "volumes": [{"name": "shared", "hostPath": {"path": SHARED, "type": "Directory"}}],
        },
    })
}
