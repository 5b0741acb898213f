//! A terminal in a container, as `kubectl exec -it` gives one: the runtime's `Exec` tells where it is to be had, and what
//! is typed and shown goes through a WebSocket there. A message begins with the number of its channel: protocol
//! `v4.channel.k8s.io` (kubernetes/kubelet, pkg/cri/streaming/remotecommand/websocket.go).

use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};

use crate::{
    client::Client,
    cri::{ExecRequest, ExecResponse},
};

const PROTOCOL: &str = "v4.channel.k8s.io";
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
/// How the program ended, as a `metav1.Status`.
const STATUS: u8 = 3;
const SIZE: u8 = 4;

/// Somebody at a terminal.
#[derive(Debug, Deserialize)]
pub(crate) struct Session {
    columns: u16,
    rows: u16,
    /// A program that still runs then is an error.
    longest_s: f64,
    keys: Vec<Keys>,
}

#[derive(Debug, Deserialize)]
struct Keys {
    /// Since the start of the session.
    at_s: f64,
    text: String,
}

/// Runs a program at a terminal to its end. What it wrote comes in parts, in Base64: one before each of the keys, one after
/// the last of them.
pub(crate) async fn run(client: &Client, id: &str, session: &Session, command: &[&str]) -> anyhow::Result<Value> {
    let cmd = command.iter().map(|part| (*part).to_owned()).collect();
    let request = ExecRequest { container_id: id.to_owned(), cmd, tty: true, stdin: true, stdout: true };
    let ExecResponse { url } = client.call("Exec", &request).await?;
    let mut request = url.replacen("http", "ws", 1).into_client_request().context("the runtime tells no URL")?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(PROTOCOL));
    let (mut socket, _) = connect_async(request).await.with_context(|| format!("can't open {url}"))?;

    let began = Instant::now();
    let at = |seconds: f64| began + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
    let size = json!({"Width": session.columns, "Height": session.rows}).to_string();
    socket.send(message(SIZE, &size)).await?;
    let mut keys = session.keys.iter().peekable();
    let (mut parts, mut part, mut status) = (Vec::new(), Vec::new(), Value::Null);
    loop {
        let until = at(keys.peek().map_or(session.longest_s, |keys| keys.at_s));
        tokio::select! {
            next = socket.next() => {
                let bytes = match next {
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Close(_))) | None => break,
                    Some(Ok(_)) => continue,
                    // It may hang up without a word once it has told how the program ended.
                    Some(Err(_)) if !status.is_null() => break,
                    Some(Err(error)) => return Err(error).context("the terminal is gone"),
                };
                match bytes.split_first() {
                    Some((&OUTPUT, bytes)) => part.extend_from_slice(bytes),
                    Some((&STATUS, bytes)) if !bytes.is_empty() => status = serde_json::from_slice(bytes)?,
                    _ => {}
                }
            }
            () = sleep_until(until) => {
                let Some(keys) = keys.next() else {
                    let shown = String::from_utf8_lossy(&part).into_owned();
                    bail!("{command:?} still runs after {} s; last it wrote {shown:?}", session.longest_s);
                };
                parts.push(STANDARD.encode(std::mem::take(&mut part)));
                socket.send(message(INPUT, &keys.text)).await?;
            }
        }
    }
    parts.push(STANDARD.encode(part));
    Ok(json!({"columns": session.columns, "rows": session.rows, "parts": parts, "status": status}))
}

fn message(channel: u8, text: &str) -> Message {
    Message::binary([&[channel], text.as_bytes()].concat())
}
