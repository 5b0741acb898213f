//! What is left of a cgroup: nobody, somebody who dies, or somebody who lives.
//!
//! A process that got SIGKILL stays in its cgroup until its memory is given back, which takes a large container more than a
//! second, and one in an uninterruptible wait for as long as that lasts. So `populated 1` alone does not tell who lives.
//! The signal does: it is pending (`SigPnd` for `cgroup.kill`, `ShdPnd` for the OOM killer) until the process comes to take it, and
//! from then on the process is marked as exiting (`PF_EXITING`). Both are read from files that take no lock of the process's
//! memory; [`report`](crate::report) tells which do.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::cgroup::{CgroupError, CgroupHandle};

/// How often `populated` is read while a kill is waited for.
pub(super) const POLL: Duration = Duration::from_millis(5);
/// A file in /proc answers at once. Should one not, nobody waits for it.
const PROC_PATIENCE: Duration = Duration::from_secs(2);
/// More are not looked at; who lives among the rest is not known.
const MOST_FOLDERS: usize = 1024;
const MOST_PROCESSES: usize = 8192;
/// For a thread that does one thing. Debug builds need a good part of it.
const STACK: usize = 256 * 1024;

const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
/// include/linux/sched.h.
const PF_EXITING: u64 = 0x4;

/// Whether a process is left in a cgroup or below it.
#[derive(Debug)]
pub enum Left {
    Nobody,
    Somebody,
    /// It can't be told, which is not the same as that nobody is.
    Unknown(CgroupError),
}

impl Left {
    #[must_use]
    pub fn of(cgroup: &CgroupHandle) -> Self {
        match cgroup.populated() {
            Ok(false) => Self::Nobody,
            Ok(true) => Self::Somebody,
            // A folder can only be removed when nobody is in it.
            Err(error) if error.is_gone() => Self::Nobody,
            Err(error) => Self::Unknown(error),
        }
    }
}

/// Waits until nobody is left, or for so long; what can't be told is looked at again until then.
pub(super) async fn until_empty(cgroup: &CgroupHandle, patience: Duration) -> Left {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let left = Left::of(cgroup);
        if matches!(left, Left::Nobody) || tokio::time::Instant::now() >= deadline {
            return left;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How those do who are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Somebody has not got SIGKILL.
    Lives,
    /// All have.
    Dies,
    /// Some can't be seen: they are of another PID namespace, or /proc does not answer.
    Unknown,
}

/// How those do who are in the cgroup at `path` or below it, by the files below `proc`. On a thread of its own, because
/// nothing that hangs may hold up the rest of memguard.
pub async fn life(proc: &Path, path: &Path) -> Life {
    let (proc, path) = (proc.to_owned(), path.to_owned());
    let Ok(answer) = aside("life", move || look(&proc, &path)) else { return Life::Unknown };
    timeout(PROC_PATIENCE, answer).await.ok().and_then(Result::ok).unwrap_or(Life::Unknown)
}

/// Has a thread of its own do it, and tell when it is done.
pub fn aside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (tell, told) = oneshot::channel();
    on_a_thread(name, move || {
        let _ = tell.send(work());
    })?;
    Ok(told)
}

pub(super) fn on_a_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work).map(drop)
}

fn look(proc: &Path, path: &Path) -> Life {
    let mut open = vec![path.to_owned()];
    let (mut folders, mut processes, mut unseen) = (0, 0, false);
    while let Some(folder) = open.pop() {
        if folders >= MOST_FOLDERS || processes >= MOST_PROCESSES {
            return Life::Unknown;
        }
        folders += 1;
        match fs::read_to_string(folder.join("cgroup.procs")) {
            Ok(pids) => {
                for pid in pids.lines().take(MOST_PROCESSES) {
                    processes += 1;
                    match process(proc, pid) {
                        Life::Lives => return Life::Lives,
                        Life::Dies => {}
                        Life::Unknown => unseen = true,
                    }
                }
            }
            Err(error) => unseen |= !is_gone(&error),
        }
        match folders_in(&folder) {
            Ok(below) => open.extend(below),
            Err(error) => unseen |= !is_gone(&error),
        }
    }
    if unseen { Life::Unknown } else { Life::Dies }
}

fn folders_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut below = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.path());
        }
    }
    Ok(below)
}

/// What was removed between two looks, or whose process ended between two.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH))
}

/// By its first thread that is still there: SIGKILL reaches all of them.
fn process(proc: &Path, pid: &str) -> Life {
    // 0 is somebody of another PID namespace.
    if pid.parse::<u32>().is_ok_and(|pid| pid == 0) {
        return Life::Unknown;
    }
    let threads = match fs::read_dir(proc.join(pid).join("task")) {
        Ok(threads) => threads,
        Err(error) if is_gone(&error) => return Life::Dies,
        Err(_) => return Life::Unknown,
    };
    for entry in threads {
        let seen = entry.and_then(|entry| thread_of(&entry.path()));
        match seen {
            Ok(None) => {}
            Ok(Some(dies)) => return if dies { Life::Dies } else { Life::Lives },
            Err(error) if is_gone(&error) => {}
            Err(_) => return Life::Unknown,
        }
    }
    Life::Dies
}

