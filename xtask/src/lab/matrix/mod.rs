//! `cargo xtask lab matrix`: every scenario, judged by memguard and by other people's rules, as docs/detection.md.

mod facts;
mod judges;
mod keep;
mod table;

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use memguard_lab::{MemguardMode, Scenario};

use self::table::Evaluated;
use super::{Options, records, run_all};
use crate::{
    build::{self, Profile},
    paths, ui,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Scenarios by name, or `all`.
    #[arg(value_name = "NAME", default_value = "all")]
    names: Vec<String>,

    /// Kernel lines: 6.1, 6.12, 6.18, 7. May be given again.
    #[arg(long, value_name = "LINE", default_value = super::kernels::USUAL)]
    kernel: Vec<String>,

    /// How often each is run.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,

    /// Run nothing: evaluate what runs have left in target/lab/records, or in another folder.
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "")]
    from_records: Option<String>,

    /// Keep a recording of each scenario and kernel as a test, in tests/recordings.
    #[arg(long)]
    keep: bool,

    /// Where the tables go, between its markers.
    #[arg(long, value_name = "FILE", default_value = "docs/detection.md")]
    out: String,
}

const BEGIN: &str = "<!-- matrix: begin -->";
const END: &str = "<!-- matrix: end -->";

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut folder = records::folder();
    match args.from_records.as_deref() {
        Some("") => {}
        Some(other) => folder = other.into(),
        None => run_scenarios(args)?,
    }
    let scenarios = super::scenarios(&args.names)?;
    let memguard = build::memguard(Profile::Quick)?;
    let runs = evaluate(&folder, &scenarios, &memguard)?;
    if runs.is_empty() {
        bail!("{} has no recordings of these scenarios: run without --from-records first", folder.display());
    }
    let tables = table::markdown(&runs);
    println!("{tables}");
    let path = paths::root().join(&args.out);
    insert(&path, &tables)?;
    ui::say(format!("written to {}", path.display()));
    if args.keep {
        keep::keep(&runs)?;
    }
    verdict(&runs)
}

fn run_scenarios(args: &Args) -> anyhow::Result<()> {
    // To the end of the hang, so that every rule sees all of it.
    let planned = super::planned(&args.names, &args.kernel, args.repeat, MemguardMode::Observe)?;
    super::check_machine()?;
    // What a run should have been is told by the judge of `lab run`; here counts what it was.
    run_all(planned, &Options::default()).map(drop)
}

fn evaluate(folder: &Path, scenarios: &[Scenario], memguard: &Path) -> anyhow::Result<Vec<Evaluated>> {
    let mut runs = Vec::new();
    for kept in records::kept(folder)? {
        let (Some(scenario), Some(recording)) =
            (scenarios.iter().find(|scenario| scenario.name == kept.scenario), &kept.recording)
        else {
            continue;
        };
        // After a kill there is nothing more to see.
        if kept.mode != MemguardMode::Observe {
            continue;
        }
        let victims = match facts::victims(scenario, &records::read(&kept.lines)?) {
            Ok(victims) => victims,
            Err(why) => {
                ui::say(format!("{}: {why}", kept.lines.display()));
                continue;
            }
        };
        let said = judges::ask(memguard, recording)?;
        runs.push(Evaluated {
            scenario: scenario.name.clone(),
            kind: scenario.kind,
            half: scenario.half,
            release: kept.release,
            recording: recording.clone(),
            worth: said.iter().map(|(name, said)| (*name, judges::worth(said, &victims))).collect(),
            victims,
        });
        ui::check_interrupt()?;
    }
    Ok(runs)
}

/// Puts the tables between the markers of a document.
fn insert(path: &Path, tables: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let text = inserted(&text, tables).with_context(|| format!("{} has no {BEGIN} and {END}", path.display()))?;
    fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

fn inserted(text: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{tables}{END}{after}"))
}

/// Fails on a verdict on healthy work, and on a hang that was not seen.
fn verdict(runs: &[Evaluated]) -> anyhow::Result<()> {
    let wrong: Vec<String> = runs
        .iter()
        .filter_map(|run| {
            let worth = run.worth.get(judges::DEFAULT)?;
            let count = worth.false_alarms.len() + worth.missed.len();
            (count > 0).then(|| {
                format!(
                    "{} on {}: {} false alarms, {} hangs missed",
                    run.scenario,
                    run.release,
                    worth.false_alarms.len(),
                    worth.missed.len()
                )
            })
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { bail!("memguard was wrong:\n  {}", wrong.join("\n  ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let text = format!("# A\n{BEGIN}\nold\n{END}\nB\n");
        let new = inserted(&text, "| new |\n").unwrap();
        assert_eq!(new, format!("# A\n{BEGIN}\n| new |\n{END}\nB\n"));
        assert_eq!(inserted(&new, "| new |\n").unwrap(), new);
        assert_eq!(inserted("no markers", "x"), None);
    }
}
