//! From a pod to the GitHub job that ran in it, by the object of ARC's that the pod belongs to.
//!
//! # What is trusted
//!
//! Only what ARC's controller wrote into an `EphemeralRunner`'s status. What a job can write (its environment, its files)
//! is not looked at: it could name somebody else's run.
//!
//! An ownerReference and a label are written by whoever makes the pod, and in ARC's kubernetes mode jobs can have a service
//! account that makes pods. So they are claims:
//! - a runner's pod has its runner's name, and a namespace has one pod of a name at a time: a pod of another name that
//!   claims a runner is not believed;
//! - a job's pod (`<runner>-workflow`) names its runner by a label. The pod of that name has to exist in the same
//!   namespace, and has to belong to the `EphemeralRunner` of that name. Somebody who may make pods there can still name a
//!   neighbour's runner; but the role that lets him (pods: create, delete) lets him end the neighbour's job as well. A
//!   claim never leads out of the namespace, which is where such a role ends.
//!
//! The older generation's status is written by the runner's own pod, from the job's environment
//! ([`Generation::says_what_jobs_wrote`]). So it has to fit what the runner is registered for, and before a run is cancelled,
//! or a word written to its commit, because of it, GitHub has to say that a job of the run is on this runner.

mod objects;
#[cfg(test)]
mod tests;

use kube::{Client, api::GetParams, core::Request};
use serde::{Deserialize, Serialize};

use self::objects::{EphemeralRunner, Runner, RunnersPod};
use super::{
    failure::Call,
    list::list,
    pods::{Owner, PodFacts},
};
use crate::remote::{Failure, server_text};

/// Written by the container hooks of ARC's kubernetes mode on the pods that they make for a job.
const RUNNER_POD: &str = "runner-pod";
/// The hooks cut a runner's name so that a pod's name has 63 characters at most.
const POD_NAME: usize = 63;

/// Which of ARC's two APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generation {
    /// `actions.github.com/v1alpha1`: runner scale sets.
    ScaleSets,
    /// `actions.summerwind.dev/v1alpha1`.
    Summerwind,
}

impl Generation {
    const ALL: [Self; 2] = [Self::ScaleSets, Self::Summerwind];

    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::ScaleSets => "actions.github.com/v1alpha1",
            Self::Summerwind => "actions.summerwind.dev/v1alpha1",
        }
    }

    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::ScaleSets => "EphemeralRunner",
            Self::Summerwind => "Runner",
        }
    }

    /// As in a `ClusterRole`, with the group.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::ScaleSets => "ephemeralrunners.actions.github.com",
            Self::Summerwind => "runners.actions.summerwind.dev",
        }
    }

    /// Whether a job could have written what the status says of it.
    #[must_use]
    pub const fn says_what_jobs_wrote(self) -> bool {
        matches!(self, Self::Summerwind)
    }

    pub(super) fn api(self, namespace: &str) -> Request {
        let (plural, _) = self.resource().split_once('.').unwrap_or_default();
        Request::new(format!("/apis/{}/namespaces/{namespace}/{plural}", self.api_version()))
    }
}

/// Which object stands for the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerRef {
    pub api: Generation,
    pub namespace: String,
    pub name: String,
    /// `None` as long as only a label names it; [`RunnerFacts::runner`] has it.
    pub uid: Option<String>,
}

impl RunnerRef {
    /// The runner that a pod claims to belong to. `None` for a pod that is no runner's.
    #[must_use]
    pub fn of(pod: &PodFacts) -> Option<Self> {
        // These become parts of a path.
        let of = |api, name: &str, uid: Option<&str>| {
            (is_name(&pod.namespace) && is_name(name)).then(|| Self {
                api,
                namespace: pod.namespace.clone(),
                name: name.to_owned(),
                uid: uid.map(str::to_owned),
            })
        };
        if let Some((api, owner)) = pod.owner.as_ref().and_then(runner_among_owners) {
            return (owner.name == pod.name).then(|| of(api, &owner.name, Some(&owner.uid)))?;
        }
        let runner = pod.labels.get(RUNNER_POD).filter(|runner| is_jobs_pod(&pod.name, runner))?;
        of(Generation::ScaleSets, runner, None)
    }

    fn call(&self, verb: &'static str) -> Call {
        Call { verb, resource: self.api.resource(), of: format!("{}/{}", self.namespace, self.name) }
    }

    pub(super) fn deletion(&self) -> Call {
        self.call("delete")
    }

    /// Reads the object: its text, and how to speak of the request.
    pub(super) async fn read(&self, client: &Client) -> (Call, Result<String, kube::Error>) {
        let call = self.call("get");
        let request = self.api.api(&self.namespace).get(&self.name, &GetParams::default());
        let answer = call.send(client, request).await;
        (call, answer)
    }
}

fn runner_among_owners(owner: &Owner) -> Option<(Generation, &Owner)> {
    let is = |api: &Generation| owner.api_version == api.api_version() && owner.kind == api.kind();
    Generation::ALL.into_iter().find(is).filter(|_| owner.controller).map(|api| (api, owner))
}

