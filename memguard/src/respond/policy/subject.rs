//! What the policy is asked about: a cgroup that may have to be ended, and whose it is.

use std::path::Path;

use crate::{
    kubernetes::{ContainerFacts, PodFacts},
    respond::Suppressed,
    telemetry::escaped,
    workload::Place,
};

/// Nothing of it is ever ended.
pub const NEVER_IN: &str = "kube-system";

/// A cgroup, and what Kubernetes says of it. Facts alone: nothing here decides.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its path below the root that is watched.
    pub cgroup: &'a Path,
    /// memguard was given a Kubernetes API to ask.
    pub kubernetes: bool,
    /// It is in the part of the tree that the kubelet made for pods.
    pub below_kubepods: bool,
    pub place: Option<&'a Place>,
    /// `None` for what is no pod's, and as long as the API has not told of the pod.
    pub pod: Option<&'a PodFacts>,
    /// Changes don't come in from the API any more.
    pub stale: bool,
    pub own_pod: &'a OwnPod,
}

impl<'a> Subject<'a> {
    /// It is a pod's, whether that pod is known or not.
    #[must_use]
    pub const fn is_in_pod(&self) -> bool {
        self.below_kubepods || self.place.is_some() || self.pod.is_some()
    }

    /// `None` as long as the API has not told of the container.
    #[must_use]
    pub fn container(&self) -> Option<&'a ContainerFacts> {
        self.pod?.container(self.place?)
    }

    /// Why it is never ended, whatever is configured.
    #[must_use]
    pub fn never(&self) -> Option<Suppressed> {
        if self.own_pod.is(self.place, self.pod) {
            return Some(Suppressed::OwnPod);
        }
        if let Some(pod) = self.pod.filter(|pod| pod.namespace == NEVER_IN) {
            return Some(Suppressed::KubeSystem { name: escaped(&pod.name) });
        }
        let place = self.place?;
        let Some(container_id) = &place.container_id else { return Some(Suppressed::NoVictim) };
        let Some(pod) = self.pod else {
            // A static pod's uid is a hash: the API server itself may be one.
            return (self.kubernetes && !place.pod_uid.contains('-')).then_some(Suppressed::UnknownStaticPod);
        };
        let id = container_id.get(..12).unwrap_or(container_id);
        pod.container(place)
            .is_none()
            .then(|| Suppressed::UnknownContainer { runtime_id: escaped(id), facts_stale: self.stale })
    }
}

/// The pod that memguard itself runs in, as far as it was told (by the downward API).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPod {
    uid: Option<String>,
    /// Namespace and name.
    name: Option<(String, String)>,
}

impl OwnPod {
    /// From variables of the environment.
    pub fn told(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        Self { uid: variable("POD_UID"), name: variable("POD_NAMESPACE").zip(variable("POD_NAME")) }
    }

    fn is(&self, place: Option<&Place>, pod: Option<&PodFacts>) -> bool {
        let uid = |uid: &str| self.uid.as_deref() == Some(uid);
        let name = |pod: &PodFacts| {
            self.name.as_ref().is_some_and(|(namespace, name)| (namespace, name) == (&pod.namespace, &pod.name))
        };
        place.is_some_and(|place| uid(&place.pod_uid)) || pod.is_some_and(|pod| uid(&pod.uid) || name(pod))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::*, *};

    fn never(thing: &Thing) -> Option<&'static str> {
        thing.subject().never().map(|reason| reason.label())
    }

    #[test]
    fn containers_that_the_api_knows_of_are_no_matter_of_course() {
        assert_eq!(never(&runner()), None);
        assert_eq!(never(&pod("ci", &[])), None);
        assert_eq!(never(&service()), None);
        assert_eq!(never(&unknown_pod()), None, "the policy decides");
    }

    #[test]
    fn never_the_cluster_s_own_namespace() {
        assert_eq!(never(&pod(NEVER_IN, &[])), Some("kube_system"));
        assert_eq!(never(&pod("kube-system-2", &[])), None);
    }

    #[test]
    fn never_memguards_own_pod_however_it_is_known() {
        let told = |pairs: &'static [(&str, &str)]| {
            OwnPod::told(|name| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned()))
        };
        for own_pod in [told(&[("POD_UID", UID)]), told(&[("POD_NAMESPACE", "ci"), ("POD_NAME", "runner-1")])] {
            assert_eq!(never(&Thing { own_pod: own_pod.clone(), ..runner() }), Some("own_pod"), "{own_pod:?}");
        }
        assert_eq!(never(&Thing { own_pod: told(&[("POD_UID", UID)]), ..unknown_pod() }), Some("own_pod"));
        for other in [
            told(&[("POD_UID", ""), ("POD_NAMESPACE", "ci")]),
            told(&[("POD_NAMESPACE", "x"), ("POD_NAME", "runner-1")]),
        ] {
            assert_eq!(never(&Thing { own_pod: other, ..runner() }), None);
        }
    }

    #[test]
    fn never_the_pause_container_nor_what_the_api_does_not_list() {
        let pause = Thing { place: Some(place('f')), ..runner() };
        assert_eq!(never(&pause), Some("unknown_container"));
        let reason = |stale| Thing { stale, ..pause.clone() }.subject().never().unwrap().to_string();
        assert!(reason(false).contains("pause container") && !reason(false).contains("API does not answer"));
        assert!(reason(true).contains("API does not answer"), "{}", reason(true));
        let slice = Thing { place: Some(Place { container_id: None, ..place('a') }), ..runner() };
        assert_eq!(never(&slice), Some("no_victim"));
    }

    #[test]
    fn never_a_static_pod_that_is_not_known() {
        let place = Place { pod_uid: UID.replace('-', ""), ..place('a') };
        let thing = Thing { place: Some(place), ..unknown_pod() };
        assert_eq!(never(&thing), Some("unknown_static_pod"));
        assert_eq!(never(&Thing { kubernetes: false, ..thing }), None, "as on any host");
    }
}
