//! Whose cgroup it is: the pod and the container that the kubelet and the container runtime made it for, told by the names
//! that they give.
//!
//! Names come from `pkg/kubelet/cm` (pods) and the CRI runtimes (containers). A job can make cgroups below its own
//! container's only, and what stands there is not looked at; so it can't pass for another pod's. On a host without
//! Kubernetes anybody who has a subtree of his own could make such names: what is read here is for telling, and never
//! decides whom to kill.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

/// Where a cgroup stands in Kubernetes' tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// As the API has it: `metadata.uid`, or of a static pod the hash in its annotation `kubernetes.io/config.hash`.
    pub pod_uid: String,
    pub qos: Qos,
    /// As in `status.containerStatuses[].containerID`, without the runtime in front. `None` for the pod's own cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// It is below the container's cgroup: made by the job, or by a docker daemon in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nested: bool,
}

/// Quality of service class, which is where the kubelet puts the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Qos {
    Guaranteed,
    Burstable,
    #[serde(rename = "besteffort")]
    BestEffort,
}

impl Place {
    /// Reads a path in cgroup v2. `None` for what is not a pod's.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let mut parts = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_str().unwrap_or_default()),
            _ => None,
        });
        let mut qos = None;
        let pod_uid = loop {
            let name = parts.next()?;
            if let Some(uid) = qos.and_then(|_| pod_uid(name)) {
                break uid;
            }
            qos = class(name, qos);
        };
        let container = parts.next();
        let container_id = container.map(|name| container_id(name).map(str::to_owned));
        // Something else than a container directly below a pod is nobody's that we know.
        let container_id = match container_id {
            Some(None) => return None,
            Some(id) => id,
            None => None,
        };
        let nested = match (parts.next(), parts.next()) {
            (None, _) => false,
            // crun can put the whole container one step below the scope that CRI-O has systemd make for it.
            (Some("container"), None) => !container.is_some_and(|name| name.starts_with("crio-")),
            _ => true,
        };
        Some(Self { pod_uid, qos: qos?, container_id, nested })
    }

    /// `pod7fb47c9c/402911dd690d`: 150 characters shorter than the path, and long enough to find it.
    #[must_use]
    pub fn short(&self) -> String {
        let pod = self.pod_uid.get(..8).unwrap_or(&self.pod_uid);
        match self.container_id.as_deref().and_then(|id| id.get(..12)) {
            Some(container) => format!("pod{pod}/{container}"),
            None => format!("pod{pod}"),
        }
    }
}

/// Whether it is in the part of the tree that the kubelet makes for pods, whatever it is there.
#[must_use]
pub fn is_below_kubepods(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_str().is_some_and(|name| class(name, None).is_some()))
}

/// Whether it is one of the kubelet's folders above pods: all of them, or those of a class.
#[must_use]
pub fn is_above_pods(path: &Path) -> bool {
    let mut names = path.components().filter_map(|part| part.as_os_str().to_str());
    let name = names.next_back().unwrap_or_default();
    class(name, names.next_back().and_then(|above| class(above, None))).is_some()
}

/// The class that a folder of the kubelet's stands for: `kubepods` (Guaranteed pods are directly in it) and the two below
/// it, by the systemd driver with a prefix where the kubelet's own cgroup has one (kind: `kubelet-kubepods.slice`).
fn class(name: &str, above: Option<Qos>) -> Option<Qos> {
    let of = |name: &str| match name {
        "kubepods" => Some(Qos::Guaranteed),
        "kubepods-burstable" => Some(Qos::Burstable),
        "kubepods-besteffort" => Some(Qos::BestEffort),
        _ => None,
    };
    match name.strip_suffix(".slice") {
        Some(slice) => of(slice).or_else(|| of(&slice[slice.find("-kubepods")? + 1..])),
        None => match (name, above) {
            ("burstable", Some(Qos::Guaranteed)) => Some(Qos::Burstable),
            ("besteffort", Some(Qos::Guaranteed)) => Some(Qos::BestEffort),
            _ => of(name),
        },
    }
}

/// The uid in the name of a pod's cgroup: `kubepods-burstable-pod<UID>.slice` with `_` for `-` (systemd driver), or
/// `pod<UID>`.
fn pod_uid(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => name.strip_prefix("pod")?,
    };
    let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = uid.bytes().filter(|byte| matches!(byte, b'-' | b'_')).count();
    // A static pod's uid is a hash without dashes.
    (hex == 32 && matches!(dashes, 0 | 4) && hex + dashes == uid.len()).then(|| uid.replace('_', "-"))
}

