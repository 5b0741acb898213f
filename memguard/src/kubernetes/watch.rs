//! Keeps [`Pods`] up to date.

#[cfg(test)]
mod tests;

use std::{
    error::Error as StdError,
    io,
    pin::pin,
    time::{Duration, Instant, SystemTime},
};

use futures_util::AsyncBufReadExt as _;
use kube::{
    Client,
    api::{WatchEvent, WatchParams},
    core::Request,
    runtime::{utils::Backoff, watcher::DefaultBackoff},
};

use super::{
    failure::Call,
    list::{Broken, PODS, call, list, selector},
    pieces::{Lines, Piece},
    pods::{Incoming, Pods},
};
use crate::{
    protect,
    remote::{Failure, chain},
    telemetry::escaped,
};

/// The server ends a watch after this long, and it is resumed; a connection that died silently is noticed soon after.
pub(super) const WATCH: Duration = Duration::from_mins(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// A watch that ends sooner and told nothing is not resumed at once.
const SHORT: Duration = Duration::from_secs(1);

/// Follows the pods of a node for ever. Whatever breaks, what was known stays, marked as stale, and it is tried again.
///
/// It says so once when it breaks, and once when it works again.
pub async fn watch(client: Client, node_name: &str, pods: Pods) {
    watch_with(&client, node_name, &pods, DefaultBackoff::default()).await;
}

async fn watch_with(client: &Client, node_name: &str, pods: &Pods, mut backoff: impl Backoff) {
    let mut link = Link::default();
    loop {
        let Broken { failure, expired } = follow(client, node_name, pods, &mut link).await;
        if !expired {
            let since = link.broke(SystemTime::now(), &failure);
            pods.set_stale(Some(since));
        }
        let asked = if let Failure::Later { after, .. } = failure { after } else { None };
        let pause = backoff.next().unwrap_or(LONGEST_PAUSE).max(asked.unwrap_or_default());
        tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
    }
}

/// Lists, then watches, until something breaks. That a server ends a watch is no breakage: it is resumed where it was.
///
/// After an error there is always a full list: a watch of a quiet node says nothing for hours, and what was missed
/// meanwhile has to be known.
async fn follow(client: &Client, node: &str, pods: &Pods, link: &mut Link) -> Broken {
    // Straight into what is known, so that there are never two of it.
    pods.begin_list();
    let listed = list(client, node, |pod| {
        if let Some(pod) = pod.facts() {
            link.left_out(pods.put(pod));
        }
    });
    let mut version = match listed.await {
        Err(broken) => return broken,
        Ok(listed) => {
            pods.end_list();
            link.unreadable(listed.unreadable);
            listed.version
        }
    };
    // The largest of the objects that came and went.
    protect::trim_heap();
    loop {
        let began = Instant::now();
        match watch_from(client, node, &mut version, pods, link).await {
            Err(broken) => return broken,
            Ok(0) if began.elapsed() < SHORT => tokio::time::sleep(SHORT).await,
            Ok(_) => {}
        }
    }
}

/// One watch, until the server ends it. How many events it had; `version` is that of the last one.
async fn watch_from(
    client: &Client,
    node: &str,
    version: &mut String,
    pods: &Pods,
    link: &mut Link,
) -> Result<u64, Broken> {
    let call = call("watch", node);
    let broken = |error: &kube::Error| Broken::by(&call, error);
    let seconds = u32::try_from(WATCH.as_secs()).unwrap_or(u32::MAX);
    let params = WatchParams::default().fields(&selector(node)).timeout(seconds);
    let request = Request::new(PODS).watch(&params, version);
    let request = request.map_err(|error| broken(&kube::Error::BuildRequest(error)))?;
    let answer = client.request_stream(request).await.map_err(|error| broken(&error))?;
    // Only now: lists can work where watches are refused.
    pods.set_stale(None);
    link.works(SystemTime::now(), pods.len());
    let mut answer = pin!(answer);
    let (mut lines, mut events) = (Lines::default(), 0);
    loop {
        let chunk = match answer.fill_buf().await {
            Ok([]) => return Ok(events),
            Ok(chunk) => chunk,
            // Somebody on the way has ended it, as they do with connections of a certain age.
            Err(error) if is_cut(&error) => return Ok(events),
            Err(error) => return Err(broken(&kube::Error::ReadEvents(error))),
        };
        let (used, whole) = lines.feed(chunk);
        answer.consume_unpin(used);
        if whole {
            match lines.line() {
                Piece::Whole(event) if event.trim_ascii().is_empty() => {}
                Piece::Whole(event) => {
                    take(event, &call, version, pods, link)?;
                    events += 1;
                }
                // Which pod it is about is not known, so all of them are listed anew.
                Piece::TooLong => return Err(Broken::later(&call, "it told of an object of more than 12 MiB")),
            }
            lines.clear();
        }
    }
}

fn take(event: &[u8], call: &Call, version: &mut String, pods: &Pods, link: &mut Link) -> Result<(), Broken> {
    match serde_json::from_slice::<WatchEvent<Incoming>>(event) {
        Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
            pod.version().clone_into(version);
            if let Some(pod) = pod.facts() {
                link.left_out(pods.put(pod));
            }
        }
        Ok(WatchEvent::Deleted(pod)) => {
            pod.version().clone_into(version);
            if let Some(uid) = pod.uid() {
                pods.remove(uid);
            }
        }
        Ok(WatchEvent::Bookmark(bookmark)) => *version = bookmark.metadata.resource_version,
        Ok(WatchEvent::Error(status)) => return Err(Broken::by(call, &kube::Error::Api(status))),
        Err(error) => {
            // A refusal in the place of an event.
            let refusal = serde_json::from_slice(event).ok().map(|status| kube::Error::Api(Box::new(status)));
            return Err(Broken::by(call, &refusal.unwrap_or(kube::Error::SerdeError(error))));
        }
    }
    if version.is_empty() { Err(Broken::later(call, "the answer has no resourceVersion")) } else { Ok(()) }
}

