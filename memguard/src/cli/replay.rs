//! `memguard replay`: recordings, judged again.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::{
    engine::EngineArgs,
    output::{Output, OutputArgs, tell},
    paint::Tone,
};
use crate::{
    engine::{State, baselines::Baseline},
    telemetry::escaped,
    trace::{self, Damage, Judge, Moment, Replay, Start, Without},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Recordings.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Who judges: `memguard`, one of the other people's rules that it is compared with (`report-trigger`,
    /// `psi-full-10`, `systemd-oomd`, `oomd-workload`, `wait-for-oom`), or `all`. May be given again.
    #[arg(long, value_name = "NAME", default_value = "memguard")]
    rule: Vec<String>,

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

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    #[serde(flatten)]
    replay: &'a Replay,
    damage: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let judges = args.judges()?;
    if args.plot.is_some() && args.files.len() != 1 {
        bail!("--plot draws one recording, and {} were named", args.files.len());
    }
    let mut different = false;
    for path in &args.files {
        let recording = trace::read(path)?;
        let replay = trace::replay(&recording.entries, &judges, &args.without);
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
    Ok(if different { ExitCode::from(3) } else { ExitCode::SUCCESS })
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
        Some(0) => writeln!(out, "  {}", Tone::Good.paint("the engine decides as it did then, to the last bit"))?,
        Some(count) => {
            let otherwise = format_args!("THE ENGINE DECIDES OTHERWISE NOW in {count} samples");
            writeln!(out, "  {}", Tone::Bad.paint(otherwise))?;
        }
        None => writeln!(out, "  run with other settings, rules or signals than it was recorded with")?,
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
