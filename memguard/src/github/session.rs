//! Who we are to GitHub at the moment: the token in use, and how another one is got.

use std::time::{Duration, Instant};

use http::Method;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::{
    Server,
    answer::Answer,
    call::Call,
    credentials::{self, App, Credentials, Stamp},
    keeper::Keeper,
    settings::{SetupError, Source},
};
use crate::remote::Failure;

/// Tokens live an hour; one that would end within a request is replaced before.
const MARGIN: Duration = Duration::from_mins(5);
/// GitHub takes what was issued by a clock that is a minute off.
const SKEW_S: i64 = 30;
/// Who keeps credentials elsewhere is asked so often, while they are in use, whether they have changed.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// Where GitHub does not say how long a token lives.
const UNKNOWN_LIFE: Duration = Duration::from_mins(10);

const LOGIN_REFUSED: &str = "look whether the private key is one of this App's, and whether the App still exists";

pub(super) struct Session {
    origin: Origin,
    state: Mutex<State>,
}

/// Where the credentials come from.
enum Origin {
    Files(Source),
    Kept(Box<dyn Keeper>),
}

#[derive(Default)]
struct State {
    /// `None` until they were read.
    credentials: Option<Credentials>,
    stamp: Stamp,
    /// The version that somebody else keeps, and when it was looked at.
    version: Option<String>,
    looked: Option<Instant>,
    token: Option<Token>,
    /// Counts tokens, so that one that was refused is told from its successor.
    number: u64,
    /// GitHub's clock less ours, in seconds, once it turned out that they differ.
    skew_s: i64,
    /// Why the credentials could not be read again.
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
        let credentials = Some(credentials::load(&source)?);
        Ok(Self { origin: Origin::Files(source), state: Mutex::new(State { credentials, stamp, ..State::default() }) })
    }

    /// Nothing is read before it is needed.
    pub(super) fn kept(keeper: Box<dyn Keeper>) -> Self {
        Self { origin: Origin::Kept(keeper), state: Mutex::default() }
    }

    /// The token to use now: the one at hand, or a new one. Whoever comes meanwhile waits for the same one.
    pub(super) async fn token(&self, server: &Server) -> Result<Token, Failure> {
        let mut state = self.state.lock().await;
        self.reread(&mut state, false).await?;
        if let Some(token) = &state.token
            && token.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(token.clone());
        }
        let failure = match state.log_in(server).await {
            Ok(token) => return Ok(token),
            Err(failure) => failure,
        };
        // What somebody else keeps may have been replaced since it was looked at.
        if matches!(self.origin, Origin::Kept(_)) && self.reread(&mut state, true).await? {
            let token = state.log_in(server).await;
            return token.map_err(|failure| state.explained(failure));
        }
        Err(state.explained(failure))
    }

    /// A token was refused. Says whether there can be another one: the same word twice is no use.
    pub(super) async fn refused(&self, number: u64) -> bool {
        let mut state = self.state.lock().await;
        // Somebody else found out before, and got another one.
        if state.token.as_ref().is_none_or(|token| token.number != number) {
            return true;
        }
        // Whatever is read next time, it is read anew.
        (state.stamp, state.looked) = (Stamp::new(), None);
        if matches!(state.credentials, Some(Credentials::App(_))) {
            state.token = None;
            return true;
        }
        // What could not be read is told by the next attempt to get a token.
        self.reread(&mut state, true).await.is_err() || state.token.is_none()
    }

    /// Reads the credentials again if they are others than before, and says whether they are. `now`: not only when it is
    /// time to look.
    ///
    /// What can't be read leaves things as they are: a file that is just being replaced is there a moment later, and so is
    /// an API server. Only a keeper who refuses for good has the last word.
    async fn reread(&self, state: &mut State, now: bool) -> Result<bool, Failure> {
        match &self.origin {
            Origin::Files(source) => Ok(state.reread_files(source).await),
            Origin::Kept(keeper) => {
                if !now && state.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
                    return Ok(false);
                }
                state.take_kept(&**keeper).await
            }
        }
    }

    /// Why the credentials could not be read again, if that is so.
    pub(super) async fn problem(&self) -> Option<String> {
        self.state.lock().await.problem.clone()
    }

    /// Whose they are, for people.
    pub(super) fn whose(&self) -> String {
        match &self.origin {
            Origin::Files(Source::App { id, installation, .. }) => format!("installation {installation} of App {id}"),
            Origin::Files(Source::Token(path)) => format!("whoever the token in {} is of", path.display()),
            Origin::Files(Source::Folder(path)) => format!("the credentials in {} say", path.display()),
            Origin::Files(Source::Arc) => "a runner's own secret says".to_owned(),
            Origin::Kept(keeper) => format!("{} says", keeper.name()),
        }
    }
}

