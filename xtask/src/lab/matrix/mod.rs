//! `cargo xtask lab matrix`: the set of scenarios, run, recorded and judged by memguard and by other people's rules.

mod count;
mod earlier;
mod evaluate;
mod explore;
mod keep;
mod known;
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
    known::Known,
    replay::DEFAULT,
};
use super::{
    Options, check_machine, document, judge, kernels,
    programs::{self, Programs},
    records::{self, Kept},
    run_all,
};
use crate::{
    build::{self, Profile},
    paths, ui,
};

/// What tests/recordings belongs to.
const DOCUMENT: &str = "docs/detection.md";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these scenarios (`lab list`). The tables are then shown, not written.
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    kernels: kernels::Chosen,

    /// How often each is run.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,

    /// Run nothing: judge what runs left in target/lab/records, or in another folder. May be given again. Runs that
    /// docs/detection.json tells of and that tests/recordings has are judged with them in any case. The same run in two
    /// folders counts once.
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "")]
    from_records: Vec<String>,

    /// Keep all recordings that tell something as tests, in tests/recordings: so that later runs add to these.
    #[arg(long)]
    keep: bool,

    /// Where the tables go, between its markers; the results as data go beside it.
    #[arg(long, value_name = "FILE", default_value = DOCUMENT)]
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
    /// Runs that were not played to their end.
    broke_off: Vec<String>,
    /// Recordings that can't be judged: a fault of memguard's or the lab's.
    broken: Vec<String>,
    /// The memguard that judged, see `programs::short_hash`.
    judge: String,
}

pub(super) use self::explore::{Args as ExploreArgs, run as explore};

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let everything = ["all".to_owned()];
    let all = args.names.is_empty() || args.names.iter().any(|name| name == "all");
    if args.keep && !all {
        bail!("--keep makes the folder anew, so it needs all scenarios: name none");
    }
    let out = paths::root().join(&args.out);
    if args.keep && out != paths::root().join(DOCUMENT) {
        bail!(
            "--keep leaves in tests/recordings what {DOCUMENT} tells of, and takes away the rest: it can't go with --out {}",
            args.out.display()
        );
    }
    let scenarios = super::scenarios(if all { &everything } else { &args.names })?;
    let failed = if args.from_records.is_empty() { run_set(args)? } else { 0 };
    let mut folders: Vec<PathBuf> =
        args.from_records.iter().filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    if folders.len() < args.from_records.len().max(1) {
        folders.push(records::folder());
    }
    let evaluation = evaluate(&folders, &scenarios, Results::read(&out.with_extension("json"))?)?;
    may_be_written(&evaluation, &folders)?;
    if all {
        write(&evaluation, &scenarios, &out)?;
    } else {
        println!("{}", table::all(&evaluation));
    }
    if args.keep {
        keep::keep(&evaluation.runs)?;
    }
    report(&evaluation, failed, &Known::read(&keep::folder())?)
}

/// Nothing is written, and above all nothing deleted, on the word of an evaluation that is not whole.
fn may_be_written(evaluation: &Evaluation, folders: &[PathBuf]) -> anyhow::Result<()> {
    // Whoever interrupts memguard's replay makes its recordings look broken.
    ui::check_interrupt()?;
    if !evaluation.broken.is_empty() {
        for why in &evaluation.broken {
            eprintln!("can't be judged: {why}");
        }
        bail!(
            "{} recordings can't be judged, so nothing is written and nothing taken away: mend or remove them first",
            evaluation.broken.len()
        );
    }
    if evaluation.runs.is_empty() {
        bail!("there is nothing to judge: no run in observe mode has left its recording in {}", folders[0].display());
    }
    Ok(())
}

/// Runs all in VMs, and tells how many of them broke off. What the judge has to say to a run is said, and does not keep it
/// from the tables.
fn run_set(args: &Args) -> anyhow::Result<usize> {
    let names = if args.names.is_empty() { &["all".to_owned()][..] } else { &args.names };
    // Observing, so that every rule sees the whole hang.
    let planned = super::planned(names, &args.kernels, args.repeat, MemguardMode::Observe)?;
    check_machine()?;
    let outcomes = run_all(planned, &args.options)?;
    if let Err(error) = super::report(&outcomes) {
        ui::say(format!("{error:#}; the tables tell what they did"));
    }
    Ok(outcomes.iter().filter(|outcome| outcome.result.is_err()).count())
}

