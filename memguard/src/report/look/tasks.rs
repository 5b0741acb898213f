//! The tasks of a cgroup, by files of /proc that never wait for them: see the module above for which and why.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::Look;
use crate::report::record::shown;

/// Processes and waiting threads that are kept: those with the most.
const MOST_TASKS: usize = 48;
const MOST_WAITING: usize = 48;
/// More of each are not looked at.
const MOST_FOLDERS: usize = 256;
pub(super) const MOST_PROCESSES: usize = 1024;
pub(super) const MOST_THREADS: usize = 1024;
/// A name is cut after so many characters. The kernel's own names of tasks have 15.
const LONGEST_NAME: usize = 64;

/// One process. Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    pub pid: u32,
    /// Escaped.
    pub comm: String,
    /// As in /proc/PID/status: R, S, D, Z.
    pub state: String,
    pub threads: u32,
    pub anon: u64,
    pub shmem: u64,
    pub file: u64,
    /// The program's file as the container sees it, escaped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
}

/// One thread that does not get on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    pub tid: u32,
    /// Escaped.
    pub comm: String,
    pub state: String,
    /// The kernel function it waits in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wchan: Option<String>,
    /// In a reclaim cycle for so long, by the tracer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaims_for_ms: Option<f64>,
}

/// The folder and those below it, with their ids.
pub(super) fn folders(folder: &Path) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let below = fs::read_dir(&path).into_iter().flatten().flatten();
        let room = MOST_FOLDERS.saturating_sub(found.len() + open.len());
        open.extend(below.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).take(room));
        found.push((metadata.ino(), path));
        if found.len() >= MOST_FOLDERS {
            break;
        }
    }
    found
}

/// The ids that a file lists, of all folders.
pub(super) fn numbers(folders: &[(u64, PathBuf)], name: &str, most: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    for (_, folder) in folders {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        numbers.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).take(most - numbers.len()));
    }
    numbers
}

/// Reads /proc/PID/status; `None` for what has no memory of its own: a zombie, or somebody who is gone.
pub(super) fn task(pid: u32, text: &[u8]) -> Option<Task> {
    let text = String::from_utf8_lossy(text);
    let mut task = Task { pid, ..Task::default() };
    let mut memory = false;
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        let bytes = || {
            value.strip_suffix("kB").and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
        };
        match key {
            "Name" => task.comm = shown(value, LONGEST_NAME),
            "State" => task.state = value.chars().take(1).filter(char::is_ascii_alphabetic).collect(),
            "Threads" => task.threads = value.parse().unwrap_or(0),
            "RssAnon" => (task.anon, memory) = (bytes(), true),
            "RssFile" => task.file = bytes(),
            "RssShmem" => task.shmem = bytes(),
            _ => {}
        }
    }
    memory.then_some(task)
}

pub(super) fn largest(kept: &mut Vec<Task>, tasks: &[Task]) {
    if let Some(task) = tasks.last() {
        let size = |task: &Task| task.anon.saturating_add(task.shmem);
        let place = kept.partition_point(|other| size(other) >= size(task));
        if place < MOST_TASKS {
            kept.insert(place, task.clone());
            kept.truncate(MOST_TASKS);
        }
    }
}

/// Threads in reclaim or in uninterruptible sleep.
pub(super) fn waiting(
    proc: &Path,
    threads: &[u32],
    cycles: &BTreeMap<u32, u64>,
    deadline: Instant,
    look: &mut Look,
    cut: &mut Option<String>,
) {
    let now_ns = {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.unsigned_abs())
    };
    let mut found = Vec::new();
    // First those that the tracer names.
    let others = threads.iter().filter(|tid| !cycles.contains_key(tid));
    for (at, tid) in cycles.keys().chain(others).enumerate() {
        if Instant::now() >= deadline {
            cut.get_or_insert_with(|| format!("the time was over after {at} of {} threads", threads.len()));
            break;
        }
        let folder = proc.join(tid.to_string());
        let Ok(stat) = fs::read(folder.join("stat")) else { continue };
        let Some((comm, state)) = parse_stat(&stat) else { continue };
        let cycle = cycles.get(tid);
        look.in_reclaim += usize::from(cycle.is_some());
        look.blocked += usize::from(state == 'D');
        if cycle.is_none() && state != 'D' {
            continue;
        }
        let wchan = fs::read_to_string(folder.join("wchan")).ok().filter(|name| !matches!(name.as_str(), "" | "0"));
        found.push(Waiting {
            tid: *tid,
            comm: shown(&comm, LONGEST_NAME),
            state: state.to_string(),
            wchan: wchan.map(|name| shown(name.trim_end(), LONGEST_NAME)),
            reclaims_for_ms: cycle.map(|since| now_ns.saturating_sub(*since) as f64 / 1e6),
        });
    }
    found.sort_by(|a, b| b.reclaims_for_ms.unwrap_or(-1.0).total_cmp(&a.reclaims_for_ms.unwrap_or(-1.0)));
    found.truncate(MOST_WAITING);
    look.waiting = found;
}

/// Name and state of /proc/PID/stat. The name is in brackets and may have brackets in it.
pub(super) fn parse_stat(text: &[u8]) -> Option<(String, char)> {
    let text = String::from_utf8_lossy(text);
    let (start, end) = (text.find('(')?, text.rfind(')')?);
    let state = text.get(end + 1..)?.trim_start().chars().next().filter(char::is_ascii_alphabetic)?;
    Some((text.get(start + 1..end)?.to_owned(), state))
}
