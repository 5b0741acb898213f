//! The socket, the thread that serves it, and the handle that the agent has.
//!
//! The protocol is one line of JSON for each snapshot, as long as the client stays; what a client sends is not read. One
//! that reads too slowly misses snapshots, and one that does not read at all is let go.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _},
        net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixSocket, UnixStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{incidents::Latest, snapshot::Snapshot};

/// In the run folder.
pub(super) const NAME: &str = "status.sock";
/// Clients at once.
const MOST_CLIENTS: usize = 8;
/// A client that does not take a snapshot within this time is let go.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);
/// An older snapshot is not shown to somebody who comes anew: the agent makes another one.
const STALE: Duration = Duration::from_millis(1500);
/// Somebody who comes so soon after the last snapshot gets that one, so that nobody can have the agent make them all the
/// time.
const FRESH: Duration = Duration::from_millis(200);
/// How long the start waits for the thread.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// After an error of accept(2), which mostly means too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Why nobody can look. memguard works without it.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("another memguard answers at {}", path.display())]
    InUse { path: PathBuf },
    #[error("{} is no socket; it is left alone", path.display())]
    NotASocket { path: PathBuf },
    #[error("can't {verb} {}: {source} (--run-dir names another folder)", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("can't start the thread that serves it: {0}")]
    Thread(#[source] io::Error),
    #[error("the thread that serves it did not get ready within {} s", START_PATIENCE.as_secs())]
    Stuck,
}

type Line = Option<Arc<[u8]>>;

/// Who watches, and how they are told. Nothing here ever waits for a client.
#[derive(Debug)]
pub struct Publisher {
    watchers: watch::Receiver<usize>,
    latest: watch::Sender<Option<Arc<Snapshot>>>,
    published: Option<Instant>,
    /// Path and inode.
    socket: (PathBuf, u64),
}

/// Makes the socket in `run_dir`, and starts the thread. One that a memguard of before left behind is replaced.
pub fn serve(run_dir: &Path) -> Result<Publisher, ServeError> {
    let path = run_dir.join(NAME);
    let folder = fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir);
    folder.map_err(|source| ServeError::Io { verb: "make the folder", path: run_dir.to_owned(), source })?;
    clear(&path)?;
    let (watchers_tell, watchers) = watch::channel(0);
    let (latest, snapshots) = watch::channel(None);
    let (tell, ready) = sync_channel(1);
    let (at, incidents) = (path.clone(), Latest::below(run_dir));
    let thread = thread::Builder::new().name("status".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = tell.send(Err(ServeError::Thread(error)));
                return;
            }
        };
        runtime.block_on(async {
            match listen(&at) {
                Ok((listener, inode)) => {
                    let _ = tell.send(Ok(inode));
                    Server { watchers: watchers_tell, snapshots, incidents, made: None }.run(listener).await;
                }
                Err(source) => {
                    let _ = tell.send(Err(ServeError::Io { verb: "listen at", path: at, source }));
                }
            }
        });
    });
    thread.map_err(ServeError::Thread)?;
    match ready.recv_timeout(START_PATIENCE) {
        Ok(Ok(inode)) => Ok(Publisher { watchers, latest, published: None, socket: (path, inode) }),
        Ok(Err(error)) => Err(error),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(ServeError::Stuck),
    }
}

/// Takes away a socket at which nobody answers.
fn clear(path: &Path) -> Result<(), ServeError> {
    let failed = |verb, source| ServeError::Io { verb, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ServeError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| failed("remove", error))
        }
        // A full queue too: somebody is there.
        _ => Err(ServeError::InUse { path: path.to_owned() }),
    }
}

/// The socket's inode too, so that only our own is removed in the end.
fn listen(path: &Path) -> io::Result<(UnixListener, u64)> {
    let socket = UnixSocket::new_stream()?;
    // The mode of an unbound socket is that of its file (unix_bind_bsd()), so at no moment can anybody else connect.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    socket.bind(path)?;
    let listener = socket.listen(u32::try_from(MOST_CLIENTS).unwrap_or(u32::MAX))?;
    Ok((listener, fs::symlink_metadata(path)?.ino()))
}

impl Publisher {
    /// Waits until somebody comes or goes.
    pub async fn changed(&mut self) {
        if self.watchers.changed().await.is_err() {
            // The thread is gone, and nobody comes any more.
            std::future::pending::<()>().await;
        }
    }

    #[must_use]
    pub fn watched(&self) -> bool {
        *self.watchers.borrow() > 0
    }

    /// Whether a snapshot was made a moment ago.
    #[must_use]
    pub fn fresh(&self) -> bool {
        self.published.is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Takes the place of the snapshot before.
    pub fn publish(&mut self, snapshot: Snapshot) {
        self.published = Some(Instant::now());
        self.latest.send_replace(Some(Arc::new(snapshot)));
    }
}

#[cfg(test)]
impl Publisher {
    pub(super) fn watchers_for_tests(&self) -> watch::Receiver<usize> {
        self.watchers.clone()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let (path, inode) = &self.socket;
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.ino() == *inode) {
            let _ = fs::remove_file(path);
        }
    }
}

struct Server {
    watchers: watch::Sender<usize>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    incidents: Latest,
    /// When the latest line was made.
    made: Option<Instant>,
}

impl Server {
    /// Until the agent is gone.
    async fn run(mut self, listener: UnixListener) {
        let (lines, _) = watch::channel::<Line>(None);
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    lines.send_replace(self.line());
                }
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if clients.len() >= MOST_CLIENTS => refuse(&stream),
                    Ok((stream, _)) => {
                        if self.made.is_none_or(|made| made.elapsed() > STALE) {
                            lines.send_replace(None);
                        }
                        clients.spawn(client(stream, lines.subscribe()));
                        self.watchers.send_replace(clients.len());
                    }
                    Err(error) => {
                        tracing::debug!(%error, "nobody can connect to the status socket");
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
                Some(_) = clients.join_next() => {
                    self.watchers.send_replace(clients.len());
                }
            }
        }
    }

    fn line(&mut self) -> Line {
        let snapshot = self.snapshots.borrow_and_update().clone()?;
        let mut snapshot = Arc::unwrap_or_clone(snapshot);
        snapshot.incidents = self.incidents.get();
        let mut line = serde_json::to_vec(&snapshot)
            .inspect_err(|error| tracing::warn!(%error, "what memguard sees can't be told"))
            .ok()?;
        line.push(b'\n');
        self.made = Some(Instant::now());
        Some(line.into())
    }
}

/// The newest line, then the next newest, until the client is gone or stuck.
async fn client(mut stream: UnixStream, mut lines: watch::Receiver<Line>) {
    loop {
        let line = lines.borrow_and_update().clone();
        if let Some(line) = line
            && !matches!(timeout(WRITE_PATIENCE, stream.write_all(&line)).await, Ok(Ok(())))
        {
            return;
        }
        if lines.changed().await.is_err() {
            return;
        }
    }
}

/// One word and out; a new connection's buffer takes it without waiting.
fn refuse(stream: &UnixStream) {
    let refused = format!("{{\"refused\":\"{MOST_CLIENTS} others are watching already\"}}\n");
    let _ = stream.try_write(refused.as_bytes());
}
