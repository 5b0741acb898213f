//! Everything that is asked of the world outside this node after a kill, behind one trait.

use crate::{
    kubernetes::{Deleted, Notice, RunnerFacts, RunnerRef, SecretRef},
    remote::Failure,
};

/// A GitHub run, named by what ARC's object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRef {
    /// The `githubConfigUrl` of the runner: which GitHub it is. `None` where the object has none.
    pub config_url: Option<String>,
    /// `owner/repository`.
    pub repository: String,
    pub run_id: u64,
    /// Where ARC has its credentials for it, or why that is not known.
    pub arc_secret: Result<SecretRef, String>,
    /// ARC reaches that GitHub through a proxy.
    pub proxied: bool,
    /// The runner is one of the older ARC: its object names no GitHub, and the run is one that its job could have made up.
    pub older_arc: bool,
}

/// What GitHub says of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Its conclusion, once it is completed.
    pub over: Option<String>,
    /// Counts from 1; a run that was started again has the same id.
    pub attempt: u64,
    pub head_sha: String,
    pub url: Option<String>,
}

/// A job of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunJob {
    pub name: String,
    /// Its conclusion, once it is completed.
    pub over: Option<String>,
    pub url: Option<String>,
}

/// What GitHub made of a wish to cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    Accepted,
    /// It can't be cancelled (409), mostly because it is over, or about to be. In GitHub's words.
    NotPossible {
        why: String,
    },
}

/// For the developer whose job it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub head_sha: String,
    /// Made out twice, it is the same one.
    pub incident: String,
    pub title: String,
    /// Markdown.
    pub summary: String,
    /// ms since 1970.
    pub at: u64,
    pub url: Option<String>,
}

/// The API server and GitHub.
pub trait Outside: Clone + Send + Sync + 'static {
    fn runner(&self, runner: &RunnerRef) -> impl Future<Output = Result<RunnerFacts, Failure>> + Send;
    fn delete_runner(&self, runner: &RunnerRef) -> impl Future<Output = Result<Deleted, Failure>> + Send;
    fn notify(&self, notice: Notice) -> impl Future<Output = Result<(), Failure>> + Send;
    fn run(&self, run: &RunRef) -> impl Future<Output = Result<Run, Failure>> + Send;
    /// Those of the latest attempt on this runner.
    fn jobs_on(&self, run: &RunRef, runner_name: &str) -> impl Future<Output = Result<Vec<RunJob>, Failure>> + Send;
    fn cancel(&self, run: &RunRef, force: bool) -> impl Future<Output = Result<Cancelled, Failure>> + Send;
    /// In words, what became of it.
    fn check(&self, run: &RunRef, check: Check) -> impl Future<Output = Result<String, Failure>> + Send;
}
