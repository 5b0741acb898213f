//! The Kubernetes API, as far as memguard uses it: objects with versions, watches that go on, deletion that waits for
//! finalizers, events that are there already. What memguard's `ClusterRole` does not give is refused.
//!
//! A program drives it by [`KubeStub`], and another process by HTTP below `/_stub`:
//! `GET /_stub/requests` for all that was asked, `PUT /_stub/objects/PLURAL/NAMESPACE/NAME` and `DELETE` for objects,
//! `PUT /_stub/faults` for a list of [`Fault`]s in place of the old ones, `POST /_stub/expire` for 410.

mod api;
mod fault;
pub mod objects;
mod server;
mod store;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub use self::fault::{Fault, What};
use self::{
    api::Differing,
    fault::Faults,
    store::{Key, Store},
};

/// How it begins.
#[derive(Clone, Debug)]
pub struct Setup {
    /// With apiVersion, kind, and name and namespace in their metadata.
    pub objects: Vec<Value>,
    /// Requests need this token, if there is one.
    pub token: Option<String>,
    /// Rights that are missing, as verb and plural, of those that memguard's role gives.
    pub denied: Vec<(String, String)>,
    /// Between two bookmarks of a watch. A real server sends one a minute.
    pub bookmark_every: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self { objects: Vec::new(), token: None, denied: Vec::new(), bookmark_every: Duration::from_mins(1) }
    }
}

/// A request, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Counts up from 0, in the order of their arrival.
    pub seq: u64,
    /// `CLOCK_MONOTONIC` in seconds.
    pub t: f64,
    pub method: String,
    /// With its query.
    pub path: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
    /// `None` where no answer was sent.
    pub code: Option<u16>,
    /// What it changed, in words: nothing, if it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}

/// A server, which ends when this is dropped.
#[derive(Debug)]
pub struct KubeStub {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The store's version, for watches that wait for the next one.
    version: watch::Sender<u64>,
    token: Option<String>,
    bookmark_every: Duration,
}

#[derive(Debug, Default)]
struct State {
    store: Store,
    rights: Differing,
    faults: Faults,
    requests: Vec<Request>,
}

impl KubeStub {
    /// Starts it. With port 0 a free one is taken.
    pub async fn start(address: SocketAddr, setup: Setup) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let rights = Differing { denied: setup.denied, granted: Vec::new() };
        let mut state = State { rights, ..State::default() };
        for object in setup.objects {
            let key = key_of(&object)
                .ok_or_else(|| io::Error::other(format!("an object needs kind, namespace and name: {object}")))?;
            state.store.put(key, object);
        }
        let shared = Arc::new(Shared {
            version: watch::Sender::new(state.store.version()),
            state: Mutex::new(state),
            token: setup.token,
            bookmark_every: setup.bookmark_every,
        });
        let serving = tokio::spawn(server::serve(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, serving })
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig that leads here.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        kubeconfig(self.address, self.shared.token.as_deref())
    }

    /// All that was asked so far. An open watch is among them.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// Makes an object, or changes it: an error if it has no kind that is known here, namespace or name.
    pub fn put(&self, object: Value) -> io::Result<()> {
        let key = key_of(&object).ok_or_else(|| io::Error::other(format!("not an object: {object}")))?;
        self.shared.change(|state| state.store.put(key, object).clone());
        Ok(())
    }

    /// The object as it is now.
    #[must_use]
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.lock().store.get(&key(plural, namespace, name)).cloned()
    }

    /// Removes an object, whatever its finalizers.
    pub fn remove(&self, plural: &str, namespace: &str, name: &str) {
        self.shared.change(|state| state.store.remove(&key(plural, namespace, name)));
    }

    /// Names of the `EphemeralRunner`s whose deletion waits for their finalizers, with their namespaces.
    #[must_use]
    pub fn runners_to_be_let_go(&self) -> Vec<(String, String)> {
        let waiting = self.shared.lock().store.waiting("ephemeralrunners");
        waiting.into_iter().map(|key| (key.namespace, key.name)).collect()
    }

    /// What ARC's controller does when GitHub has let go of a runner.
    pub fn remove_finalizers(&self, namespace: &str, name: &str) {
        self.shared.change(|state| state.store.remove_finalizers(&key("ephemeralrunners", namespace, name)));
    }

    /// Gives a right that memguard's role lacks, as a role of another name would: `get`, `secrets`.
    pub fn grant(&self, verb: &str, plural: &str) {
        self.shared.lock().rights.granted.push((verb.to_owned(), plural.to_owned()));
    }

    /// Takes a right away.
    pub fn deny(&self, verb: &str, plural: &str) {
        self.shared.lock().rights.denied.push((verb.to_owned(), plural.to_owned()));
    }

    /// Adds a fault to those that are in force.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.add(fault);
    }

    /// Puts an end to all faults.
    pub fn heal(&self) {
        self.shared.lock().faults.set(Vec::new());
    }

    /// Forgets all changes up to now: watches get 410.
    pub fn expire(&self) {
        self.shared.change(|state| state.store.expire());
    }
}

impl Drop for KubeStub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells watches of it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        self.version.send_replace(state.store.version());
        result
    }
}

/// A kubeconfig for a server without TLS.
#[must_use]
pub fn kubeconfig(address: SocketAddr, token: Option<&str>) -> String {
    let user = token.map_or_else(|| json!({}), |token| json!({"token": token}));
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "stub",
        "clusters": [{"name": "stub", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "stub", "user": user}],
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
    })
    .to_string()
}

fn key(plural: &str, namespace: &str, name: &str) -> Key {
    Key { plural: plural.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

fn key_of(object: &Value) -> Option<Key> {
    let plural = match object["kind"].as_str()? {
        "Pod" => "pods",
        "Secret" => "secrets",
        "EphemeralRunner" => "ephemeralrunners",
        "Runner" => "runners",
        "Event" => "events",
        _ => return None,
    };
    Some(key(plural, object["metadata"]["namespace"].as_str()?, object["metadata"]["name"].as_str()?))
}

/// `CLOCK_MONOTONIC` in seconds.
fn now() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// RFC 3339, to the second.
fn timestamp() -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    now.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
