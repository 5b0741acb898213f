//! What came of a round. Pure: records in, findings out.

#[cfg(test)]
mod tests;

use memguard_lab::{
    Line, Record, Scenario,
    chain::{End, NAMESPACE, REPOSITORY, ROUND, RUN_ID, RUNNER, Request, Round, Server, TOKEN, Told},
    record::Sample,
};
use serde_json::Value;

use crate::lab::judge::memguard_log;

/// What has to be done about every incident.
const FOLLOW_UPS: [&str; 6] = ["cancel", "check_run", "delete_runner", "identify", "pod_event", "runner_event"];
/// Of credentials that memguard has: nothing that it says may have one of them in it.
const SECRETS: [&str; 3] = [TOKEN, "ghs_stub", "PRIVATE KEY"];

/// A round, and what was found out about it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) round: Round,
    pub(super) times: Times,
    /// What did not come out as it should.
    pub(super) failures: Vec<String>,
}

/// How long things took. `None` where they did not happen, or nobody was there to measure them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Times {
    /// From the verdict to the write to cgroup.kill, in ms, as memguard measures it; and until the last process is gone.
    pub(super) to_kill_ms: Option<f64>,
    pub(super) to_empty_ms: Option<f64>,
    /// From the verdict to the first request of the cancellation, and until GitHub had ended the run, in s. From the
    /// container's death where memguard was killed before it could say when the verdict was.
    pub(super) to_cancel_s: Option<f64>,
    pub(super) to_over_s: Option<f64>,
    /// Until the last thing that changed something.
    pub(super) to_last_s: Option<f64>,
    pub(super) from_death: bool,
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0} ms"));
        let s = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} s"));
        let text = format!(
            "kill after {}, empty after {}; cancel {}, run over {}, all done {} after the {}",
            ms(self.to_kill_ms),
            ms(self.to_empty_ms),
            s(self.to_cancel_s),
            s(self.to_over_s),
            s(self.to_last_s),
            if self.from_death { "death" } else { "verdict" }
        );
        f.pad(&text)
    }
}

/// The records of a round, by kind.
struct Facts<'a> {
    scenario: &'a Scenario,
    round: &'a Round,
    lines: &'a [Line],
    requests: Vec<&'a Request>,
}

pub(super) fn judge(scenario: &Scenario, round: &Round, lines: &[Line]) -> Judged {
    let requests = lines.iter().filter_map(|line| match &line.record {
        Record::Stubs { told: Told::Request(request) } => Some(request),
        _ => None,
    });
    let facts = Facts { scenario, round, lines, requests: requests.collect() };
    let mut failures: Vec<String> = lines
        .iter()
        .filter_map(|line| match &line.record {
            Record::Output { workload, line } if workload == ROUND => Some(line.clone()),
            _ => None,
        })
        .collect();
    facts.memguard_ended_as_it_was_to(&mut failures);
    facts.one_container_is_dead(&mut failures);
    facts.all_is_done_and_kept(&mut failures);
    facts.kubernetes_was_told(&mut failures);
    facts.github_was_told(&mut failures);
    facts.in_order(&mut failures);
    facts.no_secret_is_told(&mut failures);
    Judged { round: round.clone(), times: facts.times(), failures }
}

