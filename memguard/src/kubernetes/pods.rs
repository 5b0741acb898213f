//! The pods of this node, as the API last told of them: whose a cgroup is.

mod incoming;
mod metadata;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

pub(super) use self::incoming::Incoming;
use crate::workload::Place;

/// What is known of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodFacts {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub node: String,
    pub labels: BTreeMap<String, String>,
    /// Only those under `memguard.dev/`.
    pub annotations: BTreeMap<String, String>,
    /// What made it: the controller among the owners if there is one, else the first of them.
    pub owner: Option<Owner>,
    /// Those that have been started. A container appears here some time after its cgroup does.
    pub containers: Vec<ContainerFacts>,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    /// It has a deletion timestamp.
    pub terminating: bool,
    /// Of a static pod: the uid in its cgroup's name. Anybody who makes a pod can claim one.
    #[serde(skip)]
    pub config_hash: Option<String>,
}

/// An ownerReference. Whoever can make a pod can write any into it: it is a claim until the owner itself was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    #[serde(default)]
    pub controller: bool,
}

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerFacts {
    pub name: String,
    /// Without the runtime in front, as in a cgroup's name.
    pub id: String,
    /// An init container.
    pub init: bool,
    /// An init container that stays, and is started again when it ends: a native sidecar, as ARC's `dind` is since
    /// Kubernetes 1.29.
    pub restartable_init: bool,
    /// A quantity: `4Gi`.
    pub memory_limit: Option<String>,
}

impl PodFacts {
    /// The container whose cgroup it is, or below whose. `None` as long as the API has not heard of it.
    #[must_use]
    pub fn container(&self, place: &Place) -> Option<&ContainerFacts> {
        let id = place.container_id.as_deref()?;
        self.containers.iter().find(|container| container.id == id)
    }

    /// It has more labels than are kept here, perhaps.
    #[must_use]
    pub fn may_have_more_labels(&self) -> bool {
        self.labels.len() >= metadata::KEPT
    }

    /// What it takes in memory, about: its texts, and the heap's share of each.
    fn bytes(&self) -> usize {
        const EACH: usize = 64;
        let text = |text: &str| text.len() + EACH;
        let pairs = |pairs: &BTreeMap<String, String>| -> usize { pairs.iter().map(|(k, v)| text(k) + text(v)).sum() };
        let containers = self.containers.iter().map(|container| {
            let limit = container.memory_limit.as_deref().map_or(0, text);
            size_of::<ContainerFacts>() + text(&container.name) + text(&container.id) + limit
        });
        let owner = self
            .owner
            .iter()
            .map(|owner| text(&owner.api_version) + text(&owner.kind) + text(&owner.name) + text(&owner.uid));
        let names = [&self.uid, &self.uid, &self.namespace, &self.name, &self.node, &self.phase];
        size_of::<Self>()
            + names.into_iter().map(|name| text(name)).sum::<usize>()
            + self.config_hash.as_deref().map_or(0, text)
            + pairs(&self.labels)
            + pairs(&self.annotations)
            + containers.sum::<usize>()
            + owner.sum::<usize>()
    }
}

/// Something learnt from the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<T> {
    pub facts: Arc<T>,
    /// Since when changes don't come in any more. `None` while they do.
    pub stale_since: Option<SystemTime>,
}

/// The pods of this node. Clones share what they know; reading takes a lock that is never held over anything but memory.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    shared: Arc<RwLock<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By `metadata.uid`.
    pods: HashMap<String, Kept>,
    /// Of all of them, about.
    bytes: usize,
    /// Counts full lists.
    list: u64,
    stale_since: Option<SystemTime>,
}

#[derive(Debug)]
struct Kept {
    facts: Arc<PodFacts>,
    bytes: usize,
    /// The list that has it, or during which it was told of.
    list: u64,
}

impl Pods {
    /// What is kept of all pods, in bytes. A node with 500 pods that have 20 labels each takes 2 MiB.
    pub(super) const MOST_BYTES: usize = 8 * 1024 * 1024;

    /// Whose cgroup it is.
    #[must_use]
    pub fn of(&self, place: &Place) -> Option<Known<PodFacts>> {
        let shared = self.read();
        let facts = shared.pods.get(&place.pod_uid).map(|kept| &kept.facts);
        let facts = facts.or_else(|| shared.static_pod(&place.pod_uid))?;
        Some(Known { facts: Arc::clone(facts), stale_since: shared.stale_since })
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().pods.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Since when changes don't come in any more. `None` while they do.
    #[must_use]
    pub fn stale_since(&self) -> Option<SystemTime> {
        self.read().stale_since
    }

    pub(super) fn set_stale(&self, since: Option<SystemTime>) {
        self.write().stale_since = since;
    }

    /// Keeps what is known of a pod. If there is no room for all, the largest go, so nobody loses his because others have
    /// large ones: the first of those that went, as `namespace/name`.
    pub(super) fn put(&self, pod: PodFacts) -> Option<String> {
        self.write().put(pod, Self::MOST_BYTES)
    }

    pub(super) fn remove(&self, uid: &str) {
        self.write().remove(uid);
    }

    /// A full list begins: what is put from now on is in it.
    pub(super) fn begin_list(&self) {
        self.write().list += 1;
    }

    /// The list is whole: what it lacks is gone.
    pub(super) fn end_list(&self) {
        let mut shared = self.write();
        let list = shared.list;
        shared.pods.retain(|_, kept| kept.list == list);
        shared.pods.shrink_to_fit();
        shared.bytes = shared.pods.values().map(|kept| kept.bytes).sum();
    }

    fn read(&self) -> RwLockReadGuard<'_, Shared> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shared> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Anybody who makes pods can write the annotation; so where two claim the same hash, neither has it.
    fn static_pod(&self, hash: &str) -> Option<&Arc<PodFacts>> {
        let claims = self.pods.values().map(|kept| &kept.facts);
        let mut claims = claims.filter(|pod| pod.config_hash.as_deref() == Some(hash));
        claims.next().filter(|_| claims.next().is_none())
    }

    fn put(&mut self, pod: PodFacts, most_bytes: usize) -> Option<String> {
        self.remove(&pod.uid);
        let (uid, bytes, list) = (pod.uid.clone(), pod.bytes(), self.list);
        self.bytes += bytes;
        self.pods.insert(uid, Kept { facts: Arc::new(pod), bytes, list });
        let mut left_out = None;
        while self.bytes > most_bytes {
            // What the list under way has not named yet may be gone anyway; if it is not, it is put once more.
            let largest = self.pods.iter().max_by_key(|(_, kept)| (kept.list < list, kept.bytes));
            let Some(uid) = largest.map(|(uid, _)| uid.clone()) else { break };
            let Some(kept) = self.remove(&uid) else { break };
            if kept.list == list {
                left_out.get_or_insert_with(|| format!("{}/{}", kept.facts.namespace, kept.facts.name));
            }
        }
        left_out
    }

    fn remove(&mut self, uid: &str) -> Option<Kept> {
        let kept = self.pods.remove(uid)?;
        self.bytes -= kept.bytes;
        Some(kept)
    }
}

#[cfg(test)]
impl Pods {
    /// As if the API had told of these, and perhaps gone away then.
    pub(crate) fn told(pods: Vec<PodFacts>, stale_since: Option<SystemTime>) -> Self {
        let told = Self::default();
        for pod in pods {
            told.put(pod);
        }
        told.set_stale(stale_since);
        told
    }
}

#[cfg(test)]
pub(super) fn facts(pod: &serde_json::Value) -> PodFacts {
    Incoming::deserialize(pod).unwrap().facts().unwrap()
}
