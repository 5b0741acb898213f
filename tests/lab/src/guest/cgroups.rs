//! A cgroup tree as the kubelet (systemd driver) and containerd lay it out.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use memguard_lab::{
    Scenario,
    place::{self, scope},
    scenario::{Container, Pod},
};

use super::machine::{CGROUP, write};

/// Where memguard runs.
pub(super) const MEMGUARD: &str = "/sys/fs/cgroup/system.slice/memguard.service";

/// How long the last process of a tree may take to be gone.
const PATIENCE: Duration = Duration::from_mins(1);

/// Paths of the containers, by `pod/container`.
pub(super) struct Tree {
    pub(super) containers: BTreeMap<String, Place>,
}

/// A container's cgroup, and the one whose limit it is under.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) limited_at: PathBuf,
}

pub(super) fn make(scenario: &Scenario) -> anyhow::Result<Tree> {
    let root = Path::new(CGROUP);
    pass_on(root)?;
    add(&root.join("system.slice"))?;
    pass_on(&root.join("system.slice"))?;
    add(Path::new(MEMGUARD))?;

    let burstable = root.join(place::BURSTABLE);
    add(&burstable)?;
    pass_on(&root.join("kubepods.slice"))?;
    pass_on(&burstable)?;
    let mut containers = BTreeMap::new();
    for pod in &scenario.pod {
        let slice = root.join(place::slice(&pod.name));
        add(&slice)?;
        pass_on(&slice)?;
        if let Some(max) = pod.memory_max {
            write(slice.join("memory.max"), &max.file_text())?;
        }
        if let Some(max) = pod.cpu_max {
            write(slice.join("cpu.max"), &max.file_text())?;
        }
        for container in &pod.container {
            let path = slice.join(scope(&pod.name, &container.name));
            fill(&path, container)?;
            let limited_at =
                if container.memory_max.is_none() && pod.memory_max.is_some() { slice.clone() } else { path.clone() };
            containers.insert(full_name(pod, container), Place { path, limited_at });
        }
        // What Kubernetes puts beside every container.
        let pause = slice.join(scope(&pod.name, "pause"));
        add(&pause)?;
        containers.insert(format!("{}/pause", pod.name), Place { limited_at: pause.clone(), path: pause });
    }
    Ok(Tree { containers })
}

fn fill(path: &Path, container: &Container) -> anyhow::Result<()> {
    add(path)?;
    if let Some(max) = container.memory_max {
        write(path.join("memory.max"), &max.file_text())?;
    }
    if let Some(high) = container.memory_high {
        write(path.join("memory.high"), &high.file_text())?;
    }
    if let Some(max) = container.cpu_max {
        write(path.join("cpu.max"), &max.file_text())?;
    }
    write(path.join("memory.oom.group"), if container.oom_group { "1" } else { "0" })?;
    for nested in container.workload.iter().filter_map(|workload| workload.nested.as_deref()) {
        let mut below = path.to_owned();
        for part in nested.split('/') {
            pass_on(&below)?;
            below.push(part);
            add(&below)?;
        }
    }
    Ok(())
}

/// Makes a cgroup and removes it, so many times. It has no controllers, so this is quick.
pub(super) fn come_and_go(times: u32) -> anyhow::Result<()> {
    let parent = Path::new(CGROUP).join("come-and-go");
    add(&parent)?;
    for number in 0..times {
        let path = parent.join(number.to_string());
        add(&path)?;
        fs::remove_dir(&path).with_context(|| format!("can't remove cgroup {}", path.display()))?;
    }
    fs::remove_dir(&parent).with_context(|| format!("can't remove cgroup {}", parent.display()))
}

pub(super) fn full_name(pod: &Pod, container: &Container) -> String {
    format!("{}/{}", pod.name, container.name)
}

fn add(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("can't make cgroup {}", path.display()))
}

/// Lets the children of a cgroup have its controllers.
fn pass_on(path: &Path) -> anyhow::Result<()> {
    let controllers = fs::read_to_string(path.join("cgroup.controllers"))
        .with_context(|| format!("can't read the controllers of {}", path.display()))?;
    for controller in controllers.split_whitespace().filter(|name| ["cpu", "io", "memory", "pids"].contains(name)) {
        write(path.join("cgroup.subtree_control"), &format!("+{controller}"))?;
    }
    Ok(())
}

/// Where the cgroup of a container is, by `pod/container`.
pub(crate) fn path(full_name: &str) -> Option<PathBuf> {
    Some(Path::new(place::ROOT).join(place::of(full_name)?))
}

/// Ends everything in the pods, and takes their tree away.
pub(super) fn clear() -> anyhow::Result<()> {
    let top = Path::new(CGROUP).join("kubepods.slice");
    write(top.join("cgroup.kill"), "1")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        super::children::reap();
        match remove(&top) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("can't remove {}", top.display()));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn remove(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
