//! Starting processes in cgroups, and noticing their end.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::Sender,
    thread,
};

use anyhow::Context as _;
use memguard_lab::scenario::{Limits, Program};
use rustix::{
    fs::{Mode, OFlags, open},
    process::{Resource, Rlimit, WaitOptions, WaitStatus, setrlimit, wait},
};

use super::machine::PROGRESS;
use crate::workload::DISK;

/// What ended, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pub(super) pid: u32,
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
}

/// A process that begins its life in a cgroup, so that everything it touches is charged there.
pub(crate) fn spawn_in(cgroup: &Path, mut command: Command) -> anyhow::Result<Child> {
    let path = cgroup.join("cgroup.procs");
    let procs =
        fs::File::options().write(true).open(&path).with_context(|| format!("can't open {}", path.display()))?;
    // SAFETY: between fork and exec there is nothing but one system call: no allocation, no lock of another thread.
    unsafe { command.pre_exec(move || Ok(rustix::io::write(&procs, b"0").map(drop)?)) };
    command.spawn().with_context(|| format!("can't start {} in {}", command.get_program().display(), cgroup.display()))
}

/// The command line of a workload and its progress file.
pub(super) fn workload(name: &str, program: &Program, limits: Limits) -> anyhow::Result<(Command, PathBuf)> {
    let progress = Path::new(PROGRESS).join(name);
    fs::write(&progress, 0_u64.to_ne_bytes())?;
    let mut command = match program {
        Program::Exec { argv } => {
            let (first, rest) = argv.split_first().context("a program needs an argv")?;
            let mut command = Command::new(first);
            command.args(rest);
            on_the_disk(&mut command);
            command
        }
        program => {
            let mut command = Command::new("/lab-guest");
            command.arg("workload").arg(&progress).arg(serde_json::to_string(program)?);
            command
        }
    };
    impose(&mut command, limits);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok((command, progress))
}

/// Has a command find its world on the root disk.
pub(crate) fn on_the_disk(command: &mut Command) {
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/root");
    // SAFETY: chroot and chdir are plain system calls.
    unsafe {
        command.pre_exec(|| {
            rustix::process::chroot(DISK)?;
            Ok(rustix::process::chdir("/")?)
        });
    }
}

fn impose(command: &mut Command, limits: Limits) {
    let score = limits.oom_score_adj.map(|score| score.to_string());
    let space = limits.address_space.and_then(|size| size.0);
    // SAFETY: between fork and exec there are system calls only: no allocation, no lock of another thread.
    unsafe {
        command.pre_exec(move || {
            if let Some(score) = &score {
                let file = open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty())?;
                rustix::io::write(&file, score.as_bytes())?;
            }
            if space.is_some() {
                setrlimit(Resource::As, Rlimit { current: space, maximum: space })?;
            }
            Ok(())
        });
    }
}

/// Progress counts of all workloads.
pub(super) fn progress(files: &BTreeMap<String, PathBuf>) -> BTreeMap<String, u64> {
    files
        .iter()
        .map(|(name, path)| {
            let bytes = fs::read(path).ok().and_then(|bytes| bytes.try_into().ok());
            (name.clone(), bytes.map_or(0, u64::from_ne_bytes))
        })
        .collect()
}

/// Everything that has ended by now. PID 1 inherits all orphans, so this sees more than its own children.
pub(super) fn reap() -> Vec<Exit> {
    let mut exits = Vec::new();
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let status: WaitStatus = status;
        if status.exited() || status.signaled() {
            exits.push(Exit {
                pid: pid.as_raw_nonzero().get().unsigned_abs(),
                code: status.exit_status(),
                signal: status.terminating_signal(),
            });
        }
    }
    exits
}

/// Sends each line that comes out of a pipe on, as what `wrap` makes of it.
pub(super) fn forward<T: Send + 'static>(
    pipe: impl Read + Send + 'static,
    lines: Sender<T>,
    wrap: impl Fn(String) -> T + Send + 'static,
) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if lines.send(wrap(String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
        }
    });
}
