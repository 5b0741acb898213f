//! Who judges the recordings: memguard in its profiles and with less to go by, and other people's rules.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::facts::{Span, Victim};

/// A column of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judge {
    pub(super) name: &'static str,
    /// Arguments of `memguard replay`.
    arguments: &'static [&'static str],
    /// The rule in its answer.
    rule: &'static str,
}

/// The one that is in force unless somebody says otherwise.
pub(super) const DEFAULT: &str = "memguard";

const OURS: &[Judge] = &[
    Judge { name: DEFAULT, arguments: &["--profile", "default"], rule: "memguard" },
    Judge { name: "memguard, fast", arguments: &["--profile", "fast"], rule: "memguard" },
    Judge { name: "memguard, careful", arguments: &["--profile", "careful"], rule: "memguard" },
    Judge {
        name: "memguard, files only",
        arguments: &["--profile", "default", "--without", "tracer"],
        rule: "memguard",
    },
    Judge {
        name: "memguard without trampolines",
        arguments: &["--profile", "default", "--without", "trampolines"],
        rule: "memguard",
    },
    Judge { name: "memguard without PSI", arguments: &["--profile", "default", "--without", "psi"], rule: "memguard" },
    Judge {
        name: "memguard without cpu.stat",
        arguments: &["--profile", "default", "--without", "cpu"],
        rule: "memguard",
    },
];

const OTHERS: &[&str] = &["report-trigger", "psi-full-10", "systemd-oomd", "oomd", "wait-for-oom"];

/// All columns, in order.
pub(super) fn all() -> Vec<Judge> {
    let others = OTHERS.iter().map(|rule| Judge { name: rule, arguments: &["--rule", "all"], rule });
    OURS.iter().copied().chain(others).collect()
}

/// The answer of `memguard replay --json`, as far as it is of interest here.
#[derive(Deserialize)]
struct Answer {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    rule: String,
    units: Vec<Unit>,
}

#[derive(Deserialize)]
struct Unit {
    cgroup: String,
    moments: Vec<Moment>,
}

#[derive(Deserialize)]
struct Moment {
    monotonic_s: f64,
    to: String,
    verdict: bool,
}

/// When a judge said what of which cgroup, in the guest's `CLOCK_MONOTONIC` seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) suspects: Vec<(String, f64)>,
    pub(super) verdicts: Vec<(String, f64)>,
}

/// Asks all judges about one recording.
pub(super) fn ask(memguard: &Path, recording: &Path) -> anyhow::Result<BTreeMap<&'static str, Said>> {
    let mut answers: BTreeMap<&[&str], Answer> = BTreeMap::new();
    let mut said = BTreeMap::new();
    for judge in all() {
        if !answers.contains_key(judge.arguments) {
            let mut command = Command::new(memguard);
            command.arg("replay").arg("--json").args(judge.arguments).arg(recording);
            let output = command.output().with_context(|| format!("can't run {}", memguard.display()))?;
            // 3: it decides otherwise than when the recording was made, as it may.
            ensure!(
                output.status.success() || output.status.code() == Some(3),
                "{} replay ended with {}: {}",
                memguard.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
            let answer = serde_json::from_slice(&output.stdout)
                .with_context(|| format!("the replay of {} is not understood", recording.display()))?;
            answers.insert(judge.arguments, answer);
        }
        let units = answers.get(judge.arguments).into_iter().flat_map(|answer| &answer.rules);
        let mut found = Said::default();
        for unit in units.filter(|rule| rule.rule == judge.rule).flat_map(|rule| &rule.units) {
            for moment in &unit.moments {
                let event = (unit.cgroup.clone(), moment.monotonic_s);
                if moment.verdict {
                    found.verdicts.push(event);
                } else if moment.to == "suspect" {
                    found.suspects.push(event);
                }
            }
        }
        said.insert(judge.name, found);
    }
    Ok(said)
}

/// What a judge's words are worth, given what happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Worth {
    /// Verdicts on what was not hung.
    pub(super) false_alarms: Vec<f64>,
    /// Hangs of [`MUST_SEE_S`] and longer on which there was no verdict while they lasted.
    pub(super) missed: Vec<Span>,
    /// For each hang with a verdict: seconds from its onset to the suspicion and to the verdict.
    pub(super) to_suspect: Vec<f64>,
    pub(super) to_verdict: Vec<f64>,
}

