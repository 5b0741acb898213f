//! Commands of the documents that are not memguard's: a short list of tools, and what of ours they are given has to be
//! there.

use std::path::Path;

use serde_json::Value;

use super::console::{Asked, root};

/// Tools that are told of as they are, each with what else is looked at here.
const TOOLS: &[&str] = &[
    // Files of this repository.
    "helm",
    "kubectl",
    "sed",
    "install",
    "cargo",
    // Services and logs of the host.
    "systemctl",
    "journalctl",
    "jq",
    // What builds kube-apiserver (docs/testing-kubernetes.md).
    "apt-get",
    "cd",
    "cp",
    "dpkg-deb",
    "export",
    "go",
    "ln",
    "make",
    "mkdir",
    "rm",
    "tar",
];

/// Why a command can't be right. What of it is memguard's is held against memguard elsewhere.
pub(crate) fn objection(asked: &Asked) -> Option<String> {
    let words: Vec<&str> = asked.words.iter().map(String::as_str).collect();
    let (tool, arguments) = words.split_first()?;
    if !TOOLS.contains(tool) {
        return Some(format!("{tool} is none of the tools that documents may tell of ({})", TOOLS.join(", ")));
    }
    match *tool {
        "helm" => helm(arguments),
        "kubectl" => kubectl(arguments),
        "sed" => sed(arguments),
        "install" => arguments.get(2).and_then(|file| missing(file)),
        "cargo" => cargo(arguments),
        _ => None,
    }
}

fn missing(file: &str) -> Option<String> {
    // What is built is not there before.
    (!file.starts_with("target/") && !root().join(file).exists()).then(|| format!("there is no {file}"))
}

fn helm(arguments: &[&str]) -> Option<String> {
    let (command, rest) = arguments.split_first()?;
    let charts = match *command {
        "install" | "upgrade" => 1,
        "uninstall" => 0,
        _ => return Some(format!("helm {command} is not known here")),
    };
    let mut positional = Vec::new();
    let mut rest = rest.iter();
    while let Some(&word) = rest.next() {
        match word {
            "--namespace" => drop(rest.next()),
            "--reuse-values" | "--create-namespace" => {}
            "-f" | "--values" => {
                let file = rest.next()?;
                if let Some(objection) = missing(file) {
                    return Some(objection);
                }
            }
            "--set" => {
                for (key, _) in rest.next()?.split(',').filter_map(|set| set.split_once('=')) {
                    if !is_value(key) {
                        return Some(format!(
                            "{key} is no value of the chart: deploy/chart/memguard/values.schema.json"
                        ));
                    }
                }
            }
            option if option.starts_with('-') => return Some(format!("helm's {option} is not known here")),
            word => positional.push(word),
        }
    }
    if positional.len() != charts + 1 {
        return Some(format!("helm {command} takes a release and {charts} chart, not {positional:?}"));
    }
    positional.get(1).and_then(|chart| missing(&format!("{chart}/Chart.yaml")))
}

/// Whether the chart's schema has it.
fn is_value(key: &str) -> bool {
    let schema = std::fs::read_to_string(root().join("deploy/chart/memguard/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut place = &schema;
    for name in key.split('.') {
        let name = name.split('[').next().unwrap_or_default();
        if let Some(reference) = place["$ref"].as_str() {
            place = schema.pointer(reference.trim_start_matches('#')).unwrap();
        }
        place = match (&place["properties"][name], &place["additionalProperties"]) {
            (Value::Null, free @ Value::Object(_)) => free,
            (Value::Null, _) => return false,
            (found, _) => found,
        };
    }
    true
}

fn kubectl(arguments: &[&str]) -> Option<String> {
    // Behind `--` stands what runs in a pod.
    let own = arguments.split(|word| *word == "--").next().unwrap_or_default();
    let file = own.iter().position(|word| *word == "-f").and_then(|at| own.get(at + 1));
    file.and_then(|file| missing(file))
}

/// `sed -i 's|a|b|' FILE`: what is replaced has to be there.
fn sed(arguments: &[&str]) -> Option<String> {
    let ["-i", script, file] = arguments else { return Some("write sed -i 's|WHAT|BY|' FILE".to_owned()) };
    let what = script.split('|').nth(1)?;
    let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
    (!text.contains(what)).then(|| format!("{file} has no {what}"))
}

/// `cargo xtask` is held against its own definition; here are `cargo test` and its like.
fn cargo(arguments: &[&str]) -> Option<String> {
    if arguments.first() == Some(&"xtask") {
        return None;
    }
    let after = |option: &str| arguments.iter().position(|word| *word == option).and_then(|at| arguments.get(at + 1));
    if !["test", "check", "clippy", "fmt", "install"].contains(arguments.first()?) {
        return Some(format!("cargo {} is not known here", arguments[0]));
    }
    let package = after("-p").copied().unwrap_or("memguard");
    let folder = ["", "tests/"]
        .map(|above| format!("{above}{}", package.trim_start_matches(if above.is_empty() { "" } else { "memguard-" })))
        .into_iter()
        .find(|folder| root().join(folder).join("Cargo.toml").exists());
    let Some(folder) = folder else { return Some(format!("there is no package {package}")) };
    let test = after("--test")?;
    let places = [format!("{folder}/tests/{test}.rs"), format!("{folder}/tests/{test}/main.rs")];
    places.iter().all(|place| !Path::new(&root().join(place)).exists()).then(|| format!("{package} has no test {test}"))
}

#[test]
fn what_can_not_be_right_is_objected_to() {
    let ask = |line: &str| {
        let words = super::console::simple(line).remove(0);
        objection(&Asked { place: String::new(), words })
    };
    for good in [
        "helm install memguard deploy/chart/memguard --namespace m --set image.repository=x,metrics.port=1",
        "helm upgrade memguard deploy/chart/memguard -f deploy/examples/github-app.yaml --set nodeSelector.a=b",
        "helm upgrade memguard deploy/chart/memguard --set securityContext.mode=capabilities",
        "kubectl apply -f deploy/manifests/memguard.yaml",
        "kubectl -n memguard exec pod -- tail -f /x",
        "cargo test -p memguard --test kube_api",
        "cargo test -p memguard-lab",
        "cargo xtask whatever",
        "jq .",
    ] {
        assert_eq!(ask(good), None, "{good}");
    }
    for (bad, why) in [
        ("curl x", "none of the tools"),
        ("helm install memguard deploy/chart/other", "there is no deploy/chart/other"),
        ("helm install deploy/chart/memguard", "takes a release"),
        ("helm upgrade m deploy/chart/memguard -f deploy/examples/none.yaml", "none.yaml"),
        ("helm install m deploy/chart/memguard --set image.name=x", "image.name is no value"),
        ("helm install m deploy/chart/memguard --set metrics.port.x=1", "is no value"),
        ("helm install m deploy/chart/memguard --wait-for x", "--wait-for"),
        ("kubectl apply -f deploy/none.yaml", "none.yaml"),
        ("sed -i 's|no such image|x|' deploy/manifests/memguard.yaml", "has no no such image"),
        ("cargo test -p memguard --test none", "no test none"),
        ("cargo test -p none", "no package"),
    ] {
        assert!(ask(bad).is_some_and(|objection| objection.contains(why)), "{bad}: {:?}", ask(bad));
    }
}
