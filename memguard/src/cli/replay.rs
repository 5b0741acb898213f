//! `memguard replay`: recordings, judged again.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{ValueEnum, builder::PossibleValue};
use serde::Serialize;

use super::{
    WrongUsage,
    engine::EngineArgs,
    output::{Output, OutputArgs, tell},
    paint::Tone,
};
use crate::{
    engine::{State, baselines::Baseline},
    telemetry::{escaped, shown, with_causes},
    trace::{self, Damage, Judge, Moment, Recording, Replay, Start, Without},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Recordings.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Who judges. May be given again.
    #[arg(long, value_enum, value_name = "NAME", default_value = "memguard")]
    rule: Vec<Rule>,

    /// Take a source of signals away, as on a machine that does not have it. May be given again.
    #[arg(long, value_enum)]
    without: Vec<Without>,

    #[command(flatten)]
    engine: EngineArgs,

    #[command(flatten)]
    output: OutputArgs,

    /// Draw the cgroup that came closest to a livelock, as SVG, or as an HTML page if the name ends so. For one
    /// recording.
    #[arg(long, value_name = "OUT")]
    plot: Option<PathBuf>,
}

/// Who can be asked to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Ours,
    Other(Baseline),
    All,
}

/// Ours first, and all of them at last.
const RULES: [Rule; Baseline::ALL.len() + 2] = {
    let mut rules = [Rule::All; Baseline::ALL.len() + 2];
    rules[0] = Rule::Ours;
    let mut other = 0;
    while other < Baseline::ALL.len() {
        rules[other + 1] = Rule::Other(Baseline::ALL[other]);
        other += 1;
    }
    rules
};

