//! Whose container it was, as the API said: what the follow-ups of an incident are about.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{
    kubernetes::{Known, PodFacts, Regarding, RunnerFacts, RunnerRef},
    workload::Place,
};

/// What ARC calls the container of the runner itself, in both generations.
const RUNNER: &str = "runner";

/// A pod and what runs in it. Names are as the API has them; they are escaped where they are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    pub node: String,
    pub namespace: String,
    pub pod: String,
    pub pod_uid: String,
    /// `None` where the API had not heard of the container yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// It is the runner's own container, not a sidecar and not a job's pod.
    #[serde(default)]
    pub is_runner: bool,
    /// It was a cgroup below the container's, with a limit of its own: a container of a Docker in there, say. The others in
    /// the container live.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nested: bool,
    /// A quantity: `4Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<String>,
    /// Since when the API was away at the time, s since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<u64>,
    /// The object of ARC's that the pod belongs to, for a runner's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerRef>,
    /// What that object said, once it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<RunnerFacts>,
}

impl Workload {
    #[must_use]
    pub fn of(pod: &Known<PodFacts>, place: &Place) -> Self {
        let facts = &pod.facts;
        let container = facts.container(place);
        let runner = RunnerRef::of(facts);
        let own_pod = runner.as_ref().is_some_and(|runner| runner.name == facts.name);
        Self {
            is_runner: own_pod && container.is_some_and(|container| container.name == RUNNER),
            node: facts.node.clone(),
            namespace: facts.namespace.clone(),
            pod: facts.name.clone(),
            pod_uid: facts.uid.clone(),
            container: container.map(|container| container.name.clone()),
            nested: place.nested,
            memory_limit: container.and_then(|container| container.memory_limit.clone()),
            stale_since: pod.stale_since.map(seconds),
            runner,
            facts: None,
        }
    }

    /// Takes in what the runner's object says now. That a job is not named any more does not undo what is known of it: ARC
    /// clears its objects, and an ephemeral runner has one job in its life.
    pub(super) fn learn(&mut self, mut facts: RunnerFacts) {
        let before = self.facts.take().filter(|before| before.uid == facts.uid);
        if let Some(before) = before.filter(|_| facts.job.is_none() && !facts.api.says_what_jobs_wrote()) {
            facts.job = before.job;
        }
        self.facts = Some(facts);
    }

    /// Whether it is known which job was on it, and a job can't have made that up.
    pub(super) fn job_is_known(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.job.is_some() && !facts.api.says_what_jobs_wrote())
    }

    /// `ci/runner-1 (runner)`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.container {
            Some(container) => format!("{}/{} ({container})", self.namespace, self.pod),
            None => format!("{}/{}", self.namespace, self.pod),
        }
    }

    #[must_use]
    pub fn regarding_pod(&self) -> Regarding {
        Regarding {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: self.namespace.clone(),
            name: self.pod.clone(),
            uid: self.pod_uid.clone(),
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
