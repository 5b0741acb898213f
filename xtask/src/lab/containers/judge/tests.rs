use serde_json::json;

use super::*;

fn line(t: f64, record: Record) -> Line {
    Line { seq: 0, t, record }
}

fn seen(of: &str, what: &str, told: Value) -> Line {
    line(0.0, Record::Seen { of: of.to_owned(), what: what.to_owned(), told })
}

fn case(ending: Ending) -> Case {
    Case { variant: Variant::Privileged, ending }
}

#[test]
fn a_case_of_which_nothing_is_known_fails_everywhere() {
    let judged = judge(case(Ending::Kill), &[]);
    for what in ["ready", "doctor", "verdicts", "status", "report", "metrics", "Events", "process", "stopped"] {
        assert!(judged.failures.iter().any(|failure| failure.contains(what)), "{what}: {:?}", judged.failures);
    }
}

#[test]
fn the_runtimes_word_is_held_against_the_action() {
    let started = seen(VICTIM, "started", json!({"id": "abc"}));
    let status = |state: &str, code: i64, reason: &str| {
        seen(VICTIM, "ended", json!({"state": state, "exit_code": code, "reason": reason}))
    };
    let event = |topic: &str| {
        line(
            0.0,
            Record::Event {
                line: format!("2026-11-25 07:00:00 +0000 UTC k8s.io {topic} {{\"container_id\":\"abc\"}}"),
            },
        )
    };
    let failures = |ending: Ending, lines: Vec<Line>| {
        let case = case(ending);
        let mut judged = Judged { case, facts: Vec::new(), failures: Vec::new(), screens: Vec::new() };
        Seen { case, lines: &lines }.the_runtime_tells_of_it(&mut judged);
        judged.failures
    };
    let killed = vec![started.clone(), event("/tasks/exit"), status("exited", 137, "Error")];
    assert!(failures(Ending::Kill, killed.clone()).is_empty());
    assert_eq!(failures(Ending::OomGroup, killed).len(), 2, "no reason, no event");
    let oom = vec![started.clone(), event("/tasks/oom"), event("/tasks/exit"), status("exited", 137, "OOMKilled")];
    assert!(failures(Ending::OomGroup, oom.clone()).is_empty());
    assert_eq!(failures(Ending::KillNested, oom).len(), 2);
    let lives = vec![started, event("/tasks/oom"), status("running", 0, "OOMKilled"), event("/tasks/exit")];
    assert!(failures(Ending::OomSingle, lives.clone()).is_empty());
    assert_eq!(failures(Ending::OomGroup, lives).len(), 2);
}

#[test]
fn a_token_in_the_log_is_noticed() {
    let lines = [line(0.0, Record::Log { line: format!("{{\"a\": \"{TOKEN}\"}}") })];
    assert!(judge(case(Ending::Kill), &lines).failures.iter().any(|failure| failure.contains("token")));
}
