//! The results as tables of Markdown.

use std::{collections::BTreeMap, fmt::Write as _};

use memguard_lab::scenario::{Half, Kind};

use super::{
    count::{Count, HALVES, in_half, median},
    evaluate::{Class, Evaluated, Outcome},
    replay::{BASELINES, DEFAULT, VARIANTS},
};
use crate::lab::judge::course::{Course, HANG_S};

/// All tables.
pub(super) fn all(runs: &[Evaluated], left_out: &[String]) -> String {
    let mut text = "<!-- Written by `cargo xtask lab matrix`: do not edit here. -->\n".to_owned();
    let scenarios = |kinds: &[Kind]| {
        let names: std::collections::BTreeSet<_> =
            runs.iter().filter(|run| kinds.contains(&run.kind)).map(|run| run.scenario.as_str()).collect();
        names.len()
    };
    let _ = writeln!(
        text,
        "\n{} runs of {} livelocks and {} healthy scenarios.\n",
        runs.len(),
        scenarios(&[Kind::Livelock]),
        scenarios(&[Kind::Healthy, Kind::Oom])
    );
    let _ = writeln!(text, "### By rule\n");
    text.push_str(&rules(runs, &by_rule()));
    let _ = writeln!(text, "\n### memguard with less to go by\n");
    text.push_str(&rules(runs, &VARIANTS[3..].iter().map(|v| (v.name, v.told.to_owned())).collect::<Vec<_>>()));
    let _ = writeln!(text, "\n### What should hang\n");
    text.push_str(&livelocks(runs));
    let _ = writeln!(text, "\n### What should be left alone\n");
    text.push_str(&healthy(runs));
    let contrary: Vec<&Evaluated> = runs.iter().filter(|run| is_contrary(run)).collect();
    if !contrary.is_empty() {
        let _ = writeln!(text, "\n### Runs that prove nothing, or did other than their name says\n");
        text.push_str(&contraries(&contrary));
    }
    if !left_out.is_empty() {
        let _ = writeln!(text, "\nLeft out:\n");
        for why in left_out {
            let _ = writeln!(text, "- {why}");
        }
    }
    text
}

fn is_contrary(run: &Evaluated) -> bool {
    matches!(run.class, Class::Contrary | Class::Unproven) || (run.kind == Kind::Livelock && run.class == Class::Works)
}

fn by_rule() -> Vec<(&'static str, String)> {
    let ours = VARIANTS[..3].iter().map(|variant| (variant.name, format!("**memguard**, {}", variant.told)));
    let others = BASELINES.iter().map(|(name, told)| (*name, (*told).to_owned()));
    ours.chain(others).collect()
}

fn rules(runs: &[Evaluated], rules: &[(&str, String)]) -> String {
    let mut text =
        "| judged by | false alarms: tuning | held-out | all | missed hangs: tuning | held-out | all | onset to \
                    verdict: median | worst |\n|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for (rule, told) in rules {
        let counts = HALVES.map(|half| Count::of(in_half(runs, half), rule));
        let mut cells: Vec<String> = counts.iter().map(Count::alarms).collect();
        cells.extend(counts.iter().map(|count| format!("{} of {}", count.missed, count.hung)));
        cells.extend([seconds(counts[2].median()), seconds(counts[2].worst())]);
        let _ = writeln!(text, "| {told} | {} |", cells.join(" | "));
    }
    text
}

