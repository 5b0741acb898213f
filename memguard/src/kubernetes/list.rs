//! The pods of a node, as the API server's cache has them: one after the other.

use std::{pin::pin, time::Duration};

use futures_util::AsyncBufReadExt as _;
use kube::{Client, api::ListParams, core::Request};
use serde::Deserialize;

use super::{
    failure::Call,
    pieces::{Items, Piece},
    pods::Incoming,
};
use crate::remote::{Failure, server_text};

pub(super) const PODS: &str = "/api/v1/pods";
/// An answer of which nothing comes for so long is given up.
const QUIET: Duration = Duration::from_secs(30);

/// Which pods memguard hears of: those of its node whose containers have not all ended. What has ended has no cgroup, and
/// stays in the cluster until somebody clears it away. To a watch, a pod that ends is one that was deleted.
pub(super) fn selector(node: &str) -> String {
    format!("spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed")
}

/// What was listed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// From where a watch goes on.
    pub(super) version: String,
    /// Pods that can't be read, or have more bytes than any that a server keeps.
    pub(super) unreadable: usize,
}

/// Why a list or a watch came to nothing.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) failure: Failure,
    /// The server has forgotten the version: what a full list is for, and no outage.
    pub(super) expired: bool,
}

impl Broken {
    pub(super) fn by(call: &Call, error: &kube::Error) -> Self {
        let expired = matches!(error, kube::Error::Api(status) if status.code == 410);
        Self { failure: call.failed(error), expired }
    }

    pub(super) fn later(call: &Call, why: &str) -> Self {
        Self { failure: call.later(why), expired: false }
    }
}

/// Hands over each pod as it comes in.
pub(super) async fn list(client: &Client, node: &str, mut each: impl FnMut(Incoming)) -> Result<Listed, Broken> {
    #[derive(Deserialize)]
    struct Rest {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }

    let call = call("list", node);
    let broken = |error: &kube::Error| Broken::by(&call, error);
    // From the server's cache, as the kubelet does it: read from etcd, the list would touch every pod of the cluster.
    let params = ListParams { resource_version: Some("0".to_owned()), ..ListParams::default().fields(&selector(node)) };
    let request = Request::new(PODS).list(&params).map_err(|error| broken(&kube::Error::BuildRequest(error)))?;
    let answer = client.request_stream(request).await.map_err(|error| broken(&error))?;
    let mut answer = pin!(answer);
    let (mut items, mut unreadable) = (Items::default(), 0);
    loop {
        let chunk = tokio::time::timeout(QUIET, answer.fill_buf()).await;
        let chunk = chunk.map_err(|elapsed| broken(&kube::Error::Service(elapsed.into())))?;
        let chunk = chunk.map_err(|error| broken(&kube::Error::ReadEvents(error)))?;
        if chunk.is_empty() {
            break;
        }
        let fed = items.feed(chunk, |piece| match piece {
            Piece::Whole(bytes) => match serde_json::from_slice(bytes) {
                Ok(pod) => each(pod),
                Err(_) => unreadable += 1,
            },
            Piece::TooLong => unreadable += 1,
        });
        fed.map_err(|_| Broken::later(&call, "the answer is no list"))?;
        let length = chunk.len();
        answer.consume_unpin(length);
    }
    let rest = items.finish().map_err(|_| Broken::later(&call, "the answer is no list, or half of one"))?;
    let rest: Rest =
        serde_json::from_slice(&rest).map_err(|error| Broken::later(&call, &server_text(&error.to_string())))?;
    Ok(Listed { version: rest.metadata.resource_version, unreadable })
}

pub(super) fn call(verb: &'static str, node: &str) -> Call {
    Call { verb, resource: "pods", of: format!("of node {node}") }
}
