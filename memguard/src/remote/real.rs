//! The API server and GitHub themselves.

use std::time::{Duration, UNIX_EPOCH};

use kube::Client;

use super::{
    login::Login,
    outside::{Cancelled, Check, Outside, Run, RunJob, RunRef},
};
use crate::{
    github::{self, CheckRun, Conclusion, GitHub, Repository, Told},
    kubernetes::{self, Deleted, Notice, RunnerFacts, RunnerRef},
    remote::Failure,
};

/// What stands in a commit's list of checks.
const CHECK: &str = "memguard";

/// Asks the real ones.
#[derive(Clone)]
pub struct Real {
    kubernetes: Client,
    github: Login,
}

impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Real").field("github", &self.github).finish_non_exhaustive()
    }
}

impl Real {
    #[must_use]
    pub const fn new(kubernetes: Client, github: Login) -> Self {
        Self { kubernetes, github }
    }

    /// The GitHub that a run is on, if there are credentials for it, and the run's repository.
    fn at(&self, run: &RunRef) -> Result<(GitHub, Repository), Failure> {
        let github = self.github.for_run(run)?;
        let repository = run.repository.parse();
        let repository =
            repository.map_err(|error: github::BadRepository| Failure::Final { why: error.to_string() })?;
        Ok((github, repository))
    }
}

impl Outside for Real {
    async fn runner(&self, runner: &RunnerRef) -> Result<RunnerFacts, Failure> {
        kubernetes::job(&self.kubernetes, runner).await
    }

    async fn delete_runner(&self, runner: &RunnerRef) -> Result<Deleted, Failure> {
        kubernetes::delete_runner(&self.kubernetes, runner).await
    }

    async fn notify(&self, notice: Notice) -> Result<(), Failure> {
        kubernetes::tell(&self.kubernetes, notice).await
    }

    async fn run(&self, run: &RunRef) -> Result<Run, Failure> {
        let (github, repository) = self.at(run)?;
        let found = github.run(&repository, run.run_id).await?;
        Ok(Run {
            over: found.completed().then(|| found.conclusion.unwrap_or_else(|| "completed".to_owned())),
            attempt: found.attempt,
            head_sha: found.head_sha,
            url: Some(found.html_url).filter(|url| !url.is_empty()),
        })
    }

    async fn jobs_on(&self, run: &RunRef, runner_name: &str) -> Result<Vec<RunJob>, Failure> {
        let (github, repository) = self.at(run)?;
        let jobs = github.jobs_on(&repository, run.run_id, runner_name).await?;
        let told = |job: github::RunJob| RunJob {
            over: (job.status == "completed").then(|| job.conclusion.unwrap_or_else(|| "completed".to_owned())),
            name: job.name,
            url: job.html_url,
        };
        Ok(jobs.into_iter().map(told).collect())
    }

    async fn cancel(&self, run: &RunRef, force: bool) -> Result<Cancelled, Failure> {
        let (github, repository) = self.at(run)?;
        let answer = if force {
            github.force_cancel(&repository, run.run_id).await?
        } else {
            github.cancel(&repository, run.run_id).await?
        };
        Ok(match answer {
            github::Cancelled::Accepted => Cancelled::Accepted,
            github::Cancelled::NotPossible { why } => Cancelled::NotPossible { why },
        })
    }

    async fn check(&self, run: &RunRef, check: Check) -> Result<String, Failure> {
        let (github, repository) = self.at(run)?;
        let at = UNIX_EPOCH + Duration::from_millis(check.at);
        let check = CheckRun {
            head_sha: check.head_sha,
            name: CHECK.to_owned(),
            external_id: check.incident,
            title: check.title,
            summary: check.summary,
            text: None,
            // The job's own check run fails or is cancelled; this one explains, and must not fail a commit a second time.
            conclusion: Conclusion::Neutral,
            started_at: at,
            completed_at: at,
            details_url: check.url,
        };
        Ok(match github.tell_check(&repository, &check).await? {
            Told::Check { id, .. } => format!("made, {id}"),
            Told::Status { instead } => format!("a commit status instead: {instead}"),
        })
    }
}
