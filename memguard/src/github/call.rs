//! One request: in what words it is spoken of, and how it is sent with a token that may have to be renewed.

use http::Method;
use serde_json::Value;

use super::{Inner, answer::Answer, transport::Broken};
use crate::remote::Failure;

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Below the API's address, with the query.
    pub(super) path: String,
    pub(super) body: Option<Value>,
    /// "cancel run 7 of octo/repo"
    pub(super) what: String,
    /// What to do about a 401, 403 or 404.
    pub(super) unauthorized: &'static str,
    pub(super) forbidden: &'static str,
    pub(super) unknown: &'static str,
}

impl Call {
    pub(super) fn new(method: Method, path: String, what: String) -> Self {
        Self {
            method,
            path,
            body: None,
            what,
            unauthorized: "the token is wrong, has run out or was revoked; put a new one into its file or Secret",
            forbidden: "the App or the token lacks a permission",
            unknown: "GitHub says so too of what the credentials may not see: is the App installed for this repository, \
                      or may the token read it?",
        }
    }

    pub(super) fn says(&self, why: &str) -> String {
        format!("can't {}: {why}", self.what)
    }

    pub(super) fn later(&self, why: &str) -> Failure {
        Failure::Later { after: None, why: self.says(why) }
    }

    pub(super) fn never(&self, why: &str) -> Failure {
        Failure::Final { why: self.says(why) }
    }

    pub(super) fn broken(&self, broken: &Broken) -> Failure {
        match broken {
            Broken::Cut(why) => self.later(why),
            Broken::Elsewhere { status, host } => {
                let why = format!(
                    "the server sends to {host} ({status}), where no token is sent; if GitHub has moved, set github.url"
                );
                // For good, says the server.
                if matches!(status, 301 | 308) { self.never(&why) } else { self.later(&why) }
            }
        }
    }
}

impl Inner {
    /// Sends it and returns the answer, whatever it is. A token that is refused is renewed once.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, Failure> {
        let Self { server, session } = self;
        let token = session.token(server).await?;
        let answer = server.send(&token.secret, call).await?;
        if answer.status != 401 || !session.refused(token.number).await {
            return Ok(answer);
        }
        let token = session.token(server).await?;
        let answer = server.send(&token.secret, call).await?;
        if answer.status == 401 {
            session.refused(token.number).await;
        }
        Ok(answer)
    }

    /// Sends it and returns the answer, if it was granted.
    pub(super) async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        self.send(call).await?.granted(call)
    }
}
