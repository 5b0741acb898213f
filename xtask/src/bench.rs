//! `cargo xtask bench`: what memguard costs.

use std::{path::PathBuf, process::Command};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::Value;

use crate::{
    build::{self, Profile},
    lab::{self, accel, kernels},
    paths, process, setup, ui,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// What deciding costs: replay, ticks with many cgroups in reclaim, decoding, and memory for each cgroup.
    Engine,

    /// What the hooks add to a file fault and to a reclaim cycle, and what memguard takes at rest: on this machine's
    /// kernel as far as it lets the programs load, and in a VM.
    Hooks {
        /// The kernel line of the VM.
        #[arg(long, value_name = "LINE", default_value = kernels::USUAL)]
        kernel: String,

        /// Leave the VM out.
        #[arg(long)]
        no_vm: bool,

        /// Leave this machine's own kernel out.
        #[arg(long, conflicts_with = "no_vm")]
        no_host: bool,

        /// How the VM is run.
        #[arg(long, value_enum, default_value_t)]
        accel: accel::Choice,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Bench::Engine => engine(),
        Bench::Hooks { kernel, no_vm, no_host, accel } => hooks(kernel, *no_vm, *no_host, *accel),
    }
}

/// Not with the profile of a release, whose link-time optimisation takes minutes.
fn engine() -> anyhow::Result<()> {
    let mut command = process::cargo();
    command.args(["bench", "--quiet", "--package", "memguard", "--bench", "engine", "--profile", "quick"]);
    process::run(command.env_remove("MEMGUARD_EBPF_OBJECT"))
}

fn hooks(kernel: &str, no_vm: bool, no_host: bool, accel: accel::Choice) -> anyhow::Result<()> {
    let line = kernels::line(kernel)?;
    setup::ensure(setup::Part::Building)?;
    let taken = lab::programs::Programs::new()?;
    let bench = taken.take(&build::bench()?)?;
    let memguard = taken.take(&build::memguard(Profile::Release)?)?;
    if !no_host {
        println!("{}", host(&bench, &memguard)?);
    }
    if !no_vm {
        lab::check_machine()?;
        println!("{}", vm(&bench, &memguard, line, accel)?);
    }
    Ok(())
}

/// On this machine. What it does not allow is said, and left out.
fn host(bench: &std::path::Path, memguard: &std::path::Path) -> anyhow::Result<String> {
    let _step = ui::step("measuring on this machine");
    let folder = paths::lab();
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let folder = folder.to_string_lossy().into_owned();
    let memguard = memguard.to_string_lossy().into_owned();
    let mut table = Table::new("this machine");
    for arguments in [
        &["faults", "--folder", &folder][..],
        &["rename"],
        &["flood"],
        &["cycles", "--folder", &folder],
        &["rest", "--memguard", &memguard],
    ] {
        match process::output(Command::new(bench).args(arguments)) {
            Ok(lines) => table.add(&lines),
            Err(error) => {
                ui::check_interrupt()?;
                table.skip(arguments[0], &error_line(&error.to_string()));
            }
        }
    }
    Ok(table.text())
}

fn vm(
    bench: &std::path::Path,
    memguard: &std::path::Path,
    line: &'static kernels::Line,
    choice: accel::Choice,
) -> anyhow::Result<String> {
    let taken = lab::programs::Programs::new()?;
    let guest = taken.take(&build::guest()?)?;
    let kernel = kernels::ensure(line)?;
    let accel = accel::choose(choice, &kernel, &guest)?;
    let mut table = Table::new(&format!("VM, Linux {}, {accel}", kernel.release));
    for arguments in [
        &["faults", "--folder", "/disk/root", "--pairs", "60"][..],
        &["cycles", "--folder", "/disk/root"],
        &["rest", "--memguard", "/memguard"],
    ] {
        let _step = ui::step(format!("measuring in a VM: {}", arguments[0]));
        let mut argv = vec!["/hooks-bench".to_owned()];
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let programs: &[PathBuf] = &[bench.to_owned()];
        let (lines, status) = lab::command(&guest, memguard, programs, &kernel, accel, argv)?;
        table.add(&lines);
        if status != Some(0) {
            table.skip(arguments[0], &error_line(&lines));
        }
    }
    Ok(table.text())
}

/// The line with the error; a backtrace may follow it.
fn error_line(text: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix("Error: ")).or(text.lines().last()).unwrap_or_default().to_owned()
}

/// Lines of a report.
struct Table {
    lines: Vec<String>,
}

