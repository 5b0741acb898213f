//! `cargo xtask`: everything that is done with this repository. `cargo xtask help` lists it.

mod arch;
mod bench;
mod build;
mod cache;
mod deploy;
#[cfg(test)]
mod documents;
mod fuzz;
mod image;
mod lab;
mod lint;
mod monitoring;
mod paths;
mod prism;
mod process;
mod run;
mod setup;
mod test;
mod ui;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, runs and tests memguard.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find what building, running and testing need, and install what is missing.
    Setup(setup::Args),
    /// Build the eBPF object and memguard with it.
    Build(build::Args),
    /// Build memguard and run it: on this machine if it qualifies, else in a VM in which a container live-locks.
    Run(run::Args),
    /// Check everything that has to hold before a change lands.
    Test(test::Args),
    /// Make the plain manifests from the chart, and check both.
    Deploy(deploy::Args),
    /// Build the container image, without Docker.
    Image(image::Args),
    /// Check format and lints, and licences where cargo-deny is there.
    Lint,
    /// Measure what memguard costs.
    Bench(bench::Args),
    /// Feed arbitrary input to every parser and to the engine.
    Fuzz(fuzz::Args),
    /// Check metrics, alerts and the dashboard with a real Prometheus.
    Monitoring,
    /// Boot kernels in VMs and make them livelock.
    Lab(lab::Args),
}

fn main() -> ExitCode {
    let result = ui::catch_interrupts().and_then(|()| match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Deploy(args) => deploy::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Lint => lint::run(),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Monitoring => monitoring::run(),
        Command::Lab(args) => lab::run(args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
