use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::{
    fixture::{runner_pod, server},
    pods::facts,
};

const RUNNER: &str = "/apis/actions.github.com/v1alpha1/namespaces/ci/ephemeralrunners/set-abc-runner-xyz";
const POD: &str = "/api/v1/namespaces/ci/pods/set-abc-runner-xyz";
const NAME: &str = "set-abc-runner-xyz";

fn reference(api: Generation, uid: Option<&str>) -> RunnerRef {
    RunnerRef { api, namespace: "ci".to_owned(), name: NAME.to_owned(), uid: uid.map(str::to_owned) }
}

/// Of ARC 0.9.2: no job id, `failures` of flags.
fn of_0_9_2() -> Value {
    json!({
        "apiVersion": "actions.github.com/v1alpha1", "kind": "EphemeralRunner",
        "metadata": {
            "name": NAME, "namespace": "ci", "uid": "u-1",
            "labels": {
                "actions.github.com/scale-set-name": "set", "actions.github.com/scale-set-namespace": "ci",
                "app.kubernetes.io/version": "0.9.2",
            },
        },
        "spec": {
            "githubConfigUrl": "https://github.com/octo", "githubConfigSecret": "arc-secret", "runnerScaleSetId": 1,
            "metadata": {"labels": {}}, "spec": {"containers": [{"name": "runner"}]},
        },
        "status": {
            "phase": "Running", "ready": true, "runnerId": 17, "runnerName": NAME, "failures": {"a-b-c": true},
            "jobRequestId": 4711, "jobRepositoryName": "octo/repo", "workflowRunId": 9_500_000_001_u64,
            "jobWorkflowRef": "octo/repo/.github/workflows/ci.yml@refs/heads/main", "jobDisplayName": "build",
        },
    })
}

/// Of ARC 0.14: a job id, `failures` with times.
fn of_0_14() -> Value {
    let mut runner = of_0_9_2();
    runner["metadata"]["labels"]["app.kubernetes.io/version"] = "0.14.2".into();
    runner["status"]["failures"] = json!({"a-b-c": "2026-01-01T00:00:00Z"});
    runner["status"]["jobId"] = "11111111-2222-3333-4444-555555555555".into();
    runner
}

fn summerwind(repository: &str, run_id: &Value) -> Value {
    json!({
        "apiVersion": "actions.summerwind.dev/v1alpha1", "kind": "Runner",
        "metadata": {"name": NAME, "namespace": "ci", "uid": "u-1"},
        "status": {
            "phase": "Running",
            "workflow": {
                "name": "CI", "repository": repository, "repositoryOwner": "octo", "runNumber": "12",
                "runID": run_id, "job": "build", "action": "__run",
            },
        },
    })
}

/// What comes of an object of the API.
async fn asked(api: Generation, object: &Value) -> Result<RunnerFacts, Failure> {
    let (client, mut server) = server();
    let runner = reference(api, Some("u-1"));
    let serve = async { server.next().await.json(200, object) };
    tokio::join!(job(&client, &runner), serve).0
}

