//! Building: the eBPF object, memguard with it, and the lab's guest.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    arch::Arch,
    paths, process,
    setup::{self, Part, cross},
    ui,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The small and thoroughly optimised build that is meant to be deployed.
    #[arg(long)]
    release: bool,

    /// Build for this architecture, or this target of cargo's; this machine's own by default.
    #[arg(long, visible_alias = "target", value_enum)]
    arch: Option<Arch>,
}

/// How memguard is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As deployed.
    Release,
    /// Optimised, without the minutes of link-time optimisation.
    Quick,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Quick => "quick",
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ready(args.arch)?;
    let profile = if args.release { Profile::Release } else { Profile::Quick };
    println!("{}", memguard_for(args.arch, profile)?.display());
    Ok(())
}

/// The architecture, if it is not this machine's own.
fn foreign(arch: Option<Arch>) -> Option<Arch> {
    arch.filter(|arch| !arch.is_this_machine())
}

/// Installs what building takes, for this machine's own architecture if none is named.
pub(crate) fn ready(arch: Option<Arch>) -> anyhow::Result<()> {
    match foreign(arch) {
        Some(arch @ Arch::Amd64) => {
            bail!("for {arch} it is built on {arch} machines only, and this is {}", std::env::consts::ARCH)
        }
        Some(Arch::Arm64) => setup::ensure(Part::Arm64),
        None => setup::ensure(Part::Building),
    }
}

/// Compiles the eBPF object.
pub(crate) fn object() -> anyhow::Result<PathBuf> {
    object_for(None)
}

/// The same for the kernels of an architecture: where a kprobe finds its arguments differs.
fn object_for(arch: Option<Arch>) -> anyhow::Result<PathBuf> {
    let arch = foreign(arch);
    let _step = ui::step(format!("building the eBPF object{}", for_arch(arch)));
    let toolchain =
        setup::toolchain::Toolchain::find()?.context("no toolchain compiles for BPF: run `cargo xtask setup`")?;
    // A folder of its own, and one for each architecture: with another compiler or other flags than before, everything
    // is compiled anew.
    let folder = paths::target().join(arch.map_or_else(|| "ebpf".to_owned(), |arch| format!("ebpf-{arch}")));
    let architecture = arch.map_or(std::env::consts::ARCH, Arch::rust);
    let flags =
        [format!("--cfg=bpf_target_arch=\"{architecture}\""), "-Cdebuginfo=2".into(), "-Clink-arg=--btf".into()];
    let mut command = toolchain.cargo_build()?;
    command
        .args(["--quiet", "--package", "memguard-ebpf", "--profile", "bpf", "--target", "bpfel-unknown-none"])
        .arg("--target-dir")
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("CARGO_TARGET_DIR");
    process::run(&mut command)?;
    let object = folder.join("bpfel-unknown-none/bpf/memguard-ebpf");
    anyhow::ensure!(object.is_file(), "the build left no {}", object.display());
    Ok(object)
}

/// Compiles memguard with the eBPF object in it.
pub(crate) fn memguard(profile: Profile) -> anyhow::Result<PathBuf> {
    memguard_for(None, profile)
}

/// The same for another architecture than this machine's.
pub(crate) fn memguard_for(arch: Option<Arch>, profile: Profile) -> anyhow::Result<PathBuf> {
    let object = object_for(arch)?;
    let arch = foreign(arch);
    let _step = ui::step(format!("building memguard ({}){}", profile.name(), for_arch(arch)));
    let mut command = cargo_build("memguard", "memguard", profile);
    if let Some(arch) = arch {
        cross::apply(&mut command, arch)?;
    }
    process::run(command.env("MEMGUARD_EBPF_OBJECT", &object))?;
    binary_for(arch, "memguard", profile)
}

/// For messages.
fn for_arch(arch: Option<Arch>) -> String {
    arch.map_or_else(String::new, |arch| format!(" for {arch}"))
}

/// Compiles memguard so that it can be made to end itself at any step of the chain, for the lab.
pub(crate) fn memguard_with_crash_points() -> anyhow::Result<PathBuf> {
    let object = object()?;
    let _step = ui::step("building memguard with crash points");
    let mut command = cargo_build("memguard", "memguard", Profile::Quick);
    process::run(command.args(["--features", "crash-points"]).env("MEMGUARD_EBPF_OBJECT", &object))?;
    // Elsewhere, so that nobody takes it for the one without.
    let folder = paths::lab();
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let copy = std::path::absolute(folder.join("memguard-with-crash-points"))?;
    let built = binary("memguard", Profile::Quick)?;
    std::fs::copy(&built, &copy).with_context(|| format!("can't copy it to {}", copy.display()))?;
    std::fs::remove_file(&built).with_context(|| format!("can't remove {}", built.display()))?;
    Ok(copy)
}

/// Compiles what plays GitHub and Kubernetes in a guest.
pub(crate) fn stubs() -> anyhow::Result<PathBuf> {
    let _step = ui::step("building the lab's stubs");
    process::run(&mut cargo_build("memguard-stubs", "lab-stubs", Profile::Quick))?;
    binary("lab-stubs", Profile::Quick)
}

/// Compiles what plays the kubelet in a guest.
pub(crate) fn kubelet() -> anyhow::Result<PathBuf> {
    let _step = ui::step("building the lab's kubelet");
    process::run(&mut cargo_build("memguard-kubelet", "lab-kubelet", Profile::Quick))?;
    binary("lab-kubelet", Profile::Quick)
}

/// Compiles the benchmark of the hooks, with the eBPF object in it.
pub(crate) fn bench() -> anyhow::Result<PathBuf> {
    let object = object()?;
    let _step = ui::step("building the benchmark");
    process::run(cargo_build("memguard-bench", "hooks-bench", Profile::Quick).env("MEMGUARD_EBPF_OBJECT", &object))?;
    binary("hooks-bench", Profile::Quick)
}

/// Compiles the program that is PID 1 and all workloads of a guest.
pub(crate) fn guest() -> anyhow::Result<PathBuf> {
    guest_for(None)
}

/// The same for another architecture than this machine's.
pub(crate) fn guest_for(arch: Option<Arch>) -> anyhow::Result<PathBuf> {
    let arch = foreign(arch);
    let _step = ui::step(format!("building the lab's guest{}", for_arch(arch)));
    let mut command = cargo_build("memguard-lab", "lab-guest", Profile::Quick);
    if let Some(arch) = arch {
        cross::apply(&mut command, arch)?;
    }
    process::run(&mut command)?;
    binary_for(arch, "lab-guest", Profile::Quick)
}

fn cargo_build(package: &str, bin: &str, profile: Profile) -> Command {
    let mut command = process::cargo();
    command.args(["build", "--quiet", "--package", package, "--bin", bin, "--profile", profile.name()]);
    command
}

fn binary(name: &str, profile: Profile) -> anyhow::Result<PathBuf> {
    binary_for(None, name, profile)
}

/// What is compiled for a target has a folder of that name.
fn binary_for(foreign: Option<Arch>, name: &str, profile: Profile) -> anyhow::Result<PathBuf> {
    let target = paths::target();
    let folder = foreign.map_or_else(|| target.clone(), |arch| target.join(arch.target()));
    let path = folder.join(profile.name()).join(name);
    anyhow::ensure!(path.is_file(), "the build left no {}", path.display());
    std::path::absolute(&path).with_context(|| format!("can't resolve {}", Path::display(&path)))
}
