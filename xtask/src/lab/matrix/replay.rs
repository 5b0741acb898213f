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
    /// See `needs_s`.
    needs_s: f64,
    arguments: &'static [&'static str],
}

/// memguard as it is by default.
pub(super) const DEFAULT: &str = "memguard";
/// The rule whose verdict is the kernel's own kill.
pub(super) const WAIT: &str = "wait-for-oom";

/// A window of five seconds, and seven seconds of evidence at the least confidence, which is a third.
const DEFAULT_S: f64 = 30.0;
const DEFAULTS: &[&str] = &["--profile", "default"];

/// The first one also has other people's rules judge.
pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: DEFAULT,
        told: "default profile",
        needs_s: DEFAULT_S,
        arguments: &["--profile", "default", "--rule", "all"],
    },
    Variant { name: "fast", told: "`--profile fast`", needs_s: 20.0, arguments: &["--profile", "fast"] },
    // Five seconds, and 55 of evidence at a confidence of three quarters. At a third it is 170 s: no run is as long.
    Variant { name: "careful", told: "`--profile careful`", needs_s: 80.0, arguments: &["--profile", "careful"] },
    lesser("no-trampolines", "without fentry and fexit: kprobes", &["--without", "trampolines"]),
    lesser("no-tracer", "without eBPF: cgroup files only", &["--without", "tracer"]),
    lesser("no-psi", "without PSI", &["--without", "psi"]),
    lesser("no-cpu", "without cpu.stat", &["--without", "cpu"]),
    lesser("no-tracer-psi", "without eBPF and PSI", &["--without", "tracer", "--without", "psi"]),
];

/// memguard in its default profile, with less to go by.
const fn lesser(name: &'static str, told: &'static str, arguments: &'static [&'static str]) -> Variant {
    Variant { name, told, needs_s: DEFAULT_S, arguments }
}

/// One of other people's rules.
pub(super) struct Baseline {
    /// As `memguard replay` names it.
    pub(super) name: &'static str,
    pub(super) told: &'static str,
    /// See the function of this name.
    needs_s: f64,
}

/// Other people's rules.
pub(super) const BASELINES: &[Baseline] = &[
    Baseline { name: "report-trigger", told: "the bug report's: usage over 95 % and events.max rising", needs_s: 5.0 },
    // At a pressure of 12 %.
    Baseline { name: "psi-full-10", told: "PSI: memory full avg10 over 10 %", needs_s: 20.0 },
    Baseline {
        name: "systemd-oomd",
        told: "systemd-oomd's default: memory full avg10 over 60 % for 30 s",
        // The average is over 60 % after 9 to 30 s, and has to stay there for 30. Where the pressure rises slowly it takes
        // longer (81 to 102 s in the first runs); hangs of 75 to 120 s there were none, so that is settled in its favour.
        needs_s: 80.0,
    },
    Baseline {
        name: "oomd-workload",
        told: "what oomd's example rule asks of the workload, which is half of it: memory full avg60 over 5 % for 15 s, \
               avg10 over 5 % and not falling fast",
        // At a pressure of 18 %, and oomd looks every five seconds.
        needs_s: 40.0,
    },
    Baseline { name: WAIT, told: "waiting for the kernel's `oom_kill`", needs_s: 0.0 },
];

/// How long a hang has to last, in seconds, to say something about a rule: the longest that the rule takes by its own numbers,
/// in a hang that is what it looks for. Windows and averages have to fill, and what it asks for has to hold for a time. A rule
/// can't be blamed for a hang that ended sooner, and what it saw of such a one was luck.
pub(super) fn needs_s(rule: &str) -> f64 {
    let ours = VARIANTS.iter().map(|variant| (variant.name, variant.needs_s));
    let others = BASELINES.iter().map(|baseline| (baseline.name, baseline.needs_s));
    ours.chain(others).find(|(name, _)| *name == rule).map_or(0.0, |(_, seconds)| seconds)
}

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

/// What `memguard replay` says of a recording of a run in which no cgroup was under reclaim for as long as a look takes.
pub(super) const NOTHING_SEEN: &str = "has no samples, so there is nothing to judge";

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
        let profile = if variant.arguments.contains(&"--profile") { &[][..] } else { DEFAULTS };
        command.args(["replay", "--output", "json"]).args(profile).args(variant.arguments).args(recordings);
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
        {"rule": "oomd-workload", "units": []}]}"#;

    #[test]
    fn what_replay_writes_is_understood() {
        let mut all = Replayed::default();
        serde_json::from_str::<Report>(TEXT).unwrap().take("fast", &mut all).unwrap();
        assert_eq!((all.signals_from.as_str(), all.samples), ("full", 70));
        assert_eq!(all.rules["oomd-workload"], []);
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
