//! Cgroups of pods: pkg/kubelet/cm, with the cgroupfs driver.

use std::{fs, path::Path};

use anyhow::Context as _;

use crate::pod::Pod;

const ROOT: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// Makes the cgroup of a pod and those above it.
pub(crate) fn make(pod: Pod<'_>) -> anyhow::Result<()> {
    let mut path = Path::new(ROOT).to_owned();
    for part in pod.cgroup()?.split('/') {
        pass_on(&path)?;
        path.push(part);
        fs::create_dir_all(&path).with_context(|| format!("can't make cgroup {}", path.display()))?;
    }
    pass_on(&path)?;
    match pod.memory_max()? {
        Some(max) => write(&path.join("memory.max"), &max.to_string()),
        None => Ok(()),
    }
}

/// Lets the children of a cgroup have its controllers.
fn pass_on(path: &Path) -> anyhow::Result<()> {
    let file = path.join("cgroup.controllers");
    let there = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    for controller in there.split_whitespace().filter(|name| CONTROLLERS.contains(name)) {
        write(&path.join("cgroup.subtree_control"), &format!("+{controller}"))?;
    }
    Ok(())
}

/// Takes a pod's cgroup away; it has to be empty.
pub(crate) fn remove(pod: Pod<'_>) -> anyhow::Result<()> {
    let path = Path::new(ROOT).join(pod.cgroup()?);
    fs::remove_dir(&path).with_context(|| format!("can't remove {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("can't write {text:?} to {}", path.display()))
}
