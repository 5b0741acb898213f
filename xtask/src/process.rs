//! Running other programs.

use std::{
    io::Read,
    path::PathBuf,
    process::{Command, Stdio},
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
    let status = command.status().with_context(|| format!("can't start `{}`", shown(command)))?;
    ui::check_interrupt()?;
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
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start `{}`", shown(command)))?;
    let (stdout, stderr) = (collected(child.stdout.take()), collected(child.stderr.take()));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // It ends with us: a terminal sends Ctrl-C to both, `kill` only to one.
        let late = patience.filter(|patience| began.elapsed() >= *patience);
        if ui::interrupted() || late.is_some() {
            let _ = child.kill();
            let _ = child.wait();
            ui::check_interrupt()?;
            bail!("`{}` did not end within {} s", shown(command), late.unwrap_or_default().as_secs());
        }
        thread::sleep(Duration::from_millis(10));
    };
    ui::check_interrupt()?;
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        let tail: Vec<&str> = said.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("`{}` failed ({status}):\n{}", shown(command), tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
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