impl ValueEnum for Rule {
    fn value_variants<'a>() -> &'a [Self] {
        &RULES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Ours => PossibleValue::new("memguard").help("The engine"),
            Self::Other(rule) => PossibleValue::new(rule.name()).help(rule.summary()),
            Self::All => PossibleValue::new("all").help("Each of these"),
        })
    }
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    #[serde(flatten)]
    replay: &'a Replay,
    damage: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.plot.is_some() && args.files.len() != 1 {
        let what = format!("--plot draws one recording, and {} were named", args.files.len());
        return Err(WrongUsage(what).into());
    }
    let judges = args.judges()?;
    let (mut different, mut unusable) = (false, false);
    for path in &args.files {
        let (recording, replay) = match judge(path, &judges, &args.without) {
            Ok(both) => both,
            // The others can be judged all the same.
            Err(error) => {
                super::complain(error);
                unusable = true;
                continue;
            }
        };
        different |= replay.different.is_some_and(|count| count > 0);
        let file = escaped(&path.to_string_lossy());
        let mut text = String::new();
        // One object a line for each recording.
        if args.output.get() == Output::Json {
            let report = Report { file, replay: &replay, damage: recording.damage.as_ref().map(ToString::to_string) };
            text = serde_json::to_string(&report)?;
            text.push('\n');
        } else {
            print(&mut text, &file, &replay, recording.damage.as_ref())?;
        }
        tell(args.output.get(), &text)?;
        if let Some(out) = &args.plot {
            args.draw(&recording.entries, path, out)?;
        }
    }
    Ok(match (unusable, different) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(3),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// A recording and what the judges made of it; or, in a sentence, why there is nothing to judge.
fn judge(path: &Path, judges: &[Judge], without: &[Without]) -> Result<(Recording, Replay), String> {
    let recording = trace::read(path).map_err(|error| with_causes(&error.into()))?;
    let replay = trace::replay(&recording.entries, judges, without);
    if replay.samples > 0 {
        return Ok((recording, replay));
    }
    let path = shown(path);
    Err(match &recording.damage {
        Some(damage) => format!("{path} is {damage}, and there is no sample before: nothing can be judged"),
        None => format!("{path} has no samples, so there is nothing to judge: no cgroup was at its limit meanwhile"),
    })
}

impl Args {
    fn draw(&self, entries: &[trace::Entry], path: &Path, out: &Path) -> anyhow::Result<()> {
        let settings = self.engine.any().then(|| self.engine.settings()).transpose()?;
        let title = path.file_stem().unwrap_or_default().to_string_lossy();
        let svg = trace::plot(entries, settings.as_ref(), &title)
            .with_context(|| format!("{} has no samples to draw", path.display()))?;
        let html = out.extension().is_some_and(|extension| extension == "html" || extension == "htm");
        let text = if html {
            format!(
                "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
                 <meta name=\"color-scheme\" content=\"light dark\">\n<title>memguard replay</title>\n{svg}"
            )
        } else {
            svg
        };
        std::fs::write(out, text).with_context(|| format!("can't write the plot to {}", out.display()))
    }

    /// In the order in which they were named, each once.
    fn judges(&self) -> anyhow::Result<Vec<Judge>> {
        let ours = if self.engine.any() { Judge::Engine(Box::new(self.engine.settings()?)) } else { Judge::Recorded };
        let mut judges = Vec::new();
        for rule in &self.rule {
            match rule {
                Rule::Ours => judges.push(ours.clone()),
                Rule::Other(rule) => judges.push(Judge::Baseline(*rule)),
                Rule::All => {
                    judges.push(ours.clone());
                    judges.extend(Baseline::ALL.map(Judge::Baseline));
                }
            }
        }
        let mut once: Vec<Judge> = Vec::new();
        for judge in judges {
            if !once.contains(&judge) {
                once.push(judge);
            }
        }
        Ok(once)
    }
}

fn print(out: &mut String, file: &str, replay: &Replay, damage: Option<&Damage>) -> std::fmt::Result {
    let cgroups = replay.rules.first().map_or(0, |rule| rule.units.len());
    writeln!(out, "{file}: {} samples of {cgroups} cgroups", replay.samples)?;
    for Start { version, kernel, signals_from, .. } in &replay.starts {
        let (version, kernel) = (escaped(version), escaped(kernel));
        writeln!(out, "  recorded by memguard {version} on Linux {kernel}, signals: {}", escaped(signals_from))?;
    }
    if let Some(damage) = damage {
        writeln!(out, "  {damage}; what comes before is sound")?;
    }
    if replay.lost > 0 {
        writeln!(out, "  {} entries were lost when it was made", replay.lost)?;
    }
    match (replay.different, replay.other_figures) {
        (Some(0), Some(0)) => {
            writeln!(out, "  {}", Tone::Good.paint("the engine decides as it did then, to the last bit"))?;
        }
        (Some(0), other) => {
            writeln!(out, "  {}", Tone::Good.paint("the engine decides as it did then: the same states and verdicts"))?;
            let other = other.unwrap_or_default();
            writeln!(
                out,
                "  (its figures or words differ in {other} samples: another version of memguard made the recording)"
            )?;
        }
        (Some(count), _) => {
            let otherwise =
                format_args!("THE ENGINE DECIDES OTHERWISE NOW: another state or verdict in {count} samples");
            writeln!(out, "  {}", Tone::Bad.paint(otherwise))?;
        }
        (None, _) => writeln!(out, "  run with other settings, rules or signals than it was recorded with")?,
    }
    for rule in &replay.rules {
        if replay.rules.len() > 1 {
            writeln!(out, "  rule {}", Tone::Strong.paint(rule.rule))?;
        }
        for unit in &rule.units {
            writeln!(out, "  {} ({:.0} s)", Tone::Strong.paint(escaped(&unit.cgroup)), unit.watched_s)?;
            for moment in &unit.moments {
                writeln!(out, "  {:8.1} s  {}", moment.at_s, told(moment))?;
            }
        }
    }
    Ok(())
}

fn told(moment: &Moment) -> String {
    let Moment { from, to, verdict, terms, .. } = moment;
    let why = match (terms, to) {
        (Some(terms), State::Suspect | State::Livelock) => format!(": {}", terms.sentence()),
        (Some(terms), _) => {
            let missing: Vec<_> = terms.missing().map(|term| term.why.as_str()).collect();
            format!(": {}", missing.join("; "))
        }
        (None, _) => String::new(),
    };
    let tone = match to {
        _ if *verdict => return format!("{}{why}", Tone::Bad.paint("VERDICT")),
        State::Suspect | State::Livelock => Tone::Look,
        _ => Tone::Quiet,
    };
    format!("{}{why}", tone.paint(format_args!("{from} -> {to}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_can_be_asked_for() {
        for rule in Baseline::ALL {
            assert_eq!(Rule::from_str(rule.name(), false), Ok(Rule::Other(rule)));
        }
        let error = Rule::from_str("psi", false).unwrap_err();
        assert!(error.contains("psi"), "{error}");
    }
}
