//! For `memguard doctor`: whether GitHub is in reach, and what the credentials are good for.

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{GitHub, Server, call::Call};
use crate::remote::{Failure, server_text};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    Bad,
    /// It could not be found out.
    Unknown,
}

/// Permissions of an App's installation, the least that is needed, and what for.
const NEEDED: [(&str, &str, &str); 3] = [
    ("actions", "write", "cancelling the run of a job that was killed"),
    ("checks", "write", "telling the developer on the commit"),
    ("metadata", "read", "anything at all"),
];
/// A token's scopes that include what is needed, of the classic kind.
const SCOPES: [&str; 2] = ["repo", "public_repo"];
/// One incident takes some ten requests, and other nodes use the same credentials.
const FEW: u64 = 100;

impl GitHub {
    /// Looks at everything that a run of memguard will need. Nothing is changed by it, but for a token that an App gets.
    pub async fn doctor(&self) -> Vec<Check> {
        let mut checks = vec![self.address()];
        if let Some(problem) = self.0.session.problem().await {
            checks.push(bad("credentials", problem, "put them right; the ones from before stay in use until then"));
        }
        let token = match self.0.session.token(&self.0.server).await {
            Ok(token) => token,
            Err(failure) => {
                checks.push(failed("login", &failure));
                return checks;
            }
        };
        let call = Call::new(Method::GET, "/rate_limit".to_owned(), "ask GitHub for the rate limit".to_owned());
        let answer = match self.0.send(&call).await {
            Ok(answer) => answer,
            Err(failure) => {
                checks.push(failed("login", &failure));
                return checks;
            }
        };
        // A GitHub Enterprise Server without limits says 404.
        let unlimited = answer.status == 404 && answer.message().is_some();
        let scopes = answer.header(&http::HeaderName::from_static("x-oauth-scopes")).map(|scopes| answer.shown(scopes));
        let limit =
            if unlimited { Ok(None) } else { answer.granted(&call).and_then(|answer| answer.read(&call)).map(Some) };
        let limit: Option<Limit> = match limit {
            Ok(limit) => limit,
            Err(failure) => {
                checks.push(failed("login", &failure));
                return checks;
            }
        };
        checks.push(good("login", format!("as {}", self.who())));
        match &token.permissions {
            Some(permissions) => checks.extend(NEEDED.iter().map(|needed| permission(permissions, *needed))),
            None => checks.push(scope(scopes)),
        }
        checks.push(match limit {
            None => good("rate limit", "none".to_owned()),
            Some(Limit { resources: Resources { core } }) => {
                let found = format!("{} of {} requests left in this hour", core.remaining, core.limit);
                if core.remaining < FEW.min(core.limit / 2) {
                    bad("rate limit", found, "give memguard credentials of its own, which nothing else uses up")
                } else {
                    good("rate limit", found)
                }
            }
        });
        checks
    }

    fn address(&self) -> Check {
        self.0.server.address()
    }

    fn who(&self) -> String {
        self.0.session.whose()
    }
}

impl Server {
    /// Where it is, and how it is reached.
    #[must_use]
    pub fn address(&self) -> Check {
        let mut found = format!("{} for runners of {}", self.transport.api(), self.host);
        if let Some(proxy) = self.transport.proxy() {
            found = format!("{found}, through the proxy {proxy}");
        }
        good("address", found)
    }
}

#[derive(Deserialize)]
struct Limit {
    resources: Resources,
}

#[derive(Deserialize)]
struct Resources {
    core: Core,
}

#[derive(Deserialize)]
struct Core {
    limit: u64,
    remaining: u64,
}

fn good(name: &'static str, found: String) -> Check {
    Check { name, verdict: Verdict::Good, found, remedy: None }
}

fn bad(name: &'static str, found: String, remedy: &str) -> Check {
    Check { name, verdict: Verdict::Bad, found, remedy: Some(remedy.to_owned()) }
}

/// A failure says itself what to do, as far as that is known.
fn failed(name: &'static str, failure: &Failure) -> Check {
    let remedy = match failure {
        Failure::Later { .. } => {
            Some("memguard tries again by itself; look at network, proxy and certificates if it stays")
        }
        Failure::Final { .. } => None,
    };
    Check { name, verdict: Verdict::Bad, found: failure.to_string(), remedy: remedy.map(str::to_owned) }
}

fn permission(given: &Map<String, Value>, (name, least, purpose): (&'static str, &str, &str)) -> Check {
    let level = given.get(name).and_then(Value::as_str);
    let enough = match level {
        Some("write" | "admin") => true,
        Some("read") => least == "read",
        _ => false,
    };
    let found = format!("{name}: {}", level.map_or_else(|| "none".to_owned(), server_text));
    if enough {
        good("permission", found)
    } else {
        let remedy = format!(
            "give the App the repository permission \"{name}: {least}\" and accept it for the installation; it is needed for {purpose}"
        );
        bad("permission", found, &remedy)
    }
}

/// Classic tokens name their scopes; the permissions of others show only when they are used.
fn scope(scopes: Option<String>) -> Check {
    match scopes {
        Some(scopes) if scopes.split(',').any(|scope| SCOPES.contains(&scope.trim())) => {
            good("permission", format!("a classic token with {scopes}"))
        }
        Some(scopes) if !scopes.trim().is_empty() => bad(
            "permission",
            format!("a classic token with {scopes}"),
            "give the token the scope \"repo\", or use a GitHub App, which needs far less",
        ),
        _ => Check {
            name: "permission",
            verdict: Verdict::Unknown,
            found: "GitHub does not tell what this token may do".to_owned(),
            remedy: Some(
                "it needs the repository permissions \"actions: write\", and \"commit statuses: write\" to tell the developer"
                    .to_owned(),
            ),
        },
    }
}
