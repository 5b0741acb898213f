//! The node: containerd and runc in a root file system of their own, on the throttled disk, and what a kubelet asks of them.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use memguard_lab::{
    Record,
    containers::{MEMGUARD, NODE, Plan},
};
use rustix::{
    mount::{MountFlags, mount, mount_bind, mount_move},
    process::{chdir, chroot},
};
use serde_json::{Value, json};

use crate::{
    guest::{children, job::chain, port::Port},
    workload::DISK,
};

/// In the initramfs: the node's root file system.
const ARCHIVE: &str = "/node.tar";
/// It starts within seconds on a real machine.
const PATIENCE: Duration = Duration::from_mins(2);
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";
const CGROUP: &str = "/sys/fs/cgroup";
/// What containerd itself runs in, as on a node.
const SERVICE: &str = "/sys/fs/cgroup/system.slice/containerd.service";
/// For pods' files of this run, in memory.
const FOLDER: &str = "/run/containers";
pub(super) const KUBECONFIG: &str = "kubeconfig";
/// As the kubelet asks it to end.
const GRACE_S: &str = "30";

const CONFIG: &str = r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "@IMAGE@"
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#;

pub(super) struct Node {
    root: PathBuf,
    events: Receiver<String>,
    sandboxes: Vec<Sandbox>,
}

/// A pod's sandbox.
#[derive(Clone)]
pub(super) struct Sandbox {
    id: String,
    /// Of the process that holds its namespaces.
    pub(super) pid: u32,
    file: PathBuf,
    pub(super) cgroup: PathBuf,
    pod_cgroup: PathBuf,
    /// Where the output of its containers is.
    pub(super) logs: PathBuf,
}

/// A container that was started.
pub(super) struct Container {
    pub(super) id: String,
    pub(super) pid: Option<u32>,
    pub(super) cgroup: PathBuf,
    /// What the runtime said of it then.
    pub(super) told: Value,
}

impl Container {
    pub(super) fn status(&self) -> anyhow::Result<Value> {
        kubelet(&["status", &self.id])
    }

    /// Has memguard run in a container, beside what runs there.
    pub(super) fn exec(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut all = vec!["exec", &self.id, "60", "/usr/bin/memguard"];
        all.extend(arguments);
        let began = Instant::now();
        let mut told = kubelet(&all)?;
        told["took_s"] = began.elapsed().as_secs_f64().into();
        Ok(told)
    }

    pub(super) fn stop(&self) -> anyhow::Result<Value> {
        let began = Instant::now();
        let mut told = kubelet(&["stop", &self.id, GRACE_S])?;
        told["took_s"] = began.elapsed().as_secs_f64().into();
        Ok(told)
    }
}

impl Node {
    pub(super) fn start(port: &Port, plan: &Plan) -> anyhow::Result<Self> {
        let root = Path::new(DISK).join("node");
        step(port, "unpacking the node");
        fs::create_dir_all(&root)?;
        // Only what is a mount point can become the root of a mount namespace.
        mount_bind(&root, &root).context("can't mount the node's root")?;
        unpack(&root)?;
        mount_virtual(&root)?;
        configure(&root, plan)?;
        fs::create_dir_all(FOLDER)?;

        step(port, "starting containerd");
        let began = Instant::now();
        fs::create_dir_all(SERVICE).with_context(|| format!("can't make {SERVICE}"))?;
        let output = File::create("/run/containerd.log")?;
        let mut containerd = as_root(&root, "/usr/bin/containerd");
        containerd.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        children::spawn_in(Path::new(SERVICE), containerd)?;
        let node = Self { events: channel().1, root, sandboxes: Vec::new() };
        let version = loop {
            match kubelet(&["version"]) {
                Ok(version) => break version,
                Err(error) if began.elapsed() >= PATIENCE => {
                    return Err(error.context(format!("containerd does not answer; it says:\n{}", last_words())));
                }
                Err(_) => thread::sleep(Duration::from_millis(200)),
            }
        };
        let runc = on(&node.root, "/usr/bin/runc").arg("--version").output().context("can't start runc")?;
        let runc = String::from_utf8_lossy(&runc.stdout).lines().next().unwrap_or_default().to_owned();
        let after = began.elapsed().as_secs_f64();
        let told = json!({"runtime": version, "runc": runc, "after_s": after});
        port.send(Record::Seen { of: "node".to_owned(), what: "started".to_owned(), told });
        for archive in &plan.archives {
            step(port, &format!("importing {archive}"));
            node.ctr(&["images", "import", archive])?;
        }
        let events = node.events()?;
        Ok(Self { events, ..node })
    }

