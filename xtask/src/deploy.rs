//! `cargo xtask deploy`: the plain manifests, made from the chart; and whether chart and manifests are good.
//!
//! Helm itself lints and renders, with the values of each example in `deploy/examples` too; what comes out is held against
//! the schemas of Kubernetes, and against memguard: its configuration file and its arguments have to be ones that memguard
//! takes.

use std::{collections::BTreeMap, fs, io::Write as _, path::PathBuf, process::Command};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{paths, process, setup, ui};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only check, and say if the manifests are not what the chart renders.
    #[arg(long)]
    check: bool,
}

/// The oldest that the chart claims to work with, and those of today.
const KUBERNETES: [&str; 7] = ["1.25", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36"];
/// Of other projects: nothing here has a schema for them.
const WITHOUT_SCHEMA: [&str; 2] = ["monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule"];
/// Templates in the order in which their objects need each other.
const ORDER: [&str; 4] = ["serviceaccount.yaml", "rbac.yaml", "configmap.yaml", "daemonset.yaml"];
const DEFAULTS: &str = "defaults";
/// What is no part of the manifests: it is another file, from the example that asks for it.
const ARC_SECRETS: &str = "arc-secrets.yaml";
const ARC_SECRETS_EXAMPLE: &str = "arc-secret.yaml";
const ARC_SECRETS_HEAD: &str = "\
# For `arc_secret = true` under [github] in memguard.toml: the right to read the Secrets with ARC's own credentials. Name your
# runners' namespace and Secret. Made from deploy/chart/memguard by `cargo xtask deploy`.
";
const HEAD: &str = "\
# memguard with the chart's defaults: observes on every node. Made from deploy/chart/memguard by `cargo xtask deploy`.
# Put your image in place of registry.example.com/memguard.
apiVersion: v1
kind: Namespace
metadata:
  name: memguard
  labels:
    pod-security.kubernetes.io/enforce: privileged
";

/// What chart.py answers.
#[derive(Deserialize)]
struct Answer {
    lint: Vec<String>,
    cases: BTreeMap<String, Rendered>,
    refused: BTreeMap<String, Option<String>>,
    problems: Vec<String>,
}

#[derive(Deserialize)]
struct Rendered {
    /// By template.
    texts: BTreeMap<String, String>,
    objects: Vec<Value>,
    /// What Helm says after it installed it.
    notes: String,
}

/// Values that the schema has to refuse, and what the message has to name.
fn refused() -> [(&'static str, Value); 13] {
    [
        ("mode", json!({"securityContext": {"mode": "root"}})),
        ("summerwind", json!({"summerwind": {"enabled": "no"}})),
        ("colour", json!({"colour": "red"})),
        ("digest", json!({"image": {"digest": "sha256:abc"}})),
        ("config", json!({"config": {"policy": {"mode": "enforce"}}})),
        ("memory", json!({"resources": {"limits": {"memory": "much"}}})),
        ("maxSurge", json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}})),
        ("port", json!({"metrics": {"port": 0}})),
        ("existingSecret", json!({"github": {"existingSecret": "My Secret"}})),
        ("logFormat", json!({"logFormat": "xml"})),
        ("names", json!({"github": {"arcSecrets": [{"namespace": "arc-runners", "names": []}]}})),
        (
            "twice",
            json!({"github": {"arcSecrets": [{"namespace": "a", "names": ["s"]}, {"namespace": "a", "names": ["t"]}]}}),
        ),
        ("arcSecrets", json!({"github": {"arcSecrets": [{"namespace": "Arc/Runners", "names": ["s"]}]}})),
    ]
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (made, problems) = gather()?;
    for (name, text) in [("memguard.yaml", made.all), (ARC_SECRETS, made.arc_secrets)] {
        let path = paths::root().join("deploy/manifests").join(name);
        if args.check {
            let there = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
            compare(&there, &text).with_context(|| format!("{} is not what the chart renders", path.display()))?;
        } else {
            fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
            ui::say(path.display());
        }
    }
    ensure!(problems.is_empty(), "deploy/chart/memguard has {} problems:\n  {}", problems.len(), problems.join("\n  "));
    Ok(())
}

/// For `cargo xtask test`.
pub(crate) fn check() -> anyhow::Result<()> {
    run(&Args { check: true })
}

