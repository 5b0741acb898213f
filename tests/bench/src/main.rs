//! What the hooks cost, measured in pairs: the same work with the tracer and without it, in turn, so that a machine that
//! grows slower or faster meanwhile does so for both.
//!
//! Writes one JSON object a line for each measurement; `cargo xtask bench hooks` makes a table of them.

mod cycles;
mod faults;
mod flood;
mod pairs;
mod rename;
mod rest;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Minor faults on a mapped file, with each way to hook them.
    Faults {
        /// A folder on a file system that is no tmpfs.
        #[arg(long)]
        folder: PathBuf,
        #[arg(long, default_value_t = 200)]
        pairs: u32,
    },
    /// The programs at the begin and the end of a reclaim cycle, run at an event that can be provoked anywhere.
    Rename {
        #[arg(long, default_value_t = 100)]
        pairs: u32,
    },
    /// Real reclaim cycles, in a cgroup of its own.
    Cycles {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long, default_value_t = 20)]
        pairs: u32,
    },
    /// A flood of records, with nobody to read them and with a reader: fails if it makes the reader deaf or has it spin.
    Flood,
    /// memguard at rest: CPU, memory, and how long it takes to attach.
    Rest {
        #[arg(long)]
        memguard: PathBuf,
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// The process that `cycles` puts into its cgroup.
    #[command(hide = true)]
    CyclesWorker { file: PathBuf },
}

fn main() -> anyhow::Result<()> {
    // The ring buffer registers with an async runtime when the tracer starts.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    match Cli::parse().command {
        Command::Faults { folder, pairs } => faults::run(&folder, pairs),
        Command::Rename { pairs } => rename::run(pairs),
        Command::Flood => runtime.block_on(flood::run()),
        Command::Cycles { folder, pairs } => cycles::run(&folder, pairs),
        Command::Rest { memguard, seconds } => rest::run(&memguard, seconds),
        Command::CyclesWorker { file } => cycles::worker(&file),
    }
}
