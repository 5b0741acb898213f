//! ARC's own credentials for GitHub: the Secret that a runner's object names. It is read only where the configuration says
//! so ([`crate::github::Source::Arc`]), and only in namespaces in which memguard was given the right to.
//!
//! # What is trusted
//!
//! Whoever may write an `EphemeralRunner` chooses which Secret of its own namespace is read, and nothing else: no other
//! namespace, and not the GitHub to which it is sent, nor a proxy or a certificate on the way, which the configuration
//! says. What a Secret holds besides ARC's names is not looked at and not told.

use std::collections::BTreeMap;

use futures_util::{FutureExt as _, future::BoxFuture};
use k8s_openapi::ByteString;
use kube::{Client, api::GetParams, core::Request};
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::{
    failure::{Call, SECRETS},
    runner::{Generation, RunnerFacts, is_name},
};
use crate::{
    github::{Keeper, Kept},
    remote::{Failure, server_text},
};

/// Which Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef {
    pub namespace: String,
    pub name: String,
}

impl RunnerFacts {
    /// Where ARC has its credentials for this runner, or why that is not known.
    pub fn arc_secret(&self) -> Result<SecretRef, String> {
        if self.api == Generation::Summerwind {
            return Err(
                "the runners of actions.summerwind.dev name no secret of their own; memguard needs credentials of \
                        its own there (github.credentials)"
                    .to_owned(),
            );
        }
        let Some(name) = &self.github_secret else {
            return Err("the runner's object names no githubConfigSecret".to_owned());
        };
        if self.vault {
            return Err(
                "ARC has its credentials for this runner in a vault (vaultConfig), where memguard does not look; \
                        it needs credentials of its own there (github.credentials)"
                    .to_owned(),
            );
        }
        // It becomes a part of a path.
        if !is_name(name) {
            return Err(format!("the runner's githubConfigSecret is \"{}\", which is no name", server_text(name)));
        }
        Ok(SecretRef { namespace: self.namespace.clone(), name: name.clone() })
    }
}

/// Reads it through the API.
#[derive(Clone)]
pub struct ArcSecret {
    client: Client,
    of: SecretRef,
    /// The runner's object names a proxy.
    proxied: bool,
}

impl ArcSecret {
    #[must_use]
    pub const fn new(client: Client, of: SecretRef, proxied: bool) -> Self {
        Self { client, of, proxied }
    }
}

impl std::fmt::Debug for ArcSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArcSecret").field("of", &self.of).finish_non_exhaustive()
    }
}

impl Keeper for ArcSecret {
    fn name(&self) -> String {
        format!("Secret {}/{}", self.of.namespace, self.of.name)
    }

    fn hint(&self) -> Option<&'static str> {
        const HINT: &str = "ARC's runners of this kind reach GitHub through a proxy; memguard uses only one that \
                            github.proxy or HTTPS_PROXY names, and there is none";
        self.proxied.then_some(HINT)
    }

    fn read(&self) -> BoxFuture<'_, Result<Kept, Failure>> {
        read(&self.client, &self.of).boxed()
    }
}

