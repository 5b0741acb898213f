//! GitHub's REST API, as far as memguard uses it: runs that are cancelled in their own time, their jobs, check runs and
//! statuses, and the login of an App. Every request is noted; faults come on demand.
//!
//! A test in the same process uses [`GitHubStub`]; others drive it by HTTP: `GET /_stub/requests`, `GET /_stub/state`,
//! `PUT /_stub/runs` (a list of [`Run`]s, each in the place of one with its number), `PUT /_stub/faults` (a list of
//! [`Fault`]s in place of all), `PUT /_stub/permissions` (an object), `PUT /_stub/expire` (every token given so far ends).

mod answers;
mod fault;
mod reply;
mod state;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use self::state::State;
pub use self::{
    fault::{Fault, On, What},
    state::{CheckRun, Ending, Job, Request, Run, Setup, Status},
};

/// A server that runs until it is shut down or dropped.
#[derive(Debug)]
pub struct GitHubStub {
    address: SocketAddr,
    state: Shared,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it looked at the state has failed already.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GitHubStub {
    /// Listens, on a free port if the address has port 0.
    pub async fn start(address: SocketAddr, setup: Setup) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
        let address = listener.local_addr().context("a listener without an address")?;
        let state = Shared(Arc::new(Mutex::new(State::new(setup))));
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, state.clone(), stopped));
        Ok(Self { address, state, stop: Some(stop), server })
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`: the address of an Enterprise Server, whose API is below `/api/v3`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far but those to `/_stub/`.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().requests.clone()
    }

    /// Forgets the requests so far. Their numbers go on.
    pub fn forget_requests(&self) {
        self.state.lock().requests.clear();
    }

    /// Adds a run, or takes the place of the one with its number.
    pub fn put_run(&self, run: Run) {
        self.state.lock().put_run(run);
    }

    #[must_use]
    pub fn run(&self, id: u64) -> Option<Run> {
        self.state.lock().runs.iter().find(|run| run.id == id).cloned()
    }

    #[must_use]
    pub fn check_runs(&self) -> Vec<CheckRun> {
        self.state.lock().check_runs.clone()
    }

    #[must_use]
    pub fn statuses(&self) -> Vec<Status> {
        self.state.lock().statuses.clone()
    }

    /// Adds a fault to those that wait.
    pub fn fault(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// No token that was given so far is good any more.
    pub fn expire_tokens(&self) {
        self.state.lock().expire_tokens();
    }

    /// Changes what the App may do, from the next token on.
    pub fn permit(&self, name: &str, level: Option<&str>) {
        let mut state = self.state.lock();
        match level {
            Some(level) => state.permissions.insert(name.to_owned(), level.to_owned()),
            None => state.permissions.remove(name),
        };
    }

    /// Takes another personal token than before.
    pub fn set_token(&self, token: &str) {
        self.state.lock().token = Some(token.to_owned());
    }

    /// Ends the server and its connections.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.server).await;
    }
}

impl Drop for GitHubStub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, state: Shared, mut stopped: oneshot::Receiver<()>) {
    // Dropped with us, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Too many open files, or a client that was gone at once.
                Err(_) => continue,
            },
            Some(_) = connections.join_next() => continue,
            _ = &mut stopped => return,
        };
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answers::answer(state.clone(), request));
            // An error is a connection that one side cut.
            let _ =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
