//! `memguard status`: what `memguard top` shows, once, for scripts and for people without a terminal.

use std::{path::PathBuf, process::ExitCode};

use super::incidents::Output;
use crate::status::{Client, socket, text};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As given to `memguard run`.
    #[arg(long, value_name = "FOLDER", default_value = super::incidents::RUN_DIR)]
    run_dir: PathBuf,

    /// How the answer looks.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let snapshot = Client::connect(&socket(&args.run_dir))?.snapshot()?;
    let answer = match args.output {
        Output::Text => text(&snapshot),
        Output::Json => serde_json::to_string_pretty(&snapshot)? + "\n",
    };
    super::print(&answer)?;
    Ok(ExitCode::SUCCESS)
}
