//! The role as it is shipped: enough, and nothing more.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, ensure};
use memguard::{
    kubernetes::{Generation, RunnerRef, check, client, delete_runner},
    remote::Failure,
};
use serde_json::{Value, json};

use super::{
    install::Installed,
    server::{Server, send, until},
};

const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/memguard";

/// What memguard asks for, as `verb resource.group`.
async fn asked_for(installed: &Installed) -> BTreeSet<String> {
    let rights = check(&installed.memguard, "node-1").await;
    rights.iter().map(|right| format!("{} {}.{}", right.verb, right.resource, right.group)).collect()
}

pub(crate) async fn exact(_: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    let rights = check(&installed.memguard, "node-1").await;
    for right in &rights {
        ensure!(right.granted == Some(true), "{right:?}");
    }
    // The server's own list of what the account may do in some namespace.
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "ci"},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = send(&installed.memguard, "POST", path, &review).await?;
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in answer["status"]["resourceRules"].as_array().context("no rules")? {
        for verb in texts(rule, "verbs") {
            for resource in texts(rule, "resources") {
                granted.extend(texts(rule, "apiGroups").iter().map(|group| format!("{verb} {resource}.{group}")));
            }
        }
    }
    // Everybody's (ClusterRole system:basic-user): asking about oneself.
    granted.retain(|right| !right.starts_with("create selfsubject"));
    let asked = asked_for(installed).await;
    ensure!(granted == asked, "granted {granted:?}, asked for {asked:?}");
    Ok(())
}

pub(crate) async fn refused(server: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    let event = json!({"metadata": {"name": "e", "namespace": "ci"}, "involvedObject": {"namespace": "ci"}});
    for (method, path, body) in [
        ("DELETE", "/api/v1/namespaces/ci/pods/runner-1", json!({})),
        ("PATCH", "/api/v1/namespaces/ci/pods/runner-1", json!({})),
        ("POST", "/api/v1/namespaces/ci/pods/runner-1/eviction", json!({"metadata": {"name": "runner-1"}})),
        ("GET", "/api/v1/namespaces/ci/pods/runner-1/log", Value::Null),
        ("GET", "/api/v1/namespaces/ci/secrets", Value::Null),
        ("GET", "/api/v1/namespaces/memguard/configmaps/memguard", Value::Null),
        ("GET", "/api/v1/nodes", Value::Null),
        ("GET", "/api/v1/namespaces", Value::Null),
        ("POST", "/api/v1/namespaces/ci/events", event),
        ("GET", "/apis/events.k8s.io/v1/namespaces/ci/events", Value::Null),
        ("GET", "/apis/actions.github.com/v1alpha1/ephemeralrunners", Value::Null),
        ("PATCH", "/apis/actions.github.com/v1alpha1/namespaces/ci/ephemeralrunners/runner-1", json!({})),
        ("DELETE", "/apis/actions.github.com/v1alpha1/namespaces/ci/ephemeralrunners", json!({})),
        ("PUT", ROLE, installed.role.clone()),
    ] {
        match send(&installed.memguard, method, path, &body).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            other => anyhow::bail!("{method} {path}: {other:?}"),
        }
    }
    // A token that is none is no matter of rights: it can be a new one the next time.
    let stranger = server.kubeconfig("stranger", "no-token-of-anybody")?;
    let rights = check(&client(Some(&stranger), Duration::from_secs(10)).await?, "node-1").await;
    let problem = rights[0].problem.clone().unwrap_or_default();
    ensure!(rights[0].granted.is_none() && problem.contains("401"), "{rights:?}");
    ensure!(!problem.contains("no-token-of-anybody") && !problem.contains(&installed.token), "{problem}");
    Ok(())
}

pub(crate) async fn taken_away(server: &mut Server, installed: &Installed) -> anyhow::Result<()> {
    let mut less = installed.role.clone();
    for rule in less["rules"].as_array_mut().context("no rules")? {
        if let Some(verbs) = rule["verbs"].as_array_mut() {
            verbs.retain(|verb| verb != "delete");
        }
    }
    server.admin.put(ROLE, &less).await?;
    let missing = async || {
        let rights = check(&installed.memguard, "node-1").await;
        let missing = rights.iter().filter(|right| right.granted == Some(false));
        missing.map(|right| format!("{} {}", right.verb, right.resource)).collect::<Vec<_>>()
    };
    let expected = ["delete ephemeralrunners", "delete runners"];
    ensure!(until(Duration::from_secs(10), async || missing().await == expected).await, "{:?}", missing().await);
    let runner = RunnerRef {
        api: Generation::ScaleSets,
        namespace: "ci".to_owned(),
        name: "runner-1".to_owned(),
        uid: Some("u-1".to_owned()),
    };
    let deleted = delete_runner(&installed.memguard, &runner).await;
    server.admin.put(ROLE, &installed.role).await?;
    ensure!(until(Duration::from_secs(10), async || missing().await.is_empty()).await, "{:?}", missing().await);
    match deleted {
        Err(Failure::Final { why })
            if why.contains("ClusterRole memguard the verb \"delete\" on ephemeralrunners.actions.github.com") =>
        {
            Ok(())
        }
        other => anyhow::bail!("{other:?}"),
    }
}
