//! `memguard config`: what can be set, and whether a file sets it right.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use serde::Serialize;

use super::output::{Output, OutputArgs};
use crate::{
    config::{self, ConfigError, Configuration},
    engine::{Profile, Settings},
    telemetry::shown,
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
        /// How much evidence is asked for.
        #[arg(value_enum, default_value_t)]
        profile: Profile,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print what is in force with a configuration file, or every mistake in it.
    ///
    /// Nothing is asked of GitHub or Kubernetes, and no credentials are read: that is what `memguard doctor --config` does.
    Check {
        /// The file; nothing is done to it.
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print every section and key: type, unit, range, default, meaning.
    ///
    /// The text is Markdown: docs/configuration.md.
    Reference {
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// What is made of a file.
#[derive(Serialize)]
struct Checked {
    file: String,
    mistakes: Vec<String>,
    in_force: Option<serde_json::Value>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Show { profile, output } => {
            let configuration = Configuration { engine: Settings::profile(*profile), ..Configuration::default() };
            let text = config::written(&configuration);
            super::print(&match output.get() {
                Output::Text => text,
                Output::Json => pretty(&members(&text)?)?,
            })?;
        }
        Command::Check { file, output } => {
            let read = config::read(file);
            match (output.get(), read) {
                (Output::Text, read) => super::print(&config::written(&read?))?,
                (Output::Json, Ok(configuration)) => {
                    let in_force = members(&config::written(&configuration))?;
                    let checked = Checked { file: shown(file), mistakes: Vec::new(), in_force: Some(in_force) };
                    super::print(&pretty(&checked)?)?;
                }
                (Output::Json, Err(error)) => {
                    let mistakes = match error {
                        ConfigError::Wrong { problems, .. } => problems,
                        ConfigError::Read { source, .. } => vec![format!("can't be read: {source}")],
                        ConfigError::Syntax { what, .. } => vec![format!("is no TOML: {what}")],
                    };
                    super::print(&pretty(&Checked { file: shown(file), mistakes, in_force: None })?)?;
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        Command::Reference { output } => super::print(&match output.get() {
            Output::Text => config::markdown(),
            Output::Json => pretty(&config::reference())?,
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

fn pretty(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// What a file says, as JSON.
fn members(text: &str) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::to_value(text.parse::<toml::Table>()?)?)
}
