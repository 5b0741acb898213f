//! `cargo xtask lab chain`: the whole chain from a hang to the last thing that is told of it, in one VM, round by round,
//! with memguard killed at each of its steps, and with GitHub, the API server or the disk gone.

mod judge;
mod table;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use memguard_lab::{
    Job, Line, Record, Scenario,
    chain::{self, Fault, POINTS, Round},
};

use self::judge::{Judged, judge};
use super::{
    accel, image, initramfs,
    kernels::{self, Kernel},
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
        Self { set: Some(Set::Few), point: Vec::new(), fault: Vec::new(), kernel: kernels::USUAL.to_owned(), accel }
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
    let lines = guest(args, &kernel, &scenario, &rounds)?;
    let judged: Vec<Judged> = split(&lines).into_iter().map(|(round, lines)| judge(&scenario, &round, lines)).collect();
    tell(&judged);
    if judged.len() != rounds.len() {
        bail!("{} of {} rounds were played", judged.len(), rounds.len());
    }
    if args.set == Some(Set::All) {
        let path = paths::root().join("docs/chain.md");
        fs::write(&path, table::document(&kernel.release, &judged))
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

/// Boots one guest that plays all rounds.
fn guest(args: &Args, kernel: &Kernel, scenario: &Scenario, rounds: &[Round]) -> anyhow::Result<Vec<Line>> {
    let guest = build::guest()?;
    let memguard = build::memguard_with_crash_points()?;
    let stubs = build::stubs()?;
    let image = image::ensure()?;
    let accel = accel::choose(args.accel, kernel, &guest)?;
    let key = paths::root().join("tests/fixtures/github/app-key.pem");
    let app_key = fs::read_to_string(&key).with_context(|| format!("can't read {}", key.display()))?;
    let job = Job::Chain { scenario: Box::new(scenario.clone()), rounds: rounds.to_vec(), app_key };
    let work = super::work_folder()?;
    let initramfs = work.path().join("initramfs");
    let contents = initramfs::Contents {
        guest: &guest,
        memguard: Some(&memguard),
        programs: &[stubs],
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
        longest: Duration::from_mins(10).saturating_mul(u32::try_from(rounds.len()).unwrap_or(u32::MAX)),
    };
    let _step = ui::step(format!("{} rounds of the chain on {} under {accel}", rounds.len(), kernel.release));
    // Kept as they come: a guest that breaks off has told until then.
    let kept = kept()?;
    let mut text = String::new();
    let outcome = vm::run(&machine, |line| {
        if let Record::Round { round } = &line.record {
            ui::say(format!("{:6.0} s  {round}", line.t));
        }
        if let Ok(line) = serde_json::to_string(line) {
            text.push_str(&line);
            text.push('\n');
        }
    });
    fs::write(&kept, text).with_context(|| format!("can't write {}", kept.display()))?;
    ui::say(format!("records: {}", kept.display()));
    outcome
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
        Record::Round { round } => Some((round.clone(), &lines[*begin..end])),
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
