//! `memguard top`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use super::{WrongUsage, engine::EngineArgs};
use crate::{
    status,
    telemetry::shown,
    top::{
        self,
        source::{Live, Replay, Source},
        terminal,
    },
    trace,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As given to `memguard run`.
    #[arg(long, value_name = "FOLDER", default_value = super::incidents::RUN_DIR)]
    run_dir: PathBuf,

    /// Show a recording, through the same engine: `memguard run --record` and `memguard record` make them.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,

    /// Times as fast as it was, for a start.
    #[arg(long, value_name = "TIMES", default_value = "1", requires = "replay", value_parser = speed)]
    speed: f64,

    /// Draw with ASCII alone.
    #[arg(long, conflicts_with = "unicode")]
    ascii: bool,

    /// Draw with Unicode, whatever the locale says: in a container none is set as a rule.
    #[arg(long)]
    unicode: bool,

    #[command(flatten)]
    engine: EngineArgs,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.25..=64.0).contains(&speed) { Ok(speed) } else { Err("expected 0.25 to 64".to_owned()) }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let source = match &args.replay {
        Some(path) => {
            let settings = args.engine.any().then(|| args.engine.settings()).transpose()?;
            let recording = trace::read(path)?;
            let replay = Replay::new(path, recording, settings, args.speed);
            Source::Replay(Box::new(replay.with_context(|| format!("{} has no samples to show", shown(path)))?))
        }
        None if args.engine.any() => {
            let what = "--config, --profile, --window and --hold are for --replay: the memguard that runs has its own";
            return Err(WrongUsage(what.to_owned()).into());
        }
        None => Source::Live(Live::start(&status::socket(&args.run_dir))?),
    };
    let ascii = (args.ascii || args.unicode).then_some(args.ascii);
    top::run(source, terminal::look(ascii))?;
    Ok(ExitCode::SUCCESS)
}
