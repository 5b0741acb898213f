//! An own certificate authority, and a proxy.

use std::{net::SocketAddr, path::PathBuf, process::Command, sync::Arc};

use memguard::github::{GitHub, Settings};
use memguard_stubs::github::{Run, Setup};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::fixture::{RUN, app, later, repository, settings, stub};

/// A task that ends with its owner.
struct Server(SocketAddr, JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// TLS before a server without; returns its certificate in PEM.
async fn tls(name: &str, to: SocketAddr) -> (Server, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us ends here.
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                let mut outside = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    (Server(address, server), made.cert.pem())
}

/// A proxy that knows one host.
async fn proxy(host: &'static str, to: SocketAddr) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut inside, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = inside.read_u8().await else { return };
                    asked.push(byte);
                }
                let asked = String::from_utf8(asked).unwrap();
                if !asked.starts_with(&format!("CONNECT {host} HTTP/1.1\r\n")) || asked.contains("Bearer") {
                    inside.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
                    return;
                }
                inside.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut outside = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    Server(address, server)
}

fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs this very test in a process without the proxies of the machine that runs the tests; false if it has none.
fn runs_without_proxies() -> bool {
    let is_proxy = |name: &str| name.ends_with("s_proxy") || name == "all_proxy";
    let proxies: Vec<String> =
        std::env::vars().map(|(name, _)| name).filter(|name| is_proxy(&name.to_ascii_lowercase())).collect();
    if proxies.is_empty() {
        return false;
    }
    let thread = std::thread::current();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", thread.name().unwrap()]);
    for name in proxies {
        again.env_remove(name);
    }
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    true
}

#[tokio::test]
async fn a_server_is_trusted_by_its_own_authority_only() {
    if runs_without_proxies() {
        return;
    }
    let stub = stub(Setup { runs: vec![Run::on("octo/repo", RUN, "r")], ..Setup::default() }).await;
    let (server, certificate) = tls("localhost", stub.address()).await;
    let (_other, another) = tls("localhost", stub.address()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("https://localhost:{}", server.0.port());
    let with = |ca: &str| GitHub::new(&Settings { ca_file: Some(file(&folder, ca)), ..settings(&url, app()) }).unwrap();
    assert!(with(&certificate).run(&repository(), RUN).await.is_ok());
    let before = stub.requests().len();
    let (_, why) = later(with(&another).run(&repository(), RUN).await);
    assert!(why.contains("certificate"), "{why}");
    assert_eq!(stub.requests().len(), before);
}

#[tokio::test]
async fn a_proxy_sees_a_tunnel_and_no_token() {
    let stub = stub(Setup { runs: vec![Run::on("octo/repo", RUN, "r")], ..Setup::default() }).await;
    let (server, certificate) = tls("ghes.test", stub.address()).await;
    let proxy = proxy("ghes.test:443", server.0).await;
    let folder = tempfile::tempdir().unwrap();
    let through = Settings {
        ca_file: Some(file(&folder, &certificate)),
        proxy: Some(format!("http://{}", proxy.0)),
        ..settings("https://ghes.test", app())
    };
    let github = GitHub::new(&through).unwrap();
    github.run(&repository(), RUN).await.unwrap();
    assert_eq!(stub.requests().len(), 2);
    let doctor = github.doctor().await;
    assert!(doctor[0].found.contains("through the proxy"), "{doctor:?}");
    let elsewhere = GitHub::new(&Settings { url: "https://other.test".to_owned(), ..through }).unwrap();
    let (_, why) = later(elsewhere.run(&repository(), RUN).await);
    assert!(why.contains("tunnel"), "{why}");
}
