//! What `memguard replay` makes of a recording: memguard in each of its profiles, with less to go by, and other
//! people's rules.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::Context as _;
use serde::Deserialize;

use crate::process;

/// A way to judge a recording.
pub(super) struct Variant {
    /// What memguard is called in it.
    pub(super) name: &'static str,
    pub(super) told: &'static str,
    arguments: &'static [&'static str],
}

/// memguard as it is by default.
pub(super) const DEFAULT: &str = "memguard";

/// A hang that a run shows for less than this, in seconds, says nothing about a rule that takes so long.
pub(super) fn patience_s(rule: &str) -> f64 {
    if rule == "careful" { 80.0 } else { 0.0 }
}

/// The first one also has other people's rules judge.
pub(super) const VARIANTS: &[Variant] = &[
    Variant { name: DEFAULT, told: "default profile", arguments: &["--profile", "default", "--rule", "all"] },
    Variant { name: "fast", told: "`--profile fast`", arguments: &["--profile", "fast"] },
    Variant { name: "careful", told: "`--profile careful`", arguments: &["--profile", "careful"] },
    Variant {
        name: "no-trampolines",
        told: "without fentry and fexit: kprobes",
        arguments: &["--profile", "default", "--without", "trampolines"],
    },
    Variant {
        name: "no-tracer",
        told: "without eBPF: cgroup files only",
        arguments: &["--profile", "default", "--without", "tracer"],
    },
    Variant { name: "no-psi", told: "without PSI", arguments: &["--profile", "default", "--without", "psi"] },
    Variant { name: "no-cpu", told: "without cpu.stat", arguments: &["--profile", "default", "--without", "cpu"] },
    Variant {
        name: "no-tracer-psi",
        told: "without eBPF and PSI",
        arguments: &["--profile", "default", "--without", "tracer", "--without", "psi"],
    },
];

/// Other people's rules, as `memguard replay` names them, and what they are.
pub(super) const BASELINES: &[(&str, &str)] = &[
    ("report-trigger", "the bug report's: usage over 95 % and events.max rising"),
    ("psi-full-10", "PSI: memory full avg10 over 10 %"),
    ("systemd-oomd", "systemd-oomd's default: memory full avg10 over 60 % for 30 s"),
    ("oomd", "oomd's documented rule: memory full over 5 % for 15 s"),
    ("wait-for-oom", "waiting for the kernel's `oom_kill`"),
];

#[derive(Debug, Deserialize)]
struct Report {
    starts: Vec<Start>,
    samples: u64,
    lost: u64,
    damage: Option<String>,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Start {
    signals_from: String,
}

#[derive(Debug, Deserialize)]
struct Rule {
    rule: String,
    units: Vec<Unit>,
}

#[derive(Debug, Deserialize)]
struct Unit {
    cgroup: String,
    moments: Vec<Moment>,
}

#[derive(Debug, Deserialize)]
struct Moment {
    monotonic_s: f64,
    to: String,
    verdict: bool,
}

/// Something that a rule said of a cgroup.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) cgroup: String,
    /// `CLOCK_MONOTONIC` of the guest in seconds.
    pub(crate) t: f64,
    /// Else a suspicion.
    pub(crate) verdict: bool,
}

/// What all of them said of one recording, in the order of time.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) rules: BTreeMap<String, Vec<Said>>,
    pub(super) signals_from: String,
    pub(super) samples: u64,
}

/// Recordings that one process of memguard's is given.
const TOGETHER: usize = 64;

/// Has all of them judge recordings. An error is about one of them, in its place.
pub(super) fn replay(memguard: &Path, recordings: &[&Path]) -> Vec<anyhow::Result<Replayed>> {
    let mut all: Vec<anyhow::Result<Replayed>> = Vec::new();
    for some in recordings.chunks(TOGETHER) {
        match together(memguard, some) {
            Ok(replayed) => all.extend(replayed),
            // One that is not a recording at all spoils it for all others.
            Err(_) => all.extend(some.iter().map(|one| together(memguard, &[one])?.pop().context("no answer")?)),
        }
    }
    all
}