/// The connection's end came in the middle of the answer.
fn is_cut(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    // Of chunks hyper says it in words.
    chain(error).contains("unexpected EOF during chunk")
}

/// Whether the watch works, and what was said of it.
#[derive(Debug, Default)]
struct Link {
    broken_since: Option<SystemTime>,
    /// It was said that not all pods are kept, and how many of the last list could not be read.
    said_left_out: bool,
    unreadable: usize,
    /// Lines that were written; tests count them.
    told: u32,
}

impl Link {
    /// Since when it is broken.
    fn broke(&mut self, now: SystemTime, why: &Failure) -> SystemTime {
        *self.broken_since.get_or_insert_with(|| {
            self.told += 1;
            tracing::warn!("the watch of this node's pods is broken; what is known of them stays: {why}");
            now
        })
    }

    fn works(&mut self, now: SystemTime, pods: usize) {
        if let Some(since) = self.broken_since.take() {
            self.told += 1;
            let seconds = now.duration_since(since).unwrap_or_default().as_secs();
            tracing::info!("the watch of this node's pods works again after {seconds} s; it has {pods}");
        }
    }

    /// A pod for which there was no room: `namespace/name`.
    fn left_out(&mut self, pod: Option<String>) {
        let Some(pod) = pod.filter(|_| !self.said_left_out) else { return };
        (self.told, self.said_left_out) = (self.told + 1, true);
        tracing::warn!(
            "there is more to know of this node's pods than the {} MiB that are kept; the largest are left out, {} first: what \
             runs in them has no name, and no rule with a namespace or a label matches it (told once)",
            Pods::MOST_BYTES / 1024 / 1024,
            escaped(&pod)
        );
    }

    /// Pods of a list that could not be read.
    fn unreadable(&mut self, pods: usize) {
        if pods > self.unreadable {
            self.told += 1;
            tracing::warn!("{pods} of this node's pods can't be read, or have more than 12 MiB; they are not known");
        }
        self.unreadable = pods;
    }
}
