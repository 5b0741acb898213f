//! Rules side by side: what each made of all runs.

use std::fmt::Write as _;

use super::seconds;
use crate::lab::matrix::{
    count::{Count, HALVES, in_half},
    evaluate::Evaluated,
    replay::{BASELINES, VARIANTS, needs_s},
};

/// A rule's name, and what it is in a table.
type Rule = (&'static str, String);

/// Lengths of hangs, in seconds: from what a hang is, to nearly what the longest runs show.
const LENGTHS: [f64; 4] = [30.0, 60.0, 80.0, 120.0];

fn by_rule() -> Vec<Rule> {
    let ours = VARIANTS[..3].iter().map(|variant| (variant.name, format!("**memguard**, {}", variant.told)));
    let others = BASELINES.iter().map(|rule| (rule.name, format!("{}: {}", rule.name, rule.told)));
    ours.chain(others).collect()
}

fn lesser() -> Vec<Rule> {
    VARIANTS[3..].iter().map(|variant| (variant.name, variant.told.to_owned())).collect()
}

/// The tables.
pub(super) fn all(runs: &[Evaluated]) -> String {
    let mut text = "\n### By rule\n\n".to_owned();
    text.push_str(&table(runs, &by_rule()));
    let _ = writeln!(text, "\nMissed of all hangs, by how long these lasted at least, whatever a rule needs:\n");
    text.push_str(&by_length(runs, &by_rule()));
    let _ = writeln!(text, "\n### memguard with less to go by\n");
    text.push_str(&table(runs, &lesser()));
    text
}

fn table(runs: &[Evaluated], rules: &[Rule]) -> String {
    let mut text =
        "| judged by | false alarms: tuning | held-out | all | needs | missed hangs: tuning | held-out | all | \
                    shorter | onset to verdict: median | worst |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for (rule, told) in rules {
        let needs = needs_s(rule);
        let counts = HALVES.map(|half| Count::of(in_half(runs, half), rule, needs));
        let mut cells: Vec<String> = counts.iter().map(Count::alarms).collect();
        cells.push(format!("{needs:.0} s"));
        cells.extend(counts.iter().map(Count::misses));
        cells.push(counts[2].shorter.to_string());
        cells.extend([seconds(counts[2].median()), seconds(counts[2].worst())]);
        let _ = writeln!(text, "| {told} | {} |", cells.join(" | "));
    }
    text
}

fn by_length(runs: &[Evaluated], rules: &[Rule]) -> String {
    let head: Vec<String> = LENGTHS.iter().map(|length| format!("{length:.0} s")).collect();
    let mut text = format!("| judged by | {} |\n|---|{}\n", head.join(" | "), "---|".repeat(LENGTHS.len()));
    for (rule, told) in rules {
        let cells = LENGTHS.map(|length| Count::of(runs.iter(), rule, length).misses());
        // What it is stands in the table before.
        let told = if told.starts_with("**") { told } else { *rule };
        let _ = writeln!(text, "| {told} | {} |", cells.join(" | "));
    }
    text
}

/// For a terminal.
pub(in crate::lab::matrix) fn summary(runs: &[Evaluated]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:16} {:>24} {:>24} {:>8} {:>9} {:>8}",
        "rule", "false alarms (tun+held)", "missed hangs (tun+held)", "shorter", "median", "worst"
    );
    for (rule, _) in by_rule().into_iter().chain(lesser()) {
        let [tuning, held_out, all] = HALVES.map(|half| Count::of(in_half(runs, half), rule, needs_s(rule)));
        let sum = |count: &Count| count.false_alarms + count.beside;
        let alarms = format!("{}+{} of {}", sum(&tuning), sum(&held_out), all.works);
        let missed = format!("{}+{} of {}", tuning.missed, held_out.missed, all.hung);
        let _ = writeln!(
            text,
            "{rule:16} {alarms:>24} {missed:>24} {:>8} {:>9} {:>8}",
            all.shorter,
            seconds(all.median()),
            seconds(all.worst())
        );
    }
    text
}
