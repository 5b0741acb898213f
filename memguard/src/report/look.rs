//! One look at the tasks of a cgroup that hangs, by files that never wait for it.
//!
//! What is read of a task, and why that does not block (fs/proc of Linux 6.1 to 7.x): `status` and `stat` read counters of
//! the mm without its lock, `comm` and `root` take `task_lock()`, `exe` is followed under RCU (`get_task_exe_file()`), and
//! `wchan` unwinds a stack (`get_wchan()`). What is not read: `maps`, `smaps`, `environ`, `cmdline` and `map_files` take
//! `mmap_lock`, which a task in reclaim may hold for as long as it hangs; `io`, `stack` and `syscall` take
//! `exec_update_lock`, which `execve()` holds while it waits for an `mmap_lock`; `cgroup` takes the lock of all cgroups.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use serde::{Deserialize, Serialize};

use super::record::shown;
use crate::cgroup::parse;

/// Tasks, waiting tasks and files that are kept: those with the most.
const MOST_TASKS: usize = 48;
const MOST_WAITING: usize = 48;
const MOST_FILES: usize = 32;
/// More of each are not looked at.
const MOST_FOLDERS: usize = 256;
const MOST_PROCESSES: usize = 1024;
const MOST_THREADS: usize = 1024;
/// A name is cut after so many characters. The kernel's own names of tasks have 15.
const LONGEST_NAME: usize = 64;
const LONGEST_PATH: usize = 256;
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

/// A file whose text was thrown out and read again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HotFile {
    /// `major:minor` of the file system that the page cache belongs to.
    pub device: String,
    pub inode: u64,
    /// Major faults on text of it that was there a moment ago; at least so many.
    pub returns: u64,
    /// Of the time between the first look and this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_s: Option<f64>,
    /// As the container sees it, escaped; `None` where it was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The path was told by the inode number alone: overlayfs and btrfs show other devices than the page cache has.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_inode: bool,
}

/// A file as the tracer counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnedFile {
    /// As in the kernel: `major << 20 | minor`.
    pub device: u32,
    pub inode: u64,
    pub cgroup: u64,
    pub returns: u64,
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

/// How often text came back, by device and inode.
pub(super) type Returns = HashMap<(String, u64), u64>;

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

/// The folder and those below it, with their ids.
fn folders(folder: &Path) -> Vec<(u64, PathBuf)> {
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
fn numbers(folders: &[(u64, PathBuf)], name: &str, most: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    for (_, folder) in folders {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        numbers.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).take(most - numbers.len()));
    }
    numbers
}

/// Reads /proc/PID/status; `None` for what has no memory of its own: a zombie, or somebody who is gone.
fn task(pid: u32, text: &[u8]) -> Option<Task> {
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

fn largest(kept: &mut Vec<Task>, tasks: &[Task]) {
    if let Some(task) = tasks.last() {
        let size = |task: &Task| task.anon.saturating_add(task.shmem);
        let place = kept.partition_point(|other| size(other) >= size(task));
        if place < MOST_TASKS {
            kept.insert(place, task.clone());
            kept.truncate(MOST_TASKS);
        }
    }
}

/// The program's path, and with it that of a hot file.
fn name_program(proc: &Path, task: &mut Task, files: &mut Option<Vec<HotFile>>, devices: &[u32]) {
    let link = proc.join(task.pid.to_string()).join("exe");
    let Ok(path) = fs::read_link(&link) else { return };
    let path = shown(&path.to_string_lossy(), LONGEST_PATH);
    // A network file system is not asked.
    let told = statx(CWD, &link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
    if let (Ok(told), Some(files)) = (told, files) {
        for (file, device) in files.iter_mut().zip(devices) {
            name(file, *device, (told.stx_dev_major, told.stx_dev_minor), told.stx_ino, &path);
        }
    }
    task.exe = Some(path);
}

/// A device's number as the kernel has it (`MKDEV()`).
pub(super) const fn device(major: u32, minor: u32) -> u32 {
    major << 20 | minor & 0xf_ffff
}

/// Gives a hot file this path, if it is it. Whether it is, beyond doubt.
///
/// The page cache belongs to the inode of the file system below. overlayfs shows its own device, and for a file that it has
/// not copied up the inode number of the one below; btrfs shows a device for each subvolume. Such devices have no major
/// number, so there the inode number alone has to do, and that is said.
pub(super) fn name(file: &mut HotFile, device: u32, (major, minor): (u32, u32), inode: u64, path: &str) -> bool {
    let exact = device == self::device(major, minor);
    if file.inode != inode || !exact && (major != 0 || file.path.is_some()) {
        return false;
    }
    (file.path, file.by_inode) = (Some(path.to_owned()), !exact);
    exact
}

/// Puts the files of these cgroups into the look, and returns their devices.
fn hot_files(look: &mut Look, files: Option<Vec<ReturnedFile>>, ids: &BTreeSet<u64>) -> Vec<u32> {
    let Some(files) = files else { return Vec::new() };
    let mut sums: HashMap<(u32, u64), u64> = HashMap::new();
    for file in files.iter().filter(|file| ids.contains(&file.cgroup)) {
        let sum = sums.entry((file.device, file.inode)).or_default();
        *sum = sum.saturating_add(file.returns);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(file, returns)| (std::cmp::Reverse(*returns), *file));
    sums.truncate(MOST_FILES);
    look.files = Some(
        sums.iter()
            .map(|((device, inode), returns)| HotFile {
                device: format!("{}:{}", device >> 20, device & 0xf_ffff),
                inode: *inode,
                returns: *returns,
                ..HotFile::default()
            })
            .collect(),
    );
    sums.into_iter().map(|((device, _), _)| device).collect()
}

/// Threads in reclaim or in uninterruptible sleep.
fn waiting(
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
fn parse_stat(text: &[u8]) -> Option<(String, char)> {
    let text = String::from_utf8_lossy(text);
    let (start, end) = (text.find('(')?, text.rfind(')')?);
    let state = text.get(end + 1..)?.trim_start().chars().next().filter(char::is_ascii_alphabetic)?;
    Some((text.get(start + 1..end)?.to_owned(), state))
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

    /// How fast text of each file came back since an earlier look, `seconds` before.
    pub(super) fn rates_since(&mut self, earlier: &Returns, seconds: f64) {
        if seconds < 0.5 {
            return;
        }
        for file in self.files.iter_mut().flatten() {
            let before = earlier.get(&(file.device.clone(), file.inode)).copied().unwrap_or(0);
            file.per_s = Some(file.returns.saturating_sub(before) as f64 / seconds);
        }
    }

    pub(super) fn returns(&self) -> Returns {
        self.files.iter().flatten().map(|file| ((file.device.clone(), file.inode), file.returns)).collect()
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
