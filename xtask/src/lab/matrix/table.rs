//! The tables of docs/detection.md. Pure: what was found in, Markdown out.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use memguard_lab::scenario::{Half, Kind};

use super::{
    facts::{HANG_S, Victim},
    judges::{DEFAULT, MUST_SEE_S, Worth, all},
};

/// A run and what everybody made of it.
#[derive(Clone, Debug)]
pub(super) struct Evaluated {
    pub(super) scenario: String,
    pub(super) kind: Kind,
    pub(super) half: Half,
    /// `uname -r`
    pub(super) release: String,
    /// memguard's recording of it.
    pub(super) recording: PathBuf,
    pub(super) victims: Vec<Victim>,
    pub(super) worth: BTreeMap<&'static str, Worth>,
}

impl Evaluated {
    fn hung(&self) -> bool {
        self.victims.iter().any(|victim| !victim.hangs.is_empty())
    }

    fn ours(&self) -> Option<&Worth> {
        self.worth.get(DEFAULT)
    }
}

pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => sorted.get(middle).copied(),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

fn worst(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::max)
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.0}"))
}

const fn half(half: Half) -> &'static str {
    match half {
        Half::Tuning => "tuning",
        Half::HeldOut => "held-out",
    }
}

/// All tables.
pub(super) fn markdown(runs: &[Evaluated]) -> String {
    let mut text = String::new();
    let _ = rules(&mut text, runs);
    for kind in [Kind::Livelock, Kind::Healthy, Kind::Oom] {
        let _ = scenarios(&mut text, runs, kind);
    }
    text
}

/// For each judge and half: false alarms, misses, and how soon.
fn rules(text: &mut String, runs: &[Evaluated]) -> std::fmt::Result {
    let hung = runs.iter().filter(|run| run.hung()).count();
    writeln!(
        text,
        "{} runs of {} scenarios; in {hung} the work of a container was hung for {HANG_S:.0} s or longer. Each cell is \
         tuning half + held-out half. A false alarm is a run with a verdict on work that was not hung; a miss is a hang \
         of {MUST_SEE_S:.0} s or longer without a verdict while it lasted.\n",
        runs.len(),
        runs.iter().map(|run| run.scenario.as_str()).collect::<std::collections::BTreeSet<_>>().len(),
    )?;
    writeln!(
        text,
        "| rule | runs with false alarms | hangs missed | hangs seen | onset to verdict, median / worst, s |"
    )?;
    writeln!(text, "|---|---|---|---|---|")?;
    for judge in all() {
        let of = |wanted: Half| {
            runs.iter().filter(move |run| run.half == wanted).filter_map(|run| run.worth.get(judge.name))
        };
        let count = |value: fn(&Worth) -> usize| {
            let [tuning, held_out] = [Half::Tuning, Half::HeldOut].map(|half| of(half).map(value).sum::<usize>());
            format!("{tuning} + {held_out}")
        };
        let times: Vec<f64> = runs
            .iter()
            .filter_map(|run| run.worth.get(judge.name))
            .flat_map(|w| w.to_verdict.iter().copied())
            .collect();
        writeln!(
            text,
            "| {} | {} | {} | {} | {} / {} |",
            judge.name,
            count(|worth| usize::from(!worth.false_alarms.is_empty())),
            count(|worth| worth.missed.len()),
            count(|worth| worth.to_verdict.len()),
            seconds(median(&times)),
            seconds(worst(&times)),
        )?;
    }
    Ok(())
}

