//! `memguard config`: what can be set, and whether a file sets it right.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

use crate::{
    config::{self, Configuration},
    engine::{Profile, Settings},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a profile as a configuration file, each setting with what it is for.
    Show {
        #[arg(value_enum, default_value_t)]
        profile: Profile,
    },
    /// Read a configuration file and print what is in force with it, or every mistake in it.
    Check { file: PathBuf },
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let configuration = match &args.command {
        Command::Show { profile } => Configuration { engine: Settings::profile(*profile), ..Configuration::default() },
        Command::Check { file } => config::read(file)?,
    };
    super::print(&config::written(&configuration))?;
    Ok(ExitCode::SUCCESS)
}