/// Whoever hangs for so long must be seen; shorter ones may end by themselves or by the kernel's OOM killer before.
pub(super) const MUST_SEE_S: f64 = 30.0;
/// The onset is known to a few seconds only, because progress is averaged over some.
const EARLY_S: f64 = 5.0;

/// Whether a cgroup is that of a container, one above or one below it.
fn concerns(cgroup: &str, victim: &Victim) -> bool {
    Path::new(&victim.cgroup).starts_with(cgroup) || Path::new(cgroup).starts_with(&victim.cgroup)
}

pub(super) fn worth(said: &Said, victims: &[Victim]) -> Worth {
    let mut worth = Worth::default();
    for (cgroup, t) in &said.verdicts {
        let right = victims.iter().any(|victim| {
            concerns(cgroup, victim) && victim.hangs.iter().any(|hang| (hang.from - EARLY_S..=hang.to).contains(t))
        });
        if !right {
            worth.false_alarms.push(*t);
        }
    }
    for victim in victims {
        for hang in &victim.hangs {
            let first = |events: &[(String, f64)]| {
                events
                    .iter()
                    .filter(|(cgroup, t)| concerns(cgroup, victim) && (hang.from - EARLY_S..=hang.to).contains(t))
                    .map(|(_, t)| t - hang.from)
                    .reduce(f64::min)
            };
            match first(&said.verdicts) {
                Some(seconds) => {
                    worth.to_verdict.push(seconds);
                    worth.to_suspect.extend(first(&said.suspects));
                }
                None if hang.length() >= MUST_SEE_S => worth.missed.push(*hang),
                None => {}
            }
        }
    }
    worth
}

#[cfg(test)]
mod tests {
    use super::*;

    fn victim(hangs: &[Span]) -> Victim {
        Victim {
            container: "a/b".to_owned(),
            cgroup: "k.slice/pod.slice/b.scope".to_owned(),
            at_limit: Some(30.0),
            works_at: 0.5,
            hangs: hangs.to_vec(),
            hung_at: 0.0,
            oom_kill: None,
        }
    }

    fn said(cgroup: &str, at: &[f64]) -> Said {
        Said { suspects: Vec::new(), verdicts: at.iter().map(|t| (cgroup.to_owned(), *t)).collect() }
    }

    const HANG: Span = Span { from: 40.0, to: 100.0 };

    #[test]
    fn a_verdict_in_a_hang_is_right_and_one_outside_is_not() {
        let worth_of = |cgroup, at| worth(&said(cgroup, &[at]), &[victim(&[HANG])]);
        let right = worth_of("k.slice/pod.slice/b.scope", 55.0);
        assert_eq!((right.false_alarms.len(), right.missed.len(), right.to_verdict.as_slice()), (0, 0, &[15.0][..]));
        assert_eq!(worth_of("k.slice/pod.slice", 55.0).to_verdict, [15.0], "on the pod whose limit it is");
        assert_eq!(worth_of("k.slice/pod.slice/b.scope/docker/x", 55.0).to_verdict, [15.0]);
        assert_eq!(worth_of("k.slice/pod.slice/b.scope", 120.0).false_alarms, [120.0], "after the hang");
        let neighbour = worth_of("k.slice/pod.slice/c.scope", 55.0);
        assert_eq!((neighbour.false_alarms.as_slice(), neighbour.missed.as_slice()), (&[55.0][..], &[HANG][..]));
    }

    #[test]
    fn a_hang_without_a_verdict_is_missed_if_it_is_long() {
        assert_eq!(worth(&Said::default(), &[victim(&[HANG])]).missed, [HANG]);
        let short = Span { from: 40.0, to: 60.0 };
        assert!(worth(&Said::default(), &[victim(&[short])]).missed.is_empty());
        assert_eq!(worth(&Said::default(), &[victim(&[])]), Worth::default());
    }

    #[test]
    fn every_judge_has_a_name_of_its_own() {
        let mut names: Vec<_> = all().iter().map(|judge| judge.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.contains(&DEFAULT));
    }
}
