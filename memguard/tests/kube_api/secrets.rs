//! ARC's own secret: read where the role of the chart says so, and nowhere else.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use memguard::{
    github::{Keeper as _, Kept},
    kubernetes::{ArcSecret, SecretRef},
    remote::Failure,
};
use serde_json::{Value, json};

use super::{
    install::{Installed, apply, namespace},
    server::{Server, send, until},
};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/manifests/arc-secrets.yaml");
/// As in the manifest.
const NAMESPACE: &str = "arc-runners";
const NAME: &str = "arc-github-app";

fn secret(namespace: &str, name: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
        "stringData": {"github_token": token},
    })
}

async fn read(installed: &Installed, namespace: &str, name: &str) -> Result<Kept, Failure> {
    let of = SecretRef { namespace: namespace.to_owned(), name: name.to_owned() };
    ArcSecret::new(installed.memguard.clone(), of, false).read().await
}

pub(crate) async fn only_as_granted(server: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    namespace(server, NAMESPACE).await?;
    for (namespace, name) in [(NAMESPACE, NAME), (NAMESPACE, "another"), ("ci", NAME)] {
        apply(server, &secret(namespace, name, "a-token")).await?;
    }
    match read(installed, NAMESPACE, NAME).await {
        Err(Failure::Final { why })
            if why.contains("Role in namespace arc-runners") && why.contains("github.arcSecrets") => {}
        other => anyhow::bail!("{other:?}"),
    }
    let text = fs::read_to_string(MANIFEST).with_context(|| format!("can't read {MANIFEST}"))?;
    for object in serde_saphyr::from_multiple::<Value>(&text)? {
        apply(server, &object).await?;
    }
    let granted = until(Duration::from_secs(10), async || read(installed, NAMESPACE, NAME).await.is_ok()).await;
    ensure!(granted, "{:?}", read(installed, NAMESPACE, NAME).await);
    let before = read(installed, NAMESPACE, NAME).await?.version;
    ensure!(read(installed, NAMESPACE, NAME).await?.version == before, "the same one");
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{NAME}");
    server.admin.patch(&path, &json!({"stringData": {"github_token": "another-token"}})).await?;
    ensure!(read(installed, NAMESPACE, NAME).await?.version != before, "another version");
    for (namespace, name) in [(NAMESPACE, "another"), ("ci", NAME), ("memguard", "x")] {
        let refused = read(installed, namespace, name).await;
        ensure!(
            matches!(&refused, Err(Failure::Final { why }) if why.contains("403")),
            "{namespace}/{name}: {refused:?}"
        );
    }
    for (method, path, body) in [
        ("GET", format!("/api/v1/namespaces/{NAMESPACE}/secrets"), Value::Null),
        ("GET", "/api/v1/secrets".to_owned(), Value::Null),
        ("PATCH", path.clone(), json!({})),
        ("DELETE", path.clone(), json!({})),
    ] {
        match send(&installed.memguard, method, &path, &body).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            other => anyhow::bail!("{method} {path}: {other:?}"),
        }
    }
    server.admin.delete(&path).await?;
    match read(installed, NAMESPACE, NAME).await {
        Err(Failure::Final { why }) if why.contains("githubConfigSecret") => Ok(()),
        other => anyhow::bail!("{other:?}"),
    }
}
