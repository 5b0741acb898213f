//! What memguard said during a run, from the lines of its log.

use memguard_lab::{Line, Record, record::Figures};
use serde_json::Value;

use super::{Judgement, Run};

/// How its process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// It did not, as far as the records go.
    #[default]
    Running,
    Code(i32),
    Killed,
}

/// A verdict or a suspicion.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) t: f64,
    /// Below the root of cgroup v2.
    pub(super) cgroup: String,
    pub(super) message: String,
}

/// The gist of its log.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) started: bool,
    /// `full`, `degraded` or `files`.
    pub(super) level: Option<String>,
    pub(super) verdicts: Vec<Event>,
    pub(super) kills: u32,
    /// Hangs that the kernel's OOM killer ended, asked by a lowered limit.
    pub(super) reliefs: u32,
    pub(super) dry_runs: u32,
    pub(super) suspicions: Vec<Event>,
    /// Records and events that the tracer lost.
    pub(super) lost: Option<u64>,
    /// Reclaim cycles whose end it did not see.
    pub(super) ends_lost: u64,
    pub(super) errors: Vec<String>,
    /// What its journal holds afterwards, by stage and, where something was done, outcome.
    pub(super) incidents: Option<Vec<String>>,
    /// What its latest report says of tasks and files, in a few words, if it has tasks.
    pub(super) report: Option<String>,
    pub(super) end: End,
}

/// The JSON lines of its log, with their times.
pub(in crate::lab) fn log(lines: &[Line]) -> impl Iterator<Item = (f64, Value)> {
    lines.iter().filter_map(|line| match &line.record {
        Record::Log { line: text } => Some((line.t, serde_json::from_str(text).ok()?)),
        _ => None,
    })
}

/// `done dead`, `done dry_run`, `suppressed`, ...
fn stages(list: &str) -> Option<Vec<String>> {
    let incidents: Vec<Value> = serde_json::from_str(list).ok()?;
    let stage = |incident: &Value| {
        let (stage, outcome) = (&incident["stage"]["stage"], &incident["stage"]["ended"]["outcome"]);
        [stage, outcome].iter().filter_map(|part| part.as_str()).collect::<Vec<_>>().join(" ")
    };
    Some(incidents.iter().map(stage).collect())
}

/// `12 tasks, first python3; 9 files, first /usr/bin/python3.11`.
fn reported(report: &Value) -> Option<String> {
    let look = &report["report"]["look"];
    let list = |name: &str, first: &str| {
        let all = look[name].as_array().map(Vec::as_slice).unwrap_or_default();
        (all.len(), all.first().and_then(|one| one[first].as_str()).unwrap_or("unnamed").to_owned())
    };
    let ((tasks, task), (files, file)) = (list("tasks", "comm"), list("files", "path"));
    (tasks > 0).then(|| format!("{tasks} tasks, first {task}; {files} files, first {file}"))
}

impl Said {
    pub(super) fn of(lines: &[Line]) -> Self {
        let mut said = Self::default();
        for (t, entry) in log(lines) {
            let message = entry["message"].as_str().unwrap_or_default().to_owned();
            let event = || {
                let cgroup = entry["cgroup"].as_str().unwrap_or_default().trim_start_matches('/').to_owned();
                Event { t, cgroup, message: message.clone() }
            };
            match entry["kind"].as_str() {
                Some("started") => {
                    said.started = true;
                    said.level = entry["plan"]["level"].as_str().map(str::to_owned);
                }
                Some("verdict") => said.verdicts.push(event()),
                Some("action") => match entry["outcome"].as_str() {
                    Some("dead" | "lingering") => said.kills += 1,
                    Some("oom_killed") => said.reliefs += 1,
                    Some("dry_run") => said.dry_runs += 1,
                    _ => {}
                },
                Some("state") if entry["to"] == "suspect" => said.suspicions.push(event()),
                Some("cost") => {
                    let tracer = &entry["tracer"];
                    let names = ["ring_full", "cgroups_left_out", "cycles_untimed", "stalls_untimed", "undecodable"];
                    said.lost = names.iter().map(|name| tracer[*name].as_u64()).sum();
                    said.ends_lost = tracer["ends_lost"].as_u64().unwrap_or_default();
                }
                _ => {}
            }
            if entry["level"] == "ERROR" {
                said.errors.push(message);
            }
        }
        said.incidents = lines.iter().find_map(|line| match &line.record {
            Record::Incidents { list } => stages(list),
            _ => None,
        });
        said.report = lines.iter().find_map(|line| match &line.record {
            Record::Report { report } => reported(report),
            _ => None,
        });
        if let Some(code) = lines.iter().find_map(|line| match line.record {
            Record::Ended { code, .. } => Some(code),
            _ => None,
        }) {
            said.end = code.map_or(End::Killed, End::Code);
        }
        said
    }

