//! `cargo xtask lab matrix`: the set of scenarios, run, recorded and judged by memguard and by other people's rules.

mod count;
mod earlier;
mod evaluate;
mod keep;
mod replay;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use memguard_lab::{MemguardMode, Scenario};

use self::{
    count::Count,
    earlier::Results,
    evaluate::{Class, Evaluated, Outcome},
    replay::DEFAULT,
};
use super::{
    Options, check_machine, document, judge, kernels,
    records::{self, Kept},
    run_all,
};
use crate::{
    build::{self, Profile},
    paths, ui,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these scenarios (`lab list`). The tables are then shown, not written.
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Kernel lines to run on: 6.1, 6.12, 6.18, 7. May be given again.
    #[arg(long, value_name = "LINE", default_value = kernels::USUAL)]
    kernel: Vec<String>,

    /// How often each is run.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,

    /// Run nothing: judge what runs left in target/lab/records, or in another folder. May be given again. Runs that
    /// docs/detection.json tells of and that tests/recordings has are judged with them in any case.
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "")]
    from_records: Vec<String>,

    /// Keep all recordings that tell something as tests, in tests/recordings: so that later runs add to these.
    #[arg(long)]
    keep: bool,

    /// Where the tables go, between its markers; the results as data go beside it.
    #[arg(long, value_name = "FILE", default_value = "docs/detection.md")]
    out: PathBuf,

    #[command(flatten)]
    options: Options,
}

/// Everything that the records in some folders tell.
#[derive(Debug, Default)]
struct Evaluation {
    runs: Vec<Evaluated>,
    /// Runs that tell nothing, and why.
    left_out: Vec<String>,
    /// Recordings that can't be judged: a fault of memguard's or the lab's.
    broken: Vec<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let everything = ["all".to_owned()];
    let all = args.names.is_empty() || args.names.iter().any(|name| name == "all");
    if args.keep && !all {
        bail!("--keep makes the folder anew, so it needs all scenarios: name none");
    }
    let scenarios = super::scenarios(if all { &everything } else { &args.names })?;
    if args.from_records.is_empty() {
        run_set(args)?;
    }
    let mut folders: Vec<PathBuf> =
        args.from_records.iter().filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    if folders.len() < args.from_records.len().max(1) {
        folders.push(records::folder());
    }
    let out = paths::root().join(&args.out);
    let evaluation = evaluate(&folders, &scenarios, Results::read(&out.with_extension("json"))?)?;
    if evaluation.runs.is_empty() {
        bail!("there is nothing to judge: no run in observe mode has left its recording in {}", folders[0].display());
    }
    if all {
        write(&evaluation, &scenarios, &out)?;
    } else {
        println!("{}", table::all(&evaluation.runs, &evaluation.left_out));
    }
    if args.keep {
        keep::keep(&evaluation.runs)?;
    }
    report(&evaluation)
}

/// Runs all in VMs. What the judge has to say to a run is said, and does not keep it from the tables.
fn run_set(args: &Args) -> anyhow::Result<()> {
    let names = if args.names.is_empty() { &["all".to_owned()][..] } else { &args.names };
    // Observing, so that every rule sees the whole hang.
    let planned = super::planned(names, &args.kernel, args.repeat, MemguardMode::Observe)?;
    check_machine()?;
    if let Err(error) = super::report(&run_all(planned, &args.options)?) {
        ui::say(format!("{error:#}; the tables tell what they did"));
    }
    Ok(())
}

