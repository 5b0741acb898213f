//! Answers on the wire, whole and broken.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Response, header};
use hyper::body::{Body, Bytes, Frame};
use serde_json::Value;
use tokio::time::{Sleep, sleep};

/// A piece of an answer without an end.
static BLANKS: [u8; 1 << 13] = [b' '; 1 << 13];

/// Bytes of a body, and how they come.
#[derive(Debug)]
pub(super) enum Reply {
    Whole(Option<Bytes>),
    /// Some, then the connection ends.
    Half(Option<Bytes>),
    Slow {
        left: Bytes,
        pause: Duration,
        sleep: Pin<Box<Sleep>>,
    },
    Endless,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Half(bytes) => Poll::Ready(Some(match bytes.take() {
                Some(bytes) => Ok(Frame::data(bytes)),
                None => Err(io::ErrorKind::ConnectionAborted.into()),
            })),
            Self::Slow { left, pause, sleep: pausing } => {
                if left.is_empty() {
                    return Poll::Ready(None);
                }
                std::task::ready!(pausing.as_mut().poll(context));
                *pausing = Box::pin(sleep(*pause));
                Poll::Ready(Some(Ok(Frame::data(left.split_to(1)))))
            }
            Self::Endless => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&BLANKS))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }
}

/// An answer before it is sent.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Value,
}

impl Answer {
    pub(super) const fn new(code: u16, body: Value) -> Self {
        Self { code, headers: Vec::new(), body }
    }

    fn bytes(&self) -> Bytes {
        match &self.body {
            Value::Null => Bytes::new(),
            Value::String(text) => text.clone().into(),
            json => json.to_string().into(),
        }
    }

    fn send(self, body: Reply, length: Option<usize>) -> io::Result<Response<Reply>> {
        let kind = if self.body.is_string() { "text/html" } else { "application/json; charset=utf-8" };
        let mut response = Response::builder().status(self.code).header(header::CONTENT_TYPE, kind);
        if let Some(length) = length {
            response = response.header(header::CONTENT_LENGTH, length);
        }
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        // A fault with a header that can't be sent is a test's mistake, and shows as a cut connection.
        response.body(body).map_err(io::Error::other)
    }

    pub(super) fn whole(self) -> io::Result<Response<Reply>> {
        let bytes = self.bytes();
        let length = bytes.len();
        self.send(Reply::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())), Some(length))
    }

    pub(super) fn half(self) -> io::Result<Response<Reply>> {
        let bytes = self.bytes();
        let length = bytes.len().max(2);
        self.send(Reply::Half(Some(bytes.slice(..bytes.len() / 2))), Some(length))
    }

    pub(super) fn slow(self, pause: Duration) -> io::Result<Response<Reply>> {
        let left = self.bytes();
        let length = left.len();
        self.send(Reply::Slow { left, pause, sleep: Box::pin(sleep(pause)) }, Some(length))
    }

    pub(super) fn endless(self) -> io::Result<Response<Reply>> {
        self.send(Reply::Endless, None)
    }
}
