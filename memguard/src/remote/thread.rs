//! The thread in which everything happens that needs the network, and the handle that the agent has.

use std::{
    io,
    path::PathBuf,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{Sender, channel};

use super::{
    Real,
    plan::{Reach, Wishes},
    pulse::Pulse,
    waiting::{Board, Waiting},
    worker::{Ask, KnownRunners, Worker},
    workload::Workload,
};
use crate::{
    github::GitHub,
    journal::{Incident, Pen},
    kubernetes::{self, ConnectError, Pods},
    workload::Place,
};

/// Incidents and runners that wait for the worker. Of the incidents none is lost if it is full: the journal has them.
const MOST_WAITING: usize = 1024;
/// A client is made from files alone.
const SETUP_PATIENCE: Duration = Duration::from_secs(30);

/// How the world outside is reached.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Without one, the service account of memguard's own pod.
    pub kubeconfig: Option<PathBuf>,
    /// Whose pods are watched.
    pub node: String,
    /// For a connection and the beginning of each answer.
    pub timeout: Duration,
    pub reach: Reach,
    pub wishes: Wishes,
    /// Its credentials are read already.
    pub github: Option<GitHub>,
}

/// Why it can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Kubernetes(#[from] ConnectError),
    #[error("can't start the thread that talks to Kubernetes and GitHub: {0}")]
    Thread(#[source] io::Error),
    #[error("the thread that talks to Kubernetes and GitHub did not get ready within {} s", SETUP_PATIENCE.as_secs())]
    Stuck,
}

/// What the agent has of it. Nothing here ever waits for the network.
#[derive(Debug)]
pub struct Remote {
    pods: Pods,
    known: KnownRunners,
    board: Board,
    pulse: Pulse,
    asks: Sender<Ask>,
    reach: Reach,
    wishes: Wishes,
    thread: JoinHandle<()>,
}

/// Starts the thread: the watch of this node's pods, and the worker.
pub fn start(setup: Setup, pen: Pen) -> Result<Remote, SetupError> {
    let (asks, inbox) = channel(MOST_WAITING);
    let (tell, ready) = sync_channel(1);
    let (pods, known, board) = (Pods::default(), KnownRunners::default(), Board::default());
    let Setup { kubeconfig, node, timeout, reach, wishes, github } = setup;
    let (watched, found, counted) = (pods.clone(), known.clone(), board.clone());
    let thread = thread::Builder::new().name("remote".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = tell.send(Err(SetupError::Thread(error)));
                return;
            }
        };
        runtime.block_on(async {
            let client = match kubernetes::client(kubeconfig.as_deref(), timeout).await {
                Ok(client) => client,
                Err(error) => {
                    let _ = tell.send(Err(error.into()));
                    return;
                }
            };
            let _ = tell.send(Ok(Pulse::here()));
            let worker = Worker::new(Real::new(client.clone(), github), pen, found).telling(counted);
            tokio::select! {
                () = kubernetes::watch(client, &node, watched) => {}
                () = worker.run(inbox) => {}
            }
        });
    });
    let thread = thread.map_err(SetupError::Thread)?;
    match ready.recv_timeout(SETUP_PATIENCE) {
        Ok(Ok(pulse)) => Ok(Remote { pods, known, board, pulse, asks, reach, wishes, thread }),
        Ok(Err(error)) => Err(error),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(SetupError::Stuck),
    }
}

impl Remote {
    /// The pods of this node.
    #[must_use]
    pub const fn pods(&self) -> &Pods {
        &self.pods
    }

    #[must_use]
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// How much remains to be done.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.board.read()
    }

    /// Tells whether the thread is alive.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// As configured for all; a rule can say otherwise.
    #[must_use]
    pub const fn wishes(&self) -> Wishes {
        self.wishes
    }

    /// Whose container it is, with the job that it runs if that was looked up in time.
    #[must_use]
    pub fn workload(&self, place: &Place) -> Option<Workload> {
        let mut workload = Workload::of(&self.pods.of(place)?, place);
        workload.facts = workload.runner.as_ref().and_then(|runner| self.known.of(runner));
        Some(workload)
    }

    /// Has it found out which job a container runs, before there is a verdict: after a kill ARC may delete the object that
    /// says so.
    pub fn look_up(&self, place: &Place) {
        let runner = self.pods.of(place).and_then(|pod| Workload::of(&pod, place).runner);
        if let Some(runner) = runner.filter(|runner| self.known.of(runner).is_none()) {
            let _ = self.asks.try_send(Ask::LookUp(Box::new(runner)));
        }
    }

    /// Sees to what remains to be done.
    pub fn follow(&self, incident: Incident) {
        let id = incident.id.clone();
        if self.asks.try_send(Ask::Follow(Box::new(incident))).is_err() {
            tracing::error!(incident = id, "too much remains to be done elsewhere; the next start goes on with this");
        }
    }

    /// Lets it end what is under way, for so long. Whether it has.
    #[must_use]
    pub fn close(self, patience: Duration) -> bool {
        let Self { asks, thread, .. } = self;
        drop(asks);
        let began = Instant::now();
        while !thread.is_finished() {
            if began.elapsed() >= patience {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}
