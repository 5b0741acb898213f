//! The first process of a container: in sandboxes one that does nothing, in the job's containers one that starts the others,
//! as a runner does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use memguard_lab::containers::{Process, Processes, SHARED, TROUBLE};
use rustix::process::{WaitOptions, wait};

/// Between two looks at whether the trouble is to begin.
const STEP: Duration = Duration::from_millis(50);

/// Holds the namespaces of a pod.
pub(crate) fn pause() -> anyhow::Result<()> {
    loop {
        thread::sleep(Duration::from_hours(1));
    }
}

/// Starts processes, and goes on until the last of them is gone.
pub(crate) fn run(processes: &str) -> anyhow::Result<()> {
    let Processes { processes, nested } = serde_json::from_str(processes).context("no processes")?;
    let place = nested.map(|folder| Nested::make(&folder)).transpose()?;
    let (later, now): (Vec<&Process>, Vec<&Process>) = processes.iter().partition(|process| process.in_trouble);
    now.into_iter().try_for_each(|process| start(process, place.as_ref()))?;
    if !later.is_empty() {
        while !Path::new(TROUBLE).exists() {
            thread::sleep(STEP);
        }
        later.into_iter().try_for_each(|process| start(process, place.as_ref()))?;
    }
    // As the first process of a PID namespace it gets all orphans too. An error says that there are no children.
    while let Ok(Some(_)) = wait(WaitOptions::empty()) {}
    Ok(())
}

fn start(process: &Process, place: Option<&Nested>) -> anyhow::Result<()> {
    let progress = Path::new(SHARED).join(&process.name);
    let mut command = Command::new("/lab-guest");
    command.arg("workload").arg(progress).arg(serde_json::to_string(&process.run)?);
    match place {
        Some(place) => crate::guest::spawn_in(&place.add(&process.name)?, command).map(drop),
        None => command.spawn().map(drop).with_context(|| format!("can't start {}", process.name)),
    }
}

/// Where a docker daemon in a container puts its containers: it first goes into a cgroup of its own, because one with
/// processes can't pass controllers on to its children.
struct Nested(PathBuf);

impl Nested {
    fn make(folder: &str) -> anyhow::Result<Self> {
        let told = fs::read_to_string("/proc/self/cgroup").context("can't read /proc/self/cgroup")?;
        let below = told.trim().strip_prefix("0::/").context("/proc/self/cgroup has no cgroup v2")?;
        let own = Path::new("/sys/fs/cgroup").join(below);
        let init = own.join("init");
        fs::create_dir(&init).with_context(|| format!("can't make {}", init.display()))?;
        write(&init.join("cgroup.procs"), "0")?;
        write(&own.join("cgroup.subtree_control"), "+memory")?;
        let folder = own.join(folder);
        fs::create_dir(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        write(&folder.join("cgroup.subtree_control"), "+memory")?;
        Ok(Self(folder))
    }

    fn add(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir(&path).with_context(|| format!("can't make {}", path.display()))?;
        ensure!(path.join("memory.max").exists(), "{} has no memory controller", path.display());
        Ok(path)
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("can't write {text:?} to {}", path.display()))
}
