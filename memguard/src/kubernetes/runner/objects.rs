//! ARC's objects as they come in, any version of either generation. Every field can be missing or of another type: types
//! have changed between versions (`failures`, which is not even looked at), and a field that can't be read must not hide
//! the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Value;

use super::{JobFacts, RunnerFacts, RunnerRef};
use crate::{kubernetes::pods::Owner, remote::server_text, telemetry::escaped};

const SCALE_SET: &str = "actions.github.com/scale-set-name";
const VERSION: &str = "app.kubernetes.io/version";
/// Bytes of a text that is kept.
const TEXT: usize = 512;

/// A text or a number. Anything else, and an empty text, counts as missing.
#[derive(Debug, Default)]
pub(super) struct Loose(Option<String>);

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::String(text) if !text.is_empty() => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }))
    }
}

impl Loose {
    /// Cut where it is longer than such a thing is.
    fn text(self) -> Option<String> {
        self.0.map(|mut text| {
            text.truncate(text.floor_char_boundary(TEXT));
            text
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    uid: String,
    labels: BTreeMap<String, String>,
    pub(super) owner_references: Vec<Owner>,
}

/// A runner's pod, of which only the owner matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunnersPod {
    pub(super) metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EphemeralRunner {
    metadata: Metadata,
    spec: EphemeralRunnerSpec,
    status: EphemeralRunnerStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EphemeralRunnerSpec {
    github_config_url: Loose,
    github_config_secret: Loose,
    /// Only whether they are there.
    vault_config: Option<IgnoredAny>,
    proxy: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EphemeralRunnerStatus {
    phase: Loose,
    runner_name: Loose,
    job_id: Loose,
    job_repository_name: Loose,
    job_workflow_ref: Loose,
    job_display_name: Loose,
    workflow_run_id: Loose,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Runner {
    metadata: Metadata,
    spec: RunnerSpec,
    status: RunnerStatus,
}

/// For whom it is registered. Written by whoever made the runner, and not by its jobs; one of an enterprise may have any.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RunnerSpec {
    organization: Loose,
    repository: Loose,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RunnerStatus {
    phase: Loose,
    workflow: Workflow,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Workflow {
    name: Loose,
    repository: Loose,
    repository_owner: Loose,
    #[serde(rename = "runID")]
    run_id: Loose,
    job: Loose,
}

impl EphemeralRunner {
    pub(super) fn facts(self, runner: &RunnerRef) -> Result<RunnerFacts, String> {
        let status = self.status;
        let job = which(status.job_repository_name, status.workflow_run_id)?.map(|(repository, run_id)| JobFacts {
            repository,
            run_id,
            workflow_ref: status.job_workflow_ref.text(),
            display_name: status.job_display_name.text(),
            job_id: status.job_id.text(),
            runner_name: status.runner_name.text().unwrap_or_else(|| runner.name.clone()),
        });
        let EphemeralRunnerSpec { github_config_url, github_config_secret, vault_config, proxy } = self.spec;
        Ok(RunnerFacts {
            config_url: github_config_url.text().map(|url| without_user(&url)),
            github_secret: github_config_secret.text(),
            vault: vault_config.is_some(),
            proxied: proxy.is_some(),
            ..self.metadata.facts(runner, status.phase.text(), job)
        })
    }
}

impl Runner {
    pub(super) fn facts(self, runner: &RunnerRef) -> Result<RunnerFacts, String> {
        let Workflow { name, repository, repository_owner, run_id, job } = self.status.workflow;
        // From GITHUB_REPOSITORY, which has the owner in it; that was not always so.
        let repository = match (repository.0, repository_owner.0) {
            (Some(name), Some(owner)) if !name.contains('/') => Some(format!("{owner}/{name}")),
            (repository, _) => repository,
        };
        let run = which(Loose(repository), run_id)?;
        if let Some((repository, _)) = &run {
            self.spec.allows(repository)?;
        }
        let job = run.map(|(repository, run_id)| JobFacts {
            repository,
            run_id,
            workflow_ref: name.text(),
            display_name: job.text(),
            job_id: None,
            runner_name: runner.name.clone(),
        });
        Ok(self.metadata.facts(runner, self.status.phase.text(), job))
    }
}

impl RunnerSpec {
    /// Whether a job of this repository can be on it. The status is a job's own words, and could name somebody else's run.
    fn allows(&self, repository: &str) -> Result<(), String> {
        let owner = repository.split_once('/').map_or("", |(owner, _)| owner);
        let of = match (&self.repository.0, &self.organization.0) {
            (Some(only), _) if !only.eq_ignore_ascii_case(repository) => only,
            (None, Some(only)) if !only.eq_ignore_ascii_case(owner) => only,
            _ => return Ok(()),
        };
        Err(format!("it is registered for {}, and its status names a run of {repository}", server_text(of)))
    }
}

impl Metadata {
    /// What is the same in both generations.
    fn facts(mut self, runner: &RunnerRef, phase: Option<String>, job: Option<JobFacts>) -> RunnerFacts {
        RunnerFacts {
            api: runner.api,
            namespace: runner.namespace.clone(),
            name: runner.name.clone(),
            uid: self.uid,
            phase,
            scale_set: self.labels.remove(SCALE_SET),
            config_url: None,
            job,
            github_secret: None,
            arc_version: self.labels.remove(VERSION),
            vault: false,
            proxied: false,
        }
    }
}

/// An address without a user and a password. Neither belongs there, nor in the journal, a log, or on somebody's screen; so
/// whatever stands before the last `@` is left out, even where no address would have it.
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, _)| url.split_at(scheme.len() + 3));
    let (_, bare) = rest.rsplit_once('@').unwrap_or(("", rest));
    format!("{scheme}{bare}")
}

/// The repository and the run. A runner without either has no job; with something odd in them it is not to be guessed at.
fn which(repository: Loose, run_id: Loose) -> Result<Option<(String, u64)>, String> {
    let (repository, run_id) = match (repository.0, run_id.0) {
        (None, None) => return Ok(None),
        // What Go leaves out of a status that was written for the first job and then cleared.
        (None, Some(zero)) if zero == "0" => return Ok(None),
        (repository, run_id) => (repository.unwrap_or_default(), run_id.unwrap_or_default()),
    };
    if !is_repository(&repository) {
        return Err(format!("its job's repository is \"{}\", and not owner/repository", server_text(&repository)));
    }
    let digits = !run_id.is_empty() && run_id.bytes().all(|byte| byte.is_ascii_digit());
    match run_id.parse::<u64>() {
        Ok(id) if digits && id > 0 => Ok(Some((repository, id))),
        _ => Err(format!("its run's id is \"{}\"", escaped(&server_text(&run_id)))),
    }
}

/// `owner/repository`, which become parts of a path at GitHub.
fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        let allowed = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        allowed && !matches!(part, "" | "." | "..") && part.len() <= 100
    };
    text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}
