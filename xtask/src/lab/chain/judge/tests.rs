use std::collections::BTreeMap;

use memguard_lab::record::Figures;
use serde_json::json;

use super::*;

/// A made-up round, in which everything goes as it should until it is changed.
struct Made {
    round: Round,
    killed: bool,
    dead: Option<f64>,
    alive: Vec<&'static str>,
    log: Vec<Value>,
    incidents: Value,
    stored: Option<Value>,
    requests: Vec<Request>,
    end: End,
}

fn request(server: Server, t: f64, method: &str, path: &str, effect: Option<&str>) -> Request {
    let effect = effect.map(str::to_owned);
    Request { server, t, method: method.to_owned(), path: path.to_owned(), body: Value::Null, code: Some(200), effect }
}

fn cancel(t: f64) -> Request {
    let path = format!("/api/v3/repos/{REPOSITORY}/actions/runs/{RUN_ID}/cancel");
    request(Server::Github, t, "POST", &path, None)
}

fn incident(stage: &Value, follow_up: &str) -> Value {
    let follow_ups: Vec<Value> = FOLLOW_UPS.iter().map(|kind| json!({"kind": kind, "state": follow_up})).collect();
    json!({"id": "mg-1-1", "stage": stage, "follow_ups": follow_ups})
}

impl Made {
    fn new(round: Round) -> Self {
        let done = json!({"stage": "done", "ended": {"outcome": "dead"}});
        Self {
            killed: round.point.is_some(),
            round,
            dead: Some(20.0),
            alive: vec!["runner/sidecar", "runner/pause", "neighbour/app", "neighbour/pause"],
            log: vec![
                json!({"kind": "action", "outcome": "dead", "verdict_to_action_ms": 400.0, "empty_after_ms": 100}),
            ],
            incidents: json!([incident(&done, "done")]),
            stored: None,
            requests: vec![
                cancel(21.0),
                request(Server::Kubernetes, 20.5, "POST", "/x", Some("told about Pod ci/runner")),
                request(Server::Kubernetes, 22.0, "DELETE", "/x", Some("deleted ephemeralrunners ci/runner uid-1")),
                request(Server::Kubernetes, 23.5, "POST", "/x", Some("told about EphemeralRunner ci/runner")),
            ],
            end: End {
                cancels: 1,
                force_cancels: 0,
                conclusion: Some("cancelled".to_owned()),
                others_touched: false,
                check_runs: vec![json!({})],
                runner_uid: "uid-1".to_owned(),
                runner_left: false,
            },
        }
    }

    fn judged(&self) -> Judged {
        let mut records = vec![(1.0, Record::Round { round: self.round.clone(), with: None })];
        records.extend(self.log.iter().map(|entry| (20.1, Record::Log { line: entry.to_string() })));
        if let Some(dead) = self.dead {
            records.push((dead, Record::Dead { container: "runner/runner".to_owned() }));
        }
        if self.killed {
            records.push((21.0, Record::Ended { code: None, signal: Some(9) }));
        }
        let names =
            self.alive.iter().map(|name| ((*name).to_owned(), true)).chain([("runner/runner".to_owned(), false)]);
        let figures = |populated| Figures { populated, ..Figures::default() };
        let mut containers: BTreeMap<String, Figures> = names.map(|(name, alive)| (name, figures(alive))).collect();
        for name in ["runner/sidecar", "runner/pause", "neighbour/app", "neighbour/pause"] {
            containers.entry(name.to_owned()).or_insert_with(|| figures(false));
        }
        records.push((30.0, Record::Sample(Box::new(Sample { containers, ..Sample::default() }))));
        records.push((31.0, Record::Ended { code: Some(0), signal: None }));
        records.push((32.0, Record::Incidents { list: self.incidents.to_string() }));
        let stored = self.stored.as_ref().unwrap_or(&self.incidents);
        records.push((32.0, Record::Stored { list: stored.to_string() }));
        for request in &self.requests {
            records.push((33.0, Record::Stubs { told: Told::Request(request.clone()) }));
        }
        let over = Told::RunOver { t: 24.5, conclusion: "cancelled".to_owned() };
        records.extend([over, Told::End(self.end.clone())].map(|told| (33.0, Record::Stubs { told })));
        let lines: Vec<Line> = records.into_iter().zip(0..).map(|((t, record), seq)| Line { seq, t, record }).collect();
        let scenario = Scenario::read(&crate::paths::root().join("tests/chain/scenario.toml")).unwrap();
        judge(&scenario, &self.round, &lines)
    }

    fn fails(&self, with: &str) {
        let failures = self.judged().failures;
        assert!(failures.iter().any(|failure| failure.contains(with)), "{with}: {failures:?}");
    }

    fn passes(&self) {
        assert_eq!(self.judged().failures, [""; 0]);
    }
}

