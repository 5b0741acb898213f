//! The results as tables of Markdown.

mod rules;

use std::{collections::BTreeMap, fmt::Write as _};

use memguard_lab::scenario::{Half, Kind};

pub(super) use self::rules::summary;
use super::{
    Evaluation,
    count::{Count, median},
    evaluate::{Class, Evaluated, Outcome},
    replay::{BASELINES, DEFAULT, VARIANTS},
};
use crate::lab::judge::course::{Course, HANG_S};

/// All tables.
pub(super) fn all(evaluation: &Evaluation) -> String {
    let runs = &evaluation.runs;
    let mut text = "<!-- Written by `cargo xtask lab matrix`: do not edit here. -->\n".to_owned();
    let scenarios = |kinds: &[Kind]| {
        let names: std::collections::BTreeSet<_> =
            runs.iter().filter(|run| kinds.contains(&run.kind)).map(|run| run.scenario.as_str()).collect();
        names.len()
    };
    let _ = writeln!(
        text,
        "\n{} runs of {} livelocks and {} healthy scenarios: {}.\n\n{}\n",
        runs.len(),
        scenarios(&[Kind::Livelock]),
        scenarios(&[Kind::Healthy, Kind::Oom]),
        classes(runs),
        builds(evaluation)
    );
    text.push_str(&kernels(runs));
    text.push_str(&rules::all(runs));
    let _ = writeln!(text, "\n### What should hang\n");
    text.push_str(&livelocks(runs));
    let _ = writeln!(text, "\n### What should be left alone\n");
    text.push_str(&healthy(runs));
    let contrary: Vec<&Evaluated> = runs.iter().filter(|run| is_contrary(run)).collect();
    if !contrary.is_empty() {
        let _ = writeln!(text, "\n### Runs that prove nothing, or did other than their name says\n");
        text.push_str(&contraries(&contrary));
    }
    for (told, list) in [
        ("Broke off, so that nobody knows what they would have shown", &evaluation.broke_off),
        ("Left out", &evaluation.left_out),
    ] {
        if !list.is_empty() {
            let _ = writeln!(text, "\n{told}:\n");
        }
        for why in list {
            let _ = writeln!(text, "- {}", why.lines().next().unwrap_or_default());
        }
    }
    text
}

/// How many runs were what.
fn classes(runs: &[Evaluated]) -> String {
    let of = |class: Class| runs.iter().filter(|run| run.class == class).count();
    let named = [
        (Class::Hung, "hung and had to be seen"),
        (Class::HungBriefly, "hung too briefly for that, or too shortly before their end"),
        (Class::Works, "worked at their limit"),
        (Class::KernelActed, "were ended by the kernel's OOM killer soon after it"),
        (Class::Contrary, "hung though they should not"),
        (Class::Unproven, "prove nothing"),
    ];
    let told = named.iter().filter(|(class, _)| of(*class) > 0).map(|(class, told)| format!("{} {told}", of(*class)));
    told.collect::<Vec<_>>().join(", ")
}

/// Which memguard recorded how many of them, and which judged.
fn builds(evaluation: &Evaluation) -> String {
    let mut counts: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    for run in &evaluation.runs {
        *counts.entry(run.build.as_deref()).or_default() += 1;
    }
    let told = counts.iter().rev().map(|(build, count)| match build {
        Some(build) => format!("`{build}` {count}"),
        None => format!("{count} from before that was noted"),
    });
    format!(
        "Builds of memguard, by the beginning of their sha256. Recorded: {}. Judged all of them: `{}`.",
        told.collect::<Vec<_>>().join(", "),
        evaluation.judge
    )
}

