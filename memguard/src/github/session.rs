//! Who we are to GitHub at the moment: the token in use, and how another one is got.

use std::time::{Duration, Instant};

use http::Method;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::{
    answer::Answer,
    call::Call,
    credentials::{self, App, Credentials, Stamp},
    settings::{SetupError, Source},
    transport::Transport,
};
use crate::remote::Failure;

/// Tokens live an hour; one that would end within a request is replaced before.
const MARGIN: Duration = Duration::from_mins(5);
/// GitHub takes what was issued by a clock that is a minute off.
const SKEW_S: i64 = 30;
/// Where GitHub does not say how long a token lives.
const UNKNOWN_LIFE: Duration = Duration::from_mins(10);

const LOGIN_REFUSED: &str = "look whether the private key is one of this App's, and whether the App still exists";

pub(super) struct Session {
    source: Source,
    state: Mutex<State>,
}

struct State {
    credentials: Credentials,
    stamp: Stamp,
    token: Option<Token>,
    /// Counts tokens, so that one that was refused is told from its successor.
    number: u64,
    /// GitHub's clock less ours, in seconds, once it turned out that they differ.
    skew_s: i64,
    /// Why the files could not be read again.
    problem: Option<String>,
}

/// A token in use.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) secret: SecretString,
    pub(super) number: u64,
    until: Option<Instant>,
    /// What it may do, as GitHub said when it gave it.
    pub(super) permissions: Option<Map<String, Value>>,
}

impl Session {
    pub(super) fn new(source: Source) -> Result<Self, SetupError> {
        let stamp = credentials::stamp(&source);
        let credentials = credentials::load(&source)?;
        let state = State { credentials, stamp, token: None, number: 0, skew_s: 0, problem: None };
        Ok(Self { source, state: Mutex::new(state) })
    }

    /// The token to use now: the one at hand, or a new one. Whoever comes meanwhile waits for the same one.
    pub(super) async fn token(&self, transport: &Transport) -> Result<Token, Failure> {
        let mut state = self.state.lock().await;
        self.reread(&mut state).await;
        if let Some(token) = &state.token
            && token.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(token.clone());
        }
        let number = state.number + 1;
        let token = match state.credentials.clone() {
            Credentials::Token(secret) => Token { secret, number, until: None, permissions: None },
            Credentials::App(app) => match login(transport, &app, &mut state.skew_s).await {
                Ok((secret, until, permissions)) => Token { secret, number, until: Some(until), permissions },
                Err(failure) => return Err(state.explained(failure)),
            },
        };
        state.number = number;
        state.token = Some(token.clone());
        Ok(token)
    }

    /// A token was refused. Says whether there can be another one: the same word twice is no use.
    pub(super) async fn refused(&self, number: u64) -> bool {
        let mut state = self.state.lock().await;
        // Somebody else found out before, and got another one.
        if state.token.as_ref().is_none_or(|token| token.number != number) {
            return true;
        }
        if matches!(state.credentials, Credentials::App(_)) {
            state.token = None;
            return true;
        }
        state.stamp.clear();
        self.reread(&mut state).await;
        state.token.is_none()
    }

    /// Reads the files again if they are others than before. What can't be read leaves things as they are: a Secret that is
    /// just being replaced is there a moment later.
    async fn reread(&self, state: &mut State) {
        let source = self.source.clone();
        let old = state.stamp.clone();
        let read = tokio::task::spawn_blocking(move || {
            let stamp = credentials::stamp(&source);
            (stamp != old).then(|| (stamp, credentials::load(&source)))
        });
        match read.await {
            Ok(Some((stamp, Ok(credentials)))) => {
                if !state.credentials.same(&credentials) {
                    state.token = None;
                    state.credentials = credentials;
                }
                state.stamp = stamp;
                state.problem = None;
            }
            Ok(Some((_, Err(error)))) => state.problem = Some(error.to_string()),
            Ok(None) | Err(_) => {}
        }
    }

    /// Why the files could not be read again, if that is so.
    pub(super) async fn problem(&self) -> Option<String> {
        self.state.lock().await.problem.clone()
    }
}

impl State {
    fn explained(&self, failure: Failure) -> Failure {
        match (&self.problem, failure) {
            // The next try may find them whole.
            (Some(problem), Failure::Final { why } | Failure::Later { why, .. }) => Failure::Later {
                after: None,
                why: format!("{why}; and the credentials can't be read again: {problem}"),
            },
            (None, failure) => failure,
        }
    }
}

type Login = (SecretString, Instant, Option<Map<String, Value>>);

/// Gets a token for the App's installation.
async fn login(transport: &Transport, app: &App, skew_s: &mut i64) -> Result<Login, Failure> {
    let call = Call {
        unauthorized: LOGIN_REFUSED,
        forbidden: "the installation may be suspended: an owner of the organisation sees that in its settings",
        unknown: "this App has no such installation; look at the installation's number, and whether the App was uninstalled",
        ..Call::new(
            Method::POST,
            format!("/app/installations/{}/access_tokens", app.installation),
            format!("get a token for installation {} of the GitHub App", app.installation),
        )
    };
    let mut answer = ask(transport, app, &call, *skew_s).await?;
    if answer.status == 401
        && let Some(theirs) = answer.date()
    {
        let skew = theirs.as_second().saturating_sub(Timestamp::now().as_second());
        if skew.abs_diff(*skew_s) > SKEW_S.unsigned_abs() {
            *skew_s = skew;
            answer = ask(transport, app, &call, skew).await?;
        }
    }
    // This is about the key or the App, and no outage's doing; other words (a clock, a replica that lags) can change.
    let says = answer.message().unwrap_or_default().to_ascii_lowercase();
    if answer.status == 401 && (says.contains("could not be decoded") || says.contains("integration not found")) {
        let message = answer.message().unwrap_or_default();
        return Err(call.never(&format!("GitHub says \"{message}\" (401); {LOGIN_REFUSED}")));
    }
    let date = answer.date();
    let answer = answer.granted(&call)?;
    let given: Given = answer.read(&call)?;
    if given.token.is_empty() || !given.token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(call.later("the answer has no token that could be sent"));
    }
    // By GitHub's clock alone: ours may be wrong.
    let life = given.expires_at.and_then(|text| text.parse::<Timestamp>().ok()).and_then(|end| {
        let now = date.unwrap_or_else(Timestamp::now);
        u64::try_from(end.as_second() - now.as_second()).ok().map(Duration::from_secs)
    });
    let until = Instant::now() + life.unwrap_or(UNKNOWN_LIFE).min(Duration::from_hours(24)).saturating_sub(MARGIN);
    Ok((SecretString::from(given.token), until, given.permissions))
}

#[derive(Deserialize)]
struct Given {
    token: String,
    expires_at: Option<String>,
    permissions: Option<Map<String, Value>>,
}

async fn ask(transport: &Transport, app: &App, call: &Call, skew_s: i64) -> Result<Answer, Failure> {
    let now = Timestamp::now().as_second().saturating_add(skew_s);
    let jwt = app.jwt(now).ok_or_else(|| call.never("the private key can't sign"))?;
    transport.send(&jwt, &call.method, &call.path, None).await.map_err(|broken| call.broken(&broken))
}
