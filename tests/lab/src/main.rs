//! The one program of the lab's guests: PID 1, and every workload. In a guest with real containers it is the first process
//! of the job's containers too, and the plugin that gives pods a network.

mod cni;
mod container;
mod guest;
mod workload;

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use memguard_lab::scenario::Program;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default().to_owned();
    let outcome = match arguments.as_slice() {
        _ if cni::NAMES.iter().any(|plugin| name == *plugin) => cni::run(),
        [_, verb] if verb == "pause" => container::pause(),
        [_, verb, processes] if verb == "container" => container::run(processes),
        [_, verb, progress, program] if verb == "workload" => run_workload(progress.as_ref(), program),
        _ if std::process::id() == 1 => guest::main(),
        _ => usage(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> anyhow::Result<()> {
    bail!("this program runs as PID 1 of a lab guest (`cargo xtask lab run`)")
}

fn run_workload(progress: &Path, program: &str) -> anyhow::Result<()> {
    let program: Program = serde_json::from_str(program).context("the program is not JSON of a workload")?;
    workload::run(&program, progress)
}
