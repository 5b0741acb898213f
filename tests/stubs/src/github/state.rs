//! What GitHub knows.

use std::{collections::BTreeMap, time::Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::Fault;

/// How a stub begins.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub runs: Vec<Run>,
    /// The personal token that is good; with none, any is.
    pub token: Option<String>,
    /// Seconds that an installation's token lives; 3600 if 0.
    pub token_life_s: u32,
    pub faults: Vec<Fault>,
}

/// A workflow run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// `owner/name`
    pub repository: String,
    pub id: u64,
    #[serde(default = "in_progress")]
    pub status: String,
    #[serde(default)]
    pub conclusion: Option<String>,
    #[serde(default = "some_commit")]
    pub head_sha: String,
    #[serde(default = "first")]
    pub attempt: u64,
    #[serde(default)]
    pub jobs: Vec<Job>,
    /// How it takes a cancellation.
    #[serde(default)]
    pub ending: Ending,
    /// How often it was asked to end.
    #[serde(default)]
    pub cancels: u32,
    #[serde(default)]
    pub force_cancels: u32,
    /// Looks since the cancellation.
    #[serde(default)]
    pub looks: u32,
    /// When it was first asked to end, in milliseconds since the stub began.
    #[serde(default)]
    pub cancelled_at_ms: Option<u64>,
}

fn in_progress() -> String {
    "in_progress".to_owned()
}

fn some_commit() -> String {
    "0123456789abcdef0123456789abcdef01234567".to_owned()
}

const fn first() -> u64 {
    1
}

/// When a run that was cancelled is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// With this look at it after the cancellation, from 1; with 0 at once.
    AfterLooks(u32),
    AfterMs(u64),
    /// Not before it is forced.
    Stuck,
}

impl Default for Ending {
    fn default() -> Self {
        Self::AfterLooks(1)
    }
}

/// One job of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub id: u64,
    pub name: String,
    #[serde(default = "in_progress")]
    pub status: String,
    #[serde(default)]
    pub conclusion: Option<String>,
    #[serde(default)]
    pub runner_name: Option<String>,
}

/// A check run that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckRun {
    pub repository: String,
    pub id: u64,
    pub head_sha: String,
    /// As it was sent.
    pub body: Value,
}

/// A commit status that was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub repository: String,
    pub sha: String,
    /// As it was sent.
    pub body: Value,
}

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// From 1, over all connections.
    pub number: u64,
    pub at_ms: u64,
    pub method: String,
    /// With the query.
    pub path: String,
    pub body: Value,
    /// "none", "app" (a JSON web token), "installation", "token" or "other"; never the value.
    pub authorization: &'static str,
    /// All but the authorization.
    pub headers: BTreeMap<String, String>,
}

impl Run {
    /// One that is in progress, with a job on a runner.
    #[must_use]
    pub fn on(repository: &str, id: u64, runner: &str) -> Self {
        let job = Job {
            id: id * 10,
            name: "test".to_owned(),
            status: in_progress(),
            conclusion: None,
            runner_name: Some(runner.to_owned()),
        };
        Self {
            repository: repository.to_owned(),
            id,
            status: in_progress(),
            conclusion: None,
            head_sha: some_commit(),
            attempt: 1,
            jobs: vec![job],
            ending: Ending::default(),
            cancels: 0,
            force_cancels: 0,
            looks: 0,
            cancelled_at_ms: None,
        }
    }

    pub(super) fn completed(&self) -> bool {
        self.status == "completed"
    }

    /// Time passes, by a look at it.
    pub(super) fn look(&mut self, now_ms: u64) {
        let Some(at_ms) = self.cancelled_at_ms.filter(|_| !self.completed()) else { return };
        self.looks += 1;
        let over = match self.ending {
            Ending::AfterLooks(looks) => self.looks >= looks,
            Ending::AfterMs(ms) => now_ms.saturating_sub(at_ms) >= ms,
            Ending::Stuck => false,
        };
        if over {
            self.end();
        }
    }

    pub(super) fn cancel(&mut self, now_ms: u64) {
        self.cancels += 1;
        self.cancelled_at_ms.get_or_insert(now_ms);
        if self.ending == Ending::AfterLooks(0) {
            self.end();
        }
    }

    pub(super) fn force(&mut self) {
        self.force_cancels += 1;
        self.end();
    }

    fn end(&mut self) {
        let cancelled = || Some("cancelled".to_owned());
        "completed".clone_into(&mut self.status);
        self.conclusion = cancelled();
        for job in self.jobs.iter_mut().filter(|job| job.status != "completed") {
            "completed".clone_into(&mut job.status);
            job.conclusion = cancelled();
        }
    }
}

/// Everything.
#[derive(Debug)]
pub(super) struct State {
    began: Instant,
    pub(super) runs: Vec<Run>,
    pub(super) check_runs: Vec<CheckRun>,
    pub(super) statuses: Vec<Status>,
    pub(super) requests: Vec<Request>,
    pub(super) faults: Vec<Fault>,
    pub(super) token: Option<String>,
    pub(super) permissions: BTreeMap<String, String>,
    pub(super) token_life_s: u32,
    /// Of all requests.
    pub(super) count: u64,
    /// Tokens of installations: how many were given, and how many of them are over.
    given: u64,
    over: u64,
}

impl State {
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { runs, token, token_life_s, faults } = setup;
        let permissions = [("actions", "write"), ("checks", "write"), ("metadata", "read")];
        Self {
            began: Instant::now(),
            runs,
            check_runs: Vec::new(),
            statuses: Vec::new(),
            requests: Vec::new(),
            faults,
            token,
            permissions: permissions.map(|(name, level)| (name.to_owned(), level.to_owned())).into(),
            token_life_s: if token_life_s == 0 { 3600 } else { token_life_s },
            count: 0,
            given: 0,
            over: 0,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn put_run(&mut self, run: Run) {
        self.runs.retain(|other| other.id != run.id);
        self.runs.push(run);
    }

    pub(super) fn expire_tokens(&mut self) {
        self.over = self.given;
    }

    pub(super) fn give_token(&mut self) -> String {
        self.given += 1;
        format!("ghs_stub{}", self.given)
    }

    /// Whether an installation's token was given, and is not over.
    pub(super) fn is_good(&self, token: &str) -> bool {
        let number = token.strip_prefix("ghs_stub").and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| number > self.over && number <= self.given)
    }
}
