//! `lab-kubelet SOCKET VERB …`: has a container runtime do what a kubelet would have it do, one thing at a time, and says
//! what came of it as one line of JSON.

mod cgroups;
mod client;
mod cri;
mod pod;
mod quantity;
mod terminal;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::{
    client::Client,
    cri::{
        ContainerId, ContainerStatusResponse, CreateContainerRequest, Empty, ExecSyncRequest, ExecSyncResponse,
        PodSandboxId, PodSandboxStatusResponse, RunPodSandboxRequest, StatusRequest, StopContainerRequest,
        VersionRequest, VersionResponse,
    },
    pod::{Node, Pod},
};

const USAGE: &str = "\
lab-kubelet SOCKET version
lab-kubelet SOCKET sandbox ROOT POD.json
lab-kubelet SOCKET container ROOT POD.json SANDBOX NAME NODE [single-process-oom-kill]
lab-kubelet SOCKET status CONTAINER
lab-kubelet SOCKET exec CONTAINER SECONDS PROGRAM [ARGUMENT...]
lab-kubelet SOCKET terminal CONTAINER SESSION PROGRAM [ARGUMENT...]
lab-kubelet SOCKET stop CONTAINER SECONDS
lab-kubelet SOCKET remove POD.json SANDBOX";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&arguments)));
    match outcome {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lab-kubelet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[&str]) -> anyhow::Result<Value> {
    let [socket, verb, rest @ ..] = arguments else { bail!("{USAGE}") };
    let client = Client::connect(Path::new(socket)).await?;
    match (*verb, rest) {
        ("version", []) => version(&client).await,
        ("sandbox", [root, file]) => sandbox(&client, Path::new(root), Pod(&read(file)?)).await,
        ("container", [root, file, sandbox, name, node, single @ ..]) => {
            let node = Node {
                name: (*node).to_owned(),
                memory: memory()?,
                single_process_oom_kill: single.contains(&"single-process-oom-kill"),
            };
            container(&client, Path::new(root), Pod(&read(file)?), sandbox, name, &node).await
        }
        ("status", [id]) => status(&client, id).await,
        ("exec", [id, seconds, command @ ..]) => exec(&client, id, seconds.parse()?, command).await,
        ("terminal", [id, session, command @ ..]) => {
            let session = serde_json::from_str(session).with_context(|| format!("{session} is no session"))?;
            terminal::run(&client, id, &session, command).await
        }
        ("stop", [id, seconds]) => {
            let request = StopContainerRequest { container_id: (*id).to_owned(), timeout: seconds.parse()? };
            client.call::<_, Empty>("StopContainer", &request).await?;
            status(&client, id).await
        }
        ("remove", [file, id]) => {
            let request = PodSandboxId { id: (*id).to_owned() };
            client.call::<_, Empty>("StopPodSandbox", &request).await?;
            client.call::<_, Empty>("RemovePodSandbox", &request).await?;
            cgroups::remove(Pod(&read(file)?))?;
            Ok(json!({}))
        }
        _ => bail!("{USAGE}"),
    }
}

fn read(file: &str) -> anyhow::Result<Value> {
    let text = fs::read(file).with_context(|| format!("can't read {file}"))?;
    serde_json::from_slice(&text).with_context(|| format!("{file} is no JSON"))
}

/// Of this machine, in bytes.
fn memory() -> anyhow::Result<i64> {
    let text = fs::read_to_string("/proc/meminfo").context("can't read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("/proc/meminfo has no MemTotal")?;
    let kib: i64 = line.trim().trim_end_matches(" kB").parse().context("MemTotal is no number")?;
    Ok(kib << 10)
}

async fn version(client: &Client) -> anyhow::Result<Value> {
    let said: VersionResponse = client.call("Version", &VersionRequest { version: "v1".to_owned() }).await?;
    Ok(json!({"name": said.name, "version": said.version, "api": said.api_version}))
}

/// The pod's cgroup, its folders on the node, and its sandbox.
async fn sandbox(client: &Client, root: &Path, pod: Pod<'_>) -> anyhow::Result<Value> {
    cgroups::make(pod)?;
    let folder = |path: &str| root.join(path.trim_start_matches('/'));
    for (path, made) in pod.host_folders()? {
        let there = folder(&path);
        if made {
            fs::create_dir_all(&there).with_context(|| format!("can't make {}", there.display()))?;
        } else if !there.is_dir() {
            bail!("the node has no folder {path}");
        }
    }
    let logs = folder(&pod.log_folder()?);
    fs::create_dir_all(&logs).with_context(|| format!("can't make {}", logs.display()))?;
    let request = RunPodSandboxRequest { config: Some(pod.sandbox()?) };
    let PodSandboxId { id } = client.call("RunPodSandbox", &request).await?;
    let request = StatusRequest { id: id.clone(), verbose: true };
    let status: PodSandboxStatusResponse = client.call("PodSandboxStatus", &request).await?;
    Ok(json!({"id": id, "pid": pid(&status.info)}))
}

/// Of a container's first process, from what the runtime tells besides.
fn pid(info: &std::collections::HashMap<String, String>) -> Option<u64> {
    serde_json::from_str::<Value>(info.get("info")?).ok()?["pid"].as_u64()
}

/// Makes and starts one container of the pod.
async fn container(
    client: &Client,
    root: &Path,
    pod: Pod<'_>,
    sandbox: &str,
    name: &str,
    node: &Node,
) -> anyhow::Result<Value> {
    let config = pod.config(pod.container(name)?, node)?;
    let logs = root.join(pod.log_folder()?.trim_start_matches('/')).join(name);
    fs::create_dir_all(&logs).with_context(|| format!("can't make {}", logs.display()))?;
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.to_owned(),
        config: Some(config),
        sandbox_config: Some(pod.sandbox()?),
    };
    let made: ContainerId = client.call("CreateContainer", &request).await?;
    client.call::<_, Empty>("StartContainer", &made).await?;
    status(client, &made.id).await
}

async fn status(client: &Client, id: &str) -> anyhow::Result<Value> {
    let request = StatusRequest { id: id.to_owned(), verbose: true };
    let said: ContainerStatusResponse = client.call("ContainerStatus", &request).await?;
    let status = said.status.context("the runtime tells no status")?;
    let state = usize::try_from(status.state).ok().and_then(|state| cri::STATES.get(state)).copied();
    Ok(json!({
        "id": id,
        "pid": pid(&said.info),
        "state": state.unwrap_or("unknown"),
        "exit_code": status.exit_code,
        "reason": status.reason,
        "message": status.message,
        "lived_s": (status.finished_at - status.started_at).max(0) as f64 / 1e9,
    }))
}

async fn exec(client: &Client, id: &str, seconds: i64, command: &[&str]) -> anyhow::Result<Value> {
    let cmd = command.iter().map(|part| (*part).to_owned()).collect();
    let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: seconds };
    let said: ExecSyncResponse = client.call("ExecSync", &request).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(json!({"exit_code": said.exit_code, "stdout": text(&said.stdout), "stderr": text(&said.stderr)}))
}