/// Judges all recordings of these scenarios.
fn evaluate(folders: &[PathBuf], scenarios: &[Scenario], earlier: Results) -> anyhow::Result<Evaluation> {
    let mut evaluation = Evaluation::default();
    let mut runs: Vec<Evaluated> = Vec::new();
    for folder in folders {
        for run in records::kept(folder)?.into_iter().filter(|run| run.mode == MemguardMode::Observe) {
            let Some(scenario) = scenarios.iter().find(|scenario| scenario.name == run.scenario) else { continue };
            let name = name(&run.lines);
            match of_records(&run, scenario) {
                Ok(Ok(run)) => runs.push(run),
                Ok(Err(why)) => evaluation.left_out.push(format!("{name}: {why}")),
                Err(error) => evaluation.broken.push(format!("{name}: {error:#}")),
            }
        }
    }
    let here = runs.iter().map(|run| run.file.clone()).collect();
    runs.extend(earlier.of_use(scenarios, &here, &keep::folder(), &mut evaluation));
    let memguard = build::memguard(Profile::Quick)?;
    ui::say(format!("judging the recordings of {} runs", runs.len()));
    let paths: Vec<PathBuf> = runs.iter().map(|run| run.recording.clone()).collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    for (mut run, replayed) in runs.into_iter().zip(replay::replay(&memguard, &paths)) {
        match replayed {
            Ok(replayed) => {
                run.judge(&replayed);
                evaluation.runs.push(run);
            }
            Err(error) => evaluation.broken.push(format!("{}: {error:#}", name(&run.recording))),
        }
    }
    evaluation.runs.sort_by(|a, b| (&a.scenario, &a.kernel, &a.file).cmp(&(&b.scenario, &b.kernel, &b.file)));
    Ok(evaluation)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What happened in a run, before anybody judges it; or why it tells nothing.
fn of_records(kept: &Kept, scenario: &Scenario) -> anyhow::Result<Result<Evaluated, String>> {
    if let Some(why) = records::is_outdated(kept, scenario) {
        return Ok(Err(why));
    }
    let Some(recording) = &kept.recording else { return Ok(Err("memguard left no recording".to_owned())) };
    let lines = records::read(&kept.lines)?;
    let Some(run) = judge::Run::of(scenario, kept.mode, &lines) else {
        return Ok(Err("it broke off before the trouble".to_owned()));
    };
    let courses: Vec<_> = run.containers().iter().map(|container| run.course(container)).collect();
    Ok(Ok(Evaluated {
        scenario: scenario.name.clone(),
        kernel: line(&kept.release),
        release: kept.release.clone(),
        kind: scenario.kind,
        half: scenario.half,
        class: evaluate::class(scenario.kind, &courses),
        file: name(recording),
        courses,
        rules: std::collections::BTreeMap::new(),
        recording: recording.clone(),
    }))
}

/// The line of a release: two numbers up to 6, one from 7 on, as `--kernel` names them.
fn line(release: &str) -> String {
    let mut numbers = release.split(['.', '-']);
    let major = numbers.next().unwrap_or_default();
    let old = major.parse::<u32>().is_ok_and(|major| major < 7);
    match numbers.next() {
        Some(minor) if old => format!("{major}.{minor}"),
        _ => major.to_owned(),
    }
}

/// Writes docs/detection.md's tables, and the results as data.
fn write(evaluation: &Evaluation, scenarios: &[Scenario], path: &Path) -> anyhow::Result<()> {
    let tables = table::all(&evaluation.runs, &evaluation.left_out);
    document::write(path, "matrix", "How memguard decides", &tables)?;
    let data = path.with_extension("json");
    let text = Results::text(&evaluation.runs, scenarios)?;
    fs::write(&data, text).with_context(|| format!("can't write {}", data.display()))?;
    ui::say(format!("wrote {} and {}", path.display(), data.display()));
    Ok(())
}

/// Tells it, and fails if memguard did what it must not.
fn report(evaluation: &Evaluation) -> anyhow::Result<()> {
    let runs = &evaluation.runs;
    for why in &evaluation.left_out {
        println!("left out: {why}");
    }
    for run in runs {
        let told = run.course().map(judge::course::Course::told).unwrap_or_default();
        let judged = run.rules.get(DEFAULT);
        let says = match (run.outcome(DEFAULT), run.class) {
            (Outcome::FalseAlarm, _) => "FALSE ALARM",
            (_, Class::Contrary) => "hung, and should not have",
            (Outcome::Missed, _) => "MISSED",
            (Outcome::OnSlowWork, _) => "verdict on slow work",
            (_, Class::Unproven) => "proves nothing",
            (_, Class::Works) if run.kind == memguard_lab::scenario::Kind::Livelock => "did not hang",
            (Outcome::Caught, _) if judged.and_then(|judged| judged.verdict_s).is_some_and(|s| s > 30.0) => "late",
            _ => continue,
        };
        let cgroup = judged.and_then(|judged| judged.cgroup.as_deref()).unwrap_or_default();
        println!("{says}: {} on {}: {told} {cgroup} ({})", run.scenario, run.kernel, run.file);
    }
    print!("{}", table::summary(runs));
    let count = Count::of(runs.iter(), DEFAULT);
    // Wherever they are: in runs that prove nothing, too.
    let alarms = runs.iter().filter(|run| run.outcome(DEFAULT) == Outcome::FalseAlarm).count();
    println!(
        "matrix: {} runs; memguard: {alarms} false alarms ({} runs work at their limit), {} of {} hangs missed",
        runs.len(),
        count.works,
        count.missed,
        count.hung
    );
    for why in &evaluation.broken {
        eprintln!("can't be judged: {why}");
    }
    if alarms + count.missed + evaluation.broken.len() > 0 {
        bail!(
            "{alarms} false alarms, {} missed hangs, {} recordings that can't be judged",
            count.missed,
            evaluation.broken.len()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_belong_to_lines() {
        for (release, expected) in [
            ("6.12.73+deb12-cloud-amd64", "6.12"),
            ("6.1.0-56-cloud-amd64", "6.1"),
            ("7.3-cloud-amd64", "7"),
            ("7.3.1+deb14-cloud-amd64", "7"),
        ] {
            assert_eq!(line(release), expected);
        }
    }
}
