//! `/metrics`, `/healthz` and `/readyz`, from a thread of their own.

mod listen;

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::AbortHandle,
    time::{sleep, timeout},
};

pub use self::listen::{Listener, listen};
use super::{
    ask::Asker,
    counts::Metrics,
    format::Format,
    health::{self, Health, Status},
    page::{About, Page},
    process::Process,
};
use crate::telemetry::LostLines;

/// Connections at once. Behind that the oldest makes room: who asks and reads gets an answer within milliseconds, however
/// many others hold on to theirs.
const MOST_CONNECTIONS: usize = 64;
/// For the request line and all headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// For a connection as a whole. One is one request.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// Bytes of a request.
const LONGEST_REQUEST: usize = 16 * 1024;
/// After a connection could not be taken, for want of file descriptors mostly.
const BREATH: Duration = Duration::from_millis(100);
/// How long the thread that talks to Kubernetes may take to show that it lives. It never computes for long.
const PULSE_WITHIN: Duration = Duration::from_secs(3);

const INDEX: &str = "memguard\n\n/metrics  for Prometheus\n/healthz  whether it is alive\n/readyz   whether it does its work, and what it lacks\n";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("can't serve metrics on {address}: {source}; --metrics-listen takes another address and port")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("can't start the thread that serves metrics: {0}")]
    Thread(#[source] io::Error),
}

/// What pages and answers are made from.
#[derive(Debug)]
pub struct Served {
    pub metrics: Metrics,
    pub about: About,
    pub asker: Asker,
    /// When memguard was started.
    pub started: SystemTime,
    pub lost_lines: LostLines,
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// With port 0, which one it became.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Starts to serve.
    pub fn serve(self, served: Served) -> Result<Server, ServerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(ServerError::Thread)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(self.0).map_err(ServerError::Thread)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, Arc::new(served)) => {}
                        _ = stopped => {}
                    }
                });
            })
            .map_err(ServerError::Thread)?;
        Ok(Server { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, served: Arc<Served>) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection for metrics can't be taken");
                sleep(BREATH).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= MOST_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::spawn(connection(stream, Arc::clone(&served)));
        connections.push_back(connection.abort_handle());
    }
}

async fn connection(stream: TcpStream, served: Arc<Served>) {
    let service = service_fn(move |request| {
        let served = Arc::clone(&served);
        async move { Ok::<_, Infallible>(answer(&request, &served).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .keep_alive(false)
        .max_buf_size(LONGEST_REQUEST)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(ANSWERED_WITHIN, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request for metrics failed"),
        Err(_) => tracing::debug!("a request for metrics took too long"),
    }
}

type Answer = Response<Full<Bytes>>;

/// hyper leaves the body of an answer to HEAD away, and tells its length.
async fn answer<B>(request: &Request<B>, served: &Served) -> Answer {
    let path = request.uri().path();
    if !["/", "/metrics", "/healthz", "/readyz"].contains(&path) {
        return with(StatusCode::NOT_FOUND, TEXT, "not here: /metrics, /healthz, /readyz\n".to_owned());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = with(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match path {
        "/metrics" => {
            let accepts: Vec<&str> = request.headers().get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
            metrics(served, Format::wanted(&accepts.join(","))).await
        }
        "/healthz" => health(served, health::alive).await,
        "/readyz" => health(served, health::ready).await,
        _ => with(StatusCode::OK, TEXT, INDEX.to_owned()),
    }
}

async fn metrics(served: &Served, format: Format) -> Answer {
    let present = served.asker.present().await;
    let page = Page {
        metrics: &served.metrics,
        about: &served.about,
        present: present.as_ref(),
        process: &Process::look(served.started),
        lost_lines: served.lost_lines.count(),
        now: SystemTime::now(),
    };
    match page.write(format) {
        Ok(text) => with(StatusCode::OK, format.content_type(), text),
        Err(error) => {
            tracing::error!(%error, "the page of metrics can't be written");
            with(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the page can't be written\n".to_owned())
        }
    }
}

async fn health(served: &Served, judge: impl Fn(&health::Facts<'_>) -> Health) -> Answer {
    let present = served.asker.present().await;
    let outside = match present.as_ref().and_then(|present| present.outside.as_ref()) {
        Some(outside) => Some(outside.pulse.beats(PULSE_WITHIN).await),
        None => None,
    };
    let health = judge(&health::Facts {
        about: &served.about,
        present: present.as_ref(),
        outside,
        configuration_good: served.metrics.configuration().good,
        now: SystemTime::now(),
    });
    let status = match health.status {
        Status::Ok | Status::Degraded => StatusCode::OK,
        Status::Failed => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut body = serde_json::to_string_pretty(&health).unwrap_or_default();
    body.push('\n');
    with(status, JSON, body)
}

fn with(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests;
