//! `cargo xtask test`: everything that has to hold before a change lands.

use std::time::{Duration, Instant};

use memguard_lab::MemguardMode;

use crate::{
    arch::Arch,
    lab::{self, Options, Planned, accel, kernels},
    lint, prism, process,
    setup::{self, Part},
    ui,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out the VMs: format, lints, unit tests, requests against GitHub's description, chart, monitoring and the eBPF
    /// build only.
    #[arg(long)]
    no_lab: bool,

    /// The Kubernetes API too: kube-apiserver and etcd from the folder that `KUBEBUILDER_ASSETS` names
    /// (docs/testing-kubernetes.md). Takes three minutes.
    #[arg(long)]
    kube: bool,

    /// arm64 too: memguard is built across, and an emulated Graviton2 is booted with each kernel. Takes some ten minutes,
    /// most of them for the build.
    #[arg(long, conflicts_with = "no_lab")]
    arm64: bool,

    /// How guests are run.
    #[arg(long, value_enum, default_value_t)]
    accel: accel::Choice,
}

/// Times of the parts, for the end.
#[derive(Default)]
struct Parts(Vec<(&'static str, Duration)>);

impl Parts {
    fn time(&mut self, name: &'static str, part: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let began = Instant::now();
        let result = part();
        self.0.push((name, began.elapsed()));
        result?;
        ui::check_interrupt()
    }

    fn tell(&self) {
        println!("\ntook");
        for (name, time) in &self.0 {
            println!("  {:5} s  {name}", time.as_secs());
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut parts = Parts::default();
    let result = all(args, &mut parts);
    parts.tell();
    if result.is_ok() {
        println!("all tests passed");
    }
    result
}

fn all(args: &Args, parts: &mut Parts) -> anyhow::Result<()> {
    parts.time("format", lint::format)?;
    parts.time("lints", || lint::clippy().and_then(|()| lint::deny()))?;
    parts.time("unit tests", unit_tests)?;
    parts.time("setup: GitHub's own description", || setup::ensure(Part::Description))?;
    parts.time("GitHub's own description", prism::test)?;
    parts.time("chart and manifests", crate::deploy::check)?;
    if args.kube {
        parts.time("Kubernetes API", kubernetes_api)?;
    }
    parts.time("metrics, alerts, dashboard", crate::monitoring::run)?;
    parts.time("setup: what building needs", || setup::ensure(Part::Building))?;
    parts.time("eBPF build", || crate::build::object().map(drop))?;
    if args.no_lab {
        return Ok(());
    }
    parts.time("image", crate::image::check)?;
    parts.time("setup: QEMU, kernels, root disk", || {
        lab::check_machine()?;
        kernels::DEFAULT.iter().try_for_each(|line| kernels::ensure(line).map(drop))
    })?;
    parts.time("lab: what the verifier has to look at", || {
        lab::support::run(&lab::support::Args::checking(args.accel))
    })?;
    parts.time("lab: kernels 6.1, 6.12, 6.18", || lab_subset(args.accel))?;
    parts.time("lab: the whole chain, with memguard killed on the way", || {
        lab::chain::run(&lab::chain::Args::few(args.accel))
    })?;
    parts.time("lab: real containers", || lab::containers::run(&lab::containers::Args::few(args.accel)))?;
    if args.arm64 {
        parts.time("setup: what arm64 needs", || lab::check_machine_for(Arch::Arm64))?;
        parts.time("arm64: build, and kernels 6.1, 6.12, 6.18", arm64)?;
    }
    Ok(())
}

/// In a plain environment: what a contributor without root, nightly and bpf-linker runs.
fn unit_tests() -> anyhow::Result<()> {
    let _step = ui::step("unit tests");
    let mut command = process::cargo();
    command.args(["test", "--quiet", "--workspace"]);
    process::run(command.env_remove("MEMGUARD_EBPF_OBJECT").env_remove("KUBEBUILDER_ASSETS"))
}

/// Says so itself if there is no server to be had.
fn kubernetes_api() -> anyhow::Result<()> {
    let _step = ui::step("Kubernetes API");
    process::run(process::cargo().args(["test", "--quiet", "--package", "memguard", "--test", "kube_api"]))
}

/// Two livelocks that are killed, one that the kernel's OOM killer ends, and three healthy workloads, one of which finds its
/// text gone whenever it wakes up, on the usual kernel; and whether the tracer loads and counts on the others.
fn lab_subset(choice: accel::Choice) -> anyhow::Result<()> {
    const SUBSET: [&str; 5] = ["livelock", "livelock-io", "stream", "mmap-scan", "idle-listener"];
    let names = SUBSET.map(str::to_owned);
    let usual = kernels::line(kernels::USUAL)?;
    let mut planned: Vec<Planned> = lab::scenarios(&names)?
        .into_iter()
        .map(|scenario| Planned { scenario, line: usual, mode: MemguardMode::Enforce })
        .collect();
    planned.extend(lab::scenarios(&["livelock-440".to_owned()])?.into_iter().map(|scenario| Planned {
        scenario,
        line: usual,
        mode: MemguardMode::Relieve,
    }));
    planned.extend(smoke(|line| line.name != kernels::USUAL)?);
    let outcomes = lab::run_all(planned, &Options { accel: choice, ..Options::default() })?;
    lab::report(&outcomes)
}

/// Whether the tracer loads, and counts as the kernel does.
fn smoke(lines: impl Fn(&kernels::Line) -> bool) -> anyhow::Result<Vec<Planned>> {
    let scenario = lab::scenarios(&["smoke".to_owned()])?.remove(0);
    let lines = kernels::DEFAULT.iter().filter(|line| lines(line));
    Ok(lines.map(|line| Planned { scenario: scenario.clone(), line, mode: MemguardMode::Observe }).collect())
}

/// Built across, on an emulated machine: the tracer on each kernel, and a livelock that is ended.
fn arm64() -> anyhow::Result<()> {
    let mut planned = smoke(|_| true)?;
    let line = kernels::line(kernels::USUAL)?;
    let livelock = lab::scenarios(&["livelock".to_owned()])?.remove(0);
    planned.push(Planned { scenario: livelock, line, mode: MemguardMode::Enforce });
    let outcomes =
        lab::run_all(planned, &Options { accel: accel::Choice::Tcg, arch: Arch::Arm64, ..Options::default() })?;
    lab::report(&outcomes)
}
