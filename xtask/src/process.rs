//! Running other programs.

use std::{
    io::Read,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::ui;

/// A command line as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs a command with its output on ours.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = wait(&mut spawn(command)?, command, None)?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command, and returns what it wrote to standard output; what it says is shown only if it fails.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    output_until(command, None)
}

/// The same, but gives up after a while: for commands that may wait for a network that is not there.
pub(crate) fn output_within(command: &mut Command, patience: Duration) -> anyhow::Result<String> {
    output_until(command, Some(patience))
}

fn output_until(command: &mut Command, patience: Option<Duration>) -> anyhow::Result<String> {
    let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let (stdout, stderr) = (collected(child.stdout.take()), collected(child.stderr.take()));
    let status = wait(&mut child, command, patience)?;
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        let tail: Vec<&str> = said.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("`{}` failed ({status}):\n{}", shown(command), tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Starts a command whose process ends with us, however we end: by a second Ctrl-C, say, or killed.
pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    end_with_us(command);
    command.spawn().with_context(|| format!("can't start `{}`", shown(command)))
}

/// The kernel sends the signal when the thread ends that started the process, so that thread has to wait for it.
fn end_with_us(command: &mut Command) {
    // SAFETY: a single system call, which sets a flag of the new process.
    unsafe {
        command.pre_exec(|| {
            let kill = Some(rustix::process::Signal::KILL);
            Ok(rustix::process::set_parent_process_death_signal(kill)?)
        });
    }
}

/// A process that we ask to end has so long for it.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Waits for its end, or ends it when somebody interrupts us or patience is over.
fn wait(child: &mut Child, command: &Command, patience: Option<Duration>) -> anyhow::Result<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            ui::check_interrupt()?;
            return Ok(status);
        }
        // It ends with us: a terminal sends Ctrl-C to both, `kill` only to one.
        let late = patience.filter(|patience| began.elapsed() >= *patience);
        if ui::interrupted() || late.is_some() {
            end(child);
            ui::check_interrupt()?;
            bail!("`{}` did not end within {} s", shown(command), late.unwrap_or_default().as_secs());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Asks a process to end, so that it can clear away what it began (cargo its compilers, apt-get its locks), and makes it.
fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let asked = pid.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok());
    let until = Instant::now() + LAST_WORDS;
    while asked && Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads a pipe beside us, so that a child that writes much to both of its pipes is not held up.
fn collected(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Where a program is, if it can be run.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// cargo of the toolchain that runs us, for this workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::paths::root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_takes_too_long_is_asked_to_end_and_then_made_to() {
        let dir = tempfile::tempdir().unwrap();
        let said = dir.path().join("said");
        let began = Instant::now();
        let polite = format!("trap 'echo bye > {}; exit 0' TERM; while :; do sleep 0.05; done", said.display());
        // It has set its trap by then, on any machine.
        let error = output_within(&mut sh(&polite), Duration::from_secs(2)).unwrap_err().to_string();
        assert!(error.contains("did not end within 2 s"), "{error}");
        assert_eq!(std::fs::read_to_string(&said).unwrap(), "bye\n");
        output_within(&mut sh("trap '' TERM; while :; do sleep 0.05; done"), Duration::from_millis(100)).unwrap_err();
        assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    }

    #[test]
    fn a_failure_tells_the_last_words() {
        let error = output(&mut sh("echo out; echo why >&2; exit 3")).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('3') && !error.contains("out\n"), "{error}");
        assert_eq!(output(&mut sh("echo out")).unwrap(), "out\n");
        run(&mut sh("exit 1")).unwrap_err();
    }

    #[test]
    fn a_process_ends_with_the_thread_that_started_it() {
        let mut child = thread::spawn(|| spawn(sh("exec sleep 60").stdin(Stdio::null())).unwrap()).join().unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(30), "it lives on");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
