//! What is kept on the disk, the journal and the reports, read by a process of its own.
//!
//! A disk that hangs can hold whoever reads from it in a sleep that no signal ends, and with one thread the whole process:
//! its caller would wait for it in vain. So a child reads, and is left to itself if it takes too long.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::incidents::STATE_DIR;
use crate::{
    journal::{Incident, StoreError, read_only},
    report::{Entry, Record, Store, parse},
    telemetry::{shown, with_causes},
};

/// What the child is called with. None is a command of the command line: nobody is offered them.
const JOURNAL: &str = "read-journal";
const REPORTS: &str = "list-reports";
const REPORT: &str = "read-report";
/// A disk that works takes milliseconds for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Exit status of the child where memguard has the journal open.
const IN_USE: u8 = 4;
/// The same where there is no such folder.
const MISSING: u8 = 5;
/// And where this user may not look into it.
const FORBIDDEN: u8 = 6;

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
    #[error("there is no folder {}: no memguard had it as its --state-dir", shown(folder))]
    Missing { folder: PathBuf },
    #[error("{} is root's: run this as root", shown(folder))]
    Forbidden { folder: PathBuf },
}

/// What the child is to tell of the state folder.
pub(super) enum Part<'a> {
    Journal(&'a Path),
    Reports(&'a Path),
    Report(&'a Path, &'a str),
}

/// What is to be told, if this process is the child.
pub(super) fn part(arguments: &[OsString]) -> Option<Part<'_>> {
    match arguments {
        [_, command, folder] if command == JOURNAL => Some(Part::Journal(Path::new(folder))),
        [_, command, folder] if command == REPORTS => Some(Part::Reports(Path::new(folder))),
        [_, command, folder, id] if command == REPORT => Some(Part::Report(Path::new(folder), id.to_str()?)),
        _ => None,
    }
}

/// Prints it, as JSON.
pub(super) fn tell(part: &Part<'_>) -> anyhow::Result<ExitCode> {
    let json = match part {
        Part::Journal(state_dir) => return tell_journal(state_dir),
        Part::Reports(state_dir) => serde_json::to_string(&Store::below(state_dir).list()?)?,
        Part::Report(state_dir, id) => serde_json::to_string(&Store::below(state_dir).get(id)?)?,
    };
    super::print(&json)?;
    Ok(ExitCode::SUCCESS)
}

