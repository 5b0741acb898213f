//! memguard installed: the objects of `deploy/manifests/memguard.yaml`, and a token of its service account.

use std::{fs, time::Duration};

use anyhow::Context as _;
use kube::Client;
use memguard::kubernetes;
use serde_json::{Value, json};

use super::server::Server;

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/manifests/memguard.yaml");

pub(crate) struct Installed {
    /// With the rights that memguard has.
    pub(crate) memguard: Client,
    pub(crate) role: Value,
    pub(crate) token: String,
}

impl Installed {
    pub(crate) async fn new(server: &Server) -> anyhow::Result<Self> {
        let text = fs::read_to_string(MANIFESTS).with_context(|| format!("can't read {MANIFESTS}"))?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
        for object in &objects {
            apply(server, object).await?;
        }
        let role = objects.iter().find(|object| object["kind"] == "ClusterRole").context("no ClusterRole")?.clone();
        let asked =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
        let path = "/api/v1/namespaces/memguard/serviceaccounts/memguard/token";
        let answer = server.admin.post(path, &asked).await?;
        let token = answer["status"]["token"].as_str().context("no token")?.to_owned();
        let kubeconfig = server.kubeconfig("memguard", &token)?;
        let memguard = kubernetes::client(Some(&kubeconfig), Duration::from_secs(10)).await?;
        namespace(server, "ci").await?;
        Ok(Self { memguard, role, token })
    }
}

/// As `kubectl apply` does it the first time.
pub(crate) async fn apply(server: &Server, object: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api_version = text(&object["apiVersion"]);
    let group = if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") };
    let namespace = object["metadata"]["namespace"].as_str().map(|name| format!("/namespaces/{name}"));
    let plural = format!("{}s", text(&object["kind"]).to_lowercase());
    server.admin.post(&format!("{group}{}/{plural}", namespace.unwrap_or_default()), object).await.map(drop)
}

pub(crate) async fn namespace(server: &Server, name: &str) -> anyhow::Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    server.admin.post("/api/v1/namespaces", &object).await.map(drop)
}
