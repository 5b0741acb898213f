//! The API server and GitHub themselves.

use kube::Client;

use super::outside::{Cancelled, Check, Outside, Run, RunJob, RunRef};
use crate::{
    kubernetes::{self, Deleted, Notice, RunnerFacts, RunnerRef},
    remote::Failure,
};

/// Asks the real ones.
#[derive(Clone)]
pub struct Real {
    kubernetes: Client,
}

impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Real").finish_non_exhaustive()
    }
}

impl Real {
    #[must_use]
    pub const fn new(kubernetes: Client) -> Self {
        Self { kubernetes }
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

    async fn run(&self, _: &RunRef) -> Result<Run, Failure> {
        Err(no_github())
    }

    async fn jobs_on(&self, _: &RunRef, _: &str) -> Result<Vec<RunJob>, Failure> {
        Err(no_github())
    }

    async fn cancel(&self, _: &RunRef, _: bool) -> Result<Cancelled, Failure> {
        Err(no_github())
    }

    async fn check(&self, _: &RunRef, _: Check) -> Result<String, Failure> {
        Err(no_github())
    }
}

fn no_github() -> Failure {
    Failure::Final { why: "no credentials for GitHub are configured".to_owned() }
}
