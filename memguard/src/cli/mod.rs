//! The command line.

mod completions;
mod config;
mod doctor;
mod engine;
mod help;
mod incidents;
mod man;
mod output;
mod paint;
mod reach;
mod reload;
mod replay;
mod report;
mod run;
mod status;
mod stored;
mod top;

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use self::help::{Example, Exit, LESSONS, Lesson, WRONG_USAGE, exit_statuses};
use self::paint::Tone;
use crate::telemetry::with_causes;

/// Finds containers that hang in memory reclaim instead of running out of memory, and ends them.
///
/// At its memory limit a cgroup can live-lock: the kernel drops the program text of its processes, they fault it right
/// back in, and because each round frees something, the OOM killer is never asked. memguard counts those rounds in the
/// kernel, tells such a livelock from hard work, and kills the cgroup.
#[derive(Debug, Parser)]
#[command(name = "memguard", version, max_term_width = 110, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the cgroups of this machine, and end livelocks where the mode allows it.
    ///
    /// Without options it observes: verdicts are written to standard error, with what would be done, and nothing is done.
    /// It works until it gets SIGTERM or SIGINT, or for `--duration`, and ends with a summary. SIGHUP has it read the
    /// configuration again. Needs root, or the capabilities that `memguard doctor` lists.
    Run(Box<run::Args>),
    /// Write down all that the engine sees, and do nothing else.
    ///
    /// The same as `memguard run --mode observe --record FILE`, but with no journal, so that it can work beside a memguard
    /// that has one. `memguard replay` and `memguard top --replay` read the file.
    Record(run::RecordArgs),
    /// Judge recordings again, by the engine and by other people's rules.
    ///
    /// Without `--config`, `--profile`, `--window` and `--hold` the engine is set as when the recording was made, and it is
    /// told whether it still decides the same: the same state and verdict for each sample. With one of them it is told what
    /// would have been decided.
    Replay(replay::Args),
    /// Watch what memguard sees, live or from a recording.
    ///
    /// Shows cgroups under reclaim, and why each is not (yet) a livelock. Needs a terminal (`kubectl exec -it`, `ssh -t`)
    /// and, without `--replay`, a memguard that runs here. `?` tells what the keys do. Colours are left out with `NO_COLOR`,
    /// and anything but ASCII where the locale does not say UTF-8.
    Top(top::Args),
    /// Tell once what memguard sees at this moment.
    ///
    /// Asks the memguard that runs here, through the socket in its run folder, so it takes root.
    Status(status::Args),
    /// Tell what memguard decided and did on this machine.
    ///
    /// Reads the copies in the run folder and, while no memguard is at work, the journal on the disk. Changes neither.
    Incidents(incidents::Args),
    /// Tell all that is known of one incident: as text, JSON, or a page for a browser.
    ///
    /// Its figures against the thresholds, two minutes of timeline, the tasks, and the files that came back. Without an ID
    /// the reports that are kept are listed, the latest at the end.
    Report(report::Args),
    /// Show what can be set, or check a configuration file.
    Config(config::Args),
    /// Tell what this machine offers, what memguard makes of it, and what is lost.
    ///
    /// Really loads and attaches the tracer, and takes it away again. With Kubernetes it asks for each right there, with
    /// `--config` it reads the configuration and tries the credentials for GitHub.
    Doctor(doctor::Args),
    /// Write a script for a shell that completes memguard's commands and options.
    Completions(completions::Args),
    /// Write manual pages.
    Man(man::Args),
}

/// The command line's definition, with the examples and exit statuses that `--help` tells.
#[must_use]
pub fn command() -> clap::Command {
    help::teach(Cli::command())
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = output::of_today(std::env::args_os());
    let result = match stored::part(&arguments) {
        Some(part) => stored::tell(&part),
        None => match Cli::from_arg_matches(&command().get_matches_from(arguments)) {
            Ok(cli) => run_command(cli.command),
            Err(error) => error.exit(),
        },
    };
    result.unwrap_or_else(|error| {
        complain(with_causes(&error));
        if error.is::<WrongUsage>() { ExitCode::from(WRONG_USAGE.status) } else { ExitCode::FAILURE }
    })
}

/// Arguments that do not go together, where clap can't tell.
#[derive(Debug, thiserror::Error)]
#[error("{0} (`--help` tells more)")]
struct WrongUsage(String);

fn run_command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Record(args) => run::record(args),
        Command::Replay(args) => replay::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Incidents(args) => incidents::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// Says on standard error what is wrong.
fn complain(what: impl std::fmt::Display) {
    // Where nobody listens to errors there is nobody to tell.
    let _ = writeln!(anstream::stderr(), "{} {what}", Tone::Bad.paint("memguard:"));
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("can't write the answer"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn bad_values_are_refused_with_their_name() {
        for arguments in [
            &["memguard", "run", "--mode", "kill"][..],
            &["memguard", "run", "--window", "0"],
            &["memguard", "run", "--hold", "0"],
            &["memguard", "run", "--max-cgroups", "0"],
            &["memguard", "run", "--protect", "a[b"],
            &["memguard", "run", "--duration", "x"],
            &["memguard", "run", "--metrics-listen", "9619"],
            &["memguard", "run", "--metrics-listen", "localhost:9619"],
        ] {
            let error = Cli::try_parse_from(arguments).unwrap_err().to_string();
            assert!(error.contains(arguments[2]), "{arguments:?}: {error}");
        }
        Cli::try_parse_from(["memguard", "run", "--metrics-listen", "[::]:9619"]).unwrap();
        Cli::try_parse_from(["memguard", "run", "--mode", "enforce", "--hold", "20", "--protect", "x/**"]).unwrap();
    }
}
