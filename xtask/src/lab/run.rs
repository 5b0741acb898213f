//! Running planned scenarios, several VMs side by side as cores allow, and telling what came of all of them.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use memguard_lab::{Job, Line, MemguardMode, Scenario};

use super::{
    accel::{self, Accel},
    initramfs,
    judge::{Judgement, judge},
    kernels::{self, Kernel, Line as KernelLine},
    programs::{self, Programs},
    records,
    vm::{self, Machine},
};
use crate::{
    arch::Arch,
    build::{self, Profile},
    ui,
};

/// One run to be.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) scenario: Scenario,
    pub(crate) line: &'static KernelLine,
    pub(crate) mode: MemguardMode,
}

/// How to run them.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Processors that VMs may use together; as many as there are by default.
    #[arg(long, value_name = "COUNT")]
    pub(crate) cores: Option<u32>,

    /// How guests are run.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) accel: accel::Choice,

    /// Further arguments for `memguard run`.
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,

    /// What the guests' processors are.
    #[arg(skip)]
    pub(crate) arch: Arch,

    /// Show the guest's doings as they happen; for a single run.
    #[arg(skip)]
    pub(crate) live: bool,
}

/// What came of one.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) title: String,
    pub(crate) took: Duration,
    pub(crate) result: anyhow::Result<(Judgement, Vec<Line>)>,
}

impl Outcome {
    fn failures(&self) -> Vec<String> {
        match &self.result {
            Ok((judgement, _)) => judgement.failures.clone(),
            Err(error) => vec![format!("{error:#}")],
        }
    }
}

/// What all runs share.
struct Lab<'a> {
    guest: PathBuf,
    memguard: PathBuf,
    /// Which memguard it is.
    build: String,
    image: PathBuf,
    accel: Accel,
    options: &'a Options,
}

/// Runs all of them. Failures are in the outcomes; an error means that nothing could be run.
pub(crate) fn run_all(planned: Vec<Planned>, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let arch = options.arch;
    let programs = Programs::new()?;
    let guest = programs.take(&build::guest_for(Some(arch))?)?;
    let memguard = programs.take(&build::memguard_for(Some(arch), Profile::Quick)?)?;
    let build = programs::short_hash(&memguard)?;
    let image = super::disk(arch)?;
    let mut kernels = Vec::new();
    for run in &planned {
        if !kernels.iter().any(|(line, _): &(&KernelLine, Kernel)| *line == run.line) {
            kernels.push((run.line, kernels::ensure_for(arch, run.line)?));
        }
    }
    let (_, first) = kernels.first().context("there is nothing to run")?;
    let accel = accel::choose(options.accel, first, &guest)?;
    let lab = Lab { guest, memguard, build, image, accel, options };

    let machine = || thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1);
    let cores = options.cores.unwrap_or_else(machine).max(1);
    ui::say(format!("{} runs under {accel}, VMs on {cores} cores together", planned.len()));
    let free = Cores { free: Mutex::new(cores), returned: Condvar::new() };
    let waiting: Mutex<VecDeque<(usize, Planned)>> = Mutex::new(planned.into_iter().enumerate().collect());
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    // Whoever is next waits for its cores before anybody else may look for work: a large VM would
                    // wait for ever while small ones come and go.
                    let mut queue = lock(&waiting);
                    let Some((index, run)) = queue.pop_front() else { return };
                    // A VM with more CPUs than the machine has gets all of it.
                    let taken = free.take(run.scenario.vm.cpus.min(cores));
                    drop(queue);
                    if ui::interrupted() {
                        return free.give(taken);
                    }
                    let kernel = kernels.iter().find(|(line, _)| *line == run.line).map(|(_, kernel)| kernel);
                    if let Some(kernel) = kernel {
                        let outcome = lab.run(&run, kernel);
                        tell(&outcome);
                        lock(&outcomes).push((index, outcome));
                    }
                    free.give(taken);
                }
            });
        }
    });
    ui::check_interrupt()?;
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(index, _)| *index);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cores that VMs share.
struct Cores {
    free: Mutex<u32>,
    returned: Condvar,
}

