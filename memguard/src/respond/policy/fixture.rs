//! Cgroups to ask the policy about.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use glob::Pattern;

use super::{OwnPod, Subject};
use crate::{
    kubernetes::{ContainerFacts, Owner, PodFacts},
    workload::{Place, Qos},
};

pub(in crate::respond) const UID: &str = "7fb47c9c-45d8-4a2c-8f1e-0123456789ab";

/// All that a subject borrows.
#[derive(Clone, Debug)]
pub(in crate::respond) struct Thing {
    pub(in crate::respond) cgroup: PathBuf,
    pub(in crate::respond) kubernetes: bool,
    pub(in crate::respond) below_kubepods: bool,
    pub(in crate::respond) place: Option<Place>,
    pub(in crate::respond) pod: Option<PodFacts>,
    pub(in crate::respond) stale: bool,
    pub(in crate::respond) own_pod: OwnPod,
}

impl Thing {
    pub(in crate::respond) fn subject(&self) -> Subject<'_> {
        Subject {
            cgroup: &self.cgroup,
            kubernetes: self.kubernetes,
            below_kubepods: self.below_kubepods,
            place: self.place.as_ref(),
            pod: self.pod.as_ref(),
            stale: self.stale,
            own_pod: &self.own_pod,
        }
    }
}

pub(in crate::respond) fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text).unwrap()).collect()
}

pub(in crate::respond) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, Pattern> {
    pairs.iter().map(|(label, pattern)| ((*label).to_owned(), Pattern::new(pattern).unwrap())).collect()
}

/// Of the pod with [`UID`]; containers of it have ids of one letter over and over.
pub(in crate::respond) fn place(container: char) -> Place {
    Place {
        pod_uid: UID.to_owned(),
        qos: Qos::Burstable,
        container_id: Some(container.to_string().repeat(64)),
        nested: false,
    }
}

/// A runner of ARC's: containers `runner` (a) and `dind` (b).
pub(in crate::respond) fn runner() -> Thing {
    let mut thing = pod("ci", &[("actions.github.com/scale-set-name", "big"), ("run", "1")]);
    let facts = thing.pod.as_mut().unwrap();
    "runner-1".clone_into(&mut facts.name);
    facts.owner = Some(Owner {
        api_version: "actions.github.com/v1alpha1".to_owned(),
        kind: "EphemeralRunner".to_owned(),
        name: "runner-1".to_owned(),
        uid: "r".to_owned(),
        controller: true,
    });
    facts.containers = [("runner", 'a'), ("dind", 'b')].map(|(name, id)| container(name, id)).to_vec();
    thing
}

/// Somebody's pod, with a container `app` (a).
pub(in crate::respond) fn pod(namespace: &str, labels: &[(&str, &str)]) -> Thing {
    let facts = PodFacts {
        uid: UID.to_owned(),
        namespace: namespace.to_owned(),
        name: "pod-1".to_owned(),
        node: "node-1".to_owned(),
        labels: labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect(),
        annotations: BTreeMap::new(),
        owner: None,
        containers: vec![container("app", 'a')],
        phase: "Running".to_owned(),
        terminating: false,
        config_hash: None,
    };
    Thing { pod: Some(facts), ..unknown_pod() }
}

pub(in crate::respond) fn unknown_pod() -> Thing {
    Thing {
        cgroup: Path::new("kubepods.slice/kubepods-pod1.slice/cri-containerd-aa.scope").to_owned(),
        kubernetes: true,
        below_kubepods: true,
        place: Some(place('a')),
        pod: None,
        stale: false,
        own_pod: OwnPod::default(),
    }
}

pub(in crate::respond) fn service() -> Thing {
    let cgroup = Path::new("system.slice/actions.runner.service").to_owned();
    Thing { cgroup, below_kubepods: false, place: None, ..unknown_pod() }
}

pub(in crate::respond) fn annotated(thing: Thing, mode: &str) -> Thing {
    let mut thing = thing;
    if let Some(pod) = &mut thing.pod {
        pod.annotations.insert(super::Policy::ANNOTATION.to_owned(), mode.to_owned());
    }
    thing
}

fn container(name: &str, id: char) -> ContainerFacts {
    ContainerFacts {
        name: name.to_owned(),
        id: id.to_string().repeat(64),
        init: false,
        restartable_init: false,
        memory_limit: None,
    }
}
