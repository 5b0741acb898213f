//! The one program of the lab's guests: PID 1, and every workload.

mod guest;
mod workload;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use memguard_lab::scenario::Program;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::main();
    }
    match run_workload() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `lab-guest workload PROGRESS-FILE PROGRAM-AS-JSON`
fn run_workload() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, verb, progress, program] = arguments.as_slice() else {
        bail!("this program runs as PID 1 of a lab guest (`cargo xtask lab run`)");
    };
    if verb != "workload" {
        bail!("unknown verb {verb:?}");
    }
    let program: Program = serde_json::from_str(program).context("the program is not JSON of a workload")?;
    workload::run(&program, progress.as_ref())
}
