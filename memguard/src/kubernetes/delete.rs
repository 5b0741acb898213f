//! Deletion of a runner, after its container was killed: so that ARC makes a new one now, and not after an hour.

use kube::{
    Client,
    api::{DeleteParams, Preconditions},
};
use serde::Deserialize;

use super::runner::RunnerRef;
use crate::remote::Failure;

/// What came of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The API took it. The object can stay for a while: ARC's finalizers wait until GitHub has let go of the runner.
    Accepted,
    /// It was gone, or another one has its name by now.
    AlreadyGone,
}

/// Deletes a runner's object, and none but this one: its uid has to be known. Its pod is never deleted by memguard: that
/// is ARC's, which would make one again with a runner configuration that GitHub takes only once.
pub async fn delete_runner(client: &Client, runner: &RunnerRef) -> Result<Deleted, Failure> {
    let call = runner.deletion();
    let Some(uid) = runner.uid.clone().filter(|uid| !uid.is_empty()) else {
        return Err(call.never("its uid is not known, and another one could have its name by now"));
    };
    let precondition = Preconditions { uid: Some(uid.clone()), resource_version: None };
    let how = DeleteParams { preconditions: Some(precondition), ..DeleteParams::default() };
    let answer = call.send(client, runner.api.api(&runner.namespace).delete(&runner.name, &how)).await;
    match answer {
        Ok(_) => Ok(Deleted::Accepted),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Deleted::AlreadyGone),
        // Another uid, most likely. But a server says the same when it lost a race against somebody's update.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            if is_still_there(client, runner, &uid).await? {
                Err(call.later("it was changed at the same time"))
            } else {
                Ok(Deleted::AlreadyGone)
            }
        }
        Err(error) => Err(call.failed(&error)),
    }
}

async fn is_still_there(client: &Client, runner: &RunnerRef, uid: &str) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        uid: String,
    }

    let (call, answer) = runner.read(client).await;
    match answer {
        Ok(text) => match serde_json::from_str::<Object>(&text) {
            Ok(object) => Ok(object.metadata.uid == uid),
            Err(_) => Err(call.later("the answer is no object")),
        },
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(call.failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::{fixture::server, runner::Generation};

    const PATH: &str = "/apis/actions.github.com/v1alpha1/namespaces/ci/ephemeralrunners/runner-1";

    fn runner(api: Generation, uid: Option<&str>) -> RunnerRef {
        let uid = uid.map(str::to_owned);
        RunnerRef { api, namespace: "ci".to_owned(), name: "runner-1".to_owned(), uid }
    }

    /// What comes of a refusal, and of what a look at the object then finds.
    async fn refused(code: u16, then: Option<(u16, Value)>) -> Result<Deleted, Failure> {
        let (client, mut server) = server();
        let runner = runner(Generation::ScaleSets, Some("u-1"));
        let serve = async {
            server.expect(&Method::DELETE, PATH).await.refuse(code, "no");
            if let Some((code, body)) = then {
                server.expect(&Method::GET, PATH).await.json(code, &body);
            }
        };
        tokio::join!(delete_runner(&client, &runner), serve).0
    }

    #[tokio::test]
    async fn only_the_object_with_this_uid_is_deleted() {
        for (api, path) in [
            (Generation::ScaleSets, PATH),
            (Generation::Summerwind, "/apis/actions.summerwind.dev/v1alpha1/namespaces/ci/runners/runner-1"),
        ] {
            let (client, mut server) = server();
            let runner = runner(api, Some("u-1"));
            let serve = async {
                let asked = server.expect(&Method::DELETE, path).await;
                assert_eq!(asked.body, json!({"preconditions": {"uid": "u-1"}}));
                // With finalizers the answer is the object; without, a Status.
                asked.json(200, &json!({"kind": api.kind(), "metadata": {"uid": "u-1", "deletionTimestamp": "x"}}));
            };
            let (deleted, ()) = tokio::join!(delete_runner(&client, &runner), serve);
            assert_eq!(deleted, Ok(Deleted::Accepted));
        }
        let (client, _server) = server();
        for uid in [None, Some("")] {
            let deleted = delete_runner(&client, &runner(Generation::ScaleSets, uid)).await;
            assert!(matches!(deleted, Err(Failure::Final { .. })), "{deleted:?}");
        }
    }

    #[tokio::test]
    async fn gone_and_replaced_are_success() {
        assert_eq!(refused(404, None).await, Ok(Deleted::AlreadyGone));
        let object = |uid: &str| Some((200, json!({"metadata": {"uid": uid}})));
        assert_eq!(refused(409, object("u-2")).await, Ok(Deleted::AlreadyGone));
        assert_eq!(refused(409, Some((404, json!({"code": 404})))).await, Ok(Deleted::AlreadyGone));
        assert!(matches!(refused(409, object("u-1")).await, Err(Failure::Later { .. })), "a lost race");
        assert!(matches!(refused(409, Some((503, json!({"code": 503})))).await, Err(Failure::Later { .. })));
    }

    #[tokio::test]
    async fn other_refusals_are_told_apart() {
        for code in [401, 429, 500, 503] {
            assert!(matches!(refused(code, None).await, Err(Failure::Later { .. })), "{code}");
        }
        let missing = refused(403, None).await.unwrap_err();
        assert!(
            matches!(&missing, Failure::Final { why } if why.contains("\"delete\" on ephemeralrunners")),
            "{missing}"
        );
    }

    #[tokio::test]
    async fn a_broken_connection_is_tried_again() {
        let (client, mut server) = server();
        let runner = runner(Generation::ScaleSets, Some("u-1"));
        let serve = async { server.next().await.break_off() };
        let (deleted, ()) = tokio::join!(delete_runner(&client, &runner), serve);
        assert!(matches!(&deleted, Err(Failure::Later { why, .. }) if why.contains("reset")), "{deleted:?}");
    }
}