/// Plain manifests.
struct Made {
    all: String,
    arc_secrets: String,
}

/// The manifests, and all that is wrong with the chart.
fn gather() -> anyhow::Result<(Made, Vec<String>)> {
    setup::ensure(setup::Part::Chart)?;
    let answer = ask(&cases()?, &refused(), &KUBERNETES)?;
    let mut problems = answer.lint;
    problems.extend(answer.problems);
    for (name, _) in refused() {
        match answer.refused.get(name) {
            Some(Some(message)) if message.contains(name) => {}
            Some(Some(message)) => problems.push(format!("values with a wrong {name} are refused for: {message}")),
            _ => problems.push(format!("values with a wrong {name} are not refused")),
        }
    }
    for (name, rendered) in &answer.cases {
        let warned = rendered.notes.contains("WARNING");
        if warned != HALF_SET.iter().any(|(half, _)| half == name) {
            problems.push(format!(
                "{name}: the notes {} of credentials that nothing uses",
                if warned { "warn" } else { "do not warn" }
            ));
        }
    }
    let memguard = memguard()?;
    for (name, rendered) in &answer.cases {
        problems.extend(beside_memguard(&memguard, rendered)?.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    let defaults = answer.cases.get(DEFAULTS).context("the chart was not rendered")?;
    let example = answer.cases.get(ARC_SECRETS_EXAMPLE).and_then(|example| example.texts.get(ARC_SECRETS));
    let example = example.with_context(|| format!("deploy/examples/{ARC_SECRETS_EXAMPLE} renders no {ARC_SECRETS}"))?;
    let arc_secrets = format!("{ARC_SECRETS_HEAD}---\n{}\n", example.trim());
    Ok((Made { all: manifests(defaults)?, arc_secrets }, problems))
}

/// The pod template of the `DaemonSet` as the chart renders it with the values of an example.
pub(crate) fn template(example: &str) -> anyhow::Result<Value> {
    setup::ensure(setup::Part::Chart)?;
    let cases: Vec<Value> = cases()?.into_iter().filter(|case| case["name"] == example).collect();
    let answer = ask(&cases, &[], &[])?;
    let rendered = answer.cases.get(example).with_context(|| format!("deploy/examples has no {example}"))?;
    of_daemon_set(&rendered.objects).with_context(|| format!("{example} renders no DaemonSet"))
}

/// The same of the plain manifests.
pub(crate) fn manifest_template() -> anyhow::Result<Value> {
    let path = paths::root().join("deploy/manifests/memguard.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("can't read {}", path.display()))?;
    of_daemon_set(&objects).with_context(|| format!("{} has no DaemonSet", path.display()))
}

fn of_daemon_set(objects: &[Value]) -> Option<Value> {
    objects.iter().find(|object| object["kind"] == "DaemonSet").map(|set| set["spec"]["template"].clone())
}

/// Values that bring credentials for GitHub to memguard, and a configuration that does not use them.
const HALF_SET: [(&str, &str); 3] = [
    ("a Secret and no [github]", "github: {existingSecret: s}"),
    ("a Secret and a [github] in a comment", "github: {existingSecret: s}\nconfig: '# [github]'"),
    ("ARC's Secrets and no [github]", "github: {arcSecrets: [{namespace: a, names: [s]}]}"),
];

/// The chart with its defaults, with each example, and half set.
fn cases() -> anyhow::Result<Vec<Value>> {
    let mut cases = vec![json!({"name": DEFAULTS, "values": {}})];
    cases.extend(HALF_SET.map(|(name, values)| json!({"name": name, "yaml": values})));
    let folder = paths::root().join("deploy/examples");
    let mut examples: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("can't read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    examples.sort();
    for path in examples {
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        cases.push(json!({"name": path.file_name().unwrap_or_default().to_string_lossy(), "yaml": text}));
    }
    Ok(cases)
}

/// Has chart.py lint, render and validate.
fn ask(cases: &[Value], refused: &[(&str, Value)], kubernetes: &[&str]) -> anyhow::Result<Answer> {
    let _step = ui::step("chart: lint, render, validate");
    let refused: Vec<Value> = refused.iter().map(|(name, values)| json!({"name": name, "values": values})).collect();
    let question = json!({
        "chart": paths::root().join("deploy/chart/memguard"),
        "cases": cases,
        "refused": refused,
        "kubernetes": kubernetes,
        "without_schema": WITHOUT_SCHEMA,
    });
    let mut question_file = tempfile::tempfile().context("can't make a temporary file")?;
    question_file.write_all(question.to_string().as_bytes())?;
    std::io::Seek::rewind(&mut question_file)?;
    let mut python = setup::chart::python()?;
    python.args(["-c", include_str!("deploy/chart.py")]).stdin(question_file);
    let output = python.output().context("can't start python3")?;
    ui::check_interrupt()?;
    if !output.status.success() {
        bail!("chart.py failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("chart.py's answer is unreadable")
}

/// The objects as one file.
fn manifests(rendered: &Rendered) -> anyhow::Result<String> {
    let unknown = rendered.texts.keys().find(|template| !ORDER.contains(&template.as_str()));
    if let Some(template) = unknown {
        bail!("templates/{template} has no place among the manifests: give it one in xtask/src/deploy.rs");
    }
    let mut text = HEAD.to_owned();
    for template in ORDER {
        let rendered = rendered.texts.get(template).with_context(|| format!("templates/{template} renders nothing"))?;
        text.push_str("---\n");
        text.push_str(rendered.trim());
        text.push('\n');
    }
    Ok(text)
}

fn compare(there: &str, made: &str) -> anyhow::Result<()> {
    if there == made {
        return Ok(());
    }
    let (mut there, mut made) = (there.lines(), made.lines());
    for number in 1.. {
        let (is, ought) = (there.next(), made.next());
        if is != ought || is.is_none() {
            let shown = |line: Option<&str>| line.unwrap_or("(its end)").to_owned();
            bail!("line {number} is {:?} and not {:?}; `cargo xtask deploy` makes it anew", shown(is), shown(ought));
        }
    }
    Ok(())
}

/// memguard as its tests are built: only its command line is used.
fn memguard() -> anyhow::Result<PathBuf> {
    process::run(process::cargo().args(["build", "--quiet", "--package", "memguard", "--bin", "memguard"]))?;
    Ok(paths::target().join("debug/memguard"))
}

/// What memguard itself would refuse.
fn beside_memguard(memguard: &PathBuf, rendered: &Rendered) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    let of_kind = |kind: &'static str| rendered.objects.iter().filter(move |object| object["kind"] == kind);
    let files = of_kind("ConfigMap").filter_map(|map| map["data"]["memguard.toml"].as_str());
    let Some(file) = files.into_iter().next() else { bail!("there is no memguard.toml") };
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("memguard.toml");
    fs::write(&path, file)?;
    let checked = process::output(Command::new(memguard).args(["config", "check"]).arg(&path));
    problems.extend(checked.err().map(|error| format!("{error:#}")));
    let container = of_kind("DaemonSet").map(|set| &set["spec"]["template"]["spec"]["containers"][0]);
    let arguments = container.filter_map(|container| container["args"].as_array()).flatten().filter_map(Value::as_str);
    // Help is given only if everything in front of it is understood.
    let understood = process::output(Command::new(memguard).args(arguments).arg("--help"));
    problems.extend(understood.err().map(|error| format!("{error:#}")));
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told() {
        assert!(compare("a\nb\n", "a\nb\n").is_ok());
        for (there, made, line) in [("a\nb\n", "a\nc\n", "line 2"), ("a\n", "a\nb\n", "line 2"), ("a", "a\n", "line 2")]
        {
            let error = compare(there, made).unwrap_err().to_string();
            assert!(error.starts_with(line), "{error}");
        }
    }

    #[test]
    fn a_template_without_a_place_is_noticed() {
        let texts = ORDER.iter().map(|name| ((*name).to_owned(), "kind: X\n".to_owned()));
        let mut rendered = Rendered { texts: texts.collect(), objects: Vec::new(), notes: String::new() };
        assert_eq!(manifests(&rendered).unwrap().matches("---\nkind: X\n").count(), ORDER.len());
        rendered.texts.insert("secret.yaml".to_owned(), "kind: Secret".to_owned());
        assert!(manifests(&rendered).unwrap_err().to_string().contains("secret.yaml"));
        rendered.texts = BTreeMap::new();
        assert!(manifests(&rendered).unwrap_err().to_string().contains("serviceaccount.yaml"));
    }
}
