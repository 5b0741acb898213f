//! An API server for tests that answers request by request.

use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower_test::mock::{self, Handle, SendResponse};

type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

pub(super) struct Server(Handle<Request<Body>, Answer>);

/// A request that waits for its answer.
pub(super) struct Asked {
    pub(super) method: Method,
    /// With the query.
    pub(super) path: String,
    pub(super) body: Value,
    answer: SendResponse<Answer>,
}

pub(super) fn server() -> (Client, Server) {
    let (service, handle) = mock::pair();
    (Client::new(service, "default"), Server(handle))
}

impl Server {
    pub(super) async fn next(&mut self) -> Asked {
        let (request, answer) = self.0.next_request().await.expect("the client is there");
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Asked { method: parts.method, path: parts.uri.to_string(), body, answer }
    }

    /// The next request, which has to be this one.
    pub(super) async fn expect(&mut self, method: &Method, path: &str) -> Asked {
        let asked = self.next().await;
        assert_eq!((&asked.method, asked.path.trim_end_matches(['?', '&'])), (method, path));
        asked
    }
}

impl Asked {
    pub(super) fn json(self, code: u16, body: &Value) {
        self.text(code, body.to_string());
    }

    pub(super) fn text(self, code: u16, body: String) {
        let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
        self.answer.send_response(Response::builder().status(code).body(body).unwrap());
    }

    /// As the API server refuses.
    pub(super) fn refuse(self, code: u16, message: &str) {
        self.json(code, &status(code, message));
    }

    /// No answer at all.
    pub(super) fn break_off(self) {
        self.answer.send_error(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    }

    /// An answer that comes piece by piece.
    pub(super) fn stream<S>(self, pieces: S)
    where
        S: futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> + Send + 'static,
    {
        self.answer.send_response(Response::new(StreamBody::new(pieces).boxed_unsync()));
    }
}

pub(super) fn status(code: u16, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
    })
}

/// A runner's pod as ARC makes it.
pub(super) fn runner_pod(uid: &str, name: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "ci", "uid": uid, "resourceVersion": "5",
            "labels": {"actions-ephemeral-runner": "True"},
            "annotations": {"memguard.dev/mode": "observe", "other/annotation": "x"},
            "managedFields": [{"manager": "ghalistener"}],
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Something", "name": "else", "uid": "0"},
                {
                    "apiVersion": "actions.github.com/v1alpha1", "kind": "EphemeralRunner", "name": name,
                    "uid": format!("runner-of-{uid}"), "controller": true, "blockOwnerDeletion": true,
                },
            ],
        },
        "spec": {
            "nodeName": "node-1",
            "initContainers": [{"name": "dind", "image": "d", "restartPolicy": "Always"}, {"name": "init", "image": "i"}],
            "containers": [{
                "name": "runner", "image": "r", "env": [{"name": "SECRET", "value": "x"}],
                "resources": {"limits": {"memory": "4Gi", "cpu": "2"}},
            }],
        },
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": "runner", "containerID": format!("containerd://{}", "a".repeat(64))}],
            "initContainerStatuses": [
                {"name": "dind", "containerID": format!("containerd://{}", "b".repeat(64))},
                {"name": "init", "containerID": format!("containerd://{}", "c".repeat(64))},
            ],
            "ephemeralContainerStatuses": [{"name": "debug", "containerID": format!("cri-o://{}", "d".repeat(64))}],
        },
    })
}
