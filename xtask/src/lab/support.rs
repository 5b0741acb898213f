//! `cargo xtask lab kernels`: what each kernel offers, what the plan makes of it, and what the verifier had to look at.

mod compare;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::compare::{before, worse};
use super::{accel, command::command, document, kernels, programs::Programs, speaking};
use crate::{
    arch::Arch,
    build::{self, Profile},
    paths, ui,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kernel lines; all that there are by default. May be given again.
    #[arg(long, value_name = "LINE")]
    kernel: Vec<String>,

    /// What the guests' processors are.
    #[arg(long, value_enum, default_value_t)]
    arch: Arch,

    /// Write nothing: fail if a kernel's plan is worse than what was last written down, if a hook is not available that
    /// was, or if a program's verified instructions have grown by more than a quarter.
    #[arg(long)]
    check: bool,

    /// How guests are run.
    #[arg(long, value_enum, default_value_t)]
    accel: accel::Choice,
}

impl Args {
    /// Holds the kernels that setup fetches against what is written down.
    pub(crate) fn checking(accel: accel::Choice) -> Self {
        let kernel = kernels::DEFAULT.iter().map(|line| line.name.to_owned()).collect();
        Self { kernel, arch: Arch::Amd64, check: true, accel }
    }
}

/// What one kernel gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Support {
    line: String,
    /// `uname -m`
    #[serde(default = "x86_64")]
    machine: String,
    release: String,
    level: String,
    hooks: Vec<Hook>,
    signals: Vec<Signal>,
}

fn x86_64() -> String {
    Arch::Amd64.rust().to_owned()
}