/// For a terminal.
pub(super) fn summary(runs: &[Evaluated]) -> String {
    let mut text = String::new();
    let mut rows = by_rule();
    rows.extend(VARIANTS[3..].iter().map(|variant| (variant.name, variant.told.to_owned())));
    let _ = writeln!(
        text,
        "{:16} {:>24} {:>24} {:>9} {:>8}",
        "rule", "false alarms (tun+held)", "missed hangs (tun+held)", "median", "worst"
    );
    for (rule, _) in rows {
        let [tuning, held_out, all] = HALVES.map(|half| Count::of(in_half(runs, half), rule));
        let sum = |count: &Count| count.false_alarms + count.beside;
        let alarms = format!("{}+{} of {}", sum(&tuning), sum(&held_out), all.works);
        let missed = format!("{}+{} of {}", tuning.missed, held_out.missed, all.hung);
        let _ = writeln!(
            text,
            "{rule:16} {alarms:>24} {missed:>24} {:>9} {:>8}",
            seconds(all.median()),
            seconds(all.worst())
        );
    }
    text
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
        let count = Count::of(runs.iter().copied(), DEFAULT);
        let caught = runs.iter().filter(|run| run.outcome(DEFAULT) == Outcome::Caught).count();
        let hung = runs.iter().filter(|run| matches!(run.class, Class::Hung | Class::HungBriefly)).count();
        let all_caught = |rule: &str| runs.iter().all(|run| run.outcome(rule) == Outcome::Caught);
        let others: Vec<&str> = BASELINES.iter().map(|(name, _)| *name).filter(|name| all_caught(name)).collect();
        let mut verdict = format!("{caught} of {hung}");
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
        others.extend(BASELINES.iter().map(|(name, _)| (*name, alarms(name))));
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
            Outcome::Silent | Outcome::TooShort | Outcome::Missed => "no verdict",
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
    if courses.iter().any(|course| course.oom_kill.is_some()) {
        parts.push("OOM-killed".to_owned());
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
mod tests {
    use super::*;
    use crate::lab::{judge::course::Hang, matrix::evaluate::Judged};

    fn run(scenario: &str, kind: Kind, half: Half, class: Class, rules: &[(&str, Outcome, Option<f64>)]) -> Evaluated {
        let hang = Hang { onset: 33.0, end: 97.0, share: 0.012, lasts: true };
        let course = Course {
            container: "a/b".to_owned(),
            at_limit: Some(32.0),
            hangs: if matches!(class, Class::Hung | Class::Contrary) { vec![hang] } else { Vec::new() },
            share: Some(0.93),
            worst: Some(0.71),
            ..Course::default()
        };
        let judged = |outcome, verdict_s| Judged { outcome, suspect_s: Some(4.0), verdict_s, cgroup: None };
        Evaluated {
            scenario: scenario.to_owned(),
            kernel: "6.12".to_owned(),
            release: "6.12.73".to_owned(),
            kind,
            half,
            class,
            file: String::new(),
            courses: vec![course],
            rules: rules.iter().map(|(rule, outcome, s)| ((*rule).to_owned(), judged(*outcome, *s))).collect(),
            recording: std::path::PathBuf::new(),
            samples: 0,
        }
    }

    fn some() -> Vec<Evaluated> {
        let caught = |s| (DEFAULT, Outcome::Caught, Some(s));
        let alarm = ("oomd", Outcome::FalseAlarm, None);
        vec![
            run(
                "lock",
                Kind::Livelock,
                Half::Tuning,
                Class::Hung,
                &[caught(12.0), ("oomd", Outcome::Caught, Some(17.0))],
            ),
            run("lock", Kind::Livelock, Half::Tuning, Class::Hung, &[caught(19.0), ("oomd", Outcome::Missed, None)]),
            run("held", Kind::Livelock, Half::HeldOut, Class::Hung, &[(DEFAULT, Outcome::Missed, None)]),
            run("lame", Kind::Livelock, Half::HeldOut, Class::Works, &[]),
            run("scan", Kind::Healthy, Half::HeldOut, Class::Works, &[alarm]),
            run("odd", Kind::Healthy, Half::Tuning, Class::Contrary, &[alarm]),
        ]
    }

    #[test]
    fn each_run_is_counted_once_and_by_what_it_did() {
        let text = all(&some(), &["x.jsonl: it broke off".to_owned()]);
        for row in [
            "| **memguard**, default profile | 0 of 0 | 0 of 2 | 0 of 2 | 0 of 2 | 1 of 1 | 1 of 3 | 15.5 s | 19.0 s |",
            "| oomd's documented rule: memory full over 5 % for 15 s | 0 of 0 | 1 of 2 | 1 of 2 | 1 of 2 | 0 of 1 | 1 of 3 |",
            "| lock | 6.12 | tuning | 2 | hung 64 s and more at 1.2 % | 2 of 2 | 4.0 s | 15.5 s | 19.0 s |  |",
            "| held | 6.12 | held-out | 1 | hung 64 s and more at 1.2 % | 0 of 1, **1 missed** | - | - | - |  |",
            "| scan | 6.12 | held-out | 1 | works at 93 % (worst 30 s: 71 %) | silent | oomd (1) |",
            "| odd (healthy) | 6.12 | hung 64 s and more, at 1.2 % of its work | no verdict |",
            "| lame (livelock) | 6.12 | works at 93 % (71 % in its worst 30 s) | no verdict |",
            "- x.jsonl: it broke off",
        ] {
            assert!(text.contains(row), "no {row} in\n{text}");
        }
        assert!(summary(&some()).contains("0+1 of 3"), "{}", summary(&some()));
    }
}
