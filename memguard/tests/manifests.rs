//! The manifests in `deploy/`, held against what memguard asks for. What Helm and Kubernetes make of them is checked by
//! `cargo xtask deploy` and by `kube_api`.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::Context as _;
use memguard::{config, kubernetes, respond::Mode};
use serde_json::{Value, json};

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/manifests/memguard.yaml");

fn object(kind: &str) -> anyhow::Result<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(MANIFESTS)?)?;
    objects.into_iter().find(|object| object["kind"] == kind).context("no such object")
}

/// What the doctor asks about; nobody answers here.
async fn asked_for() -> anyhow::Result<BTreeSet<String>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    });
    fs::write(&path, kubeconfig.to_string())?;
    let client = kubernetes::client(Some(&path), Duration::from_secs(1)).await?;
    let rights = kubernetes::check(&client, "node-1").await;
    Ok(rights.iter().map(|right| format!("{} {}.{}", right.verb, right.resource, right.group)).collect())
}

#[tokio::test]
async fn the_role_has_the_rights_that_memguard_asks_for_and_no_other() {
    let role = object("ClusterRole").unwrap();
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        rule[field].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for (verb, resource) in
            texts(rule, "verbs").iter().flat_map(|v| texts(rule, "resources").into_iter().map(move |r| (v, r)))
        {
            granted.extend(texts(rule, "apiGroups").iter().map(|group| format!("{verb} {resource}.{group}")));
        }
    }
    assert_eq!(granted, asked_for().await.unwrap());
    assert_eq!(role["metadata"]["name"], "memguard", "as errors name it");
}

#[test]
fn the_right_to_read_secrets_is_a_file_of_its_own_and_for_named_ones_in_one_namespace() {
    let path = MANIFESTS.replace("memguard.yaml", "arc-secrets.yaml");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap();
    let [role, binding] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!((&role["kind"], &binding["kind"]), (&json!("Role"), &json!("RoleBinding")));
    assert_eq!(role["metadata"]["namespace"], binding["metadata"]["namespace"]);
    let rules = role["rules"].as_array().unwrap();
    assert_eq!(
        rules[..],
        [json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["arc-github-app"], "verbs": ["get"]})]
    );
    assert_eq!(binding["subjects"][0], json!({"kind": "ServiceAccount", "name": "memguard", "namespace": "memguard"}));
    let all = fs::read_to_string(MANIFESTS).unwrap();
    assert!(!all.contains("secrets"), "not by default");
}

#[test]
fn the_configuration_is_read_and_observes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memguard.toml");
    fs::write(&path, object("ConfigMap").unwrap()["data"]["memguard.toml"].as_str().unwrap()).unwrap();
    assert_eq!(config::read(&path).unwrap().policy.mode, Mode::Observe);
}

#[test]
fn the_pod_has_the_folders_that_memguard_opens_and_no_other_of_the_host() {
    let pod = object("DaemonSet").unwrap()["spec"]["template"]["spec"].clone();
    let hosts: Vec<&str> =
        pod["volumes"].as_array().unwrap().iter().filter_map(|volume| volume["hostPath"]["path"].as_str()).collect();
    assert_eq!(hosts, ["/sys/fs/cgroup", "/run/memguard", "/var/lib/memguard"]);
    // Under the names by which memguard looks for them.
    for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        if let Some(path) = volume["hostPath"]["path"].as_str() {
            assert_eq!(mount["mountPath"], path);
        }
    }
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&json!(true), &json!(false)));
    assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
}
