//! What came of a case. Pure: records in, findings out.

mod terminal;
#[cfg(test)]
mod tests;

use memguard_lab::{
    Line, Record,
    chain::{NAMESPACE, RUNNER, Request, TOKEN, Told},
    containers::{CASE, Case, Ending, Facts, MEMGUARD, NEIGHBOUR, SIDECAR, VICTIM, Variant},
    record::Sample,
};
use serde_json::Value;

use crate::lab::judge::memguard_log;

/// A case, and what was found out about it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) case: Case,
    /// Figures worth telling, by name, in the order of their telling.
    pub(super) facts: Vec<(&'static str, String)>,
    /// What did not come out as it should.
    pub(super) failures: Vec<String>,
    /// What a terminal showed, and when that was.
    pub(super) screens: Vec<(&'static str, String)>,
}

/// The records of a case.
struct Seen<'a> {
    case: Case,
    lines: &'a [Line],
}

pub(super) fn judge(case: Case, lines: &[Line]) -> Judged {
    let seen = Seen { case, lines };
    let mut judged = Judged { case, facts: Vec::new(), failures: Vec::new(), screens: Vec::new() };
    let words = lines.iter().filter_map(|line| match &line.record {
        Record::Output { workload, line } if workload == CASE => Some(line.clone()),
        _ => None,
    });
    judged.failures.extend(words);
    seen.it_starts(&mut judged);
    seen.the_doctor_is_content(&mut judged);
    seen.the_hang_is_seen_and_ended(&mut judged);
    seen.the_runtime_tells_of_it(&mut judged);
    seen.others_live(&mut judged);
    seen.operators_are_told(&mut judged);
    seen.top_shows_it(&mut judged);
    seen.the_report_fits_a_terminal(&mut judged);
    seen.pages_are_served(&mut judged);
    seen.kubernetes_is_told(&mut judged);
    seen.it_takes_little(&mut judged);
    seen.it_ends_when_told_to(&mut judged);
    seen.no_secret_is_told(&mut judged);
    judged
}

impl Judged {
    fn fact(&mut self, name: &'static str, what: impl Into<String>) {
        self.facts.push((name, what.into()));
    }

    fn expect(&mut self, holds: bool, failure: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(failure());
        }
    }

    pub(super) fn fact_of(&self, name: &str) -> &str {
        self.facts.iter().find(|(fact, _)| *fact == name).map_or("-", |(_, what)| what)
    }
}