/// The id in the name of a container's cgroup: `cri-containerd-<ID>.scope`, `crio-<ID>.scope`, or `<ID>`.
fn container_id(name: &str) -> Option<&str> {
    let scope = name.strip_suffix(".scope");
    let id = scope.map_or(name, |scope| scope.rsplit_once('-').map_or(scope, |(_, id)| id));
    let id = if scope.is_none() { id.strip_prefix("crio-").unwrap_or(id) } else { id };
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "7fb47c9c-45d8-4a2c-8f1e-0123456789ab";

    fn id() -> String {
        "402911dd690d".to_owned() + &"0".repeat(52)
    }

    fn place(path: &str) -> Option<Place> {
        Place::of(Path::new(path))
    }

    #[test]
    fn containers_of_both_drivers_and_runtimes_in_all_classes() {
        let (id, low) = (id(), UID.replace('-', "_"));
        let (g, b, e) = (Qos::Guaranteed, Qos::Burstable, Qos::BestEffort);
        for (path, qos) in [
            (format!("kubepods.slice/kubepods-pod{low}.slice/cri-containerd-{id}.scope"), g),
            (format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{low}.slice/crio-{id}.scope"), b),
            (
                format!(
                    "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{low}.slice/cri-containerd-{id}.scope"
                ),
                e,
            ),
            (format!("kubepods/pod{UID}/{id}"), g),
            (format!("kubepods/burstable/pod{UID}/{id}"), b),
            (format!("kubepods/besteffort/pod{UID}/crio-{id}"), e),
            // kind, with either driver, and nested in a docker container's tree; k3s.
            (
                format!(
                    "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
                     kubelet-kubepods-burstable-pod{low}.slice/cri-containerd-{id}.scope"
                ),
                b,
            ),
            (format!("system.slice/docker-{id}.scope/kubelet/kubepods/besteffort/pod{UID}/{id}"), e),
            (format!("k3s/kubepods/pod{UID}/{id}"), g),
        ] {
            let expected = Place { pod_uid: UID.to_owned(), qos, container_id: Some(id.clone()), nested: false };
            assert_eq!(place(&path).as_ref(), Some(&expected), "{path}");
            assert_eq!(
                place(&format!("{path}/docker/{id}")),
                Some(Place { nested: true, ..expected.clone() }),
                "{path}"
            );
            let pod = path.rsplit_once('/').unwrap().0;
            assert_eq!(place(pod), Some(Place { container_id: None, ..expected }), "{pod}");
        }
        let hash = UID.replace('-', "");
        assert_eq!(place(&format!("kubepods/pod{hash}")).map(|place| place.pod_uid), Some(hash));
    }

    #[test]
    fn what_crun_puts_below_its_scope_is_the_container_itself() {
        let pod = format!("kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
        for (path, nested) in [
            (format!("{pod}/crio-{}.scope/container", id()), false),
            (format!("{pod}/crio-{}.scope/container/docker", id()), true),
            (format!("{pod}/crio-{}.scope/other", id()), true),
            (format!("{pod}/cri-containerd-{}.scope/container", id()), true),
        ] {
            assert_eq!(place(&path).map(|place| place.nested), Some(nested), "{path}");
        }
    }

    #[test]
    fn what_a_job_names_below_its_container_says_nothing() {
        let (id, other) = (id(), "0".repeat(64));
        let own = format!("kubepods/burstable/pod{UID}/{id}");
        let fake = format!("{own}/kubepods/pod00000000-0000-0000-0000-000000000000/{other}");
        let place = place(&fake).unwrap();
        assert_eq!((place.pod_uid.as_str(), place.container_id, place.nested), (UID, Some(id), true));
    }

    #[test]
    fn what_is_no_pods_has_no_place() {
        for path in [
            "",
            "kubepods.slice",
            "kubepods.slice/kubepods-burstable.slice",
            "system.slice/podman.service",
            "user.slice/user-1000.slice",
            "kubepods/pod-é",
            "kubepods/podium/x",
            &format!("elsewhere/pod{UID}/{}", id()),
            &format!("kubepods/pod{UID}/not-a-container"),
            &format!("kubepods/pod{UID}/{}", "é".repeat(32)),
        ] {
            assert_eq!(place(path), None, "{path}");
        }
    }

    #[test]
    fn whatever_is_below_the_kubelets_folders_is_there() {
        for (path, is) in [
            ("kubepods.slice/odd", true),
            ("kubelet.slice/kubelet-kubepods.slice/x", true),
            ("k3s/kubepods/burstable", true),
            ("system.slice/a.service", false),
            ("user.slice/my-kubepods", false),
        ] {
            assert_eq!(is_below_kubepods(Path::new(path)), is, "{path}");
        }
    }

    #[test]
    fn short_names_are_the_beginnings_of_both_ids() {
        let pod = format!("kubepods/pod{UID}");
        assert_eq!(place(&pod).unwrap().short(), "pod7fb47c9c");
        assert_eq!(place(&format!("{pod}/{}", id())).unwrap().short(), "pod7fb47c9c/402911dd690d");
    }
}
