//! `cargo xtask test`: everything that has to hold before a change lands.

use std::{
    ffi::OsStr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
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

/// Times of the parts, and what was not looked at, for the end.
#[derive(Default)]
struct Parts {
    times: Vec<(&'static str, Duration)>,
    left_out: Vec<&'static str>,
}

impl Parts {
    fn time(&mut self, name: &'static str, part: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let began = Instant::now();
        let result = part();
        self.times.push((name, began.elapsed()));
        result?;
        ui::check_interrupt()
    }

    /// Of a run in which nothing failed.
    fn summary(&self) -> String {
        let mut text = "all tests passed".to_owned();
        for what in &self.left_out {
            text.push_str(", but ");
            text.push_str(what);
        }
        text
    }

    fn tell(&self) {
        println!("\ntook");
        for (name, time) in &self.times {
            println!("  {:5} s  {name}", time.as_secs());
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut parts = Parts::default();
    let result = all(args, &mut parts);
    parts.tell();
    if result.is_ok() {
        println!("{}", parts.summary());
    }
    result
}

fn all(args: &Args, parts: &mut Parts) -> anyhow::Result<()> {
    if args.kube {
        has_kubernetes_api(std::env::var_os("KUBEBUILDER_ASSETS").as_deref())?;
    }
    parts.time("format", lint::format)?;
    parts.time("lints", lint::clippy)?;
    let mut checked = true;
    parts.time("licences, sources, bans", || {
        checked = lint::deny()?;
        Ok(())
    })?;
    parts.left_out.extend((!checked).then_some(lint::NOT_CHECKED));
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

/// Asked beforehand, because the test by itself only says that it is skipped.
fn has_kubernetes_api(assets: Option<&OsStr>) -> anyhow::Result<()> {
    let assets = assets.filter(|assets| !assets.is_empty()).context(
        "--kube needs KUBEBUILDER_ASSETS, the folder with kube-apiserver and etcd: docs/testing-kubernetes.md says how to get them",
    )?;
    for program in ["kube-apiserver", "etcd"] {
        let path = Path::new(assets).join(program);
        anyhow::ensure!(
            path.is_file(),
            "KUBEBUILDER_ASSETS is {}, and there is no {program}",
            Path::new(assets).display()
        );
    }
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_was_not_looked_at() {
        let mut parts = Parts::default();
        assert_eq!(parts.summary(), "all tests passed");
        parts.left_out.push(lint::NOT_CHECKED);
        assert!(parts.summary().contains("were not checked"), "{}", parts.summary());
    }

    #[test]
    fn the_kubernetes_api_is_not_skipped_when_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let asked = |assets: Option<&OsStr>| has_kubernetes_api(assets).map_err(|error| error.to_string());
        for none in [None, Some(OsStr::new(""))] {
            assert!(asked(none).unwrap_err().contains("KUBEBUILDER_ASSETS"));
        }
        std::fs::write(dir.path().join("etcd"), "").unwrap();
        assert!(asked(Some(dir.path().as_os_str())).unwrap_err().contains("kube-apiserver"));
        std::fs::write(dir.path().join("kube-apiserver"), "").unwrap();
        asked(Some(dir.path().as_os_str())).unwrap();
    }
}
