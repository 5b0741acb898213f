//! Answers, and what those mean that refuse. Pure: the time is an argument.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, header};
use jiff::{Timestamp, fmt::rfc2822};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::DeserializeOwned};

use super::call::Call;
use crate::remote::{Failure, server_text};

/// GitHub's limits are counted by the hour; a time further away is a clock that is wrong.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// What GitHub asks for when it says "slow down" without a time.
const USUAL_WAIT: Duration = Duration::from_mins(1);
/// Errors of a 422 that are shown.
const SHOWN_ERRORS: usize = 3;

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// What it says, if it is GitHub that says it: fit to be shown.
    message: Option<String>,
    secret: SecretString,
}

impl Answer {
    /// `secret` was sent with the request, and is taken out of what the server says.
    pub(super) fn new(status: u16, headers: HeaderMap, body: Vec<u8>, secret: SecretString) -> Self {
        let said = if status < 400 { None } else { message(&body) };
        let mut answer = Self { status, headers, body, message: None, secret };
        answer.message = said.map(|text| answer.shown(&text));
        answer
    }

    /// Any text of it, fit to be shown.
    pub(super) fn shown(&self, text: &str) -> String {
        without(&self.secret, text)
    }

    pub(super) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn named(&self, name: &'static str) -> Option<&str> {
        self.header(&HeaderName::from_static(name))
    }

    /// GitHub's clock, if it told it.
    pub(super) fn date(&self) -> Option<Timestamp> {
        date(self.header(&header::DATE)?)
    }

    /// Itself, if the request was granted.
    pub(super) fn granted(self, call: &Call) -> Result<Self, Failure> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.refusal(call, SystemTime::now())) }
    }

    /// What it holds. An answer that is no such thing was cut short or is not GitHub's.
    pub(super) fn read<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // Not the error's own words: they repeat what was read.
            let what = if error.is_eof() { "ends too early" } else { "is not what GitHub's description says" };
            call.later(&format!("the answer {what} (line {}, column {})", error.line(), error.column()))
        })
    }

    /// Whether GitHub says "not now" rather than "no".
    fn limited(&self) -> bool {
        let says_so = || {
            let text = self.message.as_deref().unwrap_or_default().to_ascii_lowercase();
            text.contains("rate limit") || text.contains("abuse detection")
        };
        self.status == 429
            || self.status == 403
                && (self.headers.contains_key(header::RETRY_AFTER)
                    || self.named("x-ratelimit-remaining").is_some_and(|left| left.trim() == "0")
                    || says_so())
    }

    /// Whether it is GitHub's own "you may not", which no waiting changes.
    pub(super) fn forbidden(&self) -> bool {
        self.status == 403 && !self.limited() && self.message.is_some()
    }

    /// For how long the server wants to be left alone. Its own clock counts where it told it.
    fn wait(&self, now: SystemTime) -> Option<Duration> {
        let now = self.date().or_else(|| Timestamp::try_from(now).ok());
        let until = |time: Timestamp| {
            let seconds = time.as_second().checked_sub(now?.as_second())?;
            Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
        };
        let asked = self.header(&header::RETRY_AFTER).and_then(|text| {
            let text = text.trim();
            text.parse().map(Duration::from_secs).ok().or_else(|| until(date(text)?))
        });
        let reset = || {
            let exhausted = self.named("x-ratelimit-remaining").is_some_and(|left| left.trim() == "0");
            let at = exhausted.then(|| self.named("x-ratelimit-reset")).flatten()?;
            until(Timestamp::from_second(at.trim().parse().ok()?).ok()?)
        };
        let wait = asked.or_else(reset).or_else(|| self.limited().then_some(USUAL_WAIT));
        wait.map(|wait| wait.clamp(Duration::from_secs(1), LONGEST_WAIT))
    }

    /// What an answer means that is no success.
    pub(super) fn refusal(&self, call: &Call, now: SystemTime) -> Failure {
        let status = self.status;
        let Some(message) = &self.message else {
            // GitHub refuses with JSON that says why. Anything else is a proxy's, or that of a server that is on its knees.
            let why = call.says(&format!("the answer is {status}, and not in GitHub's words"));
            return Failure::Later { after: self.wait(now), why };
        };
        let mut why = call.says(&format!("GitHub says \"{message}\" ({status})"));
        if self.limited() {
            let after = self.wait(now);
            let _ = write!(why, "; it is asked again in {} s or later", after.unwrap_or_default().as_secs());
            return Failure::Later { after, why };
        }
        match status {
            401 => {
                let _ = write!(why, "; {}", call.unauthorized);
                Failure::Later { after: None, why }
            }
            403 => {
                let _ = write!(why, "; {}", call.forbidden);
                if let Some(asked) = self.named("x-accepted-github-permissions") {
                    let _ = write!(why, " (GitHub asks for {})", self.shown(asked));
                }
                Failure::Final { why }
            }
            404 => {
                let _ = write!(why, "; {}", call.unknown);
                Failure::Final { why }
            }
            408 | 409 | 425 | 500.. => Failure::Later { after: self.wait(now), why },
            _ => Failure::Final { why },
        }
    }
}

/// A text of a server, fit to be shown, and without what was sent to it.
pub(super) fn without(secret: &SecretString, text: &str) -> String {
    let secret = secret.expose_secret();
    if !secret.is_empty() && text.contains(secret) {
        server_text(&text.replace(secret, "[token]"))
    } else {
        server_text(text)
    }
}

fn date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

/// What GitHub says in a refusal: its message, and for a 422 what it does not like.
fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
        #[serde(default)]
        errors: serde_json::Value,
    }
    let Refusal { mut message, errors } = serde_json::from_slice(body).ok()?;
    for error in errors.as_array().into_iter().flatten().take(SHOWN_ERRORS) {
        let part = |name: &str| error.get(name).and_then(|value| value.as_str());
        let text = match (error.as_str().or_else(|| part("message")), part("field"), part("code")) {
            (Some(text), ..) => text.to_owned(),
            (None, Some(field), Some(code)) => format!("{field}: {code}"),
            _ => continue,
        };
        let _ = write!(message, "; {text}");
    }
    Some(message)
}

#[cfg(test)]
mod tests;