fn together(memguard: &Path, recordings: &[&Path]) -> anyhow::Result<Vec<anyhow::Result<Replayed>>> {
    let mut all: Vec<anyhow::Result<Replayed>> = recordings.iter().map(|_| Ok(Replayed::default())).collect();
    for variant in VARIANTS {
        let mut command = Command::new(memguard);
        command.args(["replay", "--output", "json"]).args(variant.arguments).args(recordings);
        let text = process::output(&mut command)?;
        let lines: Vec<&str> = text.lines().collect();
        anyhow::ensure!(
            lines.len() == recordings.len(),
            "`memguard replay` answers {} times to {} recordings",
            lines.len(),
            recordings.len()
        );
        for (one, line) in all.iter_mut().zip(lines) {
            let report: Report = serde_json::from_str(line)
                .context("`memguard replay --output json` answers otherwise than expected")?;
            if let Ok(replayed) = one
                && let Err(error) = report.take(variant.name, replayed)
            {
                *one = Err(error);
            }
        }
    }
    Ok(all)
}

impl Report {
    fn take(self, name: &str, all: &mut Replayed) -> anyhow::Result<()> {
        if let Some(damage) = self.damage {
            anyhow::bail!("the recording is {damage}");
        }
        anyhow::ensure!(self.lost == 0, "the recording lacks {} entries", self.lost);
        if let Some(start) = self.starts.into_iter().next() {
            all.signals_from = start.signals_from;
        }
        all.samples = self.samples;
        for rule in self.rules {
            let called = if rule.rule == DEFAULT { name } else { &rule.rule };
            let mut said = Vec::new();
            for unit in rule.units {
                let cgroup = unit.cgroup.trim_start_matches('/').to_owned();
                for moment in unit.moments.iter().filter(|moment| moment.verdict || moment.to == "suspect") {
                    said.push(Said { cgroup: cgroup.clone(), t: moment.monotonic_s, verdict: moment.verdict });
                }
            }
            said.sort_by(|a, b| a.t.total_cmp(&b.t));
            all.rules.insert(called.to_owned(), said);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"file": "x", "starts": [{"version": "0.1.0", "signals_from": "full"}], "samples": 70,
        "different": null, "lost": 0, "damage": null, "rules": [
        {"rule": "memguard", "units": [{"unit": 7, "cgroup": "/a.scope", "watched_s": 70.0, "moments": [
            {"at_s": 3.0, "monotonic_s": 33.0, "from": "pressed", "to": "suspect", "verdict": false},
            {"at_s": 9.0, "monotonic_s": 39.0, "from": "suspect", "to": "livelock", "verdict": true},
            {"at_s": 9.5, "monotonic_s": 39.5, "from": "livelock", "to": "calm", "verdict": false}]}]},
        {"rule": "oomd", "units": []}]}"#;

    #[test]
    fn what_replay_writes_is_understood() {
        let mut all = Replayed::default();
        serde_json::from_str::<Report>(TEXT).unwrap().take("fast", &mut all).unwrap();
        assert_eq!((all.signals_from.as_str(), all.samples), ("full", 70));
        assert_eq!(all.rules["oomd"], []);
        let said: Vec<_> = all.rules["fast"].iter().map(|said| (said.t, said.verdict)).collect();
        assert_eq!(said, [(33.0, false), (39.0, true)]);
        assert_eq!(all.rules["fast"][0].cgroup, "a.scope");
    }

    #[test]
    fn what_is_damaged_is_refused() {
        for (from, to) in [("\"damage\": null", "\"damage\": \"cut\""), ("\"lost\": 0", "\"lost\": 2")] {
            let report: Report = serde_json::from_str(&TEXT.replace(from, to)).unwrap();
            report.take("fast", &mut Replayed::default()).unwrap_err();
        }
    }
}
