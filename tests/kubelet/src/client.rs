//! Calls of one request and one answer to the runtime: gRPC over HTTP/2 on a Unix socket
//! (grpc/grpc, doc/PROTOCOL-HTTP2.md).

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::net::UnixStream;

/// A message goes with a byte that says whether it is compressed, and four of its length.
const PREFIX: usize = 5;

/// A connection to the runtime.
pub(crate) struct Client(SendRequest<Bytes>);

impl Client {
    pub(crate) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await;
        let stream = stream.with_context(|| format!("can't connect to {}", socket.display()))?;
        let (requests, connection) = h2::client::handshake(stream).await.context("the runtime speaks no HTTP/2")?;
        tokio::spawn(async move {
            // What became of it is told by the calls.
            let _ = connection.await;
        });
        Ok(Self(requests))
    }

    /// Calls a method of the runtime's service.
    pub(crate) async fn call<Q: Message, A: Message + Default>(&self, method: &str, request: &Q) -> anyhow::Result<A> {
        self.of_service(method, request).await.with_context(|| method.to_owned())
    }

    async fn of_service<Q: Message, A: Message + Default>(&self, method: &str, request: &Q) -> anyhow::Result<A> {
        let head = Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut requests = self.0.clone().ready().await?;
        let (answer, mut body) = requests.send_request(head, false)?;
        body.send_data(framed(request)?, true)?;
        let answer = answer.await?;
        // A call that fails at once has its status in front, and no body.
        refused(answer.headers())?;
        let mut body = answer.into_body();
        let bytes = read(&mut body).await?;
        if let Some(trailers) = body.trailers().await? {
            refused(&trailers)?;
        }
        unframed(&bytes)
    }
}

fn framed(message: &impl Message) -> anyhow::Result<Bytes> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length)?);
    message.encode(&mut bytes)?;
    Ok(bytes.freeze())
}

fn unframed<A: Message + Default>(bytes: &[u8]) -> anyhow::Result<A> {
    let (prefix, message) = bytes.split_at_checked(PREFIX).context("the answer is no message")?;
    ensure!(prefix[0] == 0, "the answer is compressed");
    let length = prefix[1..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    ensure!(message.len() == length, "the answer has {} bytes and says {length}", message.len());
    A::decode(message).context("the answer is unreadable")
}

async fn read(body: &mut RecvStream) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        bytes.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok(bytes)
}

/// The runtime's own words, if it could not do it.
fn refused(headers: &HeaderMap) -> anyhow::Result<()> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(code) => bail!("{} (code {code})", percent_decoded(text("grpc-message").unwrap_or("no reason given"))),
    }
}

/// Messages in headers have `%25` for `%`, and so on.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = code.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%');
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::{ContainerId, ExecSyncRequest, ExecSyncResponse};

    #[test]
    fn a_message_has_its_length_in_front() {
        let id = ContainerId { id: "abc".to_owned() };
        let bytes = framed(&id).unwrap();
        assert_eq!(&bytes[..], b"\x00\x00\x00\x00\x05\x0a\x03abc");
        assert_eq!(unframed::<ContainerId>(&bytes).unwrap(), id);
        for wrong in [&b""[..], b"\x01\x00\x00\x00\x00", b"\x00\x00\x00\x00\x05\x0a"] {
            unframed::<ContainerId>(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_runtimes_words() {
        let mut headers = HeaderMap::new();
        refused(&headers).unwrap();
        headers.insert("grpc-status", "5".parse().unwrap());
        headers.insert("grpc-message", "no %22x%22: 100%".parse().unwrap());
        assert_eq!(refused(&headers).unwrap_err().to_string(), "no \"x\": 100% (code 5)");
        headers.insert("grpc-status", "0".parse().unwrap());
        refused(&headers).unwrap();
    }

    /// A runtime that answers one call, then refuses one.
    #[tokio::test]
    async fn a_call_reaches_the_other_side_and_its_answer_us() {
        let folder = std::env::temp_dir().join(format!("lab-kubelet-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("socket");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut asked = Vec::new();
            while let Some(request) = connection.accept().await {
                let (request, mut respond) = request.unwrap();
                asked.push(request.uri().path().to_owned());
                let mut body = request.into_body();
                // Drives the connection, too.
                let bytes = tokio::select! {
                    bytes = read(&mut body) => bytes.unwrap(),
                    _ = connection.accept() => panic!("one call at a time"),
                };
                let wanted: ExecSyncRequest = unframed(&bytes).unwrap();
                let mut trailers = HeaderMap::new();
                let head = http::Response::new(());
                if wanted.cmd.is_empty() {
                    trailers.insert("grpc-status", "3".parse().unwrap());
                    trailers.insert("grpc-message", "nothing to run".parse().unwrap());
                    respond.send_response(head, false).unwrap().send_trailers(trailers).unwrap();
                } else {
                    let said = ExecSyncResponse { stdout: wanted.cmd.join(" ").into_bytes(), ..Default::default() };
                    let mut answer = respond.send_response(head, false).unwrap();
                    answer.send_data(framed(&said).unwrap(), false).unwrap();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    answer.send_trailers(trailers).unwrap();
                }
            }
            asked
        });
        let client = Client::connect(&socket).await.unwrap();
        let mut request = ExecSyncRequest { cmd: vec!["a".to_owned(), "b".to_owned()], ..Default::default() };
        let said: ExecSyncResponse = client.call("ExecSync", &request).await.unwrap();
        assert_eq!(said.stdout, b"a b");
        request.cmd.clear();
        let error = client.call::<_, ExecSyncResponse>("ExecSync", &request).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "ExecSync: nothing to run (code 3)");
        drop(client);
        assert_eq!(server.await.unwrap(), ["/runtime.v1.RuntimeService/ExecSync"; 2]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
