//! `cargo xtask lab chain`: the whole chain from a hang to the last thing that is told of it, in one VM, round by round,
//! with memguard killed at each of its steps, and with GitHub, the API server or the disk gone.

mod judge;
mod table;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use memguard_lab::{
    Job, Line, Record, Scenario,
    chain::{self, Fault, POINTS, Round},
    record::PlayedWith,
};

use self::judge::{Judged, judge};
use super::{
    accel, image, initramfs,
    kernels::{self, Kernel},
    programs::{self, Programs},
    vm::{self, Machine},
};
use crate::{build, paths, ui};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `few` (undisturbed, four points, a disk that hangs) or `all` (everything, in half an hour and more; writes
    /// docs/chain.md). `few` if nothing else is named.
    #[arg(value_enum)]
    set: Option<Set>,

    /// Kill memguard at this point, once. May be given again: a round each.
    #[arg(long, value_name = "NAME", value_parser = POINTS.to_vec())]
    point: Vec<String>,

    /// Have this be wrong. May be given again: a round each.
    #[arg(long, value_name = "NAME", value_parser = fault)]
    fault: Vec<Fault>,

    /// Play only what the records of the last run lack, and what did not come out as expected there.
    #[arg(long)]
    go_on: bool,

    /// A kernel line: 6.1, 6.12, 6.18, 7.
    #[arg(long, value_name = "LINE", default_value = kernels::USUAL)]
    kernel: String,

    /// How guests are run.
    #[arg(long, value_enum, default_value_t)]
    accel: accel::Choice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Set {
    Few,
    All,
}

fn fault(name: &str) -> Result<Fault, String> {
    let names = || Fault::ALL.map(Fault::name).join(", ");
    Fault::ALL.into_iter().find(|fault| fault.name() == name).ok_or_else(|| format!("there are: {}", names()))
}

impl Args {
    /// The usual kernel, and what tells most in little time.
    pub(crate) fn few(accel: accel::Choice) -> Self {
        let kernel = kernels::USUAL.to_owned();
        Self { set: Some(Set::Few), point: Vec::new(), fault: Vec::new(), go_on: false, kernel, accel }
    }

    fn rounds(&self) -> Vec<Round> {
        let mut rounds = match self.set {
            Some(Set::All) => chain::all(),
            Some(Set::Few) => chain::few(),
            None if self.point.is_empty() && self.fault.is_empty() => chain::few(),
            None => Vec::new(),
        };
        rounds.extend(self.point.iter().map(|point| Round::at(point)));
        rounds.extend(self.fault.iter().map(|fault| Round::with(*fault)));
        rounds
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    super::check_machine()?;
    let rounds = args.rounds();
    let kernel = kernels::ensure(kernels::line(&args.kernel)?)?;
    let path = paths::root().join("tests/chain/scenario.toml");
    let scenario = Scenario::read(&path).with_context(|| format!("can't use {}", path.display()))?;
    let before = if args.go_on { well_before(&scenario, &rounds)? } else { Vec::new() };
    let known: Vec<Round> = split(&before).into_iter().map(|(round, _)| round).collect();
    let left: Vec<Round> = rounds.iter().filter(|round| !known.contains(round)).cloned().collect();
    let Played { lines, broken } = play(args, &kernel, &scenario, &left, before)?;
    let mut judged: Vec<Judged> =
        split(&lines).into_iter().map(|(round, lines)| judge(&scenario, &round, lines)).collect();
    judged.sort_by_key(|judged| rounds.iter().position(|round| *round == judged.round));
    tell(&judged);
    if judged.len() != rounds.len() {
        bail!("{} of {} rounds were played", judged.len(), rounds.len());
    }
    if args.set == Some(Set::All) {
        let path = paths::root().join("docs/chain.md");
        fs::write(&path, table::document(&played_with(&lines), &judged, &broken))
            .with_context(|| format!("can't write {}", path.display()))?;
        ui::say(format!("wrote {}", path.display()));
    }
    let failed = judged.iter().filter(|round| !round.failures.is_empty()).count();
    println!("lab: {} rounds passed, {failed} failed", judged.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} rounds did not come out as expected", judged.len());
    }
    Ok(())
}

/// The records of those rounds of the last run that came out as they should.
fn well_before(scenario: &Scenario, rounds: &[Round]) -> anyhow::Result<Vec<Line>> {
    let path = kept()?;
    let lines = super::records::read(&path).context("there is no run to go on with")?;
    let well =
        |(round, lines): &(Round, &[Line])| rounds.contains(round) && judge(scenario, round, lines).failures.is_empty();
    Ok(split(&lines).into_iter().filter(well).flat_map(|(_, lines)| lines.to_vec()).collect())
}

/// Rounds that one guest plays. One that breaks off costs no more than these.
const ROUNDS_IN_A_GUEST: usize = 8;

/// What guests told of all rounds, and which of them broke off.
#[derive(Debug, Default)]
struct Played {
    lines: Vec<Line>,
    broken: Vec<String>,
}

/// What how many rounds were played with; `None` for those from before that was noted.
fn played_with(lines: &[Line]) -> BTreeMap<Option<PlayedWith>, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        if let Record::Round { with, .. } = &line.record {
            *counts.entry(with.clone()).or_default() += 1;
        }
    }
    counts
}

