//! Requests, and what GitHub answers.

use std::{collections::BTreeMap, io, time::Duration};

use http::{Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    Shared,
    fault::What,
    reply::{Answer, Reply},
    state::{CheckRun, Job, Request, Run, State, Status},
};

const LARGEST: usize = 4 << 20;

pub(super) async fn answer(state: Shared, request: http::Request<Incoming>) -> io::Result<Response<Reply>> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, LARGEST).collect().await.map_err(io::Error::other)?.to_bytes();
    let body = match serde_json::from_slice(&body) {
        Ok(json) => json,
        Err(_) if body.is_empty() => Value::Null,
        Err(_) => Value::String(String::from_utf8_lossy(&body).into_owned()),
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let method = parts.method.to_string();
    if let Some(what) = path.strip_prefix("/_stub/") {
        return steer(&mut state.lock(), &method, what, body).whole();
    }
    let (answer, fault) = {
        let mut state = state.lock();
        let who = Who::of(&state, parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()));
        state.count += 1;
        let number = state.count;
        let headers: BTreeMap<_, _> = parts
            .headers
            .iter()
            .filter(|(name, _)| *name != header::AUTHORIZATION)
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let at_ms = state.now_ms();
        state.requests.push(Request {
            number,
            at_ms,
            method: method.clone(),
            path: path.clone(),
            body: body.clone(),
            authorization: who.name(),
            headers,
        });
        let fault =
            state.faults.iter_mut().find_map(|fault| fault.strikes(number, &method, &path).then(|| fault.what.clone()));
        let answer = match &fault {
            Some(What::Answer { .. } | What::Hang | What::Cut) => Answer::new(500, Value::Null),
            _ => route(&mut state, who, &method, &path, &body),
        };
        (answer, fault)
    };
    match fault {
        None => answer.whole(),
        Some(What::Answer { code, headers, body }) => Answer { code, headers, body }.whole(),
        Some(What::Hang) => std::future::pending().await,
        Some(What::Cut | What::Lost) => Err(io::ErrorKind::ConnectionAborted.into()),
        Some(What::Half) => answer.half(),
        Some(What::Garbage) => Answer { body: "<html>\u{1b}[2K Bad gateway? No: 200".into(), ..answer }.whole(),
        Some(What::Slow { pause_ms }) => answer.slow(Duration::from_millis(pause_ms)),
        Some(What::Endless) => answer.endless(),
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    App,
    Installation,
    Token,
    Other,
}

impl Who {
    fn of(state: &State, authorization: Option<&str>) -> Self {
        let Some(text) = authorization else { return Self::Nobody };
        let Some(bearer) = text.strip_prefix("Bearer ") else { return Self::Other };
        match bearer {
            // Not verified here.
            jwt if jwt.starts_with("eyJ") && jwt.split('.').count() == 3 => Self::App,
            token if state.is_good(token) => Self::Installation,
            token if token.starts_with("ghs_stub") => Self::Other,
            token if state.token.as_ref().is_none_or(|good| good == token) => Self::Token,
            _ => Self::Other,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::App => "app",
            Self::Installation => "installation",
            Self::Token => "token",
            Self::Other => "other",
        }
    }
}

fn refusal(code: u16, message: &str) -> Answer {
    let body =
        json!({"message": message, "documentation_url": "https://docs.github.com/rest", "status": code.to_string()});
    Answer::new(code, body)
}

fn not_found() -> Answer {
    refusal(404, "Not Found")
}

/// For programs that drive the stub from elsewhere.
fn steer(state: &mut State, method: &str, what: &str, body: Value) -> Answer {
    fn put<T: serde::de::DeserializeOwned>(body: Value, take: impl FnOnce(T)) -> Answer {
        match serde_json::from_value(body) {
            Ok(value) => {
                take(value);
                Answer::new(204, Value::Null)
            }
            Err(error) => refusal(400, &error.to_string()),
        }
    }

    match (method, what) {
        ("GET", "requests") => Answer::new(200, json!(state.requests)),
        ("GET", "state") => {
            Answer::new(200, json!({"runs": state.runs, "check_runs": state.check_runs, "statuses": state.statuses}))
        }
        ("PUT", "runs") => put(body, |runs: Vec<Run>| runs.into_iter().for_each(|run| state.put_run(run))),
        ("PUT", "faults") => put(body, |faults| state.faults = faults),
        ("PUT", "permissions") => put(body, |permissions| state.permissions = permissions),
        ("PUT", "expire") => {
            state.expire_tokens();
            Answer::new(204, Value::Null)
        }
        _ => not_found(),
    }
}

