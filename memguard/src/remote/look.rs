//! For `memguard doctor`: whether ARC's secrets can be read, and what they are good for.

use kube::Client;

use super::Failure;
use crate::{
    github::{Check, Server, Settings, SetupError, Verdict},
    kubernetes::{self, ArcSecret, SecretRef},
};

/// Of one node; what holds for these holds for the others most likely.
const MOST_RUNNERS: usize = 32;
const MOST_SECRETS: usize = 8;
const NAME: &str = "ARC's secret";

/// Looks at the secrets of the runners that are on this node. Nothing is changed by it, but for tokens that Apps get.
pub async fn look_at_arc_secrets(client: &Client, node: &str, settings: &Settings) -> Result<Vec<Check>, SetupError> {
    let server = Server::new(settings)?;
    let mut checks = vec![server.address()];
    let runners = match kubernetes::runners_on(client, node).await {
        Ok(runners) => runners,
        Err(failure) => {
            checks.push(bad(&failure));
            return Ok(checks);
        }
    };
    let mut secrets: Vec<(SecretRef, bool)> = Vec::new();
    for runner in runners.iter().take(MOST_RUNNERS) {
        let secret = async {
            let facts = kubernetes::job(client, runner).await?;
            let secret = facts.arc_secret().map_err(|why| Failure::Final { why })?;
            server.serves(facts.config_url.as_deref().unwrap_or_default())?;
            Ok::<_, Failure>((secret, facts.proxied))
        };
        match secret.await {
            Ok(secret) if secrets.iter().any(|(other, _)| *other == secret.0) => {}
            Ok(secret) => secrets.push(secret),
            Err(failure) => {
                let check = bad(&failure);
                if !checks.contains(&check) {
                    checks.push(check);
                }
            }
        }
    }
    if runners.is_empty() {
        checks.push(Check {
            name: NAME,
            verdict: Verdict::Unknown,
            found: format!("no runner of ARC's is on node {node} now, so it is not known which secrets there are"),
            remedy: Some("look again while a runner is there".to_owned()),
        });
    }
    for (secret, proxied) in secrets.into_iter().take(MOST_SECRETS) {
        let name = format!("{}/{}", secret.namespace, secret.name);
        let github = server.with(ArcSecret::new(client.clone(), secret, proxied));
        // The address is the same for all.
        let of_it = github.doctor().await.into_iter().filter(|check| check.name != "address");
        checks.extend(of_it.map(|check| Check { found: format!("with {name}: {}", check.found), ..check }));
    }
    Ok(checks)
}

fn bad(failure: &Failure) -> Check {
    Check { name: NAME, verdict: Verdict::Bad, found: failure.to_string(), remedy: None }
}
