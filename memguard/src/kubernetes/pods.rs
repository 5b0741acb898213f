//! The pods of this node, as the API last told of them: whose a cgroup is.

mod incoming;

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
        self.labels.len() >= incoming::KEPT
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
    pods: HashMap<String, Arc<PodFacts>>,
    stale_since: Option<SystemTime>,
}

impl Pods {
    /// Whose cgroup it is.
    #[must_use]
    pub fn of(&self, place: &Place) -> Option<Known<PodFacts>> {
        let shared = self.read();
        let facts = shared.pods.get(&place.pod_uid).or_else(|| shared.static_pod(&place.pod_uid))?;
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

    pub(super) fn put(&self, pod: PodFacts) {
        self.write().pods.insert(pod.uid.clone(), Arc::new(pod));
    }

    pub(super) fn remove(&self, uid: &str) {
        self.write().pods.remove(uid);
    }

    /// A full list takes the place of all that was known.
    pub(super) fn replace(&self, pods: Vec<PodFacts>) {
        let pods = pods.into_iter().map(|pod| (pod.uid.clone(), Arc::new(pod))).collect();
        let old = std::mem::replace(&mut self.write().pods, pods);
        // Freed here, when the lock is free already.
        drop(old);
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
        let mut claims = self.pods.values().filter(|pod| pod.config_hash.as_deref() == Some(hash));
        claims.next().filter(|_| claims.next().is_none())
    }
}

#[cfg(test)]
impl Pods {
    /// As if the API had told of these, and perhaps gone away then.
    pub(crate) fn told(pods: Vec<PodFacts>, stale_since: Option<SystemTime>) -> Self {
        let told = Self::default();
        told.replace(pods);
        told.set_stale(stale_since);
        told
    }
}

#[cfg(test)]
pub(super) fn facts(pod: &serde_json::Value) -> PodFacts {
    Incoming::deserialize(pod).unwrap().facts().unwrap()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        incoming::{CONFIG_HASH, CONFIG_MIRROR, KEPT},
        *,
    };
    use crate::{kubernetes::fixture::runner_pod, workload::Qos};

    const UID: &str = "7fb47c9c-45d8-4a2c-8f1e-0123456789ab";
    const HASH: &str = "7fb47c9c45d84a2c8f1e0123456789ab";

    fn place(uid: &str, container: Option<char>) -> Place {
        let container_id = container.map(|c| c.to_string().repeat(64));
        Place { pod_uid: uid.to_owned(), qos: Qos::Burstable, container_id, nested: false }
    }

    fn static_pod(uid: &str, annotation: &str) -> PodFacts {
        facts(
            &json!({"metadata": {"name": uid, "namespace": "kube-system", "uid": uid, "annotations": {annotation: HASH}}}),
        )
    }

    #[test]
    fn a_cgroup_leads_to_its_pod_and_container() {
        let pods = Pods::default();
        assert_eq!(pods.of(&place(UID, None)), None);
        pods.put(facts(&runner_pod(UID, "runner-1")));
        let known = pods.clone().of(&place(UID, Some('a'))).unwrap();
        let pod = &known.facts;
        assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.node.as_str()), ("ci", "runner-1", "node-1"));
        assert_eq!(pod.owner.as_ref().map(|owner| owner.kind.as_str()), Some("EphemeralRunner"));
        assert_eq!(known.stale_since, None);
        let of = |c| pod.container(&place(UID, Some(c))).map(|c| (c.name.as_str(), c.init, c.restartable_init));
        assert_eq!(of('a'), Some(("runner", false, false)));
        assert_eq!(of('b'), Some(("dind", true, true)));
        assert_eq!(of('c'), Some(("init", true, false)));
        assert_eq!(of('d'), Some(("debug", false, false)));
        assert_eq!(of('e'), None, "started a moment ago");
        assert_eq!(pod.container(&place(UID, None)), None);
        assert_eq!(pod.containers[0].memory_limit.as_deref(), Some("4Gi"));
        pods.remove(UID);
        assert!(pods.is_empty());
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let mut pod = runner_pod(UID, "runner-1");
        pod["metadata"]["annotations"]["memguard.dev/huge"] = "x".repeat(250_000).into();
        for i in 0..1000 {
            pod["metadata"]["annotations"][format!("memguard.dev/{i}")] = "x".into();
            pod["metadata"]["labels"][format!("l{i}")] = "x".into();
        }
        let pod = facts(&pod);
        assert_eq!((pod.annotations.len(), pod.labels.len()), (KEPT + 1, KEPT));
        assert!(
            !pod.annotations.contains_key("memguard.dev/huge") && !pod.annotations.contains_key("other/annotation")
        );
        assert!(pod.may_have_more_labels());
        assert!(!format!("{pod:?}").contains("SECRET"));
    }

    #[test]
    fn what_a_pod_says_of_its_mode_is_never_lost() {
        let mut pod = runner_pod(UID, "runner-1");
        for i in 0..1000 {
            pod["metadata"]["annotations"][format!("memguard.dev/{i}")] = "x".into();
        }
        assert_eq!(facts(&pod).annotations["memguard.dev/mode"], "observe");
        pod["metadata"]["annotations"]["memguard.dev/mode"] = "é".repeat(100_000).into();
        let pod = facts(&pod);
        assert_eq!(pod.annotations["memguard.dev/mode"], "é".repeat(32), "enough to see that it is nonsense");
        assert!(pod.annotations.len() <= KEPT + 1);
    }

    #[test]
    fn what_holds_now_comes_before_what_was_asked_for() {
        let mut pod = runner_pod(UID, "runner-1");
        pod["status"]["containerStatuses"][0]["resources"] = json!({"limits": {"memory": "6Gi"}});
        assert_eq!(facts(&pod).containers[0].memory_limit.as_deref(), Some("6Gi"));
    }

    #[test]
    fn static_pods_are_found_by_the_hash_unless_two_claim_it() {
        for annotation in [CONFIG_HASH, CONFIG_MIRROR] {
            let pods = Pods::default();
            pods.put(static_pod("mirror", annotation));
            assert_eq!(pods.of(&place(HASH, None)).unwrap().facts.uid, "mirror");
            pods.put(static_pod("liar", annotation));
            assert_eq!(pods.of(&place(HASH, None)), None);
        }
        let pods = Pods::default();
        pods.put(static_pod("liar", CONFIG_HASH));
        pods.put(static_pod(HASH, "none"));
        assert_eq!(pods.of(&place(HASH, None)).unwrap().facts.uid, HASH, "a real uid comes first");
    }

    #[test]
    fn half_empty_objects_are_no_trouble() {
        assert!(Incoming::default().facts().is_none());
        let pod = facts(
            &json!({"metadata": {"uid": "u"}, "status": {"containerStatuses": [{"name": "a", "containerID": ""}]}}),
        );
        assert_eq!((pod.containers.len(), pod.owner), (0, None));
    }
}