    /// Whether these stages are those of all that it said it did.
    fn are_kept(&self, stages: &[String]) -> bool {
        let count = |names: &[&str]| stages.iter().filter(|stage| names.contains(&stage.as_str())).count();
        stages.len() == self.verdicts.len()
            && count(&["done dead", "done lingering"]) == self.kills as usize
            && count(&["done oom_killed"]) == self.reliefs as usize
            && count(&["done dry_run"]) == self.dry_runs as usize
    }
}

impl Run<'_> {
    /// It started, lost nothing, ended when asked to; and what it cost.
    pub(super) fn memguard_is_well(&self, judgement: &mut Judgement) {
        let said = Said::of(self.lines);
        judgement.expect(said.started, || "memguard did not start".to_owned());
        judgement.expect((said.level.as_deref() == Some("files")) == self.files_only, || {
            format!("memguard's signals came from {:?}", said.level.as_deref().unwrap_or("nowhere"))
        });
        judgement.expect(said.end == End::Code(0), || format!("memguard ended with {:?}", said.end));
        judgement.expect(self.files_only || said.lost == Some(0), || format!("memguard lost {:?} events", said.lost));
        // From 7.1 on tracepoints can be preempted (kernel commit a46023d5616e), and a program that is entered again on
        // the same CPU is skipped the second time.
        let hits = |figures: &Figures| figures.max_events + figures.high_events;
        let cycles = self.samples.last().map_or(0, |(_, sample)| sample.containers.values().map(hits).sum());
        judgement.expect(said.ends_lost * 100 <= cycles, || {
            format!("the ends of {} of {cycles} reclaim cycles were not seen", said.ends_lost)
        });
        judgement.expect(said.errors.is_empty(), || format!("memguard reported: {}", said.errors.join("; ")));
        judgement.expect(said.incidents.as_ref().is_some_and(|kept| said.are_kept(kept)), || {
            format!(
                "the journal holds {:?} of {} verdicts, {} kills, {} reliefs, {} dry runs",
                said.incidents,
                said.verdicts.len(),
                said.kills,
                said.reliefs,
                said.dry_runs
            )
        });
        judgement.expect(said.verdicts.is_empty() || said.report.is_some(), || {
            "there is no report of a verdict with the tasks of that time".to_owned()
        });
        judgement.facts.extend(said.report.iter().map(|report| format!("the report has {report}")));
        let resident = self.samples.iter().filter_map(|(_, sample)| sample.memguard_resident_kib).max();
        let cpu = |from: f64, to: f64| {
            let mut points = self
                .samples
                .iter()
                .filter(|(t, _)| (from..=to).contains(t))
                .filter_map(|(t, sample)| Some((*t, sample.memguard_cpu_s?)));
            let first = points.next()?;
            let last = points.next_back()?;
            Some((last.1 - first.1) / (last.0 - first.0) * 100.0)
        };
        let last = self.samples.last().map_or(0.0, |(t, _)| *t);
        let until = self.dead(self.container()).unwrap_or(last);
        let from = self.at_limit(self.container()).unwrap_or(self.trouble);
        if let (Some(rest), Some(busy), Some(resident)) =
            (cpu(self.trouble - 10.5, self.trouble), cpu(from, until), resident)
        {
            judgement.facts.push(format!(
                "memguard ({}): {rest:.2} % of a core before, {busy:.1} % at the limit, {:.1} MiB resident",
                said.level.as_deref().unwrap_or("?"),
                resident as f64 / 1024.0
            ));
        }
    }
}
