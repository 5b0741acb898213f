//! What goes wrong, and when.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Something that goes wrong with the next request that it is meant for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests.
    #[serde(default)]
    pub on: On,
    /// With so many of them; `None` for all.
    #[serde(default = "once")]
    pub times: Option<u32>,
    pub what: What,
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the field that it is the default of")]
const fn once() -> Option<u32> {
    Some(1)
}

/// All that is said has to be so.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct On {
    /// The request's number, from 1.
    pub number: Option<u64>,
    pub method: Option<String>,
    /// A part of the path.
    pub path: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Another answer, and the request has no effect.
    Answer {
        code: u16,
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// An object is sent as JSON, a text as it is.
        #[serde(default)]
        body: Value,
    },
    /// Nothing at all comes, and the connection stays.
    Hang,
    /// The connection is cut; the request had no effect.
    Cut,
    /// The connection is cut after the request had its effect.
    Lost,
    /// The request has its effect, and half of the answer arrives.
    Half,
    /// The request has its effect, and the answer is not what it should be.
    Garbage,
    /// The request has its effect, and its answer comes byte by byte.
    Slow { pause_ms: u64 },
    /// The request has its effect, and its answer never ends.
    Endless,
}

impl Fault {
    /// Of the next request, whichever that is.
    #[must_use]
    pub fn next(what: What) -> Self {
        Self { on: On::default(), times: Some(1), what }
    }

    /// Of the next request with this in its path.
    #[must_use]
    pub fn at(path: &str, what: What) -> Self {
        Self { on: On { path: Some(path.to_owned()), ..On::default() }, times: Some(1), what }
    }

    /// Of all such requests.
    #[must_use]
    pub fn always(self) -> Self {
        Self { times: None, ..self }
    }

    /// Whether it is this request's; then it is used up by one.
    pub(super) fn strikes(&mut self, number: u64, method: &str, path: &str) -> bool {
        let On { number: which, method: how, path: part } = &self.on;
        let meant = which.is_none_or(|which| which == number)
            && how.as_ref().is_none_or(|how| how == method)
            && part.as_ref().is_none_or(|part| path.contains(part.as_str()));
        if !meant || self.times == Some(0) {
            return false;
        }
        self.times = self.times.map(|times| times - 1);
        true
    }
}

impl What {
    /// A refusal in GitHub's words.
    #[must_use]
    pub fn refusal(code: u16, message: &str) -> Self {
        Self::Answer {
            code,
            headers: Vec::new(),
            body: json!({"message": message, "documentation_url": "https://docs.github.com"}),
        }
    }

    /// The same with headers.
    #[must_use]
    pub fn refusal_with(code: u16, message: &str, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::Answer { code, headers, body: json!({"message": message}) }
    }

    /// What a client gets that made too much at once.
    #[must_use]
    pub fn secondary_limit() -> Self {
        Self::refusal(403, "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.")
    }
}