/// One line for each scenario and kernel.
fn scenarios(text: &mut String, runs: &[Evaluated], kind: Kind) -> std::fmt::Result {
    let mut groups: BTreeMap<(&str, &str), Vec<&Evaluated>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.kind == kind) {
        groups.entry((&run.scenario, &run.release)).or_default().push(run);
    }
    if groups.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n### Meant as: {kind}\n")?;
    writeln!(
        text,
        "| scenario | half | kernel | runs | what happened | verdict | onset to suspect | onset to verdict, median / worst |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|")?;
    for ((scenario, release), group) in groups {
        let worth: Vec<&Worth> = group.iter().filter_map(|run| run.ours()).collect();
        let gather = |value: fn(&Worth) -> &Vec<f64>| -> Vec<f64> {
            worth.iter().flat_map(|worth| value(worth).iter().copied()).collect()
        };
        let (suspects, verdicts) = (gather(|w| &w.to_suspect), gather(|w| &w.to_verdict));
        let false_alarms = worth.iter().filter(|worth| !worth.false_alarms.is_empty()).count();
        let missed: usize = worth.iter().map(|worth| worth.missed.len()).sum();
        let verdict = match (verdicts.len(), false_alarms, missed) {
            (0, 0, 0) => "none".to_owned(),
            (seen, 0, 0) => format!("{seen}, all right"),
            (seen, wrong, missed) => format!("{seen} right, **{wrong} false, {missed} missed**"),
        };
        let happened: Vec<String> = group.iter().map(|run| happened(run)).collect();
        writeln!(
            text,
            "| {scenario} | {} | {} | {} | {} | {verdict} | {} | {} / {} |",
            group.first().map_or("", |run| half(run.half)),
            release.split(['+', '-']).next().unwrap_or(release),
            group.len(),
            happened.join("; "),
            seconds(median(&suspects)),
            seconds(median(&verdicts)),
            seconds(worst(&verdicts)),
        )?;
    }
    Ok(())
}

/// In a few words.
fn happened(run: &Evaluated) -> String {
    let of = |victim: &Victim| {
        let mut words = match victim.longest() {
            Some(hang) => format!("hung {:.0} s at {:.0} %", hang.length(), victim.hung_at * 100.0),
            None => format!("worked at {:.0} %", victim.works_at * 100.0),
        };
        if let Some(at) = victim.oom_kill {
            let since =
                victim.at_limit.map_or_else(String::new, |limit| format!(" {:.0} s after the limit", at - limit));
            let _ = write!(words, ", OOM kill{since}");
        }
        words
    };
    // Neighbours are of interest only where they did not do well.
    let mut told: Vec<String> = run.victims.iter().filter(|victim| victim.at_limit.is_some()).map(of).collect();
    if told.is_empty() {
        told = run.victims.iter().map(of).collect();
    }
    if told.is_empty() { "no progress to tell by".to_owned() } else { told.join(" and ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::matrix::facts::Span;

    fn run(scenario: &str, kind: Kind, half: Half, hangs: &[Span], ours: Worth) -> Evaluated {
        Evaluated {
            scenario: scenario.to_owned(),
            kind,
            half,
            release: "6.12.73+deb12-cloud-amd64".to_owned(),
            recording: PathBuf::new(),
            victims: vec![Victim {
                container: "a/b".to_owned(),
                cgroup: "x".to_owned(),
                at_limit: Some(30.0),
                works_at: 0.75,
                hangs: hangs.to_vec(),
                hung_at: 0.01,
                oom_kill: None,
            }],
            worth: BTreeMap::from([(DEFAULT, ours)]),
        }
    }

    #[test]
    fn tables_tell_hangs_work_misses_and_false_alarms() {
        let hang = Span { from: 40.0, to: 100.0 };
        let seen = Worth { to_suspect: vec![4.0], to_verdict: vec![14.0], ..Worth::default() };
        let text = markdown(&[
            run("livelock", Kind::Livelock, Half::Tuning, &[hang], seen),
            run("stream", Kind::Healthy, Half::HeldOut, &[], Worth::default()),
            run("bad", Kind::Healthy, Half::HeldOut, &[], Worth { false_alarms: vec![50.0], ..Worth::default() }),
            run("unseen", Kind::Livelock, Half::HeldOut, &[hang], Worth { missed: vec![hang], ..Worth::default() }),
        ]);
        assert!(text.contains("| memguard | 0 + 1 | 0 + 1 | 1 + 0 | 14 / 14 |"), "{text}");
        assert!(
            text.contains("| livelock | tuning | 6.12.73 | 1 | hung 60 s at 1 % | 1, all right | 4 | 14 / 14 |"),
            "{text}"
        );
        assert!(text.contains("| stream | held-out | 6.12.73 | 1 | worked at 75 % | none | – | – / – |"), "{text}");
        assert!(text.contains("**1 false, 0 missed**") && text.contains("**0 false, 1 missed**"), "{text}");
    }

    #[test]
    fn medians_of_even_odd_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