fn tell_journal(state_dir: &Path) -> anyhow::Result<ExitCode> {
    match read_only(state_dir) {
        Ok(incidents) if incidents.is_empty() && matches!(state_dir.try_exists(), Ok(false)) => {
            Ok(ExitCode::from(MISSING))
        }
        Ok(incidents) => {
            super::print(&serde_json::to_string(&incidents)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(StoreError::InUse { .. }) => Ok(ExitCode::from(IN_USE)),
        Err(error) if is_forbidden(&error) => Ok(ExitCode::from(FORBIDDEN)),
        Err(error) => Err(error.into()),
    }
}

/// What the journal holds; nothing while memguard has it open, which keeps copies then.
pub(super) fn read(state_dir: &Path) -> Result<Vec<Incident>, Trouble> {
    let failed = |error: anyhow::Error| Trouble::Store(with_causes(&error));
    match ask(&[OsStr::new(JOURNAL), state_dir.as_os_str()]).map_err(failed)? {
        Some(Answer { code: Some(0), out, .. }) => {
            serde_json::from_slice(&out).context("the journal's reader did not answer in JSON").map_err(failed)
        }
        Some(Answer { code: Some(code), .. }) if code == i32::from(IN_USE) => Ok(Vec::new()),
        Some(Answer { code: Some(code), .. }) if code == i32::from(MISSING) => missing(state_dir),
        Some(Answer { code: Some(code), .. }) if code == i32::from(FORBIDDEN) => {
            Err(Trouble::Forbidden { folder: state_dir.to_owned() })
        }
        // It ended in the middle: redb trusts a store that was closed cleanly, and a disk may have damaged it since.
        Some(Answer { panicked: true, .. }) => Err(Trouble::Damaged { folder: state_dir.to_owned() }),
        Some(Answer { said, .. }) => Err(Trouble::Store(why(&said))),
        None => Err(Trouble::Disk { folder: state_dir.to_owned() }),
    }
}

/// Where memguard never was there is nothing to tell, and that is no error. A folder that somebody has named is one that
/// should be there: a name with a mistake in it must not read as if all were well.
fn missing(state_dir: &Path) -> Result<Vec<Incident>, Trouble> {
    if state_dir == Path::new(STATE_DIR) {
        Ok(Vec::new())
    } else {
        Err(Trouble::Missing { folder: state_dir.to_owned() })
    }
}

fn is_forbidden(error: &StoreError) -> bool {
    let kind = match error {
        StoreError::Folder { source, .. } => source.kind(),
        StoreError::Open { source, .. } => match &**source {
            redb::Error::Io(source) => source.kind(),
            _ => return false,
        },
        _ => return false,
    };
    kind == io::ErrorKind::PermissionDenied
}

/// The reports that are there, oldest first.
pub(super) fn reports(state_dir: &Path) -> anyhow::Result<Vec<Entry>> {
    let json = of_reports(state_dir, &[OsStr::new(REPORTS), state_dir.as_os_str()])?;
    serde_json::from_slice(&json).context("the reader of reports did not answer in JSON")
}

/// The report of an incident, or of the `latest` one.
pub(super) fn report(state_dir: &Path, id: &str) -> anyhow::Result<Record> {
    let json = of_reports(state_dir, &[OsStr::new(REPORT), state_dir.as_os_str(), OsStr::new(id)])?;
    parse(&json).context("the reader of reports did not answer with one")
}

fn of_reports(state_dir: &Path, arguments: &[&OsStr]) -> anyhow::Result<Vec<u8>> {
    match ask(arguments)? {
        Some(Answer { code: Some(0), out, .. }) => Ok(out),
        Some(Answer { said, .. }) => bail!("{}", why(&said)),
        None => bail!("{}, and reports are on it", Trouble::Disk { folder: state_dir.to_owned() }),
    }
}

/// What the child said before it failed.
fn why(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let said = said.trim().trim_start_matches("memguard: ");
    if said.is_empty() { "the process that reads the disk was ended".to_owned() } else { said.to_owned() }
}

struct Answer {
    code: Option<i32>,
    panicked: bool,
    out: Vec<u8>,
    said: Vec<u8>,
}

/// `None` if the child took too long. It is killed, and gone as soon as the disk lets go of it.
fn ask(arguments: &[&OsStr]) -> anyhow::Result<Option<Answer>> {
    let mut child = Command::new("/proc/self/exe")
        .args(arguments)
        // No pipe of the caller's is held open by a child that hangs.
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't start a process that reads the disk")?;
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
        .context("can't start a thread that waits for what reads the disk")?;
    match receiver.recv_timeout(PATIENCE) {
        Ok(read) => {
            let (out, said) = read.context("can't read what the reader of the disk says")?;
            let status = child.wait().context("can't wait for what reads the disk")?;
            let panicked = status.signal() == Some(ABORT) || status.code() == Some(PANICKED);
            Ok(Some(Answer { code: status.code(), panicked, out, said }))
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let _ = child.kill();
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_an_error_where_somebody_named_it() {
        assert!(matches!(missing(Path::new(STATE_DIR)), Ok(incidents) if incidents.is_empty()));
        let error = missing(Path::new("/var/lib/memgaurd")).unwrap_err().to_string();
        assert!(error.contains("/var/lib/memgaurd") && error.contains("--state-dir"), "{error}");
    }

    #[test]
    fn what_belongs_to_root_is_told_from_what_is_broken() {
        let (folder, file) = (PathBuf::from("/x"), PathBuf::from("/x/y"));
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let open = |error| StoreError::Open { file: file.clone(), source: Box::new(error) };
        assert!(is_forbidden(&StoreError::Folder { folder, source: denied() }));
        assert!(is_forbidden(&open(redb::Error::Io(denied()))));
        assert!(!is_forbidden(&open(redb::Error::Corrupted("x".to_owned()))));
        assert!(!is_forbidden(&open(redb::Error::Io(io::ErrorKind::NotFound.into()))));
    }
}