fn why(result: Result<RunnerFacts, Failure>) -> String {
    match result {
        Err(Failure::Final { why }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_leads_to_its_runner() {
    let pod = facts(&runner_pod("p-1", NAME));
    assert_eq!(RunnerRef::of(&pod), Some(reference(Generation::ScaleSets, Some("runner-of-p-1"))));
    let mut old = pod.clone();
    old.owner = old.owner.map(|owner| Owner {
        api_version: "actions.summerwind.dev/v1alpha1".to_owned(),
        kind: "Runner".to_owned(),
        ..owner
    });
    assert_eq!(RunnerRef::of(&old), Some(reference(Generation::Summerwind, Some("runner-of-p-1"))));

    let other = PodFacts { name: "elsewhere".to_owned(), ..pod.clone() };
    assert_eq!(RunnerRef::of(&other), None, "another pod can't claim a runner");
    let with = |change: &dyn Fn(&mut Owner)| {
        let mut pod = pod.clone();
        pod.owner.iter_mut().for_each(change);
        RunnerRef::of(&pod)
    };
    assert_eq!(with(&|owner| owner.controller = false), None);
    assert_eq!(with(&|owner| owner.kind = "AutoscalingRunnerSet".to_owned()), None);
    assert_eq!(with(&|owner| owner.api_version = "actions.github.com/v2".to_owned()), None);
    assert_eq!(RunnerRef::of(&PodFacts { owner: None, ..pod.clone() }), None);
}

#[test]
fn a_jobs_pod_leads_to_its_runner_in_the_same_namespace_only() {
    let pod = |name: &str, label: &str| {
        let mut pod = PodFacts { name: name.to_owned(), owner: None, ..facts(&runner_pod("p-1", NAME)) };
        pod.labels.insert(RUNNER_POD.to_owned(), label.to_owned());
        RunnerRef::of(&pod)
    };
    let expected = Some(reference(Generation::ScaleSets, None));
    assert_eq!(pod("set-abc-runner-xyz-workflow", NAME), expected);
    assert_eq!(pod("set-abc-runner-xyz-step-1a2b3c4d", NAME), expected);
    let long = format!("{}-runner-xyz", "s".repeat(50));
    assert_eq!(pod(&format!("{}-workflow", &long[..54]), &long).map(|runner| runner.name), Some(long));
    for (name, label) in [
        ("other-workflow", NAME),
        ("set-workflow", NAME),
        ("-workflow", NAME),
        (NAME, NAME),
        ("x-workflow", "kube-system/x"),
        ("../../pods/x-workflow", "../../pods/x"),
        ("a?b-workflow", "a?b"),
        ("A-workflow", "A"),
        ("..-workflow", ".."),
        ("-workflow", ""),
    ] {
        assert_eq!(pod(name, label), None, "{name} {label}");
    }
}

#[tokio::test]
async fn the_job_of_an_ephemeral_runner_of_any_version() {
    for (object, version, job_id) in
        [(of_0_9_2(), "0.9.2", None), (of_0_14(), "0.14.2", Some("11111111-2222-3333-4444-555555555555"))]
    {
        let facts = asked(Generation::ScaleSets, &object).await.unwrap();
        assert_eq!(facts.runner(), reference(Generation::ScaleSets, Some("u-1")));
        assert_eq!((facts.phase.as_deref(), facts.scale_set.as_deref()), (Some("Running"), Some("set")));
        assert_eq!(facts.config_url.as_deref(), Some("https://github.com/octo"));
        assert_eq!((facts.github_secret.as_deref(), facts.arc_version.as_deref()), (Some("arc-secret"), Some(version)));
        let expected = JobFacts {
            repository: "octo/repo".to_owned(),
            run_id: 9_500_000_001,
            workflow_ref: Some("octo/repo/.github/workflows/ci.yml@refs/heads/main".to_owned()),
            display_name: Some("build".to_owned()),
            job_id: job_id.map(str::to_owned),
            runner_name: NAME.to_owned(),
        };
        assert_eq!(facts.job, Some(expected));
    }
}

#[tokio::test]
async fn the_job_of_a_runner_of_the_older_api() {
    for (repository, run_id) in [("octo/repo", json!("42")), ("repo", json!(42))] {
        let facts = asked(Generation::Summerwind, &summerwind(repository, &run_id)).await.unwrap();
        let job = facts.job.unwrap();
        assert_eq!((job.repository.as_str(), job.run_id, job.runner_name.as_str()), ("octo/repo", 42, NAME));
        assert!(facts.api.says_what_jobs_wrote());
    }
    let empty = summerwind("", &json!(""));
    assert_eq!(asked(Generation::Summerwind, &empty).await.unwrap().job, None);
}

#[tokio::test]
async fn a_run_of_somebody_else_is_not_believed_of_a_runner_of_the_older_api() {
    for (spec, believed) in [
        (json!({"repository": "Octo/Repo"}), true),
        (json!({"organization": "OCTO"}), true),
        (json!({"enterprise": "big"}), true),
        (json!({"organization": "octo", "repository": "octo/other"}), false),
        (json!({"repository": "octo/other"}), false),
        (json!({"organization": "other"}), false),
    ] {
        let mut runner = summerwind("octo/repo", &json!("42"));
        runner["spec"] = spec.clone();
        let asked = asked(Generation::Summerwind, &runner).await;
        assert_eq!(asked.is_ok(), believed, "{spec}");
        if !believed {
            assert!(why(asked).contains("registered for o"), "{spec}");
        }
    }
}

#[tokio::test]
async fn a_password_in_an_address_goes_no_further() {
    for (url, bare) in [
        ("https://user:c2VjcmV0@github.com/octo", "https://github.com/octo"),
        ("https://user:c2V/cmV0@github.com/octo", "https://github.com/octo"),
        ("user:c2VjcmV0@github.com/octo", "github.com/octo"),
        ("https://c2VjcmV0@", "https://"),
        ("https://github.com/octo", "https://github.com/octo"),
    ] {
        let mut runner = of_0_14();
        runner["spec"]["githubConfigUrl"] = url.into();
        let facts = asked(Generation::ScaleSets, &runner).await.unwrap();
        assert_eq!(facts.config_url.as_deref(), Some(bare));
        assert!(!serde_json::to_string(&facts).unwrap().contains("cmV0"));
    }
}

#[tokio::test]
async fn an_idle_runner_has_no_job() {
    for status in [json!({"phase": "Running", "runnerId": 5}), json!({}), json!({"workflowRunId": 0})] {
        let mut runner = of_0_14();
        runner["status"] = status;
        assert_eq!(asked(Generation::ScaleSets, &runner).await.unwrap().job, None);
    }
    let mut young = of_0_14();
    young.as_object_mut().unwrap().remove("status");
    assert_eq!(asked(Generation::ScaleSets, &young).await.unwrap().phase, None);
}

#[tokio::test]
async fn what_is_no_run_is_refused() {
    for id in [
        json!(0),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!("+5"),
        json!(" 5"),
        json!(null),
        json!("99999999999999999999"),
    ] {
        let mut runner = of_0_14();
        runner["status"]["workflowRunId"] = id.clone();
        assert!(why(asked(Generation::ScaleSets, &runner).await).contains("id is"), "{id}");
        assert!(why(asked(Generation::Summerwind, &summerwind("octo/repo", &id)).await).contains("id is"), "{id}");
    }
    for repository in
        ["octo", "octo/", "/repo", "octo/repo/x", "octo/..", "../repo", "octo/re po", "octo/r\nx", "octo/r?x", "é/x"]
    {
        let mut runner = of_0_14();
        runner["status"]["jobRepositoryName"] = repository.into();
        let why = why(asked(Generation::ScaleSets, &runner).await);
        assert!(why.contains("owner/repository") && !why.contains('\n'), "{why}");
    }
}

#[tokio::test]
async fn odd_types_hide_only_themselves() {
    let mut runner = of_0_14();
    runner["status"]["failures"] = json!([1, "x"]);
    runner["status"]["phase"] = json!({"a": 1});
    runner["status"]["jobDisplayName"] = format!("ä{}", "ü".repeat(100_000)).into();
    runner["spec"]["githubConfigSecret"] = json!([]);
    let facts = asked(Generation::ScaleSets, &runner).await.unwrap();
    assert_eq!((facts.phase, facts.github_secret), (None, None));
    let job = facts.job.unwrap();
    assert_eq!((job.run_id, job.display_name.unwrap().len()), (9_500_000_001, 512));
}

#[tokio::test]
async fn another_runner_of_the_same_name_is_not_taken_for_it() {
    let mut runner = of_0_14();
    runner["metadata"]["uid"] = "u-2".into();
    assert!(why(asked(Generation::ScaleSets, &runner).await).contains("another one"));
    assert!(why(asked(Generation::ScaleSets, &json!({})).await).contains("uid"));
    assert!(why(asked(Generation::ScaleSets, &json!("x\n")).await).contains("unreadable"));
}

#[tokio::test]
async fn failures_are_told_apart() {
    for (code, final_) in [(404, true), (403, true), (401, false), (429, false), (503, false)] {
        let (client, mut server) = server();
        let runner = reference(Generation::ScaleSets, Some("u-1"));
        let serve = async { server.expect(&Method::GET, RUNNER).await.refuse(code, "no") };
        let failure = tokio::join!(job(&client, &runner), serve).0.unwrap_err();
        assert_eq!(matches!(failure, Failure::Final { .. }), final_, "{code}");
    }
}

/// A label's claim, the pod that it leads to, and whether the runner is asked for then.
async fn claimed(pod: Result<Value, u16>, runner: Option<Value>) -> Result<RunnerFacts, Failure> {
    let (client, mut server) = server();
    let serve = async {
        let asked = server.expect(&Method::GET, POD).await;
        match pod {
            Ok(pod) => asked.json(200, &pod),
            Err(code) => asked.refuse(code, "no"),
        }
        if let Some(runner) = runner {
            server.expect(&Method::GET, RUNNER).await.json(200, &runner);
        }
    };
    let runner = reference(Generation::ScaleSets, None);
    tokio::join!(job(&client, &runner), serve).0
}

#[tokio::test]
async fn a_labels_claim_is_checked() {
    let pod = || {
        let mut pod = runner_pod("p-1", NAME);
        pod["metadata"]["ownerReferences"][1]["uid"] = "u-1".into();
        pod
    };
    assert_eq!(claimed(Ok(pod()), Some(of_0_14())).await.unwrap().uid, "u-1");

    assert!(matches!(claimed(Err(404), None).await, Err(Failure::Final { .. })));
    assert!(matches!(claimed(Err(500), None).await, Err(Failure::Later { .. })));
    for (field, value) in [("kind", "Job"), ("name", "other"), ("apiVersion", "v1")] {
        let mut pod = pod();
        pod["metadata"]["ownerReferences"][1][field] = value.into();
        assert!(why(claimed(Ok(pod), None).await).contains("no EphemeralRunner"), "{field}");
    }
    let mut ownerless = pod();
    ownerless["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    assert!(why(claimed(Ok(ownerless), None).await).contains("no EphemeralRunner"));
    let mut replaced = of_0_14();
    replaced["metadata"]["uid"] = "u-2".into();
    assert!(why(claimed(Ok(pod()), Some(replaced)).await).contains("another one"));
}

/// Every field that is read exists in ARC's `CustomResourceDefinition`.
#[test]
fn the_fields_are_those_of_the_definition() {
    let known = paths(include_str!("../../../../tests/fixtures/arc/ephemeralrunners.yaml"));
    for (part, fields) in [
        ("spec", serde_fields::<objects::EphemeralRunnerSpec>()),
        ("status", serde_fields::<objects::EphemeralRunnerStatus>()),
    ] {
        assert!(!fields.is_empty());
        for field in fields {
            let path = format!("openAPIV3Schema/properties/{part}/properties/{field}");
            assert!(known.iter().any(|known| known.ends_with(&path)), "{path}");
        }
    }
}

/// Paths of the keys of a regularly indented YAML text.
fn paths(yaml: &str) -> Vec<String> {
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut paths = Vec::new();
    for line in yaml.lines() {
        let text = line.trim_start_matches([' ', '-']);
        let Some((key, _)) = text.split_once(':') else { continue };
        let indent = line.len() - text.len();
        above.retain(|(before, _)| *before < indent);
        above.push((indent, key));
        paths.push(above.iter().map(|(_, key)| *key).collect::<Vec<_>>().join("/"));
    }
    paths
}

/// The names by which serde asks for a struct's fields.
fn serde_fields<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    use serde::de::{Deserializer, Error as _, Visitor, value::Error};

    struct Names<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0 = fields;
            Err(Error::custom("that was all"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &[&str] = &[];
    let _ = T::deserialize(Names(&mut fields));
    fields
}
