//! The command line.

mod doctor;
mod replay;
mod run;

use std::process::ExitCode;

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
    /// Run the engine over recordings made with `memguard run --record`, and tell what it makes of them.
    Replay(replay::Args),
    /// Tell what this machine offers, what memguard makes of it, and what is lost.
    Doctor(doctor::Args),
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("memguard: {error:#}");
        ExitCode::FAILURE
    })
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
        ] {
            let error = Cli::try_parse_from(arguments).unwrap_err().to_string();
            assert!(error.contains(arguments[2]), "{arguments:?}: {error}");
        }
        Cli::try_parse_from(["memguard", "run", "--mode", "enforce", "--hold", "20", "--protect", "x/**"]).unwrap();
    }
}
