//! What memguard said during a run, from the lines of its log.

use memguard_lab::{Line, Record};
use serde_json::Value;

/// How its process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// It did not, as far as the records go.
    #[default]
    Running,
    Code(i32),
    Killed,
}

/// The gist of its log.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) started: bool,
    /// `full`, `degraded` or `files`.
    pub(super) level: Option<String>,
    /// When, and the message.
    pub(super) verdicts: Vec<(f64, String)>,
    pub(super) kills: u32,
    pub(super) dry_runs: u32,
    pub(super) suspicions: u32,
    /// Records and events that the tracer lost.
    pub(super) lost: Option<u64>,
    /// Reclaim cycles whose end it did not see.
    pub(super) ends_lost: u64,
    pub(super) errors: Vec<String>,
    pub(super) end: End,
}

/// The JSON lines of its log, with their times.
pub(in crate::lab) fn log(lines: &[Line]) -> impl Iterator<Item = (f64, Value)> {
    lines.iter().filter_map(|line| match &line.record {
        Record::Log { line: text } => Some((line.t, serde_json::from_str(text).ok()?)),
        _ => None,
    })
}

impl Said {
    pub(super) fn of(lines: &[Line]) -> Self {
        let mut said = Self::default();
        for (t, entry) in log(lines) {
            let message = entry["message"].as_str().unwrap_or_default().to_owned();
            match entry["kind"].as_str() {
                Some("started") => {
                    said.started = true;
                    said.level = entry["plan"]["level"].as_str().map(str::to_owned);
                }
                Some("verdict") => said.verdicts.push((t, message.clone())),
                Some("action") => match entry["outcome"].as_str() {
                    Some("dead" | "lingering") => said.kills += 1,
                    Some("dry_run") => said.dry_runs += 1,
                    _ => {}
                },
                Some("state") if entry["to"] == "suspect" => said.suspicions += 1,
                Some("cost") => {
                    let tracer = &entry["tracer"];
                    let names = ["ring_full", "cgroups_left_out", "cycles_untimed", "undecodable"];
                    said.lost = names.iter().map(|name| tracer[*name].as_u64()).sum();
                    said.ends_lost = tracer["ends_lost"].as_u64().unwrap_or_default();
                }
                _ => {}
            }
            if entry["level"] == "ERROR" {
                said.errors.push(message);
            }
        }
        if let Some(code) = lines.iter().find_map(|line| match line.record {
            Record::Ended { code, .. } => Some(code),
            _ => None,
        }) {
            said.end = code.map_or(End::Killed, End::Code);
        }
        said
    }
}
