//! The other end of the socket.

use std::{
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    server::NAME,
    snapshot::{FORMAT, Snapshot},
};
use crate::telemetry::escaped;

/// A longer line is none of memguard's.
const LONGEST_LINE: u64 = 16 << 20;
/// memguard tells something every second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no memguard answers at {}: start one with `memguard run`, which watches and does nothing until it is told \
         `--mode enforce`, or name the folder of the one that runs with --run-dir",
        path.display()
    )]
    NotRunning { path: PathBuf },
    #[error("{} is root's: run this as root", path.display())]
    NotAllowed { path: PathBuf },
    #[error("can't connect to {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("memguard at {} did not answer within {} s", path.display(), PATIENCE.as_secs())]
    Silent { path: PathBuf },
    #[error("memguard at {} has ended", path.display())]
    Ended { path: PathBuf },
    #[error("memguard at {} has no time for one more: {}", path.display(), escaped(why))]
    Refused { path: PathBuf, why: String },
    #[error(
        "memguard at {} speaks format {format}, and this one reads {FORMAT}: use the same version, as in `kubectl exec` into \
         its pod",
        path.display()
    )]
    OtherFormat { path: PathBuf, format: u32 },
    #[error("what answers at {} is no memguard: {}", path.display(), escaped(why))]
    Unreadable { path: PathBuf, why: String },
}

/// Where a memguard with this run folder can be asked.
#[must_use]
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join(NAME)
}

/// A connection. Every read waits for [`PATIENCE`] at most.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    from: BufReader<UnixStream>,
}

/// What every line of every version has.
#[derive(Deserialize)]
struct Head {
    format: Option<u32>,
    refused: Option<String>,
}

impl Client {
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(error) => {
                return Err(match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning { path },
                    io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path },
                    _ => ClientError::Connect { path, source: error },
                });
            }
        };
        match stream.set_read_timeout(Some(PATIENCE)) {
            Ok(()) => Ok(Self { path, from: BufReader::new(stream) }),
            Err(source) => Err(ClientError::Connect { path, source }),
        }
    }

    /// The next snapshot.
    pub fn snapshot(&mut self) -> Result<Snapshot, ClientError> {
        let path = || self.path.clone();
        let mut line = Vec::new();
        let read = self.from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        match read {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(ClientError::Silent { path: path() });
            }
            Err(_) => return Err(ClientError::Ended { path: path() }),
            Ok(_) if line.len() as u64 >= LONGEST_LINE => {
                return Err(ClientError::Unreadable { path: path(), why: "a line without end".to_owned() });
            }
            // The end, or a line that was cut.
            Ok(_) if line.last() != Some(&b'\n') => return Err(ClientError::Ended { path: path() }),
            Ok(_) => {}
        }
        let unreadable = |error: serde_json::Error| ClientError::Unreadable { path: path(), why: error.to_string() };
        match serde_json::from_slice(&line).map_err(unreadable)? {
            Head { refused: Some(why), .. } => Err(ClientError::Refused { path: path(), why }),
            Head { format: Some(FORMAT), .. } => serde_json::from_slice(&line).map_err(unreadable),
            Head { format: Some(format), .. } => Err(ClientError::OtherFormat { path: path(), format }),
            Head { format: None, .. } => {
                Err(ClientError::Unreadable { path: path(), why: "an answer without a format".to_owned() })
            }
        }
    }
}