/// How often what was run on each kernel.
fn kernels(runs: &[Evaluated]) -> String {
    let mut by_kernel: BTreeMap<Version<'_>, BTreeMap<&str, usize>> = BTreeMap::new();
    for run in runs {
        *by_kernel.entry(version(&run.kernel)).or_default().entry(&run.scenario).or_default() += 1;
    }
    let mut text =
        "| kernel | scenarios | runs | three runs or more | two | one |\n|---|---|---|---|---|---|\n".to_owned();
    for ((_, kernel), scenarios) in by_kernel {
        let of = |fits: fn(usize) -> bool| scenarios.values().filter(|count| fits(**count)).count();
        let _ = writeln!(
            text,
            "| {kernel} | {} | {} | {} | {} | {} |",
            scenarios.len(),
            scenarios.values().sum::<usize>(),
            of(|count| count >= 3),
            of(|count| count == 2),
            of(|count| count == 1)
        );
    }
    text
}

/// Sorts kernels as people do.
type Version<'e> = (Vec<u32>, &'e str);

fn version(kernel: &str) -> Version<'_> {
    let numbers = kernel.split([',', ' ']).next().unwrap_or_default();
    (numbers.split('.').map_while(|number| number.parse().ok()).collect(), kernel)
}

fn is_contrary(run: &Evaluated) -> bool {
    let did_not_hang = || run.courses.iter().all(|course| course.hung().is_none());
    matches!(run.class, Class::Contrary | Class::Unproven) || (run.kind == Kind::Livelock && did_not_hang())
}

/// Runs of one scenario on one kernel.
type Groups<'e> = BTreeMap<(Half, &'e str, &'e str), Vec<&'e Evaluated>>;

fn groups<'e>(runs: &'e [Evaluated], kinds: &[Kind]) -> Groups<'e> {
    let mut groups = Groups::new();
    for run in runs.iter().filter(|run| kinds.contains(&run.kind)) {
        groups.entry((run.half, &run.scenario, &run.kernel)).or_default().push(run);
    }
    groups
}

fn half_name(half: Half) -> &'static str {
    match half {
        Half::Tuning => "tuning",
        Half::HeldOut => "held-out",
    }
}

fn livelocks(runs: &[Evaluated]) -> String {
    let mut text = "| scenario | kernel | half | runs | what happened | caught | onset to suspect | onset to verdict: \
                    median | worst | others that saw it in all runs |\n|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for ((half, scenario, kernel), runs) in groups(runs, &[Kind::Livelock]) {
        let count = Count::of(runs.iter().copied(), DEFAULT, 0.0);
        let caught_of = |class: Class| {
            let all: Vec<_> = runs.iter().filter(|run| run.class == class).collect();
            (all.iter().filter(|run| run.outcome(DEFAULT) == Outcome::Caught).count(), all.len())
        };
        let ((caught, hung), (caught_briefly, briefly)) = (caught_of(Class::Hung), caught_of(Class::HungBriefly));
        let all_caught = |rule: &str| runs.iter().all(|run| run.outcome(rule) == Outcome::Caught);
        let others: Vec<&str> = BASELINES.iter().map(|rule| rule.name).filter(|name| all_caught(name)).collect();
        let mut verdict = format!("{caught} of {hung}");
        if briefly > 0 {
            let _ = write!(verdict, ", {caught_briefly} of {briefly} too short ones");
        }
        if count.missed > 0 {
            let _ = write!(verdict, ", **{} missed**", count.missed);
        }
        if count.false_alarms + count.beside > 0 {
            let _ = write!(verdict, ", **{} false**", count.false_alarms + count.beside);
        }
        let _ = writeln!(
            text,
            "| {scenario} | {kernel} | {} | {} | {} | {verdict} | {} | {} | {} | {} |",
            half_name(half),
            runs.len(),
            happened(&runs),
            seconds(count.suspect()),
            seconds(count.median()),
            seconds(count.worst()),
            others.join(", ")
        );
    }
    text
}