impl Cores {
    fn take(&self, wanted: u32) -> u32 {
        let free = lock(&self.free);
        let mut free = self.returned.wait_while(free, |free| *free < wanted).unwrap_or_else(PoisonError::into_inner);
        *free -= wanted;
        wanted
    }

    fn give(&self, count: u32) {
        *lock(&self.free) += count;
        self.returned.notify_all();
    }
}

impl Lab<'_> {
    fn run(&self, run: &Planned, kernel: &Kernel) -> Outcome {
        let began = Instant::now();
        let title = format!("{} on {}, memguard {}", run.scenario.name, kernel.release, run.mode);
        ui::say(format!("booting {title}"));
        let result = self
            .guest(run, kernel)
            .map(|lines| (judge(&run.scenario, run.mode, &self.options.arguments, &lines), lines));
        if let Err(error) = &result
            && !ui::interrupted()
            && let Err(unwritten) = records::note_broken(run, kernel, &format!("{error:#}"))
        {
            ui::say(format!("that {title} broke off could not be noted: {unwritten:#}"));
        }
        Outcome { title, took: began.elapsed(), result }
    }

    fn guest(&self, run: &Planned, kernel: &Kernel) -> anyhow::Result<Vec<Line>> {
        let work = super::work_folder()?;
        let job = serde_json::to_string(&Job::Scenario {
            scenario: Box::new(run.scenario.clone()),
            memguard: run.mode,
            arguments: self.options.arguments.clone(),
        })?;
        let contents = initramfs::Contents {
            guest: &self.guest,
            memguard: Some(&self.memguard),
            programs: &[],
            modules: &kernel.modules,
            job: &job,
        };
        let initramfs = work.path().join("initramfs");
        initramfs::write(&initramfs, &contents)?;
        let time = &run.scenario.time;
        let machine = Machine {
            accel: self.accel,
            cpus: run.scenario.vm.cpus,
            memory_mib: run.scenario.vm.memory_mib,
            disk: Some((&self.image, &run.scenario.vm.disk)),
            kernel: &kernel.image,
            initramfs: &initramfs,
            console: &work.path().join("console"),
            silence: Duration::from_mins(2),
            // Until the limit is reached the clock of the run does not start, so it may run twice.
            longest: Duration::from_secs(u64::from(time.warm_up_s + 2 * time.run_s) + 300),
        };
        let mut live = self.options.live.then(super::live::Live::default);
        let lines = vm::run(&machine, |line| {
            if let Some(live) = &mut live {
                live.show(&run.scenario, line);
            }
        })?;
        records::keep(run, kernel, &self.build, lines)
    }
}

fn tell(outcome: &Outcome) {
    let seconds = outcome.took.as_secs();
    let mut text = match &outcome.result {
        Ok((judgement, _)) if judgement.failures.is_empty() => format!("ok      {} ({seconds} s)", outcome.title),
        _ => format!("FAILED  {} ({seconds} s)", outcome.title),
    };
    for fact in outcome.result.iter().flat_map(|(judgement, _)| &judgement.facts).chain(&outcome.failures()) {
        text.push_str("\n        ");
        text.push_str(&fact.replace('\n', "\n          "));
    }
    println!("{text}");
}

/// All failures together, and an error if there are any.
pub(crate) fn report(outcomes: &[Outcome]) -> anyhow::Result<()> {
    let mut failed = 0;
    for outcome in outcomes {
        let failures = outcome.failures();
        if !failures.is_empty() {
            failed += 1;
            eprintln!("FAILED  {}", outcome.title);
            for failure in failures {
                eprintln!("        {failure}");
            }
        }
    }
    println!("lab: {} passed, {failed} failed", outcomes.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} runs did not come out as expected", outcomes.len());
    }
    Ok(())
}
