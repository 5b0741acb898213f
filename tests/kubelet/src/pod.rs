//! What a kubelet makes of a pod for the runtime: `pkg/kubelet/kuberuntime` of Kubernetes, as far as the pods of the lab
//! need it. Pure but for what it is told of the node.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{cri, quantity::Resources};

/// What it knows of its node and of its own settings.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// In bytes.
    pub(crate) memory: i64,
    /// As the kubelet's setting `singleProcessOOMKill`: the OOM killer takes one process, not the container.
    pub(crate) single_process_oom_kill: bool,
}

/// A pod, as the API has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod<'a>(pub(crate) &'a Value);

/// By default no container sees these (`pkg/securitycontext`).
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// `guaranteedOOMScoreAdj` of pkg/kubelet/qos, which is that of critical pods too.
const KEPT: i64 = -997;
const CRITICAL: [&str; 2] = ["system-node-critical", "system-cluster-critical"];

impl<'a> Pod<'a> {
    fn metadata(self, name: &str) -> anyhow::Result<&'a str> {
        self.0["metadata"][name].as_str().with_context(|| format!("the pod has no metadata.{name}"))
    }

    pub(crate) fn uid(self) -> anyhow::Result<&'a str> {
        self.metadata("uid")
    }

    pub(crate) fn containers(self) -> impl Iterator<Item = &'a Value> {
        self.0["spec"]["containers"].as_array().into_iter().flatten()
    }

    pub(crate) fn container(self, name: &str) -> anyhow::Result<&'a Value> {
        self.containers().find(|one| one["name"] == name).with_context(|| format!("the pod has no container {name}"))
    }

    fn resources(self) -> anyhow::Result<Vec<Resources>> {
        self.containers().map(Resources::of).collect()
    }

    /// The pod's cgroup below the mount point, as the cgroupfs driver names it.
    pub(crate) fn cgroup(self) -> anyhow::Result<String> {
        let (uid, resources) = (self.uid()?, self.resources()?);
        Ok(if resources.iter().all(Resources::is_guaranteed) {
            format!("kubepods/pod{uid}")
        } else if resources.iter().all(Resources::is_empty) {
            format!("kubepods/besteffort/pod{uid}")
        } else {
            format!("kubepods/burstable/pod{uid}")
        })
    }

    /// memory.max of the pod's cgroup: there is one if every container has one.
    pub(crate) fn memory_max(self) -> anyhow::Result<Option<i64>> {
        Ok(self.resources()?.iter().map(|resources| resources.memory_limit).sum())
    }

    fn namespaces(self) -> cri::NamespaceOption {
        let host = |name: &str, else_| if self.0["spec"][name] == true { cri::NODE } else { else_ };
        cri::NamespaceOption {
            network: host("hostNetwork", cri::POD),
            pid: host("hostPID", cri::CONTAINER),
            ipc: host("hostIPC", cri::POD),
        }
    }

    /// Where the containers' output goes, on the node.
    pub(crate) fn log_folder(self) -> anyhow::Result<String> {
        Ok(format!("/var/log/pods/{}_{}_{}", self.metadata("namespace")?, self.metadata("name")?, self.uid()?))
    }

    fn labels(self) -> anyhow::Result<HashMap<String, String>> {
        let own = self.0["metadata"]["labels"].as_object().into_iter().flatten();
        let own = own.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        Ok(own.chain(self.names()?).collect())
    }

    fn names(self) -> anyhow::Result<[(String, String); 3]> {
        let name = |key: &str| self.metadata(key).map(|value| (format!("io.kubernetes.pod.{key}"), value.to_owned()));
        Ok([name("name")?, name("namespace")?, name("uid")?])
    }

    pub(crate) fn sandbox(self) -> anyhow::Result<cri::PodSandboxConfig> {
        let privileged = self.containers().any(|container| container["securityContext"]["privileged"] == true);
        let security_context = cri::LinuxSandboxSecurityContext {
            namespace_options: Some(self.namespaces()),
            privileged,
            seccomp: Some(cri::SecurityProfile { profile_type: cri::RUNTIME_DEFAULT }),
        };
        Ok(cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: self.metadata("name")?.to_owned(),
                uid: self.uid()?.to_owned(),
                namespace: self.metadata("namespace")?.to_owned(),
                attempt: 0,
            }),
            hostname: self.metadata("name")?.to_owned(),
            log_directory: self.log_folder()?,
            labels: self.labels()?,
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.cgroup()?),
                security_context: Some(security_context),
            }),
        })
    }

    /// A container's configuration.
    pub(crate) fn config(self, container: &Value, node: &Node) -> anyhow::Result<cri::ContainerConfig> {
        let name = container["name"].as_str().context("a container has no name")?;
        let mut labels: HashMap<String, String> = self.names()?.into_iter().collect();
        labels.insert("io.kubernetes.container.name".to_owned(), name.to_owned());
        let image = container["image"].as_str().with_context(|| format!("container {name} has no image"))?;
        Ok(cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: image.to_owned() }),
            command: texts(&container["command"])?,
            args: texts(&container["args"])?,
            envs: self.environment(container, node)?,
            mounts: self.mounts(container)?,
            labels,
            log_path: format!("{name}/0.log"),
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(self.container_resources(container, node)?),
                security_context: Some(self.security(container)?),
            }),
        })
    }

    fn environment(self, container: &Value, node: &Node) -> anyhow::Result<Vec<cri::KeyValue>> {
        let variables = container["env"].as_array().into_iter().flatten();
        let value = |variable: &Value| -> anyhow::Result<String> {
            if let Some(value) = variable["value"].as_str() {
                return Ok(value.to_owned());
            }
            match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("spec.nodeName") => Ok(node.name.clone()),
                Some(path) => match path.strip_prefix("metadata.") {
                    Some(name) => Ok(self.metadata(name)?.to_owned()),
                    None => bail!("the lab's kubelet has no field {path}"),
                },
                None => bail!("environment variable {} has no value", variable["name"]),
            }
        };
        variables
            .map(|variable| {
                let key = variable["name"].as_str().context("an environment variable has no name")?.to_owned();
                Ok(cri::KeyValue { value: value(variable)?, key })
            })
            .collect()
    }

    fn mounts(self, container: &Value) -> anyhow::Result<Vec<cri::Mount>> {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        mounts
            .map(|mount| {
                let name = mount["name"].as_str().context("a mount has no volume")?;
                let path = mount["mountPath"].as_str().with_context(|| format!("volume {name} is mounted nowhere"))?;
                Ok(cri::Mount {
                    container_path: path.to_owned(),
                    host_path: self.volume(name)?,
                    readonly: mount["readOnly"] == true,
                })
            })
            .collect()
    }

    /// Where a volume is on the node.
    fn volume(self, name: &str) -> anyhow::Result<String> {
        let mut volumes = self.0["spec"]["volumes"].as_array().into_iter().flatten();
        let volume = volumes.find(|volume| volume["name"] == name);
        let volume = volume.with_context(|| format!("the pod has no volume {name}"))?;
        if let Some(path) = volume["hostPath"]["path"].as_str() {
            return Ok(path.to_owned());
        }
        if volume["configMap"].is_object() {
            return Ok(format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~configmap/{name}", self.uid()?));
        }
        bail!("the lab's kubelet has no volumes like {name}");
    }

    /// Folders of the node that have to be there, and whether they are made if they are not.
    pub(crate) fn host_folders(self) -> anyhow::Result<Vec<(String, bool)>> {
        let volumes = self.0["spec"]["volumes"].as_array().into_iter().flatten();
        let paths =
            volumes.filter_map(|volume| Some((volume["hostPath"]["path"].as_str()?, &volume["hostPath"]["type"])));
        paths
            .map(|(path, kind)| match kind.as_str() {
                Some("Directory") => Ok((path.to_owned(), false)),
                Some("DirectoryOrCreate") => Ok((path.to_owned(), true)),
                _ => bail!("the lab's kubelet has no hostPath of type {kind} ({path})"),
            })
            .collect()
    }

    fn container_resources(self, container: &Value, node: &Node) -> anyhow::Result<cri::LinuxContainerResources> {
        let resources = Resources::of(container)?;
        // Since Kubernetes 1.28, on cgroup v2.
        let group = (!node.single_process_oom_kill).then(|| ("memory.oom.group".to_owned(), "1".to_owned()));
        Ok(cri::LinuxContainerResources {
            cpu_shares: resources.cpu_shares(),
            memory_limit_in_bytes: resources.memory_limit.unwrap_or_default(),
            oom_score_adj: self.oom_score_adj(&resources, node)?,
            unified: group.into_iter().collect(),
        })
    }

    /// `GetContainerOOMScoreAdjust` of pkg/kubelet/qos.
    fn oom_score_adj(self, resources: &Resources, node: &Node) -> anyhow::Result<i64> {
        let critical = self.0["spec"]["priorityClassName"].as_str().is_some_and(|class| CRITICAL.contains(&class));
        let all = self.resources()?;
        if critical || all.iter().all(Resources::is_guaranteed) {
            return Ok(KEPT);
        }
        if all.iter().all(Resources::is_empty) {
            return Ok(1000);
        }
        let share = 1000 * resources.memory_request.unwrap_or_default() / node.memory.max(1);
        Ok((1000 - share).clamp(1000 + KEPT, 999))
    }

    fn security(self, container: &Value) -> anyhow::Result<cri::LinuxContainerSecurityContext> {
        let context = &container["securityContext"];
        let capabilities = &context["capabilities"];
        let user = context["runAsUser"].as_i64().or_else(|| self.0["spec"]["securityContext"]["runAsUser"].as_i64());
        let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Ok(cri::LinuxContainerSecurityContext {
            capabilities: capabilities
                .is_object()
                .then_some(cri::Capability { add: texts(&capabilities["add"])?, drop: texts(&capabilities["drop"])? }),
            privileged: context["privileged"] == true,
            namespace_options: Some(self.namespaces()),
            run_as_user: user.map(|value| cri::Int64Value { value }),
            readonly_rootfs: context["readOnlyRootFilesystem"] == true,
            no_new_privs: context["allowPrivilegeEscalation"] == false,
            masked_paths: paths(&MASKED),
            readonly_paths: paths(&READ_ONLY),
            seccomp: Some(cri::SecurityProfile {
                profile_type: match context["seccompProfile"]["type"].as_str() {
                    // Nothing is what a kubelet without `seccompDefault` takes for this.
                    None | Some("Unconfined") => cri::UNCONFINED,
                    Some("RuntimeDefault") => cri::RUNTIME_DEFAULT,
                    Some(other) => bail!("the lab's kubelet has no seccomp profile of type {other}"),
                },
            }),
        })
    }
}