impl Facts<'_> {
    fn victim(&self) -> &str {
        self.scenario.expect.container.as_deref().unwrap_or_default()
    }

    fn memguard_ended_as_it_was_to(&self, failures: &mut Vec<String>) {
        let mut ends: Vec<(Option<i32>, Option<i32>)> = self
            .lines
            .iter()
            .filter_map(|line| match line.record {
                Record::Ended { code, signal } => Some((code, signal)),
                _ => None,
            })
            .collect();
        if ends.pop() != Some((Some(0), None)) {
            failures.push("memguard did not end well when it was told to".to_owned());
        }
        match (&self.round.point, ends.as_slice()) {
            (None, []) | (Some(_), [(None, Some(9))]) => {}
            (Some(point), []) => failures.push(format!("memguard never came to {point}")),
            (_, ends) => failures.push(format!("memguard ended {} times before", ends.len())),
        }
    }

    fn one_container_is_dead(&self, failures: &mut Vec<String>) {
        let victim = self.victim();
        if self.death().is_none() {
            failures.push(format!("{victim} was not ended"));
        }
        let last: Option<&Sample> = self.lines.iter().rev().find_map(|line| match &line.record {
            Record::Sample(sample) => Some(&**sample),
            _ => None,
        });
        let containers = last.map(|sample| &sample.containers);
        if containers.is_none_or(|containers| containers.len() < 4) {
            failures.push("nobody looked at the containers in the end".to_owned());
        }
        for (name, figures) in containers.into_iter().flatten() {
            if name != victim && !figures.populated {
                failures.push(format!("{name} was ended as well"));
            }
        }
        let kills = memguard_log(self.lines).filter(|(_, entry)| entry["kind"] == "action").count();
        if kills > 1 {
            failures.push(format!("memguard acted {kills} times"));
        }
    }

    /// What `memguard incidents` says in the end, of both places and of the store alone.
    fn incidents(&self, stored: bool) -> Vec<Value> {
        let list = self.lines.iter().find_map(|line| match &line.record {
            Record::Incidents { list } if !stored => Some(list),
            Record::Stored { list } if stored => Some(list),
            _ => None,
        });
        list.and_then(|list| serde_json::from_str(list).ok()).unwrap_or_default()
    }

    fn all_is_done_and_kept(&self, failures: &mut Vec<String>) {
        let incidents = self.incidents(false);
        let (ended, others): (Vec<&Value>, Vec<&Value>) = incidents.iter().partition(|incident| {
            let stage = &incident["stage"];
            stage["stage"] == "done" || (stage["stage"] == "interrupted" && stage["found"] == "gone")
        });
        if ended.len() != 1 {
            failures.push(format!("{} incidents ended something", ended.len()));
        }
        let alive =
            |incident: &Value| incident["stage"]["stage"] == "interrupted" && incident["stage"]["found"] == "alive";
        for other in others {
            if !(alive(other) && self.round.crashes_before_the_kill()) {
                failures.push(format!("an incident came to {}", other["stage"]));
            }
        }
        for incident in ended {
            let follow_ups = incident["follow_ups"].as_array().cloned().unwrap_or_default();
            for kind in FOLLOW_UPS {
                match follow_ups.iter().find(|follow_up| follow_up["kind"] == kind) {
                    Some(follow_up) if follow_up["state"] == "done" => {}
                    Some(follow_up) => failures.push(format!("{kind} is not done: {follow_up}")),
                    None => failures.push(format!("{kind} was never to be done")),
                }
            }
        }
        if self.incidents(true) != incidents {
            failures.push("the store does not hold what the run folder holds".to_owned());
        }
    }

    fn of(&self, server: Server) -> impl Iterator<Item = &Request> {
        self.requests.iter().copied().filter(move |request| request.server == server)
    }

    fn kubernetes_was_told(&self, failures: &mut Vec<String>) {
        let mut effects: Vec<&str> =
            self.of(Server::Kubernetes).filter_map(|request| request.effect.as_deref()).collect();
        let uid = self.end().map_or("", |end| &end.runner_uid);
        let runner = format!("{NAMESPACE}/{RUNNER}");
        for wanted in [
            format!("deleted ephemeralrunners {runner} {uid}"),
            format!("told about EphemeralRunner {runner}"),
            format!("told about Pod {runner}"),
        ] {
            let before = effects.len();
            effects.retain(|effect| *effect != wanted);
            match before - effects.len() {
                1 => {}
                times => failures.push(format!("{times} times: {wanted}")),
            }
        }
        failures.extend(effects.iter().map(|effect| format!("not asked for: {effect}")));
    }

    fn end(&self) -> Option<&End> {
        self.lines.iter().find_map(|line| match &line.record {
            Record::Stubs { told: Told::End(end) } => Some(end),
            _ => None,
        })
    }

    fn github_was_told(&self, failures: &mut Vec<String>) {
        let Some(End { cancels, force_cancels, conclusion, others_touched, check_runs, runner_left, .. }) = self.end()
        else {
            return failures.push("the stubs did not come to their end".to_owned());
        };
        let (cancels, force_cancels) = (*cancels, *force_cancels);
        // Where memguard was killed before it could write down that GitHub had taken it, it has to ask again: that changes
        // nothing.
        let may_repeat = |what: &str| self.round.point.as_deref() == Some(what);
        if cancels != 1 && !(cancels == 2 && may_repeat("cancel-answered")) {
            failures.push(format!("the run was cancelled {cancels} times"));
        }
        let forced = u32::from(self.round.is_stubborn());
        if force_cancels != forced && !(force_cancels == forced + 1 && may_repeat("force-cancel-answered")) {
            failures.push(format!("the run was cancelled by force {force_cancels} times"));
        }
        if conclusion.as_deref() != Some("cancelled") {
            failures.push(format!("the run came to {conclusion:?}"));
        }
        if *others_touched || self.asked_to_cancel().any(|request| !request.path.contains(&cancel_path())) {
            failures.push("another run was asked to end".to_owned());
        }
        if check_runs.len() != 1 {
            failures.push(format!("{} check runs were made", check_runs.len()));
        }
        if *runner_left {
            failures.push("the runner's object is still there".to_owned());
        }
    }

    fn asked_to_cancel(&self) -> impl Iterator<Item = &Request> {
        self.of(Server::Github).filter(|request| request.method == "POST" && request.path.contains("cancel"))
    }

    fn in_order(&self, failures: &mut Vec<String>) {
        let deleted = self.effect("deleted ");
        let steps = [
            ("the container's death", self.death()),
            ("the cancellation", self.asked_to_cancel().next().map(|request| request.t)),
            ("the deletion of the runner", deleted),
        ];
        for pair in steps.windows(2) {
            if let [(first, Some(a)), (second, Some(b))] = pair
                && a > b
            {
                failures.push(format!("{second} came {:.3} s before {first}", a - b));
            }
        }
    }

    fn no_secret_is_told(&self, failures: &mut Vec<String>) {
        for line in self.lines {
            let text = match &line.record {
                Record::Log { line } => line.clone(),
                Record::Incidents { list } | Record::Stored { list } => list.clone(),
                // What the stubs note of a request is without its credentials; its body is what memguard says.
                Record::Stubs { told: Told::Request(request) } => format!("{} {}", request.path, request.body),
                _ => continue,
            };
            if let Some(secret) = SECRETS.into_iter().find(|secret| text.contains(secret)) {
                failures.push(format!("memguard told a secret ({}…)", &secret[..4]));
                return;
            }
        }
    }

    fn death(&self) -> Option<f64> {
        self.lines.iter().find_map(|line| match &line.record {
            Record::Dead { container } if container == self.victim() => Some(line.t),
            _ => None,
        })
    }

    fn effect(&self, beginning: &str) -> Option<f64> {
        let is = |request: &&Request| request.effect.as_deref().is_some_and(|effect| effect.starts_with(beginning));
        self.of(Server::Kubernetes).find(is).map(|request| request.t)
    }

    fn times(&self) -> Times {
        let action = memguard_log(self.lines).find(|(_, entry)| entry["kind"] == "action").map(|(_, entry)| entry);
        let figure = |name: &str| action.as_ref().and_then(|action| action[name].as_f64());
        let (to_kill_ms, empty_ms) = (figure("verdict_to_action_ms"), figure("empty_after_ms"));
        let to_empty_ms = to_kill_ms.zip(empty_ms).map(|(kill, empty)| kill + empty);
        let Some(death) = self.death() else { return Times { to_kill_ms, ..Times::default() } };
        let from = death - to_empty_ms.unwrap_or_default() / 1e3;
        let since = |t: Option<f64>| t.map(|t| t - from);
        let over = self.lines.iter().find_map(|line| match &line.record {
            Record::Stubs { told: Told::RunOver { t, .. } } => Some(*t),
            _ => None,
        });
        let changes = self.requests.iter().filter(|request| {
            request.effect.is_some()
                || (request.server == Server::Github && request.method == "POST" && request.path.contains(REPOSITORY))
        });
        Times {
            to_kill_ms,
            to_empty_ms,
            to_cancel_s: since(self.asked_to_cancel().next().map(|request| request.t)),
            to_over_s: since(over),
            to_last_s: since(changes.map(|request| request.t).max_by(f64::total_cmp)),
            from_death: to_empty_ms.is_none(),
        }
    }
}

fn cancel_path() -> String {
    format!("/repos/{REPOSITORY}/actions/runs/{RUN_ID}/")
}
