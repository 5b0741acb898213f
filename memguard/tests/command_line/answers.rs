//! What some commands answer, beside their status.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _};

use serde_json::Value;

use super::fixture::{Answer, Machine};

#[test]
fn a_replay_tells_another_decision_from_other_words_and_judges_nothing_where_there_is_nothing() {
    let machine = Machine::new();
    let out = |file: &str| machine.ask(&["replay", file]).out;
    assert!(out("job.mgtrace").contains("decides as it did then, to the last bit"));
    let reworded = out("reworded.mgtrace");
    assert!(
        reworded.contains("decides as it did then: the same") && reworded.contains("figures or words"),
        "{reworded}"
    );
    let other = out("other.mgtrace");
    assert!(other.contains("DECIDES OTHERWISE NOW") && !other.contains("as it did then"), "{other}");
    for file in ["cut.mgtrace", "idle.mgtrace"] {
        let answer = machine.ask(&["replay", file, "job.mgtrace"]);
        assert!(answer.error.contains(file) && answer.error.contains("judge"), "{answer:?}");
        assert!(!answer.out.contains(file) && answer.out.contains("job.mgtrace"), "{answer:?}");
    }
    let answer = machine.ask(&["replay", "reworded.mgtrace", "--output", "json"]);
    let value: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((&value["different"], &value["other_figures"]), (&0.into(), &value["samples"]));
}

/// `run` starts without them, as it does not look at them.
#[test]
fn without_kubernetes_the_doctor_says_of_github_what_run_says() {
    let machine = Machine::new();
    fs::write(machine.path("github.toml"), "[github]\ncredentials = \"/nowhere/github\"\n").unwrap();
    let findings = |kubernetes: &str| {
        let arguments = ["doctor", "--config", "github.toml", "--output", "json", "--kubernetes", kubernetes];
        let answer = machine.ask(&arguments);
        let report: Value = serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        let all = report["findings"].as_array().unwrap().clone();
        all.into_iter().filter(|finding| finding["name"] == "github").collect::<Vec<_>>()
    };
    let without = findings("off");
    assert!(without.len() == 1 && without[0]["grade"] == "lesser", "{without:?}");
    assert!(without[0]["fact"].as_str().unwrap().contains("no effect without Kubernetes"), "{without:?}");
    assert!(findings("on").iter().any(|finding| finding["grade"] == "bad"), "they are looked at there");
}

/// Unix allows any name, and JSON only Unicode.
#[test]
fn a_name_that_is_no_text_is_told_all_the_same() {
    let machine = Machine::new();
    let odd = OsStr::from_bytes(b"c\xff.toml");
    fs::write(machine.path(odd), "[engine]\nhold_s = 0\n").unwrap();
    let output = machine.memguard(&["config", "check", "--output", "json"]).arg(odd).output().unwrap();
    let answer = Answer::of(&output);
    let value: Value = serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert_eq!((answer.status, &value["file"]), (Some(1), &"c\u{fffd}.toml".into()));
    let output = machine.memguard(&["doctor", "--output", "json", "--cgroup-root"]).arg(odd).output().unwrap();
    let answer = Answer::of(&output);
    let value: Value = serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert_eq!((answer.status, &value["cgroup"]["path"]), (Some(1), &"c\u{fffd}.toml".into()));
}