impl Support {
    /// Whether it tells of the same kernel line on the same processors.
    fn is_of(&self, other: &Self) -> bool {
        (&self.machine, &self.line) == (&other.machine, &other.line)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Hook {
    program: String,
    attach: String,
    target: String,
    /// `available`, `missing`, `refused`
    state: String,
    #[serde(default)]
    why: Option<String>,
    #[serde(default)]
    verified_instructions: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Signal {
    #[serde(rename = "signal")]
    name: String,
    programs: Vec<String>,
    #[serde(default)]
    lost: Option<String>,
}

/// The state of a hook that can be attached.
const AVAILABLE: &str = "available";

fn files() -> (PathBuf, PathBuf) {
    let docs = paths::root().join("docs");
    (docs.join("kernel-support.md"), docs.join("kernel-support.json"))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    super::check_machine_for(args.arch)?;
    let lines = if args.kernel.is_empty() {
        kernels::all().collect()
    } else {
        args.kernel.iter().map(|name| kernels::line(name)).collect::<anyhow::Result<Vec<_>>>()?
    };
    let programs = Programs::new()?;
    let guest = programs.take(&build::guest_for(Some(args.arch))?)?;
    let memguard = programs.take(&build::memguard_for(Some(args.arch), Profile::Quick)?)?;
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for line in lines {
        match ask(line, &guest, &memguard, args) {
            Ok(support) => found.push(support),
            // One that can't be had keeps nobody from the others.
            Err(error) => {
                ui::say(format!("{}: {error:#}", line.name));
                failed.push(line.name);
            }
        }
        ui::check_interrupt()?;
    }
    let (text, data) = files();
    let earlier = before(&data, args.check)?;
    let worse = worse(&earlier, &found);
    for what in &worse {
        ui::say(format!("worse than before: {what}"));
    }
    if !args.check {
        // Kernels that were not asked keep what they said before.
        for old in earlier {
            if !found.iter().any(|new| new.is_of(&old)) {
                found.push(old);
            }
        }
        found.sort_by_key(|support| {
            let line = kernels::all().position(|line| line.name == support.line);
            (support.machine != Arch::Amd64.rust(), line)
        });
        document::write(&text, "kernels", "What each kernel offers", &markdown(&found))?;
        fs::write(&data, serde_json::to_string_pretty(&found)? + "\n")
            .with_context(|| format!("can't write {}", data.display()))?;
        ui::say(format!("wrote {} and {}", text.display(), data.display()));
    }
    if args.check && !worse.is_empty() {
        bail!("worse than what {} holds:\n  {}", data.display(), worse.join("\n  "));
    }
    if !failed.is_empty() {
        bail!("kernels that told nothing: {}", failed.join(", "));
    }
    Ok(())
}

fn ask(line: &'static kernels::Line, guest: &Path, memguard: &Path, how: &Args) -> anyhow::Result<Support> {
    let kernel = kernels::ensure_for(how.arch, line)?;
    let accel = accel::choose(how.accel, &kernel, guest)?;
    let step = ui::step(format!("asking memguard doctor on {}", kernel.release));
    let argv = ["/memguard", "doctor", "--output", "json"].map(str::to_owned).to_vec();
    let (said, _) = command(guest, memguard, &[], &kernel, accel, argv)?;
    let support =
        understood(line.name, &said).with_context(|| format!("the doctor's answer is not understood: {said}"))?;
    drop(step);
    // The root disk of the others has no shell.
    if how.arch == Arch::Amd64 {
        speaking::check(guest, memguard, &kernel, accel, &support.level)?;
    }
    Ok(support)
}

/// The answer of `memguard doctor --output json`, among whatever else the guest wrote.
fn understood(line: &str, said: &str) -> anyhow::Result<Support> {
    let begin = said.find('{').context("it has no object")?;
    let mut values = serde_json::Deserializer::from_str(&said[begin..]).into_iter::<Value>();
    let report = values.next().context("it is empty")??;
    let level = report["plan"]["level"].as_str().context("it names no plan")?.to_owned();
    Ok(Support {
        line: line.to_owned(),
        machine: report["kernel"]["machine"].as_str().context("it names no machine")?.to_owned(),
        release: report["kernel"]["release"].as_str().context("it names no kernel")?.to_owned(),
        level,
        hooks: serde_json::from_value(report["hooks"].clone())?,
        signals: serde_json::from_value(report["plan"]["signals"].clone())?,
    })
}

fn markdown(supports: &[Support]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_markdown(&mut text, supports);
    text
}

fn write_markdown(text: &mut String, supports: &[Support]) -> std::fmt::Result {
    writeln!(text, "| line | processor | release | stands for | plan |\n|---|---|---|---|---|")?;
    for support in supports {
        let why = kernels::line(&support.line).map_or("", |line| line.why);
        writeln!(text, "| {} | {} | {} | {why} | {} |", support.line, support.machine, support.release, support.level)?;
    }
    let (native, arm): (Vec<&Support>, Vec<&Support>) =
        supports.iter().partition(|support| support.machine == Arch::Amd64.rust());
    write_tables(text, "x86-64", &native)?;
    write_tables(text, "arm64", &arm)?;
    Ok(())
}

fn write_tables(text: &mut String, processor: &str, supports: &[&Support]) -> std::fmt::Result {
    let Some(first) = supports.first() else { return Ok(()) };
    writeln!(
        text,
        "\n## Hooks on {processor}\n\nThe number is that of instructions the verifier looked at, over all paths, when the \
                    plan asked for the program.\n"
    )?;
    let lines: Vec<&str> = supports.iter().map(|support| support.line.as_str()).collect();
    writeln!(text, "| program | attached to | {} |\n|---|---|{}", lines.join(" | "), "---|".repeat(lines.len()))?;
    let mut programs: Vec<&Hook> = Vec::new();
    for hook in supports.iter().flat_map(|support| &support.hooks) {
        if !programs.iter().any(|known| known.program == hook.program) {
            programs.push(hook);
        }
    }
    for program in programs {
        let cells: Vec<String> = supports
            .iter()
            .map(|support| support.hooks.iter().find(|hook| hook.program == program.program).map_or("–".into(), cell))
            .collect();
        writeln!(text, "| `{}` | {} `{}` | {} |", program.program, program.attach, program.target, cells.join(" | "))?;
    }
    writeln!(
        text,
        "\n## Signals on {processor}\n\n| signal | {} |\n|---|{}",
        lines.join(" | "),
        "---|".repeat(lines.len())
    )?;
    for signal in &first.signals {
        let cells: Vec<String> = supports
            .iter()
            .map(|support| {
                let found = support.signals.iter().find(|other| other.name == signal.name);
                found.map_or("–".into(), source)
            })
            .collect();
        writeln!(text, "| {} | {} |", signal.name.replace('_', " "), cells.join(" | "))?;
    }
    Ok(())
}

fn cell(hook: &Hook) -> String {
    match (hook.state.as_str(), hook.verified_instructions, &hook.why) {
        (AVAILABLE, Some(count), _) => count.to_string(),
        (AVAILABLE, None, _) => "there, not needed".to_owned(),
        (state, _, Some(why)) => format!("{state}: {}", why.replace('|', "\\|")),
        (state, ..) => state.to_owned(),
    }
}

fn source(signal: &Signal) -> String {
    let programs: Vec<String> = signal.programs.iter().map(|program| format!("`{program}`")).collect();
    match (&signal.lost, programs.is_empty()) {
        (None, _) => programs.join(", "),
        (Some(lost), true) => lost.clone(),
        (Some(lost), false) => format!("{}; lost: {lost}", programs.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    pub(super) fn support(line: &str, instructions: u32) -> Support {
        support_on("x86_64", line, instructions)
    }

    pub(super) fn support_on(machine: &str, line: &str, instructions: u32) -> Support {
        let said = json!({
            "kernel": {"release": format!("{line}.9-cloud"), "machine": machine},
            "hooks": [
                {"program": "reclaim_end", "attach": "tracepoint", "target": "x_end", "state": "available",
                 "verified_instructions": instructions, "jited_bytes": 9},
                {"program": "fault_fexit", "attach": "fexit", "target": "filemap_fault", "state": "refused",
                 "why": "EPERM|no", "verified_instructions": null, "jited_bytes": null},
            ],
            "plan": {"level": "degraded", "signals": [
                {"signal": "file_faults", "programs": ["fault_kprobe"], "lost": "which were major"},
            ]},
        });
        understood(line, &format!("warning: x\n{said}\nbye")).unwrap()
    }

    #[test]
    fn the_doctors_answer_becomes_tables() {
        let text = markdown(&[support("6.1", 100), support("6.12", 120)]);
        for row in [
            "| 6.1 | x86_64 | 6.1.9-cloud | AL2023",
            "| `reclaim_end` | tracepoint `x_end` | 100 | 120 |",
            "| `fault_fexit` | fexit `filemap_fault` | refused: EPERM\\|no |",
            "| file faults | `fault_kprobe`; lost: which were major |",
        ] {
            assert!(text.contains(row), "{row}: {text}");
        }
        assert!(!text.contains("Hooks on arm64"), "{text}");
        let text = markdown(&[support("6.12", 120), support_on("aarch64", "6.12", 130)]);
        for row in ["## Hooks on arm64", "| `reclaim_end` | tracepoint `x_end` | 130 |", "`x_end` | 120 |"] {
            assert!(text.contains(row), "{row}: {text}");
        }
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        for said in ["", "no", "{}", "{\"plan\": {\"level\": \"full\"}}", "{\"plan\""] {
            assert!(understood("6.1", said).is_err(), "{said}");
        }
    }
}
