//! Whose a cgroup is, as the policy has to know it.

use std::path::Path;

use crate::{
    kubernetes::{Known, PodFacts, Pods},
    respond::{OwnPod, Policy, Subject},
    telemetry::{PodName, escaped},
    workload::{Place, is_below_kubepods},
};

/// What names and the Kubernetes API say of a cgroup.
#[derive(Debug)]
pub(super) struct Whose<'a> {
    path: &'a Path,
    kubernetes: bool,
    stale: bool,
    place: Option<Place>,
    pod: Option<Known<PodFacts>>,
}

impl<'a> Whose<'a> {
    pub(super) fn of(path: &'a Path, pods: Option<&Pods>) -> Self {
        let place = Place::of(path);
        let pod = pods.zip(place.as_ref()).and_then(|(pods, place)| pods.of(place));
        let stale = pod.as_ref().map_or_else(|| pods.and_then(Pods::stale_since), |pod| pod.stale_since).is_some();
        Self { path, kubernetes: pods.is_some(), stale, place, pod }
    }

    pub(super) fn subject<'s>(&'s self, root: &Path, own_pod: &'s OwnPod) -> Subject<'s> {
        Subject {
            cgroup: self.path.strip_prefix(root).unwrap_or(self.path),
            kubernetes: self.kubernetes,
            // The whole path, because the root may be a part of the kubelet's tree.
            below_kubepods: is_below_kubepods(self.path),
            place: self.place.as_ref(),
            pod: self.pod.as_ref().map(|pod| &*pod.facts),
            stale: self.stale,
            own_pod,
        }
    }

    pub(super) fn name(&self) -> Option<PodName> {
        Some(PodName::new(self.pod.as_ref()?, self.place.as_ref()?))
    }

    pub(super) fn namespace(&self) -> Option<String> {
        self.pod.as_ref().map(|pod| pod.facts.namespace.clone())
    }

    pub(super) fn pod_uid(&self) -> Option<String> {
        self.place.as_ref().map(|place| place.pod_uid.clone())
    }

    /// The pod's uid, and what it says of its mode that is not understood, as a sentence.
    pub(super) fn nonsense(&self) -> Option<(&str, String)> {
        let pod = &self.pod.as_ref()?.facts;
        let said = pod.annotations.get(Policy::ANNOTATION)?;
        let sentence = format!(
            "pod {}/{} has the annotation {}: {:?}, which is neither \"off\" nor \"observe\"; it is only observed",
            escaped(&pod.namespace),
            escaped(&pod.name),
            Policy::ANNOTATION,
            escaped(said)
        );
        Some((&pod.uid, sentence))
    }
}
