//! One look at the tasks of a cgroup that hangs, by files that never wait for it.
//!
//! What is read of a task, and why that does not block (fs/proc of Linux 6.1 to 7.x): `status` and `stat` read counters of
//! the mm without its lock, `comm` and `root` take `task_lock()`, `exe` is followed under RCU (`get_task_exe_file()`), and
//! `wchan` unwinds a stack (`get_wchan()`). What is not read: `maps`, `smaps`, `environ`, `cmdline` and `map_files` take
//! `mmap_lock`, which a task in reclaim may hold for as long as it hangs; `io`, `stack` and `syscall` take
//! `exec_update_lock`, which `execve()` holds while it waits for an `mmap_lock`; `cgroup` takes the lock of all cgroups.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

pub(super) use self::files::{Returns, device, name};
pub use self::{
    files::{HotFile, ReturnedFile},
    tasks::{Task, Waiting},
};
use self::{
    files::{hot_files, name_program},
    tasks::{MOST_PROCESSES, MOST_THREADS, folders, largest, numbers, task, waiting},
};
use crate::cgroup::parse;

mod files;
mod tasks;

/// A copy of a cgroup's file is cut after so many characters.
const LONGEST_COPY: usize = 8 * 1024;

/// What was seen of a cgroup and everything below it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Look {
    /// Seconds before the verdict.
    pub before_verdict_s: f64,
    pub took_ms: u64,
    pub processes: usize,
    pub threads: usize,
    /// Processes with the most memory that can't be reclaimed, first.
    pub tasks: Vec<Task>,
    /// Tasks in reclaim, and tasks that wait uninterruptibly, the longest first.
    pub waiting: Vec<Waiting>,
    /// How many there were of each.
    pub in_reclaim: usize,
    pub blocked: usize,
    /// Text that came back most often, first; `None` where the tracer does not tell.
    pub files: Option<Vec<HotFile>>,
    pub memory_stat: String,
    pub memory_events: String,
    /// Why it is not complete.
    pub cut: Option<String>,
}

/// A task in a reclaim cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InCycle {
    pub tid: u32,
    /// `CLOCK_MONOTONIC` ns.
    pub since_ns: u64,
    pub cgroup: u64,
}

/// What the tracer knows of single tasks and files.
pub trait Insight: Send {
    fn in_cycles(&self) -> Vec<InCycle>;
    /// `None` where the hook that tells text that came back is not there.
    fn text_files(&self) -> Option<Vec<ReturnedFile>>;
}

/// Where things are read.
pub struct Sources {
    /// `/proc`.
    pub proc: PathBuf,
    pub insight: Option<Box<dyn Insight>>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("proc", &self.proc).finish_non_exhaustive()
    }
}

/// What a look leaves for later, beside what is kept.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) look: Look,
    /// The root folder of the largest process, to look for files once there is time.
    pub(super) root: Option<OwnedFd>,
    /// [`HotFile::device`] as a number, in the order of the files.
    pub(super) devices: Vec<u32>,
}

/// Looks at the cgroup in `folder` until `deadline`. Calls `progress` with what there is so far, for the case that a file
/// never answers.
pub(super) fn look(
    sources: &Sources,
    folder: &Path,
    began: Instant,
    deadline: Instant,
    progress: &mut dyn FnMut(&Look),
) -> Seen {
    let mut seen = Seen::default();
    let late = || Instant::now() >= deadline;
    let copy = |name: &str| fs::read_to_string(folder.join(name)).map(|text| cut(&text)).unwrap_or_default();
    seen.look.memory_events = copy("memory.events");
    let folders = folders(folder);
    let ids: BTreeSet<u64> = folders.iter().map(|(id, _)| *id).collect();
    let cycles: BTreeMap<u32, u64> = sources.insight.as_ref().map_or_else(BTreeMap::new, |insight| {
        let of_these = insight.in_cycles().into_iter().filter(|cycle| ids.contains(&cycle.cgroup));
        of_these.map(|cycle| (cycle.tid, cycle.since_ns)).collect()
    });

    let pids = numbers(&folders, "cgroup.procs", MOST_PROCESSES);
    seen.look.processes = pids.len();
    let mut cut = pids.contains(&0).then(|| "some processes are in another pid namespace (hostPID)".to_owned());
    let mut tasks = Vec::new();
    for pid in pids.iter().filter(|pid| **pid != 0) {
        if late() {
            cut = Some(format!("the time was over after {} of {} processes", tasks.len(), pids.len()));
            break;
        }
        if let Some(task) =
            fs::read(sources.proc.join(pid.to_string()).join("status")).ok().and_then(|text| task(*pid, &text))
        {
            tasks.push(task);
            largest(&mut seen.look.tasks, &tasks);
            if tasks.len() < 16 || tasks.len() % 16 == 0 {
                progress(&seen.look);
            }
        }
    }
    seen.root = seen.look.tasks.first().and_then(|task| {
        let path = sources.proc.join(task.pid.to_string()).join("root");
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
    });
    progress(&seen.look);
    let threads = numbers(&folders, "cgroup.threads", MOST_THREADS);
    seen.look.threads = threads.len();
    waiting(&sources.proc, &threads, &cycles, deadline, &mut seen.look, &mut cut);
    progress(&seen.look);
    // After the tasks, because it reads a thousand slots one by one.
    let files = sources.insight.as_ref().and_then(|insight| insight.text_files());
    seen.devices = hot_files(&mut seen.look, files, &ids);
    for task in &mut seen.look.tasks {
        name_program(&sources.proc, task, &mut seen.look.files, &seen.devices);
    }
    // Last: on a kernel that has many counters to add up it takes its time.
    if !late() {
        seen.look.memory_stat = copy("memory.stat");
    }
    seen.look.cut = cut;
    seen.look.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    seen
}

fn cut(text: &str) -> String {
    let mut copy: String = text.chars().take(LONGEST_COPY).collect();
    copy.retain(|c| c == '\n' || !c.is_control());
    copy
}

impl Look {
    /// Whether it says more than another one: a later one may have come when the processes had been ended.
    pub(super) fn supersedes(&self, other: &Self) -> bool {
        let memory = |look: &Self| {
            look.tasks.iter().fold(0_u64, |sum, task| sum.saturating_add(task.anon).saturating_add(task.shmem))
        };
        memory(self) >= memory(other) / 2
            && (self.cut.is_none() || other.cut.is_some() || self.tasks.len() >= other.tasks.len())
    }

    /// Keeps half of each list. Whether there was anything to leave out.
    pub(super) fn halve(&mut self) -> bool {
        let any = !self.tasks.is_empty() || !self.waiting.is_empty() || !self.memory_stat.is_empty();
        self.tasks.truncate(self.tasks.len() / 2);
        self.waiting.truncate(self.waiting.len() / 2);
        if let Some(files) = &mut self.files {
            files.truncate(files.len() / 2);
        }
        (self.memory_stat, self.memory_events) = (String::new(), String::new());
        any
    }

    /// OOM kills and the like, by the copy of memory.events.
    #[must_use]
    pub fn events(&self) -> Vec<(String, u64)> {
        let mut events = Vec::new();
        parse::flat_keyed(&self.memory_events, |key, value| events.push((key.to_owned(), value)));
        events
    }
}

#[cfg(test)]
pub(super) mod tests;
