//! A workflow run: how it is, which of its jobs ran on a runner, and its cancellation. There is no cancellation of a single
//! job: the whole run ends, and jobs with `always()` go on unless it is forced.

use http::Method;
use serde::{Deserialize, Serialize};

use super::{GitHub, Repository, call::Call};
use crate::remote::Failure;

const READING: &str = "give the App or the token the repository permission \"actions: read\" (write includes it)";
const CANCELLING: &str = "give the App or the token the repository permission \"actions: write\"";

/// A job has some kilobytes, with all its steps.
const PAGE: usize = 50;
/// A matrix has 256 jobs at most, and a run some of them.
const PAGES: usize = 40;

/// A run as far as it matters here. Texts are escaped; what is new in them is no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub id: u64,
    /// "queued", `in_progress`, "completed" and others.
    pub status: String,
    /// Once it is completed: "success", "failure", "cancelled" and others.
    pub conclusion: Option<String>,
    /// The commit, in full.
    pub head_sha: String,
    /// Counts from 1; a run that was started again has the same id.
    pub attempt: u64,
    pub html_url: String,
}

impl Run {
    /// Whether nothing of it runs any more.
    #[must_use]
    pub fn completed(&self) -> bool {
        self.status == "completed"
    }
}

/// One job of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunJob {
    pub id: u64,
    pub name: String,
    pub status: String,
    pub conclusion: Option<String>,
    pub html_url: Option<String>,
}

/// What came of a cancellation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// GitHub took it. The run ends in its own time.
    Accepted,
    /// It can't be cancelled (409). Where it is completed, all is well: look at the run.
    NotPossible { why: String },
}

impl GitHub {
    /// How a run is.
    pub async fn run(&self, repository: &Repository, run: u64) -> Result<Run, Failure> {
        #[derive(Deserialize)]
        struct Body {
            id: u64,
            status: String,
            conclusion: Option<String>,
            head_sha: String,
            run_attempt: Option<u64>,
            html_url: Option<String>,
        }

        let call = Call {
            forbidden: READING,
            ..Call::new(Method::GET, path(repository, run, ""), format!("look at run {run} of {repository}"))
        };
        let answer = self.0.ask(&call).await?;
        let body: Body = answer.read(&call)?;
        if body.id != run {
            return Err(call.later(&format!("the answer is about run {}", body.id)));
        }
        Ok(Run {
            id: body.id,
            status: answer.shown(&body.status),
            conclusion: body.conclusion.map(|text| answer.shown(&text)),
            head_sha: answer.shown(&body.head_sha),
            attempt: body.run_attempt.unwrap_or(1),
            html_url: answer.shown(&body.html_url.unwrap_or_default()),
        })
    }

    /// The jobs of a run's latest attempt that ran on one runner. None, if the runner's name is another run's.
    pub async fn jobs_on(&self, repository: &Repository, run: u64, runner: &str) -> Result<Vec<RunJob>, Failure> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            jobs: Vec<Job>,
        }
        #[derive(Deserialize)]
        struct Job {
            id: u64,
            #[serde(default)]
            name: String,
            #[serde(default)]
            status: String,
            conclusion: Option<String>,
            html_url: Option<String>,
            runner_name: Option<String>,
        }

        let mut found = Vec::new();
        let mut seen = 0;
        for page in 1..=PAGES {
            let query = format!("/jobs?filter=latest&per_page={PAGE}&page={page}");
            let call = Call {
                forbidden: READING,
                ..Call::new(
                    Method::GET,
                    path(repository, run, &query),
                    format!("look at the jobs of run {run} of {repository}"),
                )
            };
            let answer = self.0.ask(&call).await?;
            let Page { total_count, jobs } = answer.read(&call)?;
            seen += jobs.len();
            let last = jobs.is_empty() || seen >= total_count;
            found.extend(jobs.into_iter().filter(|job| job.runner_name.as_deref() == Some(runner)).map(|job| RunJob {
                id: job.id,
                name: answer.shown(&job.name),
                status: answer.shown(&job.status),
                conclusion: job.conclusion.map(|text| answer.shown(&text)),
                html_url: job.html_url.map(|text| answer.shown(&text)),
            }));
            if last {
                break;
            }
        }
        Ok(found)
    }

    /// Asks for the end of a run. Asking again does no harm.
    pub async fn cancel(&self, repository: &Repository, run: u64) -> Result<Cancelled, Failure> {
        self.end(path(repository, run, "/cancel"), format!("cancel run {run} of {repository}")).await
    }

    /// The same, past `always()` and other conditions that keep jobs going. For runs that a cancellation did not end.
    pub async fn force_cancel(&self, repository: &Repository, run: u64) -> Result<Cancelled, Failure> {
        self.end(path(repository, run, "/force-cancel"), format!("force-cancel run {run} of {repository}")).await
    }

    async fn end(&self, path: String, what: String) -> Result<Cancelled, Failure> {
        let call = Call { forbidden: CANCELLING, ..Call::new(Method::POST, path, what) };
        let answer = self.0.send(&call).await?;
        if answer.status == 409
            && let Some(why) = answer.message()
        {
            return Ok(Cancelled::NotPossible { why: why.to_owned() });
        }
        answer.granted(&call).map(|_| Cancelled::Accepted)
    }
}

fn path(repository: &Repository, run: u64, rest: &str) -> String {
    format!("/repos/{repository}/actions/runs/{run}{rest}")
}
