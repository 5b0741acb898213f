//! `cargo xtask run`: memguard at work, on this machine or in a VM.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, bail};
use memguard_lab::MemguardMode;
use serde_json::Value;

use crate::{
    build::{self, Profile},
    lab::{self, kernels},
    process, setup, ui,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Watch this machine; fails, and says why, where that is not possible.
    #[arg(long, conflicts_with = "vm")]
    host: bool,

    /// Watch a VM with this kernel line (6.12 if none is named) in which a container live-locks.
    #[arg(long, value_name = "KERNEL", num_args = 0..=1, require_equals = true, default_missing_value = kernels::USUAL)]
    vm: Option<String>,

    /// How the VM is run.
    #[arg(long, value_enum, default_value_t)]
    accel: lab::accel::Choice,

    /// Arguments for `memguard run`, such as `--mode enforce`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(line) = &args.vm {
        // Before anything is built: a wrong name should be told at once.
        kernels::line(line)?;
        return in_vm(line, args);
    }
    setup::ensure(setup::Part::Building)?;
    let memguard = build::memguard(Profile::Quick)?;
    match (obstacle(&memguard)?, args.host) {
        (None, _) => on_host(&memguard, &args.arguments),
        (Some(why), true) => bail!("memguard can't watch this machine: {why}"),
        (Some(why), false) => {
            ui::say(format!("this machine can't be watched: {why}"));
            ui::say("so memguard watches a VM in which a container live-locks (--host and --vm choose)");
            in_vm(kernels::USUAL, args)
        }
    }
}

/// Why memguard can't work on this machine with its tracer, by its own account.
fn obstacle(memguard: &std::path::Path) -> anyhow::Result<Option<String>> {
    // Its exit status says the same in short, so it does not matter here.
    let output =
        Command::new(memguard).args(["doctor", "--output", "json"]).output().context("can't run memguard doctor")?;
    let report: Value = serde_json::from_slice(&output.stdout).context("memguard doctor did not write JSON")?;
    Ok(obstacle_in(&report, rustix::process::geteuid().is_root()))
}

fn obstacle_in(report: &Value, root: bool) -> Option<String> {
    if let Some(obstacle) = report["obstacle"].as_str() {
        return Some(obstacle.to_owned());
    }
    if !root {
        return Some("loading eBPF and killing cgroups takes root, and this is not root".to_owned());
    }
    report["plan"]["no_tracer"].as_str().map(str::to_owned)
}

/// memguard takes over the terminal, and ends with its own summary.
fn on_host(memguard: &std::path::Path, arguments: &[String]) -> anyhow::Result<()> {
    ui::say("watching this machine; Ctrl-C ends it with a summary");
    let mut command = Command::new(memguard);
    command.arg("run").args(arguments);
    let error = command.exec();
    Err(error).with_context(|| format!("can't start `{}`", process::shown(&command)))
}

fn in_vm(line: &str, args: &Args) -> anyhow::Result<()> {
    lab::check_machine()?;
    let line = kernels::line(line)?;
    let (mode, arguments) = split_mode(&args.arguments)?;
    let scenario = lab::scenarios(&["livelock".to_owned()])?.remove(0);
    let planned = lab::Planned { scenario: scenario.clone(), line, mode };
    let options = lab::Options { accel: args.accel, arguments, live: true, ..lab::Options::default() };
    let outcome = lab::run_all(vec![planned], &options)?.pop().context("the VM left no outcome")?;
    let (judgement, lines) = outcome.result?;
    println!("\nSummary\n{}", lab::story(&scenario, &lines));
    for fact in judgement.facts.iter().filter(|fact| fact.starts_with("memguard (")) {
        println!("          {fact}");
    }
    if !judgement.failures.is_empty() {
        bail!("this did not go as it should:\n  {}", judgement.failures.join("\n  "));
    }
    Ok(())
}

/// The mode decides how long the VM runs and what is expected of it, so it is taken out of memguard's arguments.
/// Without one memguard enforces here: the VM is there to be tried in.
fn split_mode(arguments: &[String]) -> anyhow::Result<(MemguardMode, Vec<String>)> {
    let mut mode = MemguardMode::Enforce;
    let mut rest = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix("--mode") {
            Some("") => arguments.next().context("--mode needs a value: observe or enforce")?,
            Some(value) if value.starts_with('=') => &value[1..],
            _ => {
                rest.push(argument.clone());
                continue;
            }
        };
        mode = match value {
            "observe" => MemguardMode::Observe,
            "enforce" => MemguardMode::Enforce,
            other => bail!("--mode {other:?}: it is observe or enforce"),
        };
    }
    Ok((mode, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_mode_is_found_in_either_form() {
        let split = |text: &str| split_mode(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(split("").unwrap(), (MemguardMode::Enforce, vec![]));
        let (mode, rest) = split("--hold 20 --mode observe --window 5").unwrap();
        assert_eq!((mode, rest.join(" ").as_str()), (MemguardMode::Observe, "--hold 20 --window 5"));
        assert_eq!(split("--mode=observe").unwrap().0, MemguardMode::Observe);
        assert!(split("--mode off").unwrap_err().to_string().contains("off"));
        assert!(split("--mode").is_err());
    }

    #[test]
    fn a_host_qualifies_by_what_doctor_says() {
        let good = json!({"obstacle": null, "plan": {"no_tracer": null}});
        assert_eq!(obstacle_in(&good, true), None);
        assert!(obstacle_in(&good, false).unwrap().contains("root"));
        assert_eq!(obstacle_in(&json!({"obstacle": "cgroup v1"}), true).as_deref(), Some("cgroup v1"));
        assert_eq!(obstacle_in(&json!({"plan": {"no_tracer": "no BTF"}}), true).as_deref(), Some("no BTF"));
    }
}
