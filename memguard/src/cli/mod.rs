//! The command line.

mod config;
mod doctor;
mod engine;
mod incidents;
mod reach;
mod reload;
mod replay;
mod report;
mod run;
mod status;
mod top;

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Finds containers that hang in memory reclaim instead of running out of memory, and ends them.
///
/// At its memory limit a cgroup can live-lock: the kernel drops the program text of its processes, they fault it right
/// back in, and because each round frees something, the OOM killer is never asked. memguard counts those rounds in the
/// kernel, tells such a livelock from hard work, and kills the cgroup.
///
/// Exit status: 0 success; 1 failure, said on standard error; 2 wrong usage; 3 from `doctor`: works, but with less than
/// it could have.
#[derive(Debug, Parser)]
#[command(name = "memguard", version, max_term_width = 110, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the cgroups of this machine.
    Run(run::Args),
    /// Write down all that the engine sees, and do nothing else: `memguard run --mode observe --record FILE`.
    Record(run::RecordArgs),
    /// Run the engine, and other people's rules, over recordings, and tell what they make of them.
    Replay(replay::Args),
    /// Watch what memguard sees, live or from a recording: cgroups by reclaim, and why each is not (yet) a livelock.
    ///
    /// Needs a terminal (`kubectl exec -it`, `ssh -t`) and, without `--replay`, a memguard that runs here. `?` tells what
    /// the keys do. Colours are left out with `NO_COLOR`, and anything but ASCII where the locale does not say UTF-8.
    Top(top::Args),
    /// Tell once what memguard sees at this moment.
    ///
    /// Exit status 1 if no memguard answers.
    Status(status::Args),
    /// Tell what memguard decided and did on this machine.
    Incidents(incidents::Args),
    /// Tell all that is known of one incident: as text, JSON, or a page for a browser.
    Report(report::Args),
    /// Show what can be set, or check a configuration file.
    Config(config::Args),
    /// Tell what this machine offers, what memguard makes of it, and what is lost.
    Doctor(doctor::Args),
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Record(args) => run::record(args),
        Command::Replay(args) => replay::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Incidents(args) => incidents::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("memguard: {error:#}");
        ExitCode::FAILURE
    })
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
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
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
