//! Requests to the Kubernetes API: in what words they are spoken of, and what their errors mean.

use std::{fmt::Write as _, time::Duration};

use kube::{Client, core::Status};

use crate::{
    remote::{Failure, chain, server_text},
    telemetry::escaped,
};

/// The role whose rules memguard's service account has.
const CLUSTER_ROLE: &str = "memguard";
/// A resource that the role leaves out.
pub(super) const SECRETS: &str = "secrets";
/// For a request with its whole answer. The client has a limit of its own for the beginning of an answer; this one ends
/// an answer that never ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for, in the words of RBAC.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) verb: &'static str,
    /// With its group: `ephemeralrunners.actions.github.com`.
    pub(super) resource: &'static str,
    /// `namespace/name`, or whatever tells which.
    pub(super) of: String,
}

impl Call {
    /// Sends it, and reads the whole answer.
    pub(super) async fn send(
        &self,
        client: &Client,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<String, kube::Error> {
        let request = request.map_err(kube::Error::BuildRequest)?;
        match tokio::time::timeout(PATIENCE, client.request_text(request)).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
        }
    }

    pub(super) fn later(&self, why: &str) -> Failure {
        Failure::Later { after: None, why: self.says(why) }
    }

    pub(super) fn never(&self, why: &str) -> Failure {
        Failure::Final { why: self.says(why) }
    }

    fn says(&self, why: &str) -> String {
        format!("can't {} {} {}: {why}", self.verb, self.resource, escaped(&self.of))
    }

    pub(super) fn failed(&self, error: &kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) => self.refused(status),
            // What an exec plugin printed can hold a token, and what a proxy's address holds can be a password.
            kube::Error::Auth(_) => self.later("the credentials can't be read or renewed; look at the token file"),
            kube::Error::ProxyProtocolUnsupported { .. } | kube::Error::ProxyProtocolDisabled { .. } => {
                self.never("the kubeconfig names a proxy that is not supported; http and https are")
            }
            kube::Error::Service(_)
            | kube::Error::HyperError(_)
            | kube::Error::ReadEvents(_)
            | kube::Error::FromUtf8(_)
            | kube::Error::LinesCodecMaxLineLengthExceeded
            // Half an answer.
            | kube::Error::SerdeError(_) => self.later(&server_text(&chain(error))),
            _ => self.never(&server_text(&chain(error))),
        }
    }

    /// How it is given the right to this.
    fn right(&self) -> String {
        let (verb, resource) = (self.verb, self.resource);
        match self.of.split_once('/') {
            // Never for the whole cluster.
            Some((namespace, name)) if resource == SECRETS => format!(
                "give memguard's service account a Role in namespace {} with the verb \"{verb}\" on Secret {} (the chart's \
                 value github.arcSecrets), or give memguard credentials of its own",
                escaped(namespace),
                escaped(name)
            ),
            _ => format!("give ClusterRole {CLUSTER_ROLE} the verb \"{verb}\" on {resource}"),
        }
    }

    fn refused(&self, status: &Status) -> Failure {
        let mut why = self.says("");
        let _ = write!(why, "{} ({})", server_text(&status.message), status.code);
        let after = status.details.as_ref().map(|details| u64::from(details.retry_after_seconds));
        let after = after.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        match status.code {
            403 => {
                let cause = |reason| {
                    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == reason)
                };
                // Not a matter of rights, though it has the same code.
                if !cause("NamespaceTerminating") {
                    let _ = write!(why, "; {}", self.right());
                }
                Failure::Final { why }
            }
            // 0: something between here and the API server that answers JSON of its own. 401: a token that has just run out
            // is read anew within a minute.
            0 | 401 | 408 | 429 | 500.. => Failure::Later { after, why },
            _ => Failure::Final { why },
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    const CALL: Call = Call { verb: "get", resource: "ephemeralrunners.actions.github.com", of: String::new() };

    fn status(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure(message, "").with_code(code)))
    }

    fn details(retry_after_seconds: u32, cause: &str) -> StatusDetails {
        let cause = StatusCause { reason: cause.to_owned(), message: String::new(), field: String::new() };
        StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![cause],
            retry_after_seconds,
        }
    }

    #[test]
    fn what_can_get_better_is_tried_again() {
        for code in [0, 401, 408, 429, 500, 502, 503, 504] {
            assert!(matches!(CALL.failed(&status(code, "x")), Failure::Later { after: None, .. }), "{code}");
        }
        for code in [400, 403, 404, 405, 409, 410, 422] {
            assert!(matches!(CALL.failed(&status(code, "x")), Failure::Final { .. }), "{code}");
        }
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let failure = CALL.failed(&kube::Error::Service(refused.into()));
        assert!(matches!(&failure, Failure::Later { why, .. } if why.contains("refused")), "{failure:?}");
        let busy = Status::failure("slow down", "TooManyRequests").with_code(429).with_details(details(7, ""));
        let failure = CALL.failed(&kube::Error::Api(Box::new(busy)));
        assert!(matches!(failure, Failure::Later { after: Some(after), .. } if after == Duration::from_secs(7)));
    }

    #[test]
    fn a_missing_right_is_named() {
        let why = CALL.failed(&status(403, "no")).to_string();
        for part in ["ClusterRole memguard", "\"get\"", "ephemeralrunners.actions.github.com"] {
            assert!(why.contains(part), "{why}");
        }
        let ending = Status::failure("it ends", "Forbidden").with_code(403);
        let ending = ending.with_details(details(0, "NamespaceTerminating"));
        assert!(!CALL.failed(&kube::Error::Api(Box::new(ending))).to_string().contains("ClusterRole"));
    }

    #[test]
    fn credentials_that_an_exec_plugin_printed_stay_hidden() {
        let error = kube::client::AuthError::AuthExec("password hunter2".to_owned());
        assert!(!CALL.failed(&kube::Error::Auth(error)).to_string().contains("hunter2"));
    }
}