impl State {
    async fn log_in(&mut self, server: &Server) -> Result<Token, Failure> {
        let number = self.number + 1;
        let token = match self.credentials.clone() {
            None => return Err(Failure::Later { after: None, why: "there are no credentials yet".to_owned() }),
            Some(Credentials::Token(secret)) => Token { secret, number, until: None, permissions: None },
            Some(Credentials::App(app)) => {
                let (secret, until, permissions) = login(server, &app, &mut self.skew_s).await?;
                Token { secret, number, until: Some(until), permissions }
            }
        };
        self.number = number;
        self.token = Some(token.clone());
        Ok(token)
    }

    /// Whether they are others than before.
    async fn reread_files(&mut self, source: &Source) -> bool {
        let (source, old) = (source.clone(), self.stamp.clone());
        let read = tokio::task::spawn_blocking(move || {
            let stamp = credentials::stamp(&source);
            (stamp != old).then(|| (stamp, credentials::load(&source)))
        });
        match read.await {
            Ok(Some((stamp, Ok(credentials)))) => {
                self.stamp = stamp;
                self.use_from_now_on(credentials)
            }
            Ok(Some((_, Err(error)))) => {
                self.problem = Some(error.to_string());
                false
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// The same with what somebody else keeps.
    async fn take_kept(&mut self, keeper: &dyn Keeper) -> Result<bool, Failure> {
        let kept = match keeper.read().await {
            Ok(kept) => kept,
            Err(failure @ Failure::Later { .. }) if self.credentials.is_some() => {
                self.problem = Some(failure.to_string());
                return Ok(false);
            }
            Err(failure) => {
                (self.credentials, self.token, self.version) = (None, None, None);
                return Err(failure);
            }
        };
        self.looked = Some(Instant::now());
        if self.version.as_ref() == Some(&kept.version) {
            self.problem = None;
            return Ok(false);
        }
        match credentials::from_kept(&keeper.name(), &kept) {
            Ok(credentials) => {
                self.version = Some(kept.version);
                Ok(self.use_from_now_on(credentials))
            }
            Err(error) if self.credentials.is_some() => {
                self.problem = Some(error.to_string());
                Ok(false)
            }
            Err(error) => {
                self.looked = None;
                Err(Failure::Final { why: error.to_string() })
            }
        }
    }

    fn use_from_now_on(&mut self, credentials: Credentials) -> bool {
        self.problem = None;
        if self.credentials.as_ref().is_some_and(|old| old.same(&credentials)) {
            return false;
        }
        (self.token, self.credentials) = (None, Some(credentials));
        true
    }

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
async fn login(server: &Server, app: &App, skew_s: &mut i64) -> Result<Login, Failure> {
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
    let mut answer = ask(server, app, &call, *skew_s).await?;
    if answer.status == 401
        && let Some(theirs) = answer.date()
    {
        let skew = theirs.as_second().saturating_sub(Timestamp::now().as_second());
        if skew.abs_diff(*skew_s) > SKEW_S.unsigned_abs() {
            *skew_s = skew;
            answer = ask(server, app, &call, skew).await?;
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

async fn ask(server: &Server, app: &App, call: &Call, skew_s: i64) -> Result<Answer, Failure> {
    let now = Timestamp::now().as_second().saturating_add(skew_s);
    let jwt = app.jwt(now).ok_or_else(|| call.never("the private key can't sign"))?;
    server.send(&jwt, call).await
}