/// Whether this thread dies; `None` for one that is dead, and says nothing about the others of its process.
fn thread_of(folder: &Path) -> io::Result<Option<bool>> {
    let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    // Names are bytes of any kind.
    let status = fs::read(folder.join("status"))?;
    let status = String::from_utf8_lossy(&status);
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if line("State:").ok_or_else(|| odd("no State"))?.starts_with(['Z', 'X']) {
        return Ok(None);
    }
    for name in ["SigPnd:", "ShdPnd:"] {
        let pending =
            line(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).ok_or_else(|| odd("no signals"))?;
        if pending & SIGKILL != 0 {
            return Ok(Some(true));
        }
    }
    let stat = fs::read(folder.join("stat"))?;
    let flags = flags(&String::from_utf8_lossy(&stat)).ok_or_else(|| odd("no flags"))?;
    Ok(Some(flags & PF_EXITING != 0))
}

/// The flags of /proc/PID/stat: the seventh value after the name, which is in brackets and may have brackets in it.
fn flags(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(6)?.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cgroup::fake_cgroup;

    /// A thread as /proc shows it.
    pub(crate) fn fake_thread(proc: &Path, pid: u32, tid: u32, state: char, pending: [u64; 2], flags: u64) {
        let folder = proc.join(format!("{pid}/task/{tid}"));
        fs::create_dir_all(&folder).unwrap();
        let [own, shared] = pending;
        let status = format!("Name:\ta)b\nState:\t{state} (x)\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n");
        fs::write(folder.join("status"), status).unwrap();
        fs::write(folder.join("stat"), format!("{tid} (a) 1 b)) {state} 1 2 3 4 5 {flags} 7 8\n")).unwrap();
    }

    fn of(pids: &str, make: impl FnOnce(&Path)) -> Life {
        let dir = tempfile::tempdir().unwrap();
        let (proc, cgroup) = (dir.path().join("proc"), dir.path().join("a.scope"));
        fake_cgroup(&cgroup.join("nested"));
        fs::write(cgroup.join("cgroup.procs"), "").unwrap();
        fs::write(cgroup.join("nested/cgroup.procs"), pids).unwrap();
        make(&proc);
        look(&proc, &cgroup)
    }

    #[test]
    fn who_has_the_signal_dies_however_long_that_takes() {
        let one = |state, pending, flags| of("5\n", |proc| fake_thread(proc, 5, 5, state, pending, flags));
        assert_eq!(one('D', [SIGKILL, 0], 0), Life::Dies, "as cgroup.kill sends it");
        assert_eq!(one('R', [0, SIGKILL], 0), Life::Dies, "as the OOM killer sends it");
        assert_eq!(one('R', [0, 0], 0x0040_0004), Life::Dies, "it took the signal, and gives its memory back");
        assert_eq!(one('D', [1 << 14, 0], 0x0040_0000), Life::Lives, "SIGTERM is another one");
        assert_eq!(one('Z', [0, 0], 0), Life::Dies);
    }

    #[test]
    fn of_a_process_whose_first_thread_has_ended_the_others_tell() {
        let with = |pending| {
            of("5\n", |proc| {
                fake_thread(proc, 5, 5, 'Z', [0, 0], 0);
                fake_thread(proc, 5, 6, 'S', pending, 0);
            })
        };
        assert_eq!((with([0, 0]), with([SIGKILL, 0])), (Life::Lives, Life::Dies));
    }

    #[test]
    fn one_who_lives_is_enough_and_what_cannot_be_seen_is_not_dead() {
        let two = |proc: &Path| {
            fake_thread(proc, 5, 5, 'D', [SIGKILL, 0], 0);
            fake_thread(proc, 6, 6, 'S', [0, 0], 0);
        };
        assert_eq!(of("5\n6\n", two), Life::Lives);
        assert_eq!(of("5\n", two), Life::Dies);
        assert_eq!(of("7\n", two), Life::Dies, "it ended between two looks");
        assert_eq!(of("0\n5\n", two), Life::Unknown, "of another PID namespace");
        let garbled = |proc: &Path| {
            two(proc);
            fs::write(proc.join("5/task/5/status"), "").unwrap();
        };
        assert_eq!(of("5\n", garbled), Life::Unknown);
        assert_eq!(of("5\n6\n", garbled), Life::Lives);
    }

    #[tokio::test]
    async fn what_the_kernel_says_of_this_very_process_is_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(life(Path::new("/proc"), dir.path()).await, Life::Lives);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_waited_for_and_not_taken_for_empty() {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(dir.path());
        let cgroup = CgroupHandle::open(dir.path()).unwrap();
        assert!(matches!(until_empty(&cgroup, Duration::from_millis(20)).await, Left::Somebody));
        let events = dir.path().join("cgroup.events");
        fs::write(&events, "frozen 0\n").unwrap();
        assert!(matches!(until_empty(&cgroup, Duration::from_millis(20)).await, Left::Unknown(_)));
        let (left, ()) = tokio::join!(until_empty(&cgroup, Duration::from_secs(20)), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            fs::write(&events, "populated 0\n").unwrap();
        });
        assert!(matches!(left, Left::Nobody));
    }
}