/// Judges all recordings of these scenarios.
fn evaluate(folders: &[PathBuf], scenarios: &[Scenario], earlier: Results) -> anyhow::Result<Evaluation> {
    let mut evaluation = Evaluation::default();
    let mut runs: Vec<Evaluated> = Vec::new();
    let scenario_of = |name: &str| scenarios.iter().find(|scenario| scenario.name == name);
    for run in records::all_in(folders)? {
        if let Some(scenario) = scenario_of(&run.scenario).filter(|_| run.mode == MemguardMode::Observe) {
            runs.extend(evaluation.whole(&run, scenario));
        }
    }
    for broken in records::broken_in(folders)? {
        if broken.mode == MemguardMode::Observe && scenario_of(&broken.scenario).is_some() {
            evaluation.broke_off.push(broken.to_string());
        }
    }
    let here = runs.iter().map(|run| run.file.clone()).collect();
    runs.extend(earlier.of_use(scenarios, &here, &keep::folder(), &mut evaluation));
    evaluation.judge(runs)?;
    evaluation.runs.sort_by(|a, b| (&a.scenario, &a.kernel, &a.file).cmp(&(&b.scenario, &b.kernel, &b.file)));
    Ok(evaluation)
}

impl Evaluation {
    /// What became of a run, if its records tell.
    fn whole(&mut self, run: &Kept, scenario: &Scenario) -> Option<Evaluated> {
        let name = name(&run.lines);
        match of_records(run, scenario) {
            Ok(Told::Whole(run)) => return Some(*run),
            Ok(Told::LeftOut(why)) => self.left_out.push(format!("{name}: {why}")),
            Ok(Told::BrokeOff(why)) => self.broke_off.push(format!("{name}: {why}")),
            Err(error) => self.broken.push(format!("{name}: {error:#}")),
        }
        None
    }

    /// Has memguard as it is now, and other people's rules, judge these runs.
    fn judge(&mut self, runs: Vec<Evaluated>) -> anyhow::Result<()> {
        let programs = Programs::new()?;
        let memguard = programs.take(&build::memguard(Profile::Quick)?)?;
        self.judge = programs::short_hash(&memguard)?;
        ui::say(format!("judging the recordings of {} runs", runs.len()));
        let paths: Vec<PathBuf> = runs.iter().map(|run| run.recording.clone()).collect();
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        for (mut run, replayed) in runs.into_iter().zip(replay::replay(&memguard, &paths)) {
            ui::check_interrupt()?;
            match replayed {
                Ok(replayed) => {
                    run.judge(&replayed);
                    self.runs.push(run);
                }
                Err(error) if saw_nothing(run.class, &error) => {
                    self.left_out.push(format!("{}: nothing was at its limit for long", name(&run.recording)));
                }
                Err(error) => self.broken.push(format!("{}: {error:#}", name(&run.recording))),
            }
        }
        Ok(())
    }
}