#[test]
fn a_round_as_it_should_be() {
    let judged = Made::new(Round::default()).judged();
    assert_eq!(judged.failures, [""; 0]);
    let expected = Times {
        to_kill_ms: Some(400.0),
        to_empty_ms: Some(500.0),
        to_cancel_s: Some(1.5),
        to_over_s: Some(5.0),
        to_last_s: Some(4.0),
        from_death: false,
    };
    assert_eq!(judged.times, expected);
    Made::new(Round::at("cancel-kept")).passes();
    let mut made = Made::new(Round::at("kill-written"));
    made.log.clear();
    made.incidents = json!([incident(&json!({"stage": "interrupted", "found": "gone"}), "done")]);
    made.passes();
    assert!(made.judged().times.from_death);
}

#[test]
fn memguard_ends_where_it_is_to_and_nowhere_else() {
    let mut made = Made::new(Round::at("cancel-kept"));
    made.killed = false;
    made.fails("never came to cancel-kept");
    let mut made = Made::new(Round::default());
    made.killed = true;
    made.fails("ended 1 times before");
}

#[test]
fn the_right_container_dies_once() {
    let mut made = Made::new(Round::default());
    made.dead = None;
    made.fails("was not ended");
    let mut made = Made::new(Round::default());
    made.alive.retain(|name| *name != "neighbour/app");
    made.fails("neighbour/app was ended as well");
    let mut made = Made::new(Round::default());
    made.log.push(made.log[0].clone());
    made.fails("acted 2 times");
    let mut made = Made::new(Round::default());
    let twice = [made.incidents[0].clone(), made.incidents[0].clone()];
    made.incidents = json!(twice);
    made.fails("2 incidents ended something");
}

#[test]
fn nothing_is_left_open_or_given_up() {
    for state in ["open", "gave_up", "not_needed"] {
        let mut made = Made::new(Round::default());
        made.incidents[0]["follow_ups"][2]["state"] = state.into();
        made.fails("delete_runner is not done");
    }
    let mut made = Made::new(Round::default());
    made.incidents[0]["follow_ups"].as_array_mut().unwrap().remove(0);
    made.fails("cancel was never to be done");
    let mut made = Made::new(Round::default());
    made.stored = Some(json!([]));
    made.fails("the store does not hold");
}

#[test]
fn what_was_begun_before_the_kill_may_be_found_alive_and_only_then() {
    let alive = incident(&json!({"stage": "interrupted", "found": "alive"}), "not_needed");
    for (point, allowed) in [("fresh-checked", true), ("kill-written", false)] {
        let mut made = Made::new(Round::at(point));
        made.incidents = json!([alive, made.incidents[0]]);
        assert_eq!(made.judged().failures.is_empty(), allowed, "{point}");
    }
}

#[test]
fn every_effect_comes_once_and_no_other_does() {
    let mut made = Made::new(Round::default());
    made.requests.push(made.requests[1].clone());
    made.fails("2 times: told about Pod");
    let mut made = Made::new(Round::default());
    made.requests.remove(2);
    made.fails("0 times: deleted ephemeralrunners ci/runner uid-1");
    let mut made = Made::new(Round::default());
    made.requests.push(request(Server::Kubernetes, 25.0, "DELETE", "/x", Some("deleted pods ci/runner uid")));
    made.fails("not asked for: deleted pods");
}

#[test]
fn github_is_asked_for_the_right_things_once() {
    let with = |round: Round, end: End| {
        let mut made = Made::new(round);
        made.end = end;
        made
    };
    let well = || Made::new(Round::default()).end;
    let twice = || End { cancels: 2, ..well() };
    with(Round::default(), twice()).fails("cancelled 2 times");
    with(Round::at("cancel-answered"), twice()).passes();
    with(Round::at("cancel-kept"), twice()).fails("cancelled 2 times");
    with(Round::at("force-cancel-kept"), well()).fails("by force 0 times");
    with(Round::default(), End { force_cancels: 1, ..well() }).fails("by force 1 times");
    with(Round::default(), End { conclusion: None, ..well() }).fails("the run came to");
    with(Round::default(), End { others_touched: true, ..well() }).fails("another run");
    with(Round::default(), End { check_runs: Vec::new(), ..well() }).fails("0 check runs");
    with(Round::default(), End { runner_left: true, ..well() }).fails("still there");
    let mut made = Made::new(Round::default());
    made.requests[0].path = made.requests[0].path.replace("95", "96");
    made.fails("another run");
}

#[test]
fn the_kill_comes_first_then_the_cancellation_then_the_deletion() {
    let mut made = Made::new(Round::default());
    made.requests[0].t = 19.0;
    made.fails("the cancellation came 1.000 s before the container's death");
    let mut made = Made::new(Round::default());
    made.requests[0].t = 22.5;
    made.fails("the deletion of the runner came 0.500 s before the cancellation");
}

#[test]
fn secrets_in_what_is_said_are_found() {
    let mut made = Made::new(Round::default());
    made.log.push(json!({"message": format!("token {TOKEN}")}));
    made.fails("a secret");
    let mut made = Made::new(Round::default());
    made.requests[1].body = json!({"note": "ghs_stub1"});
    made.fails("a secret");
}