/// Has guests play rounds, one after the other, and keeps what they tell after `before`, guest by guest. What one that breaks off has not played, another one plays, once: an
/// emulator can stand still, and that says nothing of memguard. It is told.
fn play(
    args: &Args,
    kernel: &Kernel,
    scenario: &Scenario,
    rounds: &[Round],
    before: Vec<Line>,
) -> anyhow::Result<Played> {
    let programs = Programs::new()?;
    let guest = programs.take(&build::guest()?)?;
    let memguard = programs.take(&build::memguard_with_crash_points()?)?;
    let stubs = [programs.take(&build::stubs()?)?];
    let with = PlayedWith { kernel: kernel.release.clone(), memguard: programs::short_hash(&memguard)? };
    let image = image::ensure()?;
    let accel = accel::choose(args.accel, kernel, &guest)?;
    let key = paths::root().join("tests/fixtures/github/app-key.pem");
    let app_key = fs::read_to_string(&key).with_context(|| format!("can't read {}", key.display()))?;
    let kept = kept()?;
    let _step = ui::step(format!("{} rounds of the chain on {} under {accel}", rounds.len(), kernel.release));
    let mut played = Played { lines: before, broken: Vec::new() };
    for rounds in rounds.chunks(ROUNDS_IN_A_GUEST) {
        let mut left = rounds;
        for last_try in [false, true] {
            let job =
                Job::Chain { scenario: Box::new(scenario.clone()), rounds: left.to_vec(), app_key: app_key.clone() };
            let work = super::work_folder()?;
            let initramfs = work.path().join("initramfs");
            let contents = initramfs::Contents {
                guest: &guest,
                memguard: Some(&memguard),
                programs: &stubs,
                modules: &kernel.modules,
                job: &serde_json::to_string(&job)?,
            };
            initramfs::write(&initramfs, &contents)?;
            let machine = Machine {
                accel,
                cpus: scenario.vm.cpus,
                memory_mib: scenario.vm.memory_mib,
                disk: Some((&image, &scenario.vm.disk)),
                kernel: &kernel.image,
                initramfs: &initramfs,
                console: &work.path().join("console"),
                silence: Duration::from_mins(4),
                longest: Duration::from_mins(10).saturating_mul(u32::try_from(left.len()).unwrap_or(u32::MAX)),
            };
            let mut told = Vec::new();
            let outcome = vm::run(&machine, |line| {
                let mut line = line.clone();
                if let Record::Round { round, with: played_with } = &mut line.record {
                    ui::say(format!("{:6.0} s  {round}", line.t));
                    *played_with = Some(with.clone());
                }
                told.push(line);
            });
            let Err(error) = outcome else {
                played.lines.append(&mut told);
                keep(&kept, &played.lines)?;
                break;
            };
            ui::check_interrupt()?;
            let begun = split(&told).last().map_or_else(|| "its boot".to_owned(), |(round, _)| round.to_string());
            let why = format!("a guest broke off in {begun}: {error:#}");
            // The round in which it broke off is not played.
            let whole = split(&told).len().saturating_sub(1);
            let end = told.iter().rposition(|line| matches!(line.record, Record::Round { .. })).unwrap_or(0);
            keep(&kept.with_extension("broken.jsonl"), &told)?;
            told.truncate(end);
            played.lines.append(&mut told);
            left = &left[whole.min(left.len())..];
            keep(&kept, &played.lines)?;
            if last_try {
                bail!("{why}, and so did the one before it");
            }
            ui::say(format!("{why}\n    another one goes on from there"));
            played.broken.push(why);
        }
    }
    ui::say(format!("records: {}", kept.display()));
    Ok(played)
}

fn keep(path: &Path, lines: &[Line]) -> anyhow::Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    // Whole or as it was: with --go-on it holds rounds of hours ago.
    let part = path.with_extension("part");
    fs::write(&part, text)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("can't write {}", path.display()))
}

/// Where the records of the last run are.
fn kept() -> anyhow::Result<PathBuf> {
    let folder = paths::lab().join("records");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    Ok(folder.join("chain.jsonl"))
}

/// The records of each round.
fn split(lines: &[Line]) -> Vec<(Round, &[Line])> {
    let begins: Vec<usize> = (0..lines.len()).filter(|at| matches!(lines[*at].record, Record::Round { .. })).collect();
    let ends = begins.iter().copied().skip(1).chain([lines.len()]);
    let of = |(begin, end): (&usize, usize)| match &lines[*begin].record {
        Record::Round { round, .. } => Some((round.clone(), &lines[*begin..end])),
        _ => None,
    };
    begins.iter().zip(ends).filter_map(of).collect()
}

fn tell(judged: &[Judged]) {
    for round in judged {
        let word = if round.failures.is_empty() { "ok    " } else { "FAILED" };
        println!("{word}  {:42} {}", round.round.to_string(), round.times);
        for failure in &round.failures {
            println!("        {failure}");
        }
    }
}