    /// A program of the node's, run to its end.
    fn ctr(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = on(&self.root, "/usr/bin/ctr");
        command.args(["--address", SOCKET, "--namespace", "k8s.io"]).args(arguments);
        output(&mut command)
    }

    /// Whatever happens to containers from now on, line by line.
    fn events(&self) -> anyhow::Result<Receiver<String>> {
        let mut command = on(&self.root, "/usr/bin/ctr");
        command.args(["--address", SOCKET, "--namespace", "k8s.io", "events"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut program = command.spawn().context("can't start `ctr events`")?;
        let (sender, events) = channel();
        let out = program.stdout.take().context("no pipe from `ctr events`")?;
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(events)
    }

    pub(super) fn pass_on_events(&self, port: &Port) {
        for line in self.events.try_iter() {
            // What is unpacked and mounted is nobody's concern here.
            if ["/tasks/", "/containers/"].iter().any(|topic| line.contains(topic)) {
                port.send(Record::Event { line });
            }
        }
    }

    fn root(&self) -> anyhow::Result<&str> {
        self.root.to_str().context("the node's root has an odd name")
    }

    /// Makes a pod's sandbox, which is a container that does nothing.
    pub(super) fn sandbox(&mut self, name: &str, pod: &Value) -> anyhow::Result<Sandbox> {
        let file = Path::new(FOLDER).join(format!("{name}.json"));
        fs::write(&file, serde_json::to_vec(pod)?)?;
        let told = kubelet(&["sandbox", self.root()?, text(&file)?])?;
        let id = string(&told, "id")?;
        let pid = pid(&told).with_context(|| format!("the sandbox of {name} has no process: {told}"))?;
        let cgroup = cgroup_of(pid)?;
        let uid = string(&pod["metadata"], "uid")?;
        let namespace = string(&pod["metadata"], "namespace")?;
        let pod_name = string(&pod["metadata"], "name")?;
        let sandbox = Sandbox {
            logs: self.root.join(format!("var/log/pods/{namespace}_{pod_name}_{uid}")),
            pod_cgroup: cgroup.parent().context("a sandbox in the root cgroup")?.to_owned(),
            id,
            pid,
            file,
            cgroup,
        };
        self.sandboxes.push(sandbox.clone());
        Ok(sandbox)
    }

    /// Makes and starts a container of a pod.
    pub(super) fn container(&self, sandbox: &Sandbox, name: &str, single: bool) -> anyhow::Result<Container> {
        let mut arguments = vec!["container", self.root()?, text(&sandbox.file)?, &sandbox.id, name, NODE];
        if single {
            arguments.push("single-process-oom-kill");
        }
        let told = kubelet(&arguments)?;
        let id = string(&told, "id")?;
        let cgroup = sandbox.pod_cgroup.join(&id);
        ensure!(cgroup.is_dir(), "container {name} has no cgroup {}", cgroup.display());
        Ok(Container { pid: pid(&told), id, cgroup, told })
    }

    /// What the kubelet makes of the `ConfigMap`, and how to reach the API.
    pub(super) fn write_config(&self, uid: &str, action: &str, api_port: u16) -> anyhow::Result<()> {
        let folder = format!("var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~configmap/config");
        let folder = self.root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let config = format!(
            "[policy]\nmode = \"observe\"\n\n[[policy.rules]]\nname = \"lab\"\nmode = \"enforce\"\naction = \"{action}\"\n\
             labels = {{ \"actions.github.com/scale-set-name\" = \"set\" }}\n"
        );
        fs::write(folder.join(format!("{MEMGUARD}.toml")), config)?;
        fs::write(folder.join(KUBECONFIG), chain::kubeconfig(api_port))?;
        Ok(())
    }

    /// Removes all pods.
    pub(super) fn clear(&mut self) -> anyhow::Result<()> {
        for sandbox in std::mem::take(&mut self.sandboxes) {
            kubelet(&["remove", text(&sandbox.file)?, &sandbox.id])?;
        }
        Ok(())
    }
}

/// Has the kubelet do something.
fn kubelet(arguments: &[&str]) -> anyhow::Result<Value> {
    let mut command = Command::new("/lab-kubelet");
    command.arg(SOCKET).args(arguments);
    let said = output(&mut command)?;
    serde_json::from_str(&said).with_context(|| format!("lab-kubelet said {said:?}"))
}

fn step(port: &Port, what: &str) {
    port.send(Record::Step { what: what.to_owned() });
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is an odd name", path.display()))
}

fn string(told: &Value, name: &str) -> anyhow::Result<String> {
    told[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {told}"))
}

fn pid(told: &Value) -> Option<u32> {
    told["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)
}

/// What a program writes; an error with what it says if it fails.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().display().to_string();
    let said = command.stdin(Stdio::null()).output().with_context(|| format!("can't start {name}"))?;
    if !said.status.success() {
        bail!("{name} failed ({}): {}", said.status, String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// A program on the node.
fn on(root: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin").env("HOME", "/root");
    let root = root.to_owned();
    // SAFETY: chroot and chdir are plain system calls; the path is short enough for no allocation.
    unsafe {
        command.pre_exec(move || {
            chroot(root.as_path())?;
            Ok(chdir("/")?)
        });
    }
    command
}

/// A program for which the node's root is that of its mount namespace, and of all that it starts: `runc exec` enters a
/// namespace and finds itself at its root, wherever those were that run there before.
fn as_root(root: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin").env("HOME", "/root");
    let root = root.to_owned();
    // SAFETY: plain system calls; the paths are short enough for no allocation.
    unsafe {
        command.pre_exec(move || {
            if libc::unshare(libc::CLONE_NEWNS) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            chdir(root.as_path())?;
            // The guest's own root can't be left by pivot_root: the other one is put over it.
            mount_move(".", "/")?;
            chroot(".")?;
            Ok(chdir("/")?)
        });
    }
    command
}

/// With the root disk's tar; what was unpacked is no longer needed in memory.
fn unpack(root: &Path) -> anyhow::Result<()> {
    let archive = File::open(ARCHIVE).with_context(|| format!("can't open {ARCHIVE}"))?;
    let mut tar = Command::new("tar");
    let to = Path::new("/").join(root.strip_prefix(DISK)?);
    tar.args(["--extract", "--directory"]).arg(to).stdin(archive).stderr(Stdio::piped());
    children::on_the_disk(&mut tar);
    let said = tar.spawn().and_then(std::process::Child::wait_with_output).context("can't start tar")?;
    ensure!(said.status.success(), "tar failed: {}", String::from_utf8_lossy(&said.stderr));
    fs::remove_file(ARCHIVE).with_context(|| format!("can't remove {ARCHIVE}"))
}

fn mount_virtual(root: &Path) -> anyhow::Result<()> {
    for (kind, target, data) in [
        ("proc", "proc", None),
        ("sysfs", "sys", None),
        // As systemd mounts it.
        ("cgroup2", "sys/fs/cgroup", Some(c"nsdelegate,memory_recursiveprot")),
        ("devtmpfs", "dev", None),
        ("tmpfs", "tmp", None),
    ] {
        let target = root.join(target);
        fs::create_dir_all(&target)?;
        mount(kind, &target, kind, MountFlags::empty(), data)
            .with_context(|| format!("can't mount {kind} at {}", target.display()))?;
    }
    let run = root.join("run");
    fs::create_dir_all(&run)?;
    mount_bind("/run", &run).context("can't mount the node's /run")
}

fn configure(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    for folder in ["etc/containerd", "etc/cni/net.d", "opt/cni/bin", "root", "var/lib/containerd"] {
        fs::create_dir_all(root.join(folder))?;
    }
    // Every pod gets a copy of these.
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    fs::write(root.join("etc/resolv.conf"), "")?;
    fs::write(root.join("etc/containerd/config.toml"), CONFIG.replace("@IMAGE@", &plan.image))?;
    let network = json!({
        "cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": crate::cni::NAMES[1]}],
    });
    fs::write(root.join("etc/cni/net.d/10-lab.conflist"), network.to_string())?;
    for name in crate::cni::NAMES {
        fs::copy("/lab-guest", root.join("opt/cni/bin").join(name)).context("can't copy a plugin")?;
    }
    Ok(())
}

fn cgroup_of(pid: u32) -> anyhow::Result<PathBuf> {
    let file = format!("/proc/{pid}/cgroup");
    let told = fs::read_to_string(&file).with_context(|| format!("can't read {file}"))?;
    let below = told.trim().strip_prefix("0::/").with_context(|| format!("{file} has no cgroup v2"))?;
    Ok(Path::new(CGROUP).join(below))
}

fn last_words() -> String {
    let text = fs::read_to_string("/run/containerd.log").unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