impl<'a> Seen<'a> {
    /// What was last said of a container at this occasion.
    fn told(&self, of: &str, what: &str) -> Option<&'a Value> {
        self.lines.iter().rev().find_map(|line| match &line.record {
            Record::Seen { of: whose, what: when, told } if whose == of && when == what => Some(told),
            _ => None,
        })
    }

    /// What a program in memguard's container wrote, and how it ended.
    fn executed(&self, what: &str) -> Option<(i64, &'a str)> {
        let told = self.told(MEMGUARD, what)?;
        Some((told["exit_code"].as_i64()?, told["stdout"].as_str()?))
    }

    fn log(&self) -> impl Iterator<Item = (f64, Value)> + 'a {
        memguard_log(self.lines)
    }

    fn id(&self, of: &str) -> &'a str {
        self.told(of, "started").and_then(|told| told["id"].as_str()).unwrap_or("(it was not started)")
    }

    fn action(&self) -> Option<Value> {
        self.log().map(|(_, entry)| entry).find(|entry| entry["kind"] == "action")
    }

    fn it_starts(&self, judged: &mut Judged) {
        let ready = self.told(MEMGUARD, "ready");
        judged.expect(ready.is_some(), || "memguard did not become ready".to_owned());
        if let Some(after) = ready.and_then(|ready| ready["after_s"].as_f64()) {
            judged.fact("ready after", format!("{after:.1} s"));
        }
        let started = self.log().find(|(_, entry)| entry["kind"] == "started").map(|(_, entry)| entry);
        let Some(started) = started else {
            return judged.failures.push("memguard did not say that it has started".to_owned());
        };
        let level = started["plan"]["level"].as_str().unwrap_or("none").to_owned();
        judged.expect(level == "full", || format!("the plan is {level}: {}", started["plan"]));
        judged.fact("plan", level);
        judged.expect(started["memory_locked"] == true, || "memguard's memory is not locked".to_owned());
        let own = started["own_cgroup"].as_str().unwrap_or("none").to_owned();
        let id = self.id(MEMGUARD);
        judged.expect(own.contains(id), || format!("memguard takes {own} for its own cgroup, and that is {id}"));
    }

    fn the_doctor_is_content(&self, judged: &mut Judged) {
        let Some((code, text)) = self.executed("doctor") else {
            return judged.failures.push("the doctor was not asked".to_owned());
        };
        judged.expect(code == 0, || format!("the doctor ended with {code}:\n{text}"));
        judged.fact("doctor", format!("exit {code}"));
    }

    fn the_hang_is_seen_and_ended(&self, judged: &mut Judged) {
        let id = self.id(VICTIM);
        let verdicts: Vec<Value> =
            self.log().map(|(_, entry)| entry).filter(|entry| entry["kind"] == "verdict").collect();
        judged.expect(verdicts.len() == 1, || format!("{} verdicts", verdicts.len()));
        for verdict in &verdicts {
            let cgroup = verdict["cgroup"].as_str().unwrap_or_default();
            judged.expect(cgroup.contains(id), || format!("a verdict on {cgroup}, and {id} hangs"));
            judged.expect(verdict["pod"] == RUNNER && verdict["container"] == "runner", || {
                format!("the verdict names {} {}", verdict["pod"], verdict["container"])
            });
        }
        let at_limit = self.at(|record| matches!(record, Record::AtLimit { .. }));
        let verdict_at = self.log().find(|(_, entry)| entry["kind"] == "verdict").map(|(t, _)| t);
        if let Some((limit, verdict)) = at_limit.zip(verdict_at) {
            judged.fact("limit to verdict", format!("{:.1} s", verdict - limit));
        }
        let actions: Vec<Value> =
            self.log().map(|(_, entry)| entry).filter(|entry| entry["kind"] == "action").collect();
        judged.expect(actions.len() == 1, || format!("{} actions", actions.len()));
        let Some(action) = actions.first() else { return };
        let outcome = action["outcome"].as_str().unwrap_or("failed");
        let wanted = if self.case.ending.action() == "kill" { "dead" } else { "oom_killed" };
        judged.expect(outcome == wanted, || format!("the action came to {action}"));
        judged.expect(action["rule"] == "lab", || format!("by rule {}", action["rule"]));
        let ms = |name: &str| action[name].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
        judged.fact("verdict to action", ms("verdict_to_action_ms"));
        judged.fact("action to its end", if wanted == "dead" { ms("empty_after_ms") } else { ms("after_ms") });
        let empty = self.at(|record| matches!(record, Record::Dead { container } if container == VICTIM)).is_some();
        let lives = self.case.ending == Ending::OomSingle;
        judged.expect(empty != lives, || {
            if lives { "the whole container is empty" } else { "the container is not empty" }.to_owned()
        });
    }

    fn at(&self, is: impl Fn(&Record) -> bool) -> Option<f64> {
        self.lines.iter().find(|line| is(&line.record)).map(|line| line.t)
    }

    /// Topics of the runtime's events about a container, until its status was asked for: all pods are removed in the end.
    fn events(&self, id: &str) -> Vec<&'a str> {
        let asked =
            |line: &&Line| matches!(&line.record, Record::Seen { of, what, .. } if of == VICTIM && what == "ended");
        let until = self.lines.iter().take_while(|line| !asked(line));
        let lines = until.filter_map(|line| match &line.record {
            Record::Event { line } if line.contains(id) => Some(line.as_str()),
            _ => None,
        });
        lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).collect()
    }

    fn the_runtime_tells_of_it(&self, judged: &mut Judged) {
        let Some(status) = self.told(VICTIM, "ended") else {
            return judged.failures.push(format!("nobody asked for the status of {VICTIM}"));
        };
        let (state, reason) = (status["state"].as_str().unwrap_or("?"), status["reason"].as_str().unwrap_or_default());
        let (code, signal) = (status["exit_code"].as_i64().unwrap_or(-1), 137);
        let (wanted_state, wanted_code, wanted_reason) = match self.case.ending {
            Ending::Kill | Ending::KillNested => ("exited", signal, "Error"),
            Ending::OomGroup => ("exited", signal, "OOMKilled"),
            // containerd notes the reason at once, whoever of the container is left.
            Ending::OomSingle => ("running", 0, "OOMKilled"),
        };
        judged.expect((state, code, reason) == (wanted_state, wanted_code, wanted_reason), || {
            format!("the runtime says {state}, exit code {code}, reason {reason:?}")
        });
        let exited = if state == "exited" { format!("exit {code}") } else { state.to_owned() };
        judged.fact("status", format!("{exited}, {reason}"));
        let events = self.events(self.id(VICTIM));
        let oom = events.contains(&"/tasks/oom");
        let wanted = self.case.ending.action() == "oom";
        judged.expect(oom == wanted, || format!("the runtime's events of {VICTIM}: {}", events.join(", ")));
        judged.fact("TaskOOM", if oom { "yes" } else { "no" });
        let exited = events.contains(&"/tasks/exit");
        judged.expect(exited == (wanted_state == "exited"), || format!("events of {VICTIM}: {}", events.join(", ")));
    }

    fn others_live(&self, judged: &mut Judged) {
        for name in [SIDECAR, NEIGHBOUR, MEMGUARD] {
            let state = self.told(name, "ended").and_then(|told| told["state"].as_str()).unwrap_or("not known");
            judged.expect(state == "running", || format!("{name} is {state}"));
        }
        let samples = self.lines.iter().rev().filter_map(|line| match &line.record {
            Record::Sample(sample) => Some(&**sample),
            _ => None,
        });
        // The last of them may be after memguard's own end.
        let last: Option<&Sample> = samples.into_iter().find(|sample| sample.memguard_resident_kib.is_some());
        let Some(last) = last else { return judged.failures.push("nobody looked at the containers".to_owned()) };
        for (name, figures) in &last.containers {
            judged.expect(name == VICTIM || figures.populated, || format!("{name} is empty"));
        }
        judged.expect(last.containers.len() >= 7, || format!("only {} containers", last.containers.len()));
        if self.case.ending == Ending::OomSingle {
            let progress = |t: f64| {
                self.lines.iter().find_map(|line| match &line.record {
                    Record::Sample(sample) if line.t >= t => sample.progress.get("listener").copied(),
                    _ => None,
                })
            };
            let acted = self.log().find(|(_, entry)| entry["kind"] == "action").map(|(t, _)| t);
            let after = acted.and_then(|t| Some((progress(t + 1.0)?, progress(t + 4.0)?)));
            judged.expect(after.is_some_and(|(before, later)| later > before + 100), || {
                format!("the listener does not work on: {after:?}")
            });
        }
    }

    fn operators_are_told(&self, judged: &mut Judged) {
        let id = self.id(VICTIM);
        let json = |what: &str, judged: &mut Judged| -> Option<Value> {
            let Some((code, text)) = self.executed(what) else {
                judged.failures.push(format!("nobody asked for the {what}"));
                return None;
            };
            let value = serde_json::from_str(text).ok();
            judged.expect(code == 0 && value.is_some(), || format!("{what} ended with {code}, and says {text:.200}"));
            value
        };
        if let Some(status) = json("status in trouble", judged) {
            let unit = status["units"].as_array().into_iter().flatten().find(|unit| {
                unit["name"]["cgroup"]
                    .as_str()
                    .or_else(|| unit["cgroup"].as_str())
                    .is_some_and(|path| path.contains(id))
            });
            let state = unit.and_then(|unit| unit["state"].as_str()).unwrap_or("not listed").to_owned();
            judged.expect(unit.is_some(), || format!("the status does not list the container: {}", status["units"]));
            judged.fact("state 6 s after the limit", state);
        }
        if let Some(status) = json("status", judged) {
            let totals = &status["totals"];
            let wanted = if self.case.ending.action() == "kill" { "killed" } else { "relieved" };
            judged.expect(totals[wanted] == 1 && totals["failed"] == 0, || format!("the status counts {totals}"));
        }
        let incident = self.action().map(|action| action["incident"].as_str().unwrap_or_default().to_owned());
        if let Some(incidents) = json("incidents", judged) {
            let ours = incidents.as_array().into_iter().flatten().find(|one| one["id"].as_str() == incident.as_deref());
            let stage = ours.map_or(&Value::Null, |one| &one["stage"]["stage"]);
            judged.expect(stage == "done", || format!("of incident {incident:?} the journal has {ours:?}"));
        }
        if let Some((code, text)) = self.executed("report") {
            let named = incident.as_deref().is_some_and(|id| text.contains(id));
            judged.expect(code == 0 && named, || format!("the report ended with {code}, and says {text:.300}"));
        }
        if let Some(report) = json("report --output json", judged) {
            let tasks = report["report"]["look"]["tasks"].as_array().map_or(0, Vec::len);
            let program = report["report"]["look"]["tasks"][0]["comm"].as_str().unwrap_or("unnamed").to_owned();
            let files = report["report"]["look"]["files"].as_array().map_or(0, Vec::len);
            // Without the node's PIDs it can't know of them.
            let expected = self.case.variant != Variant::OwnPids;
            judged.expect((tasks > 0) == expected, || format!("the report has {tasks} tasks"));
            judged.fact("report", format!("{tasks} tasks, first {program}; {files} files"));
        }
    }

    fn pages_are_served(&self, judged: &mut Judged) {
        for page in ["/healthz", "/readyz", "/metrics"] {
            let code = self.told(MEMGUARD, page).map(|told| &told["code"]);
            judged.expect(code.is_some_and(|code| *code == 200), || format!("{page} answers {code:?}"));
        }
        let metrics = self.told(MEMGUARD, "/metrics").and_then(|told| told["body"].as_str()).unwrap_or_default();
        let method = self.case.ending.action();
        let outcome = if method == "kill" { "dead" } else { "oom_killed" };
        let counted = metrics.lines().any(|line| {
            let of = ["memguard_actions_total{", outcome, "\"} 1"];
            of.iter().all(|part| line.contains(part))
        });
        judged.expect(counted, || {
            let lines: Vec<&str> = metrics.lines().filter(|line| line.starts_with("memguard_actions_total")).collect();
            format!("the metrics count: {}", lines.join("; "))
        });
        for (name, value) in
            [("memguard_loop_responds", "1"), ("memguard_memory_locked", "1"), ("memguard_kubernetes_pods", "2")]
        {
            let line = metrics.lines().find(|line| line.starts_with(name));
            let is = line.and_then(|line| line.rsplit(' ').next());
            judged.expect(is == Some(value), || format!("{name} is {is:?}"));
        }
    }

    fn kubernetes_is_told(&self, judged: &mut Judged) {
        let requests: Vec<&Request> = self
            .lines
            .iter()
            .filter_map(|line| match &line.record {
                Record::Stubs { told: Told::Request(request) } => Some(request),
                _ => None,
            })
            .collect();
        let told = format!("told about Pod {NAMESPACE}/{RUNNER}");
        let events = requests.iter().filter(|request| request.effect.as_deref() == Some(&told)).count();
        judged.expect(events == 1, || format!("{events} Events on the pod"));
        judged.fact("Events on the pod", events.to_string());
    }

    fn it_takes_little(&self, judged: &mut Judged) {
        let facts = self.lines.iter().find_map(|line| match &line.record {
            Record::Facts(facts) => Some(&**facts),
            _ => None,
        });
        let Some(Facts { status, memlock, oom_score_adj, memory_peak, memory_max }) = facts else {
            return judged.failures.push("nobody looked at memguard's process".to_owned());
        };
        let kib = |name: &str| status.get(name).and_then(|text| text.trim_end_matches(" kB").parse::<f64>().ok());
        let mib = |kib: Option<f64>| kib.map_or_else(|| "-".to_owned(), |kib| format!("{:.1} MiB", kib / 1024.0));
        judged.fact("resident", mib(kib("VmRSS")));
        let share = *memory_peak as f64 / (*memory_max).max(1) as f64;
        let peak = mib(Some(*memory_peak as f64 / 1024.0));
        judged.expect(share > 0.0 && share < 0.9, || format!("its container took {peak} of {memory_max} bytes"));
        judged.fact("its cgroup at most", format!("{peak} ({:.0} % of its limit)", 100.0 * share));
        judged.expect(oom_score_adj == "-999", || format!("its OOM score is {oom_score_adj}"));
        judged.fact("RLIMIT_MEMLOCK", memlock.clone());
        let field = |name: &str| status.get(name).cloned().unwrap_or_else(|| "-".to_owned());
        judged.fact("capabilities", field("CapEff").trim_start_matches('0').to_owned());
        judged.fact("no new privileges", field("NoNewPrivs"));
        judged.fact("seccomp", field("Seccomp"));
    }

    fn it_ends_when_told_to(&self, judged: &mut Judged) {
        let Some(told) = self.told(MEMGUARD, "stopped") else {
            return judged.failures.push("memguard was not stopped".to_owned());
        };
        let took = told["took_s"].as_f64().unwrap_or_default();
        judged.expect(told["exit_code"] == 0 && told["state"] == "exited", || format!("memguard ended so: {told}"));
        judged.fact("stopped within", format!("{took:.1} s"));
        for (_, entry) in self.log().filter(|(_, entry)| entry["level"] == "ERROR") {
            judged.failures.push(format!("memguard said: {}", entry["message"]));
        }
    }

    fn no_secret_is_told(&self, judged: &mut Judged) {
        let told = self.lines.iter().any(|line| match &line.record {
            Record::Log { line } => line.contains(TOKEN),
            Record::Seen { told, .. } => told.to_string().contains(TOKEN),
            _ => false,
        });
        judged.expect(!told, || "memguard told the API's token".to_owned());
    }
}