async fn read(client: &Client, of: &SecretRef) -> Result<Kept, Failure> {
    #[derive(Deserialize)]
    struct Secret {
        metadata: Metadata,
        #[serde(default)]
        data: Option<BTreeMap<String, ByteString>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        uid: String,
        resource_version: String,
    }

    let call = Call { verb: "get", resource: SECRETS, of: format!("{}/{}", of.namespace, of.name) };
    let request = Request::new(format!("/api/v1/namespaces/{}/secrets", of.namespace));
    let answer = call.send(client, request.get(&of.name, &GetParams::default())).await;
    let text = Zeroizing::new(answer.map_err(|error| match (&error, call.failed(&error)) {
        (kube::Error::Api(status), Failure::Final { why }) if status.code == 404 => {
            Failure::Final { why: format!("{why}; it is what the runner's object names as githubConfigSecret") }
        }
        (_, failure) => failure,
    })?);
    // Not the error's own words: they repeat what was read.
    let secret: Secret = serde_json::from_str(&text).map_err(|_| call.later("the answer is no Secret"))?;
    let Metadata { uid, resource_version } = secret.metadata;
    let values = secret.data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0));
    Ok(Kept::new(format!("{uid}/{resource_version}"), values))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::kubernetes::fixture::{Server, server};

    const PATH: &str = "/api/v1/namespaces/ci/secrets/arc";

    fn of() -> SecretRef {
        SecretRef { namespace: "ci".to_owned(), name: "arc".to_owned() }
    }

    fn facts() -> RunnerFacts {
        RunnerFacts {
            api: Generation::ScaleSets,
            namespace: "ci".to_owned(),
            name: "r-1".to_owned(),
            uid: "u".to_owned(),
            phase: None,
            scale_set: None,
            config_url: None,
            job: None,
            github_secret: Some("arc".to_owned()),
            arc_version: None,
            vault: false,
            proxied: false,
        }
    }

    #[test]
    fn a_runner_names_a_secret_of_its_own_namespace_and_nothing_else() {
        assert_eq!(facts().arc_secret(), Ok(of()));
        for (facts, why) in [
            (RunnerFacts { api: Generation::Summerwind, ..facts() }, "credentials of its own"),
            (RunnerFacts { github_secret: None, ..facts() }, "names no githubConfigSecret"),
            (RunnerFacts { vault: true, ..facts() }, "vault"),
            (RunnerFacts { github_secret: Some("../../other/secrets/x".to_owned()), ..facts() }, "no name"),
            (RunnerFacts { github_secret: Some("a?b".to_owned()), ..facts() }, "no name"),
        ] {
            let error = facts.arc_secret().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    async fn answered(answer: impl AsyncFnOnce(&mut Server)) -> Result<Kept, Failure> {
        let (client, mut server) = server();
        tokio::join!(async { read(&client, &of()).await }, answer(&mut server)).0
    }

    #[tokio::test]
    async fn it_is_read_with_its_version_and_shown_without_its_values() {
        let kept = answered(async |server: &mut Server| {
            let body = json!({
                "metadata": {"uid": "u", "resourceVersion": "7"}, "data": {"github_token": "c2VjcmV0", "x": "eA=="},
            });
            server.expect(&Method::GET, PATH).await.json(200, &body);
        });
        let kept = kept.await.unwrap();
        assert_eq!(kept.version, "u/7");
        let shown = format!("{kept:?}");
        assert!(!shown.contains("secret") && !shown.contains("115, 101"), "{shown}");
    }

    #[tokio::test]
    async fn what_is_missing_is_named_with_a_remedy() {
        let refused = async |code, message: &'static str| {
            answered(async move |server: &mut Server| server.expect(&Method::GET, PATH).await.refuse(code, message))
                .await
                .unwrap_err()
        };
        let Failure::Final { why } = refused(403, "secrets is forbidden").await else { panic!() };
        for part in ["ci/arc", "Role in namespace ci", "github.arcSecrets"] {
            assert!(why.contains(part), "{part}: {why}");
        }
        assert!(!why.contains("ClusterRole"), "{why}");
        let Failure::Final { why } = refused(404, "secrets \"arc\" not found").await else { panic!() };
        assert!(why.contains("githubConfigSecret"), "{why}");
        assert!(matches!(refused(503, "x").await, Failure::Later { .. }));
    }

    #[tokio::test]
    async fn an_answer_that_is_no_secret_is_not_repeated() {
        for body in [
            json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "data": {"github_token": "ghp no base64"}}),
            json!({"metadata": {"uid": "ghp_0123"}, "data": "ghp"}),
        ] {
            let failure = answered(async move |server: &mut Server| {
                server.expect(&Method::GET, PATH).await.json(200, &body);
            });
            let why = failure.await.unwrap_err().to_string();
            assert!(why.contains("no Secret") && !why.contains("ghp"), "{why}");
        }
    }
}
