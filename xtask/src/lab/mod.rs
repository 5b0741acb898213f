//! `cargo xtask lab`: real kernels in VMs, made to livelock, with and without memguard.

pub(crate) mod accel;
pub(crate) mod chain;
mod command;
pub(crate) mod containers;
mod document;
mod ends;
pub(crate) mod foreign;
pub(crate) mod image;
pub(crate) mod initramfs;
mod judge;
pub(crate) mod kernels;
mod live;
mod matrix;
pub(crate) mod programs;
pub(crate) mod qemu;
mod records;
mod run;
mod speaking;
mod story;
pub(crate) mod support;
pub(crate) mod vm;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use memguard_lab::{MemguardMode, Scenario};

use crate::{arch::Arch, paths, process, setup};

pub(crate) use command::command;
pub(crate) use run::{Options, Planned, report, run_all};
pub(crate) use story::tell as story;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the scenarios.
    List,
    /// Run scenarios and judge what came of them.
    Run(RunArgs),
    /// Ask each kernel what it offers, and what the verifier makes of our programs: docs/kernel-support.md.
    Kernels(support::Args),
    /// End every livelock in both ways, and compare what became of it: docs/ending.md.
    Ends(ends::Args),
    /// Run scenarios, and compare what memguard and other rules make of them: docs/detection.md.
    Matrix(matrix::Args),
    /// Draw scenarios by chance, run them, and tell where memguard was wrong about one.
    Explore(matrix::ExploreArgs),
    /// Play the whole chain after a verdict, with memguard killed at its steps or what it depends on gone.
    Chain(chain::Args),
    /// Have containerd and runc run memguard's image and a job that hangs, as on a node of Kubernetes: docs/containers.md.
    Containers(containers::Args),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Scenarios by name (`lab list`), or `all`.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    kernels: kernels::Chosen,

    /// With memguard or without.
    #[arg(long, value_enum, default_value_t)]
    memguard: ModeArg,

    /// What the guests' processors are. Guests of arm64 have none of Debian's programs.
    #[arg(long, value_enum, default_value_t)]
    arch: Arch,

    /// How often each is run.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,

    #[command(flatten)]
    options: Options,
}

/// `on` is short for `enforce`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ModeArg {
    Off,
    Observe,
    #[default]
    On,
    /// Like `on`, with `--action oom-then-kill`.
    Relieve,
}

impl From<ModeArg> for MemguardMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Off => Self::Off,
            ModeArg::Observe => Self::Observe,
            ModeArg::On => Self::Enforce,
            ModeArg::Relieve => Self::Relieve,
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List => list(),
        Command::Run(args) => run_scenarios(&args),
        Command::Kernels(args) => support::run(&args),
        Command::Ends(args) => ends::run(&args),
        Command::Matrix(args) => matrix::run(&args),
        Command::Explore(args) => matrix::explore(&args),
        Command::Chain(args) => chain::run(&args),
        Command::Containers(args) => containers::run(&args),
    }
}

fn list() -> anyhow::Result<()> {
    for scenario in Scenario::read_all(&paths::scenarios())? {
        println!("{:16} {:9} {}", scenario.name, scenario.kind.to_string(), scenario.summary);
    }
    println!("\nkernels: {}", kernels::listed());
    Ok(())
}

/// The scenarios of these names.
pub(crate) fn scenarios(names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let all = Scenario::read_all(&paths::scenarios())?;
    if names.iter().any(|name| name == "all") {
        return Ok(all);
    }
    names
        .iter()
        .map(|name| {
            all.iter().find(|scenario| scenario.name == *name).cloned().with_context(|| {
                let known: Vec<_> = all.iter().map(|scenario| scenario.name.as_str()).collect();
                format!("there is no scenario {name:?}; there are: {}", known.join(", "))
            })
        })
        .collect()
}

/// Every scenario on every kernel, so often.
fn planned(
    names: &[String],
    kernels: &kernels::Chosen,
    repeat: u32,
    mode: MemguardMode,
) -> anyhow::Result<Vec<Planned>> {
    let scenarios = scenarios(names)?;
    let lines = kernels.lines()?;
    let mut planned = Vec::new();
    for _ in 0..repeat {
        for line in &lines {
            planned.extend(scenarios.iter().map(|scenario| Planned { scenario: scenario.clone(), line, mode }));
        }
    }
    Ok(planned)
}

fn run_scenarios(args: &RunArgs) -> anyhow::Result<()> {
    let mut planned = planned(&args.names, &args.kernels, args.repeat, args.memguard.into())?;
    if args.arch != Arch::Amd64 {
        let all = args.names.iter().any(|name| name == "all");
        if let Some(why) = planned.iter().find_map(|run| foreign::obstacle(&run.scenario)).filter(|_| !all) {
            bail!(why);
        }
        planned.retain(|run| foreign::obstacle(&run.scenario).is_none());
    }
    check_machine_for(args.arch)?;
    let outcomes = run_all(planned, &Options { arch: args.arch, ..args.options.clone() })?;
    report(&outcomes)
}

/// What guests of an architecture run from.
fn disk(arch: Arch) -> anyhow::Result<PathBuf> {
    match arch {
        Arch::Amd64 => image::ensure(),
        Arch::Arm64 => foreign::ensure(arch),
    }
}

/// Whether this machine can run x86-64 guests, with what it lacks for that installed.
pub(crate) fn check_machine() -> anyhow::Result<()> {
    check_machine_for(Arch::Amd64)
}

/// The same for guests of another architecture.
pub(crate) fn check_machine_for(arch: Arch) -> anyhow::Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the lab runs on x86-64 machines only so far, and this is {}", std::env::consts::ARCH);
    }
    setup::ensure(match arch {
        Arch::Amd64 => setup::Part::Lab,
        Arch::Arm64 => setup::Part::Arm64Lab,
    })?;
    process::find("ldd").context("the lab needs ldd, of the package libc-bin")?;
    Ok(())
}

/// A folder for one run, deleted with what is in it.
pub(crate) fn work_folder() -> anyhow::Result<tempfile::TempDir> {
    let parent = paths::lab();
    std::fs::create_dir_all(&parent).with_context(|| format!("can't make {}", parent.display()))?;
    tempfile::tempdir_in(&parent).with_context(|| format!("can't make a folder in {}", parent.display()))
}
