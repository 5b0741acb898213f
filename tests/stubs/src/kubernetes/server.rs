//! The HTTP side: requests in, answers, watches and faults out.

use std::{convert::Infallible, future::pending, io, sync::Arc, time::Duration};

use futures_util::stream;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Request, Shared, What,
    api::{Answer, Asked, answer, status},
    key, now,
    store::{Event, Selection},
    timestamp,
};

type Body = UnsyncBoxBody<Bytes, io::Error>;
/// Without the client's leave, an end of the connection: hyper drops it when a service fails.
type Outcome = Result<Response<Body>, io::Error>;

/// The largest body that is taken in.
const BODY: usize = 1 << 20;
/// A watch that names no time lives so long.
const WATCH: Duration = Duration::from_mins(30);

/// Serves until it is dropped, and all connections with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| respond(Arc::clone(&shared), request));
            // That a client went away is its own affair.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn respond(shared: Arc<Shared>, request: http::Request<Incoming>) -> Outcome {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), ToString::to_string);
    let body = http_body_util::Limited::new(body, BODY).collect().await.map_err(io::Error::other)?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let method = head.method.as_str();
    if let Some(order) = path.strip_prefix("/_stub/") {
        return Ok(command(&shared, method, order, body));
    }
    let given = head.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let known = shared.token.as_ref().is_none_or(|token| given == Some(&format!("Bearer {token}")));
    let (seq, fault) = {
        let mut state = shared.lock();
        let seq = state.requests.len() as u64;
        let method = method.to_owned();
        let fault = state.faults.take(&method, &path);
        state.requests.push(Request {
            seq,
            t: now(),
            method,
            path: path.clone(),
            body: body.clone(),
            code: None,
            effect: None,
        });
        (seq, fault)
    };
    let note = |code: Option<u16>, effect: Option<String>| {
        if let Some(request) = shared.lock().requests.get_mut(usize::try_from(seq).unwrap_or(usize::MAX)) {
            (request.code, request.effect) = (code, effect);
        }
    };
    match &fault {
        Some(What::Hang) => pending().await,
        Some(What::Cut) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(What::Garbage) => {
            note(Some(200), None);
            return Ok(text(200, "<html><body>Welcome</body></html>"));
        }
        Some(What::Refuse { code, retry_after_s }) => {
            note(Some(*code), None);
            let mut refusal = object(*code, &status(*code, "refused by the stub", *retry_after_s));
            if let Some(seconds) = retry_after_s {
                refusal.headers_mut().insert(http::header::RETRY_AFTER, (*seconds).into());
            }
            return Ok(refusal);
        }
        Some(What::LoseAnswer | What::CutAnswer) | None => {}
    }
    if !known {
        note(Some(401), None);
        return Ok(object(401, &status(401, "Unauthorized", None)));
    }
    let asked = Asked::parse(method, &path);
    let answer = shared.change(|state| answer(&mut state.store, &state.rights, asked.as_ref(), &body, &timestamp()));
    let lost = matches!(fault, Some(What::LoseAnswer));
    match answer {
        Answer::Object { code, body, effect } => {
            note((!lost).then_some(code), effect);
            match fault {
                Some(What::CutAnswer) => Ok(half(code, &body)),
                _ if lost => Err(io::ErrorKind::ConnectionReset.into()),
                _ => Ok(object(code, &body)),
            }
        }
        Answer::Text { code, body } => {
            note(Some(code), None);
            Ok(text(code, body))
        }
        Answer::Watch { .. } if lost => Err(io::ErrorKind::ConnectionReset.into()),
        Answer::Watch { from, selection, timeout_s, bookmarks } => {
            note(Some(200), None);
            let end = Instant::now() + timeout_s.map_or(WATCH, Duration::from_secs);
            let watch = Watch { shared: Arc::clone(&shared), from, selection, end, bookmarks, over: false };
            let stream = stream::unfold(watch, Watch::next);
            Ok(response(200, "application/json", StreamBody::new(Box::pin(stream)).boxed_unsync()))
        }
    }
}

/// A watch under way.
struct Watch {
    shared: Arc<Shared>,
    /// What the client knows.
    from: u64,
    selection: Selection,
    end: Instant,
    bookmarks: bool,
    over: bool,
}

impl Watch {
    async fn next(mut self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        let mut version = self.shared.version.subscribe();
        loop {
            if self.over {
                return None;
            }
            version.mark_unchanged();
            let new = self.shared.lock().store.since(self.from, &self.selection);
            match new {
                Err(_) => {
                    self.over = true;
                    let status = status(410, &format!("too old resource version: {}", self.from), None);
                    return Some((Ok(frame(&[("ERROR", status)])), self));
                }
                Ok((events, version)) => {
                    self.from = version;
                    if !events.is_empty() {
                        return Some((Ok(frame(&events)), self));
                    }
                }
            }
            let bookmark = Instant::now() + self.shared.bookmark_every;
            let until = bookmark.min(self.end);
            // The sender lives as long as `shared`.
            if timeout_at(until, version.changed()).await.is_err() {
                if Instant::now() >= self.end {
                    return None;
                }
                if self.bookmarks {
                    let kept = json!({"resourceVersion": self.from.to_string()});
                    let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": kept});
                    return Some((Ok(frame(&[("BOOKMARK", object)])), self));
                }
            }
        }
    }
}

fn frame(events: &[Event]) -> Frame<Bytes> {
    let mut lines = String::new();
    for (kind, object) in events {
        lines.push_str(&json!({"type": kind, "object": object}).to_string());
        lines.push('\n');
    }
    Frame::data(lines.into())
}

/// What another process tells the stub to do.
fn command(shared: &Shared, method: &str, order: &str, body: Value) -> Response<Body> {
    let parts: Vec<&str> = order.split('/').collect();
    match (method, parts.as_slice()) {
        ("GET", ["requests"]) => object(200, &json!(shared.lock().requests)),
        ("PUT", ["objects", plural, namespace, name]) => {
            shared.change(|state| state.store.put(key(plural, namespace, name), body).clone());
            object(200, &json!({}))
        }
        ("DELETE", ["objects", plural, namespace, name]) => {
            let was_there = shared.change(|state| state.store.remove(&key(plural, namespace, name)));
            object(if was_there { 200 } else { 404 }, &json!({}))
        }
        ("PUT", ["faults"]) => match serde_json::from_value(body) {
            Ok(faults) => {
                shared.lock().faults.set(faults);
                object(200, &json!({}))
            }
            Err(error) => object(400, &json!({"error": error.to_string()})),
        },
        ("POST", ["expire"]) => {
            shared.change(|state| state.store.expire());
            object(200, &json!({}))
        }
        _ => object(404, &json!({"error": format!("the stub does not know {method} {order}")})),
    }
}

fn response(code: u16, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn object(code: u16, body: &Value) -> Response<Body> {
    response(code, "application/json", full(body.to_string()))
}

fn text(code: u16, body: &'static str) -> Response<Body> {
    response(code, "text/plain; charset=utf-8", full(body))
}

/// The first half of an answer, and then the connection ends.
fn half(code: u16, body: &Value) -> Response<Body> {
    let text = body.to_string();
    let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    let pieces = stream::unfold(Some(half), |half| async {
        if let Some(half) = half {
            return Some((Ok(Frame::data(half)), None));
        }
        // After the half has been sent.
        sleep_until(Instant::now() + Duration::from_millis(20)).await;
        Some((Err(io::ErrorKind::ConnectionReset.into()), None))
    });
    response(code, "application/json", StreamBody::new(Box::pin(pieces)).boxed_unsync())
}
