//! etcd and kube-apiserver, as programs of their own, on the loopback device; and an administrator's way in.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use kube::Client;
use memguard::kubernetes;
use p256::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use serde_json::{Value, json};

const ADMINS_TOKEN: &str = "administrator";
/// It takes some 5 s to be ready, and on a busy machine 20.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Server {
    kube_apiserver: PathBuf,
    folder: tempfile::TempDir,
    ports: Ports,
    etcd: Child,
    api: Option<Child>,
    pub(crate) admin: Admin,
}

#[derive(Clone, Copy)]
struct Ports {
    etcd: u16,
    peers: u16,
    api: u16,
}

impl Server {
    pub(crate) async fn start(assets: &Path) -> anyhow::Result<Self> {
        let [kube_apiserver, etcd] = ["kube-apiserver", "etcd"].map(|name| assets.join(name));
        for program in [&kube_apiserver, &etcd] {
            ensure!(program.is_file(), "KUBEBUILDER_ASSETS names a folder without {}", program.display());
        }
        let folder = tempfile::tempdir()?;
        let [etcd_port, peers, api] = free_ports()?;
        let ports = Ports { etcd: etcd_port, peers, api };
        let (clients, among_peers) = (url("http", ports.etcd), url("http", ports.peers));
        let etcd = Command::new(etcd)
            .arg("--data-dir")
            .arg(folder.path().join("etcd"))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &among_peers, "--initial-advertise-peer-urls", &among_peers])
            .args(["--initial-cluster", &format!("default={among_peers}"), "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(log(folder.path(), "etcd")?)
            .spawn()
            .context("can't start etcd")?;
        // Signs the tokens of service accounts, for as long as this test runs, to whoever can reach its loopback device.
        let key = p256::SecretKey::from_slice(&[7; 32])?;
        fs::write(folder.path().join("key.pem"), key.to_pkcs8_pem(LineEnding::LF)?.as_bytes())?;
        fs::write(folder.path().join("public.pem"), key.public_key().to_public_key_pem(LineEnding::LF)?)?;
        fs::write(folder.path().join("tokens.csv"), format!("{ADMINS_TOKEN},admin,admin,system:masters\n"))?;
        let kubeconfig = kubeconfig(folder.path(), ports.api, "admin", ADMINS_TOKEN)?;
        let mut server = Self { kube_apiserver, folder, ports, etcd, api: None, admin: Admin { kubeconfig } };
        server.start_api(&[]).await?;
        Ok(server)
    }

    pub(crate) async fn start_api(&mut self, more: &[&str]) -> anyhow::Result<()> {
        let file = |name: &str| self.folder.path().join(name);
        let api = Command::new(&self.kube_apiserver)
            .args(["--etcd-servers", &url("http", self.ports.etcd), "--etcd-compaction-interval", "0"])
            .args(["--bind-address", "127.0.0.1", "--secure-port", &self.ports.api.to_string()])
            .args([
                "--allow-privileged=true",
                "--authorization-mode",
                "RBAC",
                "--service-cluster-ip-range",
                "10.0.0.0/24",
            ])
            // There is no controller that would make a service account for each namespace.
            .args(["--disable-admission-plugins", "ServiceAccount"])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .arg("--service-account-signing-key-file")
            .arg(file("key.pem"))
            .arg("--service-account-key-file")
            .arg(file("public.pem"))
            .arg("--token-auth-file")
            .arg(file("tokens.csv"))
            .arg("--cert-dir")
            .arg(file("certificates"))
            .args(more)
            .stdout(Stdio::null())
            .stderr(log(self.folder.path(), "kube-apiserver")?)
            .spawn()
            .context("can't start kube-apiserver")?;
        let api = self.api.insert(api);
        let began = Instant::now();
        while self.admin.text("/readyz").await.is_err() {
            if api.try_wait()?.is_some() || began.elapsed() > PATIENCE {
                let said = fs::read_to_string(file("kube-apiserver.log")).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().filter(|line| !line.is_empty()).take(10).collect();
                bail!("kube-apiserver is not ready; its last lines, newest first:\n{}", last.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Without a farewell, as when its machine fails.
    pub(crate) fn kill_api(&mut self) {
        if let Some(mut api) = self.api.take() {
            end(&mut api);
        }
    }

    /// Has etcd forget all that was before now. Its clients get 410 for older versions.
    pub(crate) async fn compact(&self) -> anyhow::Result<()> {
        let range = self.etcd("range", &json!({"key": "AA=="})).await?;
        let revision = range["header"]["revision"].clone();
        self.etcd("compaction", &json!({"revision": revision, "physical": true})).await.map(drop)
    }

    async fn etcd(&self, call: &str, body: &Value) -> anyhow::Result<Value> {
        let config = kube::Config::new(url("http", self.ports.etcd).parse()?);
        let request = http::Request::post(format!("/v3/kv/{call}")).body(body.to_string().into_bytes())?;
        Ok(Client::try_from(config)?.request(request).await?)
    }

    /// A kubeconfig for somebody else.
    pub(crate) fn kubeconfig(&self, user: &str, token: &str) -> anyhow::Result<PathBuf> {
        kubeconfig(self.folder.path(), self.ports.api, user, token)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill_api();
        end(&mut self.etcd);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn url(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

fn log(folder: &Path, program: &str) -> anyhow::Result<fs::File> {
    Ok(fs::File::create(folder.join(format!("{program}.log")))?)
}

/// All at once, so that they differ. Somebody else may take one before its program does; then that says so.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let listeners: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let ports: Vec<u16> = listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect::<anyhow::Result<_>>()?;
    ports.try_into().map_err(|_| anyhow::anyhow!("too few ports"))
}

fn kubeconfig(folder: &Path, port: u16, user: &str, token: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{user}.kubeconfig"));
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        // kube-apiserver makes it at its first start, with the authority that signed it.
        "clusters": [{"name": "k", "cluster": {
            "server": url("https", port), "certificate-authority": folder.join("certificates/apiserver.crt"),
        }}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    });
    fs::write(&path, config.to_string())?;
    Ok(path)
}

/// May do anything.
#[derive(Clone)]
pub(crate) struct Admin {
    kubeconfig: PathBuf,
}

impl Admin {
    async fn client(&self) -> anyhow::Result<Client> {
        Ok(kubernetes::client(Some(&self.kubeconfig), Duration::from_secs(10)).await?)
    }

    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<String> {
        Ok(self.client().await?.request_text(http::Request::get(path).body(Vec::new())?).await?)
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.text(path).await?)?)
    }

    /// Refusals are `Err` with the code in it.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
        let client = self.client().await.map_err(|error| kube::Error::Service(error.into()))?;
        send(&client, method, path, body).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send("POST", path, body).await.with_context(|| format!("POST {path}"))
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send("PUT", path, body).await.with_context(|| format!("PUT {path}"))
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send("PATCH", path, body).await.with_context(|| format!("PATCH {path}"))
    }

    /// At once: there is no kubelet that would end a pod's containers first.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        let how = json!({"gracePeriodSeconds": 0});
        self.send("DELETE", path, &how).await.with_context(|| format!("DELETE {path}"))
    }
}

pub(crate) async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind).body(body);
    client.request(request.map_err(kube::Error::HttpError)?).await
}

/// Asks again and again until it is so, or for so long.
pub(crate) async fn until(patience: Duration, what: impl AsyncFn() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < patience {
        if what().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}