fn healthy(runs: &[Evaluated]) -> String {
    let mut text =
        "| scenario | kernel | half | runs | what happened | memguard | others that would have acted (runs) |\n\
                    |---|---|---|---|---|---|---|\n"
            .to_owned();
    for ((half, scenario, kernel), runs) in groups(runs, &[Kind::Healthy, Kind::Oom]) {
        let alarms = |rule: &str| runs.iter().filter(|run| run.outcome(rule) == Outcome::FalseAlarm).count();
        let ours = match alarms(DEFAULT) {
            0 => "silent".to_owned(),
            count => format!("**{count} false alarms**"),
        };
        let mut others = Vec::new();
        for variant in &VARIANTS[1..3] {
            others.push((variant.told, alarms(variant.name)));
        }
        others.extend(BASELINES.iter().map(|rule| (rule.name, alarms(rule.name))));
        let others: Vec<String> =
            others.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} ({count})")).collect();
        let _ = writeln!(
            text,
            "| {scenario} | {kernel} | {} | {} | {} | {ours} | {} |",
            half_name(half),
            runs.len(),
            happened(&runs),
            others.join(", ")
        );
    }
    text
}

fn contraries(runs: &[&Evaluated]) -> String {
    let mut text = "| scenario | kernel | what happened | memguard |\n|---|---|---|---|\n".to_owned();
    for run in runs {
        let ours = match run.outcome(DEFAULT) {
            Outcome::Silent | Outcome::Missed => "no verdict",
            Outcome::Caught => "a verdict in the hang",
            Outcome::OnSlowWork => "a verdict on slow work",
            Outcome::FalseAlarm => "**a verdict on work that goes on**",
        };
        let told = run.course().map(Course::told).unwrap_or_default();
        let _ = writeln!(text, "| {} ({}) | {} | {told} | {ours} |", run.scenario, run.kind, run.kernel);
    }
    text
}

/// What happened in some runs of the same.
fn happened(runs: &[&Evaluated]) -> String {
    let courses: Vec<&Course> = runs.iter().filter_map(|run| run.course()).collect();
    let (hung, works): (Vec<&Course>, Vec<&Course>) = courses.iter().partition(|course| course.hung().is_some());
    let mut parts = Vec::new();
    let of = |some: &[&Course]| if some.len() == courses.len() { String::new() } else { format!("{}: ", some.len()) };
    if let Some(first) = hung.first() {
        let spans = sorted(hung.iter().filter_map(|course| Some(course.hung()?.seconds())));
        let shares = sorted(hung.iter().filter_map(|course| Some(course.hung()?.share * 100.0)));
        let one = first.hung();
        let kernel = one.and_then(|one| first.ended_by_kernel(one));
        let end = match (kernel, one.is_some_and(|one| one.lasts)) {
            (Some(_), _) => ", then OOM-killed",
            (None, true) => " and more",
            (None, false) => ", then it recovered",
        };
        parts.push(format!("{}hung {} s{end} at {} %", of(&hung), range(&spans, 0), range(&shares, 1)));
    }
    if !works.is_empty() {
        parts.push(format!("{}{}", of(&works), worked(&works)));
    }
    parts.join("; ")
}

fn worked(courses: &[&Course]) -> String {
    let mut parts = Vec::new();
    let shares = sorted(courses.iter().filter_map(|course| Some(course.share? * 100.0)));
    if let Some(share) = median(&shares) {
        let worst = courses.iter().filter_map(|course| course.worst).reduce(f64::min);
        let worst = worst.map(|worst| format!(" (worst {HANG_S:.0} s: {:.0} %)", worst * 100.0)).unwrap_or_default();
        parts.push(format!("works at {share:.0} %{worst}"));
    }
    let after = |course: &&Course| Some((course.oom_kill?, course.at_limit));
    match courses.iter().find_map(after) {
        Some((kill, Some(limit))) => parts.push(format!("OOM-killed {:.1} s after its limit", kill - limit)),
        Some((_, None)) => parts.push("OOM-killed".to_owned()),
        None => {}
    }
    if courses.iter().all(|course| course.at_limit.is_none()) {
        parts.push("never at its limit".to_owned());
    }
    parts.extend(courses.iter().find_map(|course| course.untold.clone()));
    if parts.is_empty() { "lives".to_owned() } else { parts.join(", ") }
}

fn sorted(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn range(sorted: &[f64], decimals: usize) -> String {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return String::new() };
    let (first, last) = (format!("{first:.decimals$}"), format!("{last:.decimals$}"));
    if first == last { first } else { format!("{first} to {last}") }
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} s"))
}

#[cfg(test)]
mod tests;
