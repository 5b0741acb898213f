//! How things that others name are shown: cgroups above all.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    kubernetes::{Known, PodFacts},
    workload::Place,
};

/// A cgroup as it is shown: its id, and its path below the root, escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupName {
    /// Inode of its folder.
    pub id: u64,
    pub cgroup: String,
    /// Whose it is, where it is a pod's: with these `kubectl` finds it.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// As the Kubernetes API calls it, where it told.
    #[serde(flatten)]
    pub pod: Option<PodName>,
}

/// A pod and its container as they are shown: names of the API's, escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    pub namespace: String,
    pub pod: String,
    /// `None` for the pod's own cgroup, and for what the API does not list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The API did not answer at the time: this is what it last told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pod_facts_stale: bool,
}

impl PodName {
    #[must_use]
    pub fn new(pod: &Known<PodFacts>, place: &Place) -> Self {
        Self {
            namespace: escaped(&pod.facts.namespace),
            pod: escaped(&pod.facts.name),
            container: pod.facts.container(place).map(|container| escaped(&container.name)),
            pod_facts_stale: pod.stale_since.is_some(),
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)?;
        self.container.iter().try_for_each(|container| write!(f, "/{container}"))
    }
}

impl CgroupName {
    #[must_use]
    pub fn new(root: &Path, id: u64, path: &Path) -> Self {
        // The whole path, because the root may be a part of the kubelet's tree.
        Self { id, cgroup: shown(path.strip_prefix(root).unwrap_or(path)), place: Place::of(path), pod: None }
    }

    #[must_use]
    pub fn of_pod(self, pod: Option<PodName>) -> Self {
        Self { pod, ..self }
    }

    /// For lines that come often: `namespace/pod/container` where it is known, else `pod7fb47c9c/402911dd690d` for a
    /// container's scope below a pod's slice. Verdicts, actions and all records bear the full path.
    #[must_use]
    pub fn short(&self) -> String {
        let Some(place) = &self.place else { return self.cgroup.clone() };
        // What is below the container is what the job called it.
        let nested = || {
            let id = place.container_id.as_deref()?;
            self.cgroup.split_once(id)?.1.split_once('/').map(|(_, rest)| rest)
        };
        let known = self.pod.as_ref().map_or_else(|| place.short(), PodName::to_string);
        match nested().filter(|_| place.nested) {
            Some(rest) => format!("{known}/{rest}"),
            None => known,
        }
    }
}

impl fmt::Display for CgroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pod {
            Some(pod) if pod.pod_facts_stale => write!(f, "{pod} (as last known) [{}]", self.cgroup),
            Some(pod) => write!(f, "{pod} [{}]", self.cgroup),
            None => f.write_str(&self.cgroup),
        }
    }
}

/// A path for people's eyes.
#[must_use]
pub fn shown(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

/// Text for people's eyes: what a job can name (a nested cgroup) cannot break a line or move a cursor.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() || misleads(c) { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// Characters that change the direction of text, and so can make a line read as another one, and those that begin a line for
/// some who show it.
const fn misleads(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use super::*;

    fn short(cgroup: &str) -> String {
        CgroupName::new(Path::new("/sys/fs/cgroup"), 1, Path::new(&format!("/sys/fs/cgroup/{cgroup}"))).short()
    }

    #[test]
    fn names_that_jobs_choose_are_escaped() {
        assert_eq!(shown(Path::new("a.scope/docker/ok-1")), "a.scope/docker/ok-1");
        assert_eq!(shown(Path::new("x\n2026 KILLED\x1b[2K")), "x\\n2026 KILLED\\u{1b}[2K");
        assert_eq!(shown(Path::new("a\u{202e}b")), "a\\u{202e}b");
        assert_eq!(escaped("a\u{61c}b\u{2028}c\u{2029}d\u{9b}"), "a\\u{61c}b\\u{2028}c\\u{2029}d\\u{9b}");
        let once = escaped("a\nb\u{9b}\\");
        assert_eq!(escaped(&once), once, "once is enough, and twice is no harm");
        assert_eq!(shown(Path::new(OsStr::from_bytes(b"\xff\x07"))), "\u{fffd}\\u{7}");
    }

    #[test]
    fn containers_have_short_names() {
        let id = "402911dd690d".to_owned() + &"0".repeat(52);
        let slice =
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7fb47c9c_45d8_4a2c_8f1e_0123456789ab.slice";
        assert_eq!(short(&format!("{slice}/cri-containerd-{id}.scope")), "pod7fb47c9c/402911dd690d");
        assert_eq!(short(&format!("{slice}/crio-{id}.scope/init")), "pod7fb47c9c/402911dd690d/init");
        assert_eq!(short(slice), "pod7fb47c9c");
    }

    #[test]
    fn what_kubernetes_calls_it_comes_first() {
        let id = "a".repeat(64);
        let path = format!("/sys/fs/cgroup/kubepods/pod7fb47c9c-45d8-4a2c-8f1e-0123456789ab/{id}/x");
        let pod = |pod_facts_stale| PodName {
            namespace: "ci".to_owned(),
            pod: "runner-1".to_owned(),
            container: Some("dind".to_owned()),
            pod_facts_stale,
        };
        let name = CgroupName::new(Path::new("/sys/fs/cgroup"), 1, Path::new(&path)).of_pod(Some(pod(false)));
        assert_eq!(name.short(), "ci/runner-1/dind/x");
        assert!(name.to_string().starts_with("ci/runner-1/dind [kubepods/pod7fb"), "{name}");
        let value = serde_json::to_value(&name).unwrap();
        assert_eq!(
            (&value["namespace"], &value["pod"], &value["container"]),
            (&"ci".into(), &"runner-1".into(), &"dind".into())
        );
        assert!(value.get("pod_facts_stale").is_none() && value["pod_uid"].as_str().is_some());
        assert!(name.of_pod(Some(pod(true))).to_string().contains("as last known"));
    }

    #[test]
    fn other_names_stay_as_they_are() {
        for name in ["user.slice/user-1000.slice", "system.slice/podman.service", "podium/x", "", "kubepods/pod-é"] {
            assert_eq!(short(name), name);
        }
        // What is below a container is the job's to name: an odd one is not cut in a character.
        let (id, odd) = ("0".repeat(64), "é".repeat(32));
        let pod = "kubepods/pod7fb47c9c-45d8-4a2c-8f1e-0123456789ab";
        assert_eq!(short(&format!("{pod}/{id}/{odd}")), format!("pod7fb47c9c/000000000000/{odd}"));
    }
}
