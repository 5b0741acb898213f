//! A door in front of a server that can be shut, so that the server is away for its clients and loses nothing.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// How a gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    Open,
    /// Nobody listens at its port.
    Shut,
    /// Connections are taken, and nothing is said on them.
    Silent,
    /// As a proxy speaks whose server is gone.
    Unavailable,
}

/// Listens at one address, and passes everything on to another. It ends when this is dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    is: watch::Sender<Is>,
    serving: JoinHandle<()>,
}

impl Gate {
    /// Starts it, open. With port 0 a free one is taken.
    pub async fn start(address: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (is, state) = watch::channel(Is::Open);
        Ok(Self { address, is, serving: tokio::spawn(serve(listener, address, server, state)) })
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes it. Connections that are open end.
    pub fn set(&self, is: Is) {
        self.is.send_replace(is);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, address: SocketAddr, server: SocketAddr, mut state: watch::Receiver<Is>) {
    let mut listener = Some(listener);
    loop {
        let mut connections = JoinSet::new();
        let is = *state.borrow_and_update();
        if is == Is::Shut {
            listener = None;
        } else if listener.is_none() {
            let Ok(again) = TcpListener::bind(address).await else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            listener = Some(again);
        }
        loop {
            let accepted = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = state.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                accepted = accepted => {
                    if let Ok((client, _)) = accepted {
                        connections.spawn(pass(client, server, is));
                    }
                    while connections.try_join_next().is_some() {}
                }
            }
        }
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, is: Is) -> io::Result<()> {
    match is {
        Is::Open => {
            let mut server = TcpStream::connect(server).await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
        Is::Unavailable => {
            let mut asked = [0; 4096];
            if client.read(&mut asked).await? > 0 {
                let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                client.write_all(answer.as_bytes()).await?;
            }
            client.shutdown().await
        }
        Is::Shut | Is::Silent => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::timeout;

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// Says "hello" to everybody, and waits.
    async fn greeter() -> SocketAddr {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut client, _)) = listener.accept().await {
                client.write_all(b"hello").await.unwrap();
                open.push(client);
            }
        });
        address
    }

    /// What is said to a client that asks for something, or what happens to it.
    async fn said(gate: &Gate) -> Result<String, io::ErrorKind> {
        let mut stream = TcpStream::connect(gate.address()).await.map_err(|error| error.kind())?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.map_err(|error| error.kind())?;
        let mut bytes = [0; 64];
        match timeout(Duration::from_millis(200), stream.read(&mut bytes)).await {
            Ok(read) => Ok(String::from_utf8_lossy(&bytes[..read.map_err(|error| error.kind())?]).into_owned()),
            Err(_) => Ok("nothing".to_owned()),
        }
    }

    async fn becomes(gate: &Gate, is: Is, expected: Result<&str, io::ErrorKind>) {
        gate.set(is);
        for _ in 0..100 {
            match (said(gate).await, expected) {
                (Ok(text), Ok(start)) if text.starts_with(start) => return,
                (Err(kind), Err(wanted)) if kind == wanted => return,
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("it does not become {is:?}");
    }

    #[tokio::test]
    async fn a_gate_is_shut_and_opened_again_at_the_same_port() {
        let gate = Gate::start(LOOPBACK, greeter().await).await.unwrap();
        becomes(&gate, Is::Open, Ok("hello")).await;
        let mut open = TcpStream::connect(gate.address()).await.unwrap();
        let mut bytes = [0; 5];
        open.read_exact(&mut bytes).await.unwrap();
        becomes(&gate, Is::Shut, Err(io::ErrorKind::ConnectionRefused)).await;
        assert!(matches!(open.read(&mut bytes).await, Ok(0) | Err(_)), "what was open has ended");
        becomes(&gate, Is::Silent, Ok("nothing")).await;
        becomes(&gate, Is::Unavailable, Ok("HTTP/1.1 503")).await;
        becomes(&gate, Is::Open, Ok("hello")).await;
    }
}
