//! Workloads that start other programs.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use memguard_lab::scenario::{Counted, Program};
use rustix::process::{Pid, Signal, kill_process_group};

use super::progress::Progress;
use crate::guest::on_the_disk;

/// Pause between two looks at whether a program has ended.
const STEP: Duration = Duration::from_millis(20);

/// Runs a program of the root disk again and again. One that fails ends it.
pub(super) fn repeat(
    argv: &[String],
    until: Option<Instant>,
    counted: Counted,
    progress: Progress,
) -> anyhow::Result<()> {
    let (first, rest) = argv.split_first().context("a program needs an argv")?;
    while until.is_none_or(|until| Instant::now() < until) {
        let mut command = Command::new(first);
        command.args(rest);
        on_the_disk(&mut command);
        let lines = (counted == Counted::Lines).then_some(progress);
        let Some(status) = run(command, lines, until)? else { return Ok(()) };
        ensure!(status.success(), "{first} failed: {status}");
        if counted == Counted::Runs {
            progress.add(1);
        }
    }
    Ok(())
}

/// Starts a program that touches all text and ends, again and again.
pub(super) fn startups(until: Instant, own: &Path, progress: Progress) -> anyhow::Result<()> {
    while Instant::now() < until {
        let mut command = Command::new("/lab-guest");
        command.arg("workload").arg(own).arg(serde_json::to_string(&Program::TouchText)?);
        let Some(status) = run(command, None, Some(until))? else { return Ok(()) };
        ensure!(status.success(), "a program that only starts failed: {status}");
        progress.add(1);
    }
    Ok(())
}

/// Runs it with all that it starts in a process group of its own, and ends that when the time is up: then there is no
/// status. Each line of its output is progress, if asked for.
fn run(mut command: Command, lines: Option<Progress>, until: Option<Instant>) -> anyhow::Result<Option<ExitStatus>> {
    command.process_group(0).stdout(if lines.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().with_context(|| format!("can't start {}", command.get_program().display()))?;
    if let (Some(out), Some(progress)) = (child.stdout.take(), lines) {
        thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            for _ in BufReader::new(out).split(b'\n').map_while(Result::ok) {
                progress.add(1);
            }
        })?;
    }
    let Some(until) = until else { return Ok(Some(child.wait()?)) };
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(STEP);
    }
}
