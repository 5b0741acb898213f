//! `memguard replay`: recordings, judged again.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use serde::Serialize;

use super::engine::EngineArgs;
use crate::{
    engine::{State, baselines::Baseline},
    telemetry::escaped,
    trace::{self, Damage, Judge, Moment, Replay, Start, Without},
};

/// Exit status 3: the engine now decides otherwise than when the recording was made.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Recordings.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Who judges: `memguard`, one of the other people's rules that it is compared with (`report-trigger`,
    /// `psi-full-10`, `systemd-oomd`, `oomd`, `wait-for-oom`), or `all`. May be given again.
    #[arg(long, value_name = "NAME", default_value = "memguard")]
    rule: Vec<String>,

    /// Take a source of signals away, as on a machine that does not have it. May be given again.
    #[arg(long, value_enum)]
    without: Vec<Without>,

    #[command(flatten)]
    engine: EngineArgs,

    /// One JSON object for each recording.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    #[serde(flatten)]
    replay: &'a Replay,
    damage: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let judges = args.judges()?;
    let mut different = false;
    for path in &args.files {
        let recording = trace::read(path)?;
        let replay = trace::replay(&recording.entries, &judges, &args.without);
        different |= replay.different.is_some_and(|count| count > 0);
        let file = escaped(&path.to_string_lossy());
        let mut text = String::new();
        if args.json {
            let report = Report { file, replay: &replay, damage: recording.damage.as_ref().map(ToString::to_string) };
            text = serde_json::to_string(&report)?;
            text.push('\n');
        } else {
            print(&mut text, &file, &replay, recording.damage.as_ref())?;
        }
        super::print(&text)?;
    }
    Ok(if different { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

impl Args {
    /// In the order in which they were named, each once.
    fn judges(&self) -> anyhow::Result<Vec<Judge>> {
        let ours = if self.engine.any() { Judge::Engine(Box::new(self.engine.settings()?)) } else { Judge::Recorded };
        let mut judges = Vec::new();
        for name in &self.rule {
            match name.as_str() {
                "memguard" => judges.push(ours.clone()),
                "all" => {
                    judges.push(ours.clone());
                    judges.extend(Baseline::ALL.map(Judge::Baseline));
                }
                name => judges.push(Judge::Baseline(name.parse().map_err(anyhow::Error::msg)?)),
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
    match replay.different {
        Some(0) => writeln!(out, "  the engine decides as it did then, to the last bit")?,
        Some(count) => writeln!(out, "  THE ENGINE DECIDES OTHERWISE NOW in {count} samples")?,
        None => writeln!(out, "  run with other settings, rules or signals than it was recorded with")?,
    }
    for rule in &replay.rules {
        if replay.rules.len() > 1 {
            writeln!(out, "  rule {}", rule.rule)?;
        }
        for unit in &rule.units {
            writeln!(out, "  {} ({:.0} s)", escaped(&unit.cgroup), unit.watched_s)?;
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
    if *verdict { format!("VERDICT{why}") } else { format!("{from} -> {to}{why}") }
}
