//! Running other programs.

use std::{
    io::Read,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
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
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start `{}`", shown(command)))?;
    let Output { status, stdout, stderr } = to_its_end(child)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        let tail: Vec<&str> = said.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("`{}` failed ({status}):\n{}", shown(command), tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// What a child wrote and how it ended. It is ended with us: a terminal sends Ctrl-C to both, `kill` only to one.
fn to_its_end(mut child: Child) -> anyhow::Result<Output> {
    fn collected(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            bytes
        })
    }
    let (stdout, stderr) = (collected(child.stdout.take()), collected(child.stderr.take()));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if ui::interrupted() {
            let _ = child.kill();
            let _ = child.wait();
            ui::check_interrupt()?;
        }
        thread::sleep(Duration::from_millis(10));
    };
    ui::check_interrupt()?;
    Ok(Output { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() })
}

/// The same, but gives up after a while: for commands that may wait for a network that is not there.
pub(crate) fn output_within(command: &mut Command, patience: Duration) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("can't start `{}`", shown(command)))?;
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline || ui::interrupted() {
            let _ = child.kill();
            let _ = child.wait();
            ui::check_interrupt()?;
            bail!("`{}` did not end within {} s", shown(command), patience.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    };
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut text)?;
    }
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(text)
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