fn route(state: &mut State, who: Who, method: &str, path: &str, body: &Value) -> Answer {
    let path = path.strip_prefix("/api/v3").unwrap_or(path);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if let ("POST", ["app", "installations", _, "access_tokens"]) = (method, parts.as_slice()) {
        return login(state, who);
    }
    match who {
        Who::Nobody => return refusal(401, "Requires authentication"),
        Who::Other => return refusal(401, "Bad credentials"),
        Who::App => return not_found(),
        Who::Installation | Who::Token => {}
    }
    match (method, parts.as_slice()) {
        ("GET", ["rate_limit"]) => {
            let core = json!({"limit": 5000, "used": state.count, "remaining": 5000_u64.saturating_sub(state.count), "reset": Timestamp::now().as_second() + 3600});
            Answer::new(200, json!({"resources": {"core": core, "search": core}, "rate": core}))
        }
        (_, ["repos", owner, name, rest @ ..]) => {
            repository(state, who, method, &format!("{owner}/{name}"), rest, query, body)
        }
        _ => not_found(),
    }
}

fn login(state: &mut State, who: Who) -> Answer {
    if who != Who::App {
        return refusal(401, "A JSON web token could not be decoded");
    }
    let now = Timestamp::now();
    let life = SignedDuration::from_secs(state.token_life_s.into());
    // In whole seconds, as GitHub's.
    let end = Timestamp::from_second(now.saturating_add(life).unwrap_or(now).as_second()).unwrap_or(now).to_string();
    let token = state.give_token();
    Answer::new(
        201,
        json!({
            "token": token, "expires_at": end, "permissions": state.permissions, "repository_selection": "selected",
        }),
    )
}

fn repository(
    state: &mut State,
    who: Who,
    method: &str,
    repository: &str,
    rest: &[&str],
    query: &str,
    body: &Value,
) -> Answer {
    let may = |state: &State, name: &str, level: &str| {
        // A personal token may all but what only Apps may.
        who == Who::Token || state.permissions.get(name).is_some_and(|given| given == "write" || given == level)
    };
    let forbidden = |needed: &str| {
        let mut answer = refusal(403, "Resource not accessible by integration");
        answer.headers.push(("x-accepted-github-permissions".to_owned(), needed.to_owned()));
        answer
    };
    match (method, rest) {
        (_, ["actions", "runs", id, rest @ ..]) => {
            if !may(state, "actions", if method == "GET" { "read" } else { "write" }) {
                return forbidden(if method == "GET" { "actions=read" } else { "actions=write" });
            }
            let id = id.parse::<u64>().ok();
            let now_ms = state.now_ms();
            match state.runs.iter_mut().find(|run| Some(run.id) == id && run.repository == repository) {
                Some(run) => self::run(run, method, rest, query, now_ms),
                None => not_found(),
            }
        }
        ("GET", ["commits", sha, "check-runs"]) => {
            if !may(state, "checks", "read") {
                return forbidden("checks=read");
            }
            let name = parameter(query, "check_name");
            let found: Vec<Value> = state
                .check_runs
                .iter()
                .filter(|check| check.repository == repository && check.head_sha == *sha)
                .filter(|check| name.as_ref().is_none_or(|name| check.body["name"] == **name))
                .map(check_json)
                .collect();
            let (total, page) = paged(&found, query);
            Answer::new(200, json!({"total_count": total, "check_runs": page}))
        }
        ("POST", ["check-runs"]) => {
            if who == Who::Token {
                return refusal(403, "You must authenticate via a GitHub App.");
            }
            if !may(state, "checks", "write") {
                return forbidden("checks=write");
            }
            let (Some(_), Some(sha)) = (body["name"].as_str(), body["head_sha"].as_str()) else {
                return refusal(422, "Invalid request.\n\n\"name\", \"head_sha\" weren't supplied.");
            };
            let id = 1000 + state.check_runs.len() as u64;
            let check =
                CheckRun { repository: repository.to_owned(), id, head_sha: sha.to_owned(), body: body.clone() };
            let answer = check_json(&check);
            state.check_runs.push(check);
            Answer::new(201, answer)
        }
        ("POST", ["statuses", sha]) => {
            if !may(state, "statuses", "write") {
                return forbidden("statuses=write");
            }
            state.statuses.push(Status {
                repository: repository.to_owned(),
                sha: (*sha).to_owned(),
                body: body.clone(),
            });
            Answer::new(201, json!({"id": state.statuses.len(), "state": body["state"], "context": body["context"]}))
        }
        _ => not_found(),
    }
}

