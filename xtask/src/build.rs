//! Building: the eBPF object, memguard with it, and the lab's guest.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{paths, process, setup, ui};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The small and thoroughly optimised build that is meant to be deployed.
    #[arg(long)]
    release: bool,
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
    setup::ensure(setup::Part::Building)?;
    let profile = if args.release { Profile::Release } else { Profile::Quick };
    println!("{}", memguard(profile)?.display());
    Ok(())
}

/// Compiles the eBPF object.
pub(crate) fn object() -> anyhow::Result<PathBuf> {
    let _step = ui::step("building the eBPF object");
    let toolchain =
        setup::toolchain::Toolchain::find()?.context("no toolchain compiles for BPF: run `cargo xtask setup`")?;
    // A folder of its own: another compiler than the workspace's would make everything else be compiled anew.
    let folder = paths::target().join("ebpf");
    let architecture = std::env::consts::ARCH;
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
    let object = object()?;
    let _step = ui::step(format!("building memguard ({})", profile.name()));
    process::run(cargo_build("memguard", "memguard", profile).env("MEMGUARD_EBPF_OBJECT", &object))?;
    binary("memguard", profile)
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
    let _step = ui::step("building the lab's guest");
    process::run(&mut cargo_build("memguard-lab", "lab-guest", Profile::Quick))?;
    binary("lab-guest", Profile::Quick)
}

fn cargo_build(package: &str, bin: &str, profile: Profile) -> Command {
    let mut command = process::cargo();
    command.args(["build", "--quiet", "--package", package, "--bin", bin, "--profile", profile.name()]);
    command
}

fn binary(name: &str, profile: Profile) -> anyhow::Result<PathBuf> {
    let path = paths::target().join(profile.name()).join(name);
    anyhow::ensure!(path.is_file(), "the build left no {}", path.display());
    std::path::absolute(&path).with_context(|| format!("can't resolve {}", Path::display(&path)))
}
