//! `cargo xtask lab explore`: scenarios that nobody thought of. They are drawn by chance, run, and judged like those of
//! tests/scenarios; one that memguard is wrong about is there as a file, to become one of these.

mod draw;

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, bail};
use memguard_lab::{MemguardMode, Scenario};

use self::draw::Draw;
use super::{
    Evaluation,
    evaluate::{Class, Evaluated, Outcome},
    replay::{DEFAULT, VARIANTS},
};
use crate::{
    lab::{
        Options, Planned, check_machine, kernels,
        records::{self, Kept},
        run_all,
    },
    paths,
};

/// What the names of all of them begin with, so that no other command takes their records for those of its own.
const PREFIX: &str = "explored-";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What they are drawn from: the same number draws the same ones.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u32,

    /// The number of the first one.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    first: u32,

    /// How many.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,

    #[command(flatten)]
    kernels: kernels::Chosen,

    /// Run nothing: judge all that earlier runs left in target/lab/records.
    #[arg(long)]
    from_records: bool,

    #[command(flatten)]
    options: Options,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (drawn, failed) = if args.from_records { (Vec::new(), 0) } else { run_drawn(args)? };
    let is_asked_for =
        |name: &str| name.starts_with(PREFIX) && (args.from_records || drawn.iter().any(|is| is == name));
    let folders = [records::folder()];
    let mut evaluation = Evaluation::default();
    let mut runs = Vec::new();
    for run in records::all_in(&folders)?.into_iter().filter(|run| is_asked_for(&run.scenario)) {
        // It may have been drawn by a lab that draws otherwise.
        runs.extend(evaluation.whole(&run, &scenario_of(&run)?));
    }
    for broken in records::broken_in(&folders)?.into_iter().filter(|run| is_asked_for(&run.scenario)) {
        evaluation.broke_off.push(broken.to_string());
    }
    evaluation.judge(runs)?;
    report(&evaluation, failed)
}

/// Draws and runs them. Gives their names, and how many broke off.
fn run_drawn(args: &Args) -> anyhow::Result<(Vec<String>, usize)> {
    let draw = Draw::new(&Scenario::read_all(&paths::scenarios())?)?;
    let lines = args.kernels.lines()?;
    check_machine()?;
    let last = args.first.checked_add(args.count).context("--first and --count: their sum is too large")?;
    let scenarios: Vec<Scenario> = (args.first..last).map(|number| draw.scenario(args.seed, number)).collect();
    let mut planned = Vec::new();
    for scenario in &scenarios {
        write(scenario)?;
        println!("{}: {}", scenario.name, scenario.summary);
        let mode = MemguardMode::Observe;
        planned.extend(lines.iter().map(|line| Planned { scenario: scenario.clone(), line, mode }));
    }
    let outcomes = run_all(planned, &args.options)?;
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    Ok((scenarios.into_iter().map(|scenario| scenario.name).collect(), failed))
}

/// Where a scenario is written.
fn file_of(name: &str) -> PathBuf {
    paths::lab().join("explored").join(format!("{name}.toml"))
}

fn write(scenario: &Scenario) -> anyhow::Result<()> {
    let file = file_of(&scenario.name);
    let text = toml::to_string(scenario).with_context(|| format!("can't write down {}", scenario.name))?;
    fs::create_dir_all(paths::lab().join("explored"))
        .and_then(|()| fs::write(&file, text))
        .with_context(|| format!("can't write {}", file.display()))
}

/// What was run.
fn scenario_of(run: &Kept) -> anyhow::Result<Scenario> {
    let path = run.scenario_then.display();
    let text = fs::read(&run.scenario_then).with_context(|| format!("can't read {path}"))?;
    serde_json::from_slice(&text).with_context(|| format!("{path} is no scenario: take it away with its run"))
}

/// What is worth a person's look, for one profile.
fn finding(run: &Evaluated, variant: &str) -> Option<&'static str> {
    match run.outcome(variant) {
        Outcome::FalseAlarm => Some("FALSE ALARM"),
        Outcome::Missed => Some("MISSED"),
        Outcome::OnSlowWork => Some("verdict on slow work"),
        Outcome::Caught if verdict_s(run, variant).is_some_and(|s| s > 30.0) => Some("late"),
        Outcome::Caught | Outcome::Silent => None,
    }
}

fn verdict_s(run: &Evaluated, variant: &str) -> Option<f64> {
    run.rules.get(variant).and_then(|judged| judged.verdict_s)
}

/// One run in a line or more: what it was, and what memguard made of it.
fn told(run: &Evaluated) -> String {
    let class = match run.class {
        Class::Hung => "hung",
        Class::HungBriefly => "hung briefly",
        Class::Works => "worked",
        Class::KernelActed => "kernel acted",
        Class::Unproven | Class::Contrary => "proves nothing",
    };
    let course = run.course().map(crate::lab::judge::course::Course::told).unwrap_or_default();
    let mut text = format!("{:16} {:4} {class:14} {course}", run.scenario, run.kernel);
    if let Some(seconds) = verdict_s(run, DEFAULT) {
        let _ = write!(text, "; verdict after {seconds:.1} s");
    }
    for variant in VARIANTS {
        if let Some(what) = finding(run, variant.name) {
            let after = verdict_s(run, variant.name).map(|s| format!(" ({s:.1} s)")).unwrap_or_default();
            let _ = write!(text, "\n    {what}{after}, {}", variant.told);
        }
    }
    text
}

/// Tells all of them, and fails for a verdict on work that went on, or a hang that the default profile did not see.
fn report(evaluation: &Evaluation, failed: usize) -> anyhow::Result<()> {
    for why in &evaluation.left_out {
        println!("left out: {why}");
    }
    for why in evaluation.broke_off.iter().chain(&evaluation.broken) {
        println!("BROKE OFF: {why}");
    }
    for run in &evaluation.runs {
        println!("{}", told(run));
    }
    let wrong: Vec<&Evaluated> = evaluation
        .runs
        .iter()
        .filter(|run| matches!(run.outcome(DEFAULT), Outcome::FalseAlarm | Outcome::Missed))
        .collect();
    for run in &wrong {
        println!("look at {} and {}", file_of(&run.scenario).display(), run.recording.display());
    }
    let of = |class: Class| evaluation.runs.iter().filter(|run| run.class == class).count();
    println!(
        "explore: {} runs; {} hung, {} worked at their limit; memguard was wrong in {}",
        evaluation.runs.len(),
        of(Class::Hung),
        of(Class::Works),
        wrong.len()
    );
    let broke_off = (evaluation.broke_off.len() + evaluation.broken.len()).max(failed);
    if wrong.len() + broke_off > 0 {
        bail!("memguard was wrong in {} runs, {broke_off} broke off", wrong.len());
    }
    Ok(())
}
