//! `memguard replay`: recordings, judged again.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use super::run::seconds_between;
use crate::{
    engine::{Settings, State},
    telemetry::escaped,
    trace::{self, Damage, Moment, Replay, Start},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Recordings.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Seconds over which signals are computed, instead of what the recording was made with.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_between(2, 300))]
    window: Option<Duration>,

    /// Seconds for which the rule has to hold, instead of what the recording was made with.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_between(1, 3600))]
    hold: Option<Duration>,

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
    let mut out = std::io::stdout().lock();
    let mut different = false;
    for path in &args.files {
        let recording = trace::read(path)?;
        let settings = args.settings(&recording.entries);
        let replay = trace::replay(&recording.entries, settings.as_ref());
        different |= replay.different.is_some_and(|count| count > 0);
        let file = escaped(&path.to_string_lossy());
        let written = if args.json {
            let report = Report { file, replay: &replay, damage: recording.damage.as_ref().map(ToString::to_string) };
            serde_json::to_writer(&mut out, &report).map_err(Into::into).and_then(|()| writeln!(out))
        } else {
            print(&mut out, &file, &replay, recording.damage.as_ref())
        };
        match written {
            // A reader that has seen enough (`| head`) is no failure.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            other => other.context("can't write the report")?,
        }
    }
    Ok(if different { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

impl Args {
    /// The recording's own, but for what was asked for; `None` to take them as they are.
    fn settings(&self, entries: &[trace::Entry]) -> Option<Settings> {
        if self.window.is_none() && self.hold.is_none() {
            return None;
        }
        let recorded = entries.iter().find_map(|entry| match entry {
            trace::Entry::Start(start) => Some(start.settings.clone()),
            _ => None,
        });
        let recorded = recorded.unwrap_or_default();
        Some(Settings {
            window: self.window.unwrap_or(recorded.window),
            hold: self.hold.unwrap_or(recorded.hold),
            ..recorded
        })
    }
}

fn print(out: &mut impl Write, file: &str, replay: &Replay, damage: Option<&Damage>) -> std::io::Result<()> {
    writeln!(out, "{file}: {} samples of {} cgroups", replay.samples, replay.units.len())?;
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
        None => writeln!(out, "  run with other settings than it was recorded with")?,
    }
    for unit in &replay.units {
        writeln!(out, "  {} ({:.0} s)", escaped(&unit.cgroup), unit.watched_s)?;
        for moment in &unit.moments {
            writeln!(out, "  {:8.1} s  {}", moment.at_s, told(moment))?;
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