fn texts(list: &Value) -> anyhow::Result<Vec<String>> {
    let items = list.as_array().into_iter().flatten();
    items.map(|item| item.as_str().map(str::to_owned).with_context(|| format!("{item} is no text"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node() -> Node {
        Node { name: "lab".to_owned(), memory: 2 << 30, single_process_oom_kill: false }
    }

    fn pod(security: &Value) -> Value {
        json!({
            "metadata": {"name": "memguard-x", "namespace": "memguard", "uid": "u-1", "labels": {"a": "b"}},
            "spec": {
                "hostPID": true, "hostNetwork": false, "priorityClassName": "system-node-critical",
                "containers": [{
                    "name": "memguard", "image": "m:1", "command": ["/usr/bin/memguard"], "args": ["run"],
                    "env": [
                        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                        {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                    ],
                    "securityContext": security,
                    "resources": {"limits": {"memory": "96Mi"}, "requests": {"cpu": "20m", "memory": "48Mi"}},
                    "volumeMounts": [
                        {"name": "run", "mountPath": "/run/memguard"},
                        {"name": "config", "mountPath": "/etc/memguard", "readOnly": true},
                    ],
                }],
                "volumes": [
                    {"name": "run", "hostPath": {"path": "/run/memguard", "type": "DirectoryOrCreate"}},
                    {"name": "config", "configMap": {"name": "memguard"}},
                ],
            },
        })
    }

    #[test]
    fn a_privileged_pod_as_the_chart_has_it() {
        let value = pod(&json!({"privileged": true, "readOnlyRootFilesystem": true, "runAsUser": 0}));
        let pod = Pod(&value);
        let sandbox = pod.sandbox().unwrap();
        let linux = sandbox.linux.unwrap();
        assert_eq!(linux.cgroup_parent, "/kubepods/burstable/podu-1");
        assert!(linux.security_context.unwrap().privileged);
        let config = pod.config(pod.container("memguard").unwrap(), &node()).unwrap();
        let env: Vec<_> = config.envs.iter().map(|one| (one.key.as_str(), one.value.as_str())).collect();
        assert_eq!(env, [("NODE_NAME", "lab"), ("POD_UID", "u-1")]);
        let linux = config.linux.unwrap();
        let (resources, security) = (linux.resources.unwrap(), linux.security_context.unwrap());
        assert_eq!((resources.memory_limit_in_bytes, resources.oom_score_adj), (96 << 20, KEPT));
        assert_eq!(resources.unified["memory.oom.group"], "1");
        assert!(security.privileged && security.readonly_rootfs && !security.no_new_privs);
        let namespaces = security.namespace_options.unwrap();
        assert_eq!((namespaces.network, namespaces.pid, namespaces.ipc), (cri::POD, cri::NODE, cri::POD));
        assert_eq!(config.mounts[1].host_path, "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~configmap/config");
        assert!(config.mounts[1].readonly && !config.mounts[0].readonly);
        assert_eq!(pod.host_folders().unwrap(), [("/run/memguard".to_owned(), true)]);
        assert_eq!(pod.memory_max().unwrap(), Some(96 << 20));
    }

    #[test]
    fn a_pod_with_capabilities_is_not_privileged() {
        let value = pod(&json!({
            "privileged": false, "allowPrivilegeEscalation": false, "seccompProfile": {"type": "RuntimeDefault"},
            "capabilities": {"drop": ["ALL"], "add": ["BPF"]},
        }));
        let pod = Pod(&value);
        let single = Node { single_process_oom_kill: true, ..node() };
        let linux = pod.config(pod.container("memguard").unwrap(), &single).unwrap().linux.unwrap();
        let security = linux.security_context.unwrap();
        assert!(!security.privileged && security.no_new_privs && !security.readonly_rootfs);
        let capabilities = security.capabilities.unwrap();
        assert_eq!((capabilities.add, capabilities.drop), (vec!["BPF".to_owned()], vec!["ALL".to_owned()]));
        assert_eq!(security.seccomp.unwrap().profile_type, cri::RUNTIME_DEFAULT);
        assert!(linux.resources.unwrap().unified.is_empty());
    }

    #[test]
    fn classes_of_service() {
        let of = |resources: Value| {
            let value = json!({
                "metadata": {"name": "p", "namespace": "n", "uid": "u"},
                "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]},
            });
            let pod = Pod(&value);
            let config = pod.config(pod.container("c").unwrap(), &node()).unwrap();
            (pod.cgroup().unwrap(), config.linux.unwrap().resources.unwrap().oom_score_adj)
        };
        assert_eq!(of(Value::Null), ("kubepods/besteffort/podu".to_owned(), 1000));
        assert_eq!(of(json!({"limits": {"memory": "256Mi"}})), ("kubepods/burstable/podu".to_owned(), 875));
        assert_eq!(of(json!({"limits": {"memory": "1Gi", "cpu": "1"}})), ("kubepods/podu".to_owned(), KEPT));
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), ("kubepods/burstable/podu".to_owned(), 999));
    }

    #[test]
    fn what_it_can_not_do_is_named() {
        let mut value = pod(&Value::Null);
        value["spec"]["volumes"][1] = json!({"name": "config", "secret": {"secretName": "s"}});
        let config = |value: &Value| {
            let pod = Pod(value);
            pod.config(pod.container("memguard").unwrap(), &node()).unwrap_err().to_string()
        };
        assert!(config(&value).contains("config"), "{}", config(&value));
        let mut value = pod(&json!({"seccompProfile": {"type": "Localhost"}}));
        assert!(config(&value).contains("Localhost"));
        value["spec"]["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] = "status.podIP".into();
        assert!(config(&value).contains("status.podIP"));
        assert!(Pod(&value).container("other").unwrap_err().to_string().contains("other"));
    }
}
