//! The thread in which everything happens that needs the network, and the handle that the agent has.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kube::Client;
use tokio::sync::{
    mpsc::{Sender, channel},
    watch,
};

use super::{
    Real,
    change::{Changes, InForce, TRY_AGAIN, Wanted, Way, Ways},
    login::Login,
    outward::Outward,
    plan::{Reach, Wishes},
    pulse::Pulse,
    waiting::{Board, Waiting},
    worker::{Ask, KnownRunners, Worker},
    workload::Workload,
};
use crate::{
    github,
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
    /// What can change later ([`Remote::change`]).
    pub outward: Outward,
}

/// Why it can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Kubernetes(#[from] ConnectError),
    #[error(transparent)]
    GitHub(#[from] github::SetupError),
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
    in_force: InForce,
    wanted: watch::Sender<Wanted>,
    thread: JoinHandle<()>,
}

/// Starts the thread: the watch of this node's pods, and the worker.
pub fn start(setup: Setup, pen: Pen) -> Result<Remote, SetupError> {
    let (asks, inbox) = channel(MOST_WAITING);
    let (tell, ready) = sync_channel(1);
    let (pods, known, board) = (Pods::default(), KnownRunners::default(), Board::default());
    let Setup { kubeconfig, node, outward } = setup;
    let in_force = InForce::new(&outward);
    let (wanted, changes) = watch::channel(Wanted { outward: outward.clone(), asked: 0 });
    let (watched, found, counted, now) = (pods.clone(), known.clone(), board.clone(), in_force.clone());
    let thread = thread::Builder::new().name("remote".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = tell.send(Err(SetupError::Thread(error)));
                return;
            }
        };
        runtime.block_on(async {
            let ways = match ways(kubeconfig.as_deref(), &outward).await {
                Ok(ways) => ways,
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            let _ = tell.send(Ok(Pulse::here()));
            let client = ways.kubernetes.0.clone();
            let (outside, attempts) = watch::channel(Real::new(client.clone(), ways.login.clone()));
            let (watching, clients) = watch::channel(client);
            let worker = Worker::new(attempts, pen, found).telling(counted);
            let changing =
                Changes { kubeconfig, outward, ways, in_force: now, outside, watching, try_again: TRY_AGAIN };
            tokio::select! {
                () = watch_pods(clients, &node, watched) => {}
                () = changing.run(changes) => {}
                () = worker.run(inbox) => {}
            }
        });
        // A disk that hangs while a file is read would hold up the end.
        runtime.shutdown_background();
    });
    let thread = thread.map_err(SetupError::Thread)?;
    match ready.recv_timeout(SETUP_PATIENCE) {
        Ok(Ok(pulse)) => Ok(Remote { pods, known, board, pulse, asks, in_force, wanted, thread }),
        Ok(Err(error)) => Err(error),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(SetupError::Stuck),
    }
}

async fn ways(kubeconfig: Option<&Path>, outward: &Outward) -> Result<Ways, SetupError> {
    let client = kubernetes::client(kubeconfig, outward.kubernetes.timeout).await?;
    let login = Login::new(outward.github.as_ref().map(|github| &github.connection), &client)?;
    Ok(Ways { kubernetes: Way(client), login })
}

/// Begins anew with each client. What is known of pods stays meanwhile.
async fn watch_pods(mut clients: watch::Receiver<Client>, node: &str, pods: Pods) {
    loop {
        let client = clients.borrow_and_update().clone();
        tokio::select! {
            () = kubernetes::watch(client, node, pods.clone()) => return,
            Ok(()) = clients.changed() => {}
        }
    }
}

impl Remote {
    /// The pods of this node.
    #[must_use]
    pub const fn pods(&self) -> &Pods {
        &self.pods
    }

    /// What is done elsewhere about an incident, by the settings that are in force.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.in_force.reach()
    }

    /// Has other settings put in force. Waits for nothing: the thread does it, and goes on as before where they can't be
    /// used. `asked`: files that they name are read again, whether the settings changed or not.
    pub fn change(&self, outward: &Outward, asked: bool) {
        self.wanted.send_if_modified(|wanted| {
            let changes = asked || wanted.outward != *outward;
            wanted.outward.clone_from(outward);
            wanted.asked += u64::from(asked);
            changes
        });
    }

    /// What came of a change that could not be put in force at first, if that is news: `false`, and `true` once it was.
    #[must_use]
    pub fn outcome(&self) -> Option<bool> {
        self.in_force.take_outcome()
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
    pub fn wishes(&self) -> Wishes {
        self.in_force.wishes()
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
