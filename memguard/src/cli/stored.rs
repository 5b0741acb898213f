//! What the journal on the disk holds, read by a process of its own.
//!
//! A disk that hangs can hold whoever reads from it in a sleep that no signal ends, and with one thread the whole process:
//! its caller would wait for it in vain. So a child reads, and is left to itself if it takes too long.

use std::{
    ffi::OsString,
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::Context as _;

use crate::journal::{Incident, StoreError, read_only};

/// What the child is called with. It is no command of the command line: nobody is offered it.
const COMMAND: &str = "read-journal";
/// A disk that works takes milliseconds for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Exit status of the child where memguard has the journal open.
const IN_USE: u8 = 4;

/// That of a child that panicked, in a build in which panics do not abort.
const PANICKED: i32 = 101;
/// What ends one in which they do.
const ABORT: i32 = 6;

/// Why the journal's part is missing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Store(String),
    #[error("the journal below {} can't be read, it is damaged; memguard puts it aside when it next starts", folder.display())]
    Damaged { folder: PathBuf },
    #[error("the disk below {} did not answer within {} s", folder.display(), PATIENCE.as_secs())]
    Disk { folder: PathBuf },
}

/// The folder whose journal is to be told, if this process is the child.
pub(super) fn folder(arguments: &[OsString]) -> Option<&Path> {
    match arguments {
        [_, command, folder] if command == COMMAND => Some(Path::new(folder)),
        _ => None,
    }
}

/// Prints what the journal in a folder holds, as JSON.
pub(super) fn tell(state_dir: &Path) -> anyhow::Result<ExitCode> {
    match read_only(state_dir) {
        Ok(incidents) => {
            super::print(&serde_json::to_string(&incidents)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(StoreError::InUse { .. }) => Ok(ExitCode::from(IN_USE)),
        Err(error) => Err(error.into()),
    }
}

/// What the journal holds; nothing while memguard has it open, which keeps copies then.
pub(super) fn read(state_dir: &Path) -> Result<Vec<Incident>, Trouble> {
    let failed = |error: anyhow::Error| Trouble::Store(format!("{error:#}"));
    match ask(state_dir).map_err(failed)? {
        Some(Answer { code: Some(0), out, .. }) => {
            serde_json::from_slice(&out).context("the journal's reader did not answer in JSON").map_err(failed)
        }
        Some(Answer { code: Some(code), .. }) if code == i32::from(IN_USE) => Ok(Vec::new()),
        // It ended in the middle: redb trusts a store that was closed cleanly, and a disk may have damaged it since.
        Some(Answer { panicked: true, .. }) => Err(Trouble::Damaged { folder: state_dir.to_owned() }),
        Some(Answer { said, .. }) => {
            let said = String::from_utf8_lossy(&said);
            let said = said.trim().trim_start_matches("memguard: ");
            Err(Trouble::Store(if said.is_empty() {
                "the journal's reader was ended".to_owned()
            } else {
                said.to_owned()
            }))
        }
        None => Err(Trouble::Disk { folder: state_dir.to_owned() }),
    }
}

struct Answer {
    code: Option<i32>,
    panicked: bool,
    out: Vec<u8>,
    said: Vec<u8>,
}

/// `None` if the child took too long. It is killed, and gone as soon as the disk lets go of it.
fn ask(state_dir: &Path) -> anyhow::Result<Option<Answer>> {
    let mut child = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .arg(state_dir)
        // No pipe of the caller's is held open by a child that hangs.
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't start a process that reads the journal")?;
    let (mut out, mut said) = (child.stdout.take(), child.stderr.take());
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("memguard-journal".to_owned())
        .spawn(move || {
            let (mut answer, mut error) = (Vec::new(), Vec::new());
            // What is said on standard error fits into the pipe, so one after the other does.
            let read = out.as_mut().map_or(Ok(0), |out| out.read_to_end(&mut answer));
            let read = read.and_then(|_| said.as_mut().map_or(Ok(0), |said| said.read_to_end(&mut error)));
            let _ = sender.send(read.map(|_| (answer, error)));
        })
        .context("can't start a thread that waits for the journal's reader")?;
    match receiver.recv_timeout(PATIENCE) {
        Ok(read) => {
            let (out, said) = read.context("can't read what the journal's reader says")?;
            let status = child.wait().context("can't wait for the journal's reader")?;
            let panicked = status.signal() == Some(ABORT) || status.code() == Some(PANICKED);
            Ok(Some(Answer { code: status.code(), panicked, out, said }))
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let _ = child.kill();
            Ok(None)
        }
    }
}