/// Whether memguard saw nothing in a run, and there was nothing to see: a scenario whose sizes leave it room is no fault of a
/// recording's. Had the run hung, to have seen nothing would be the worst of misses, and no reason to leave it out.
fn saw_nothing(class: Class, error: &anyhow::Error) -> bool {
    let hung = matches!(class, Class::Hung | Class::HungBriefly | Class::Contrary);
    !hung && format!("{error:#}").contains(replay::NOTHING_SEEN)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What the records of a run tell.
enum Told {
    Whole(Box<Evaluated>),
    /// It tells nothing of what is run today, and why.
    LeftOut(String),
    /// It should have told something, and why it does not.
    BrokeOff(String),
}

/// What happened in a run, before anybody judges it.
fn of_records(kept: &Kept, scenario: &Scenario) -> anyhow::Result<Told> {
    if let Some(why) = records::is_outdated(kept, scenario) {
        return Ok(Told::LeftOut(why));
    }
    let Some(recording) = &kept.recording else {
        return Ok(Told::BrokeOff("memguard left no recording".to_owned()));
    };
    let lines = records::read(&kept.lines)?;
    let Some(run) = judge::Run::of(scenario, kept.mode, &lines) else {
        return Ok(Told::BrokeOff("it ended before the trouble".to_owned()));
    };
    let courses: Vec<_> = run.containers().iter().map(|container| run.course(container)).collect();
    Ok(Told::Whole(Box::new(Evaluated {
        scenario: scenario.name.clone(),
        kernel: line(&kept.release),
        release: kept.release.clone(),
        kind: scenario.kind,
        half: scenario.half,
        class: evaluate::class(scenario.kind, &courses),
        file: name(recording),
        build: kept.build.clone(),
        courses,
        rules: std::collections::BTreeMap::new(),
        recording: recording.clone(),
    })))
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
    let tables = table::all(evaluation);
    document::write(path, "matrix", "How memguard decides", &tables)?;
    let data = path.with_extension("json");
    let text = Results::text(&evaluation.runs, scenarios)?;
    fs::write(&data, text).with_context(|| format!("can't write {}", data.display()))?;
    ui::say(format!("wrote {} and {}", path.display(), data.display()));
    Ok(())
}

/// Tells it, and fails if memguard did what it must not and nobody knows of it, or if not all runs came to their end: so many
/// of those that were begun now, and those whose remains were found.
fn report(evaluation: &Evaluation, failed: usize, known: &Known) -> anyhow::Result<()> {
    let runs = &evaluation.runs;
    for why in &evaluation.left_out {
        println!("left out: {why}");
    }
    for why in &evaluation.broke_off {
        println!("BROKE OFF: {why}");
    }
    for run in runs {
        let told = run.course().map(judge::course::Course::told).unwrap_or_default();
        let judged = run.rules.get(DEFAULT);
        let says = match (run.outcome(DEFAULT), run.class) {
            (Outcome::FalseAlarm, _) => "FALSE ALARM",
            (_, Class::Contrary) => "hung, and should not have",
            (Outcome::Missed, _) if known.has(run) => "missed, as missed.toml says",
            (Outcome::Missed, _) => "MISSED",
            (Outcome::OnSlowWork, _) => "verdict on slow work",
            (_, Class::Unproven) => "proves nothing",
            (_, Class::Works | Class::KernelActed) if run.kind == memguard_lab::scenario::Kind::Livelock => {
                "did not hang"
            }
            (Outcome::Caught, _) if judged.and_then(|judged| judged.verdict_s).is_some_and(|s| s > 30.0) => "late",
            _ => continue,
        };
        let cgroup = judged.and_then(|judged| judged.cgroup.as_deref()).unwrap_or_default();
        println!("{says}: {} on {}: {told} {cgroup} ({})", run.scenario, run.kernel, run.file);
    }
    print!("{}", table::summary(runs));
    let count = Count::of(runs.iter(), DEFAULT, 0.0);
    // Wherever they are: in runs that prove nothing, too.
    let alarms = runs.iter().filter(|run| run.outcome(DEFAULT) == Outcome::FalseAlarm).count();
    let missed = count.missed.saturating_sub(runs.iter().filter(|run| known.has(run)).count());
    println!(
        "matrix: {} runs; memguard: {alarms} false alarms ({} runs work at their limit), {} of {} hangs missed, {} of them known",
        runs.len(),
        count.works,
        count.missed,
        count.hung,
        count.missed - missed,
    );
    let broke_off = evaluation.broke_off.len().max(failed);
    if alarms + missed + broke_off > 0 {
        bail!("{alarms} false alarms, {missed} missed hangs, {broke_off} runs that broke off");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_when_a_recording_could_not_be_judged() {
        let folders = [PathBuf::from("/records")];
        let broken = Evaluation { broken: vec!["x.mgtrace: cut".to_owned()], ..Evaluation::default() };
        let why = may_be_written(&broken, &folders).unwrap_err().to_string();
        assert!(why.contains("nothing is written"), "{why}");
        let nothing = may_be_written(&Evaluation::default(), &folders).unwrap_err().to_string();
        assert!(nothing.contains("/records"), "{nothing}");
    }

    #[test]
    fn a_run_that_broke_off_fails_the_matrix() {
        let known = Known::default();
        let broke_off = Evaluation { broke_off: vec!["x: silent".to_owned()], ..Evaluation::default() };
        assert!(report(&broke_off, 0, &known).unwrap_err().to_string().contains("1 runs that broke off"));
        assert!(report(&Evaluation::default(), 2, &known).unwrap_err().to_string().contains("2 runs that broke off"));
        report(&Evaluation::default(), 0, &known).unwrap();
    }

    #[test]
    fn only_a_run_in_which_nothing_hung_is_left_out_for_having_no_samples() {
        let said = anyhow::anyhow!("`memguard replay x` failed:\nmemguard: x {}: why", replay::NOTHING_SEEN);
        assert!(saw_nothing(Class::Works, &said) && saw_nothing(Class::Unproven, &said));
        assert!(!saw_nothing(Class::Hung, &said) && !saw_nothing(Class::HungBriefly, &said));
        assert!(!saw_nothing(Class::Works, &anyhow::anyhow!("the recording is cut")));
    }

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