fn run(run: &mut Run, method: &str, rest: &[&str], query: &str, now_ms: u64) -> Answer {
    match (method, rest) {
        ("GET", []) => {
            run.look(now_ms);
            Answer::new(200, run_json(run))
        }
        ("GET", ["jobs"]) => {
            let jobs: Vec<Value> = run.jobs.iter().map(|job| job_json(run, job)).collect();
            let (total, page) = paged(&jobs, query);
            Answer::new(200, json!({"total_count": total, "jobs": page}))
        }
        ("POST", ["cancel" | "force-cancel"]) if run.completed() => {
            refusal(409, "Cannot cancel a workflow run that is completed.")
        }
        ("POST", ["cancel"]) => {
            run.cancel(now_ms);
            Answer::new(202, json!({}))
        }
        ("POST", ["force-cancel"]) => {
            run.force();
            Answer::new(202, json!({}))
        }
        _ => not_found(),
    }
}

/// With more than a client asks for, as GitHub's have.
fn run_json(run: &Run) -> Value {
    json!({
        "id": run.id, "name": "CI", "status": run.status, "conclusion": run.conclusion, "head_sha": run.head_sha,
        "run_attempt": run.attempt, "html_url": format!("https://github.com/{}/actions/runs/{}", run.repository, run.id),
        "repository": {"full_name": run.repository}, "event": "push", "head_branch": "main", "head_commit": null,
    })
}

fn job_json(run: &Run, job: &Job) -> Value {
    json!({
        "id": job.id, "run_id": run.id, "name": job.name, "status": job.status, "conclusion": job.conclusion,
        "html_url": format!("https://github.com/{}/actions/runs/{}/job/{}", run.repository, run.id, job.id),
        "runner_name": job.runner_name, "runner_id": null, "labels": ["arc"], "steps": [],
    })
}

fn check_json(check: &CheckRun) -> Value {
    json!({
        "id": check.id, "name": check.body["name"], "head_sha": check.head_sha, "external_id": check.body["external_id"],
        "status": check.body["status"], "conclusion": check.body["conclusion"],
        "html_url": format!("https://github.com/{}/runs/{}", check.repository, check.id),
    })
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = value.bytes();
    let mut text = Vec::new();
    while let Some(byte) = bytes.next() {
        let mut hex = || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        text.push(match byte {
            b'%' => hex()? << 4 | hex()?,
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(text).ok()
}

fn paged<'a>(all: &'a [Value], query: &str) -> (usize, &'a [Value]) {
    let number = |name, usual: usize| parameter(query, name).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let size = number("per_page", 30).clamp(1, 100);
    let from = (number("page", 1).max(1) - 1).saturating_mul(size).min(all.len());
    (all.len(), &all[from..all.len().min(from + size)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_parameters() {
        let all: Vec<Value> = (0..5).map(Value::from).collect();
        assert_eq!(paged(&all, "per_page=2&page=3"), (5, &all[4..]));
        assert_eq!(paged(&all, "per_page=2&page=9"), (5, &all[5..]));
        assert_eq!(parameter("a=1&check_name=x%20%2Fy", "check_name").as_deref(), Some("x /y"));
        assert_eq!(parameter("a=%zz", "a"), None);
    }
}