impl Table {
    fn new(title: &str) -> Self {
        Self { lines: vec![format!("\n{title}")] }
    }

    fn skip(&mut self, name: &str, why: &str) {
        self.lines.push(format!("  {name}: not measured: {why}"));
    }

    /// Takes in what hooks-bench wrote.
    fn add(&mut self, lines: &str) {
        for value in lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let name = value["name"].as_str().unwrap_or_default();
            if let Some(why) = value["skipped"].as_str() {
                self.skip(name, why);
            } else if value["pairs"].is_array() {
                self.lines.extend(pairs(name, &value));
            } else if name == "flood" {
                self.lines.push(flood(&value));
            } else if name == "at rest" {
                self.lines.push(at_rest(&value));
            }
        }
    }

    fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// Lower quartile, median and upper quartile.
fn quartiles(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let position = share * (values.len().saturating_sub(1)) as f64;
        let (low, high) = (position.floor(), position.ceil());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let (below, above) = (values.get(low as usize).copied(), values.get(high as usize).copied());
        let (below, above) = (below.unwrap_or_default(), above.unwrap_or_default());
        below + (above - below) * (position - low)
    };
    (at(0.25), at(0.5), at(0.75))
}

fn pairs(name: &str, value: &Value) -> Vec<String> {
    let pairs: Vec<(f64, f64)> = serde_json::from_value(value["pairs"].clone()).unwrap_or_default();
    let off = quartiles(pairs.iter().map(|(off, _)| *off).collect());
    let added = quartiles(pairs.iter().map(|(off, on)| on - off).collect());
    let ratio = quartiles(pairs.iter().map(|(off, on)| on / off).collect());
    let mut lines = vec![
        format!("  {name} ({} pairs)", pairs.len()),
        format!("    without       {:8.0} ns   (quartiles {:.0} to {:.0})", off.1, off.0, off.2),
        format!(
            "    the tracer adds {:6.0} ns   (quartiles {:.0} to {:.0}), factor {:.3} ({:.3} to {:.3})",
            added.1, added.0, added.2, ratio.1, ratio.0, ratio.2
        ),
    ];
    let programs: Vec<(String, f64)> = serde_json::from_value(value["program_ns"].clone()).unwrap_or_default();
    let told: Vec<_> = programs.iter().map(|(program, ns)| format!("{program} {ns:.0} ns")).collect();
    if !told.is_empty() {
        lines.push(format!("    of that in the programs themselves (kernel statistics): {}", told.join(", ")));
    }
    lines
}

fn flood(value: &Value) -> String {
    let number = |name: &str| value[name].as_u64().unwrap_or_default();
    let seconds = number("seconds").max(1);
    format!(
        "  a flood of records: {} a second tried, {} wake-ups a second; {} snapshots found room beside {} other records while \
         nobody read, {} while somebody did",
        number("events") / (2 * seconds),
        number("wake_ups") / seconds,
        number("unread_snapshots"),
        number("unread_headers"),
        number("snapshots"),
    )
}

fn at_rest(value: &Value) -> String {
    let number = |name: &str| value[name].as_f64().unwrap_or(f64::NAN);
    format!(
        "  memguard at rest, signals {}: {:.3} % of a core, {:.1} MiB resident (memory locked: {}), {:.1} MiB at the peak \
         of the start, attached after {:.0} ms",
        value["level"].as_str().unwrap_or("?"),
        number("cpu_percent"),
        number("resident_kib") / 1024.0,
        value["memory_locked"],
        number("resident_peak_kib") / 1024.0,
        number("attached_after_ms")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated() {
        assert_eq!(quartiles(vec![4.0, 1.0, 3.0, 2.0]), (1.75, 2.5, 3.25));
        assert_eq!(quartiles(vec![5.0]), (5.0, 5.0, 5.0));
        assert_eq!(quartiles(Vec::new()), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_report_holds_what_was_measured_and_what_was_not() {
        let mut table = Table::new("here");
        table.add(
            "{\"name\":\"fault\",\"pairs\":[[100,150],[100,170],[110,150]],\"program_ns\":[[\"p\",42.0]]}\nnoise\n\
             {\"name\":\"cycle\",\"skipped\":\"no cgroup v2\"}\n",
        );
        let text = table.text();
        assert!(text.contains("adds     50 ns") && text.contains("p 42 ns"), "{text}");
        assert!(text.contains("cycle: not measured: no cgroup v2"), "{text}");
    }
}