/// `<runner>-workflow`, the job's own pod, or `<runner>-step-<id>`, a container action's.
fn is_jobs_pod(pod: &str, runner: &str) -> bool {
    let stem = pod.strip_suffix("-workflow").or_else(|| pod.rsplit_once("-step-").map(|(stem, _)| stem));
    stem.is_some_and(|stem| stem == runner || (runner.starts_with(stem) && pod.len() >= POD_NAME - 1))
}

/// A DNS subdomain, as names of objects are. An ownerReference may hold anything.
pub(super) fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            label.bytes().all(|byte| inner(byte) || byte == b'-')
                && label.bytes().next().is_some_and(inner)
                && label.bytes().last().is_some_and(inner)
        })
}

/// What a runner's object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerFacts {
    pub api: Generation,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub phase: Option<String>,
    pub scale_set: Option<String>,
    /// Of the organization, repository or enterprise that it is registered for.
    pub config_url: Option<String>,
    /// `None` for an idle runner.
    pub job: Option<JobFacts>,
    /// Name of the secret with ARC's credentials, in the runner's namespace.
    pub github_secret: Option<String>,
    pub arc_version: Option<String>,
    /// ARC has those credentials in a vault, and not in that secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vault: bool,
    /// ARC reaches GitHub through a proxy for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proxied: bool,
}

/// The job that a runner has. Texts are as their authors wrote them: escape them where they are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFacts {
    /// `owner/repository`.
    pub repository: String,
    /// Never 0.
    pub run_id: u64,
    pub workflow_ref: Option<String>,
    pub display_name: Option<String>,
    /// A GUID, and not the id of GitHub's REST API. Since ARC 0.13.
    pub job_id: Option<String>,
    /// As in `jobs[].runner_name` of GitHub's REST API.
    pub runner_name: String,
}

impl RunnerFacts {
    /// The same runner, and no other one of its name: what can be deleted.
    #[must_use]
    pub fn runner(&self) -> RunnerRef {
        RunnerRef {
            api: self.api,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: Some(self.uid.clone()),
        }
    }
}

/// Asks which job the runner has. A claim by a label is checked before.
pub async fn job(client: &Client, runner: &RunnerRef) -> Result<RunnerFacts, Failure> {
    let claimed = match &runner.uid {
        Some(uid) => uid.clone(),
        None => owner_of_runners_pod(client, runner).await?,
    };
    let (call, answer) = runner.read(client).await;
    let text = answer.map_err(|error| call.failed(&error))?;
    let facts = read(runner, &text).map_err(|why| call.never(&why))?;
    if facts.uid == claimed { Ok(facts) } else { Err(call.never("by now it is another one of this name")) }
}

/// The runners whose pods are on a node, each once.
pub async fn runners_on(client: &Client, node: &str) -> Result<Vec<RunnerRef>, Failure> {
    let mut runners: Vec<RunnerRef> = Vec::new();
    let listed = list(client, node, |pod| {
        let Some(runner) = pod.facts().and_then(|pod| RunnerRef::of(&pod)) else { return };
        let same = |other: &RunnerRef| {
            (other.api, &other.namespace, &other.name) == (runner.api, &runner.namespace, &runner.name)
        };
        if !runners.iter().any(same) {
            runners.push(runner);
        }
    });
    listed.await.map_err(|broken| broken.failure)?;
    Ok(runners)
}

/// The uid of the `EphemeralRunner` whose pod has the runner's name.
async fn owner_of_runners_pod(client: &Client, runner: &RunnerRef) -> Result<String, Failure> {
    let call = Call { verb: "get", resource: "pods", of: format!("{}/{}", runner.namespace, runner.name) };
    let pods = Request::new(format!("/api/v1/namespaces/{}/pods", runner.namespace));
    let text = call.send(client, pods.get(&runner.name, &GetParams::default())).await;
    let text = text.map_err(|error| call.failed(&error))?;
    let pod: RunnersPod = serde_json::from_str(&text).map_err(|error| call.never(&server_text(&error.to_string())))?;
    let owners = pod.metadata.owner_references.into_iter();
    let mut owners = owners.filter(|owner| {
        runner_among_owners(owner).is_some_and(|(api, owner)| api == runner.api && owner.name == runner.name)
    });
    owners.next().map(|owner| owner.uid).ok_or_else(|| call.never("it belongs to no EphemeralRunner of its name"))
}

/// The error says what is wrong with the object.
fn read(runner: &RunnerRef, text: &str) -> Result<RunnerFacts, String> {
    let unreadable = |error: serde_json::Error| format!("unreadable: {}", server_text(&error.to_string()));
    let facts = match runner.api {
        Generation::ScaleSets => serde_json::from_str::<EphemeralRunner>(text).map_err(unreadable)?.facts(runner)?,
        Generation::Summerwind => serde_json::from_str::<Runner>(text).map_err(unreadable)?.facts(runner)?,
    };
    if facts.uid.is_empty() { Err("it has no uid".to_owned()) } else { Ok(facts) }
}
