//! A pod as the API has it, with nothing but what is looked at: the rest is not even decoded.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::Deserialize;

use super::{ContainerFacts, Owner, PodFacts};
use crate::respond::Policy;

/// Annotations that are memguard's.
const OWN: &str = "memguard.dev/";
/// The hash of a static pod's manifest. It is the uid by which the kubelet calls the pod, and so its cgroup.
pub(super) const CONFIG_HASH: &str = "kubernetes.io/config.hash";
pub(super) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels and annotations that are kept of a pod, and bytes of a value. memguard's memory is locked, and an object may have
/// a megabyte of them.
pub(super) const KEPT: usize = 64;
const KEPT_BYTES: usize = 1024;
/// Characters of what a pod says of its mode. It is kept in any case, because it makes the policy milder.
const KEPT_OF_MODE: usize = 32;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::kubernetes) struct Incoming {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: String,
    resources: Option<Resources>,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    limits: Option<Limits>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Limits {
    memory: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: String,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: String,
    resources: Option<Resources>,
}

impl Resource for Incoming {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Incoming {
    pub(in crate::kubernetes) fn uid(&self) -> Option<&str> {
        self.metadata.uid.as_deref()
    }

    /// `None` for an object without a uid, which no server sends.
    pub(in crate::kubernetes) fn facts(self) -> Option<PodFacts> {
        let Self { metadata, spec, status } = self;
        let annotations = metadata.annotations.unwrap_or_default();
        let hash = annotations.get(CONFIG_HASH).or_else(|| annotations.get(CONFIG_MIRROR));
        let config_hash = hash.filter(|hash| hash.len() <= KEPT_BYTES).cloned();
        let mode = annotations.get(Policy::ANNOTATION).map(|mode| mode.chars().take(KEPT_OF_MODE).collect());
        let mut annotations = kept(annotations, |name| name.starts_with(OWN) && name != Policy::ANNOTATION);
        annotations.extend(mode.map(|mode: String| (Policy::ANNOTATION.to_owned(), mode)));
        let references = metadata.owner_references.unwrap_or_default();
        let owner = references.iter().find(|owner| owner.controller == Some(true)).or_else(|| references.first());
        let owner = owner.map(|owner| Owner {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            controller: owner.controller == Some(true),
        });
        let containers = [
            (status.container_statuses, &spec.containers[..], false),
            (status.init_container_statuses, &spec.init_containers[..], true),
            (status.ephemeral_container_statuses, &[], false),
        ];
        let containers = containers
            .into_iter()
            .flat_map(|(statuses, spec, init)| {
                statuses.into_iter().filter_map(move |status| container(status, spec, init))
            })
            .collect();
        Some(PodFacts {
            uid: metadata.uid?,
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            node: spec.node_name,
            labels: kept(metadata.labels.unwrap_or_default(), |_| true),
            annotations,
            owner,
            containers,
            phase: status.phase,
            terminating: metadata.deletion_timestamp.is_some(),
            config_hash,
        })
    }
}

fn kept(all: BTreeMap<String, String>, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    all.into_iter().filter(|(name, value)| wanted(name) && value.len() <= KEPT_BYTES).take(KEPT).collect()
}

fn container(status: ContainerStatus, spec: &[Container], init: bool) -> Option<ContainerFacts> {
    // `containerd://ID`; empty before the first start.
    let (_, id) = status.container_id.split_once("://")?;
    let spec = spec.iter().find(|container| container.name == status.name);
    let limit = |resources: Option<&Resources>| resources?.limits.as_ref()?.memory.clone();
    Some(ContainerFacts {
        id: id.to_owned(),
        init,
        restartable_init: init && spec.is_some_and(|spec| spec.restart_policy.as_deref() == Some("Always")),
        // What holds now comes first: since 1.33 a pod's resources can be changed while it runs.
        memory_limit: limit(status.resources.as_ref()).or_else(|| limit(spec?.resources.as_ref())),
        name: status.name,
    })
}
