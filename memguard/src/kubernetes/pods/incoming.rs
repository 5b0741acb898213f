//! A pod as the API has it, with nothing but what is looked at: the rest is not even decoded.

use serde::Deserialize;

use super::{ContainerFacts, PodFacts, metadata::Metadata};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::kubernetes) struct Incoming {
    metadata: Metadata,
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

impl Incoming {
    pub(in crate::kubernetes) fn uid(&self) -> Option<&str> {
        self.metadata.uid.as_deref()
    }

    /// `metadata.resourceVersion`.
    pub(in crate::kubernetes) fn version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// `None` for an object without a uid, which no server sends.
    pub(in crate::kubernetes) fn facts(self) -> Option<PodFacts> {
        let Self { mut metadata, spec, status } = self;
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
            labels: metadata.labels.0,
            config_hash: metadata.annotations.static_pod(),
            annotations: metadata.annotations.own,
            owner: metadata.owner_references.0,
            containers,
            phase: status.phase,
            terminating: metadata.deletion_timestamp.is_some(),
        })
    }
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
