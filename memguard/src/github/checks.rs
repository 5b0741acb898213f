//! A word to the developer on the commit: a check run of memguard's own, or, where only a token is there, a commit status.
//! The check run of the job itself belongs to GitHub Actions and can't be changed.

use std::time::SystemTime;

use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{GitHub, Repository, answer::Answer, call::Call};
use crate::{
    remote::{Failure, server_text},
    telemetry::escaped,
};

const CHECKING: &str =
    "give the App the repository permission \"checks: write\", or turn this off with github.check_run = false";
const STATUSES: &str = "give the token the repository permission \"commit statuses: write\", or use a GitHub App with \
                        \"checks: write\", or turn this off with github.check_run = false";

/// What GitHub takes, in characters; bytes are never fewer.
const OUTPUT: usize = 65_535;
const TITLE: usize = 255;
const DESCRIPTION: usize = 140;
const PAGE: usize = 100;
/// Of check runs with memguard's name on one commit.
const PAGES: usize = 10;

/// How a check run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    ActionRequired,
    Cancelled,
    Failure,
    Neutral,
    Success,
    Skipped,
    TimedOut,
}

impl Conclusion {
    const fn state(self) -> &'static str {
        match self {
            Self::Neutral | Self::Success | Self::Skipped => "success",
            Self::ActionRequired | Self::Cancelled | Self::Failure | Self::TimedOut => "failure",
        }
    }
}

/// What is to be told. Title, summary and text are for people; `summary` and `text` are Markdown. What is too long is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRun {
    /// The commit, in full.
    pub head_sha: String,
    /// What stands in the list of checks.
    pub name: String,
    /// Tells one from another: a check run with this id is not made twice.
    pub external_id: String,
    pub title: String,
    pub summary: String,
    pub text: Option<String>,
    pub conclusion: Conclusion,
    pub started_at: SystemTime,
    pub completed_at: SystemTime,
    pub details_url: Option<String>,
}

/// How it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Check {
        id: u64,
        html_url: Option<String>,
        /// It was there already, from an earlier try.
        already: bool,
    },
    /// As a commit status, because these credentials may not make check runs, and why they may not.
    Status { instead: String },
}

impl GitHub {
    /// Makes the check run, or finds it made.
    pub async fn tell_check(&self, repository: &Repository, check: &CheckRun) -> Result<Told, Failure> {
        // Not the caller's words alone: they become a part of a path.
        let sha = &check.head_sha;
        if !(40..=64).contains(&sha.len()) || !sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let why = format!("can't make a check run in {repository}: {:?} is no commit", server_text(sha));
            return Err(Failure::Final { why });
        }
        let refused = match self.find(repository, check).await? {
            Ok(Some(told)) => return Ok(told),
            Ok(None) => match self.make(repository, check).await? {
                Ok(told) => return Ok(told),
                Err(refused) => refused,
            },
            Err(refused) => refused,
        };
        self.status(repository, check, &refused).await?;
        Ok(Told::Status { instead: refused })
    }

    /// The check run of an earlier try. The inner error says why these credentials may not look.
    async fn find(&self, repository: &Repository, check: &CheckRun) -> Result<Result<Option<Told>, String>, Failure> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            check_runs: Vec<Made>,
        }

        let name = encoded(&check.name);
        let mut seen = 0;
        for page in 1..=PAGES {
            // All of them: "latest" has one of each name, and a commit can have two incidents.
            let path = format!(
                "/repos/{repository}/commits/{}/check-runs?check_name={name}&filter=all&per_page={PAGE}&page={page}",
                check.head_sha
            );
            let what = format!("look for memguard's check run in {repository}");
            let call = Call { forbidden: CHECKING, ..Call::new(Method::GET, path, what) };
            let answer = self.0.send(&call).await?;
            if answer.forbidden() {
                return Ok(Err(answer.refusal(&call, SystemTime::now()).to_string()));
            }
            let answer = answer.granted(&call)?;
            let Page { total_count, check_runs } = answer.read(&call)?;
            seen += check_runs.len();
            let last = check_runs.is_empty() || seen >= total_count;
            let ours = |made: &Made| made.external_id.as_deref() == Some(check.external_id.as_str());
            if let Some(made) = check_runs.into_iter().find(ours) {
                return Ok(Ok(Some(made.told(&answer, true))));
            }
            if last {
                break;
            }
        }
        Ok(Ok(None))
    }

    async fn make(&self, repository: &Repository, check: &CheckRun) -> Result<Result<Told, String>, Failure> {
        let mut output = json!({
            "title": shown(&check.title, TITLE),
            "summary": cut(&check.summary, OUTPUT),
        });
        if let Some(text) = &check.text {
            output["text"] = cut(text, OUTPUT).into();
        }
        let mut body = json!({
            "name": check.name,
            "head_sha": check.head_sha,
            "external_id": check.external_id,
            "status": "completed",
            "conclusion": check.conclusion,
            "started_at": moment(check.started_at),
            // GitHub refuses one that ends before it begins.
            "completed_at": moment(check.completed_at.max(check.started_at)),
            "output": output,
        });
        if let Some(url) = &check.details_url {
            body["details_url"] = url.as_str().into();
        }
        let what = format!("make a check run in {repository}");
        let path = format!("/repos/{repository}/check-runs");
        let call = Call { forbidden: CHECKING, body: Some(body), ..Call::new(Method::POST, path, what) };
        let answer = self.0.send(&call).await?;
        if answer.forbidden() {
            return Ok(Err(answer.refusal(&call, SystemTime::now()).to_string()));
        }
        let answer = answer.granted(&call)?;
        Ok(Ok(answer.read::<Made>(&call)?.told(&answer, false)))
    }

    /// A commit status has a place for each `context`, so a repetition takes the place of the first.
    async fn status(&self, repository: &Repository, check: &CheckRun, refused: &str) -> Result<(), Failure> {
        let mut body = json!({
            "state": check.conclusion.state(),
            "description": shown(&check.title, DESCRIPTION),
            "context": shown(&format!("memguard/{}", check.external_id), TITLE),
        });
        if let Some(url) = &check.details_url {
            body["target_url"] = url.as_str().into();
        }
        let call = Call {
            forbidden: STATUSES,
            body: Some(body),
            ..Call::new(
                Method::POST,
                format!("/repos/{repository}/statuses/{}", check.head_sha),
                format!("set a commit status in {repository}"),
            )
        };
        self.0.ask(&call).await.map(drop).map_err(|failure| match failure {
            Failure::Final { why } => Failure::Final { why: format!("{refused}; and instead of it: {why}") },
            later @ Failure::Later { .. } => later,
        })
    }
}

#[derive(Deserialize)]
struct Made {
    id: u64,
    external_id: Option<String>,
    html_url: Option<String>,
}

impl Made {
    fn told(self, answer: &Answer, already: bool) -> Told {
        Told::Check { id: self.id, html_url: self.html_url.map(|url| answer.shown(&url)), already }
    }
}

/// One line for people, whatever stands in it.
fn shown(text: &str, most: usize) -> String {
    cut(&escaped(text), most)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

/// For a query.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn moment(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    // GitHub's are in whole seconds.
    Timestamp::from_second(time.as_second()).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn texts_fit_and_times_are_githubs() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüx", 3), "äö…");
        assert_eq!(shown("a\nb", 10), "a\\nb");
        assert_eq!(encoded("memguard / a&b=ä"), "memguard%20%2F%20a%26b%3D%C3%A4");
        assert_eq!(moment(UNIX_EPOCH + Duration::from_millis(1_700_000_000_900)), "2023-11-14T22:13:20Z");
    }
}
