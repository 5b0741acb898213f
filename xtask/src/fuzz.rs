//! `cargo xtask fuzz`: the fuzz targets with libFuzzer, on a stable compiler.
//!
//! `cargo fuzz` asks for a nightly because of its sanitizers. Without them coverage is all that a fuzzer needs, and
//! LLVM's pass for it can be had through `-C` flags.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{paths, process, ui};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,

    /// Instead, keep in fuzz/corpus what is needed of all inputs found so far, and nothing else.
    #[arg(long)]
    minimise: bool,

    /// Targets; all if none is named.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// What `cargo fuzz build -s none` passes.
const COVERAGE: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Longer inputs find nothing that shorter ones don't.
const LONGEST_INPUT: u32 = 4096;

/// Of the inputs found, as few and as short ones as reach every edge: how often they go along it is left to the next run
/// to find out, or the corpus would be a megabyte.
const SMALLEST: [&str; 3] = ["-set_cover_merge=1", "-use_counters=0", "-max_len=1024"];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = paths::root().join("fuzz");
    let all = targets(&folder)?;
    if let Some(unknown) = args.targets.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target {unknown:?}; there are: {}", all.join(", "));
    }
    let chosen = if args.targets.is_empty() { &all } else { &args.targets };
    let binaries = build(&folder)?;
    let mut findings = Vec::new();
    for target in chosen {
        let fuzzer = Fuzzer::new(&folder, &binaries, target)?;
        match if args.minimise { fuzzer.minimise() } else { fuzzer.fuzz(args.seconds) } {
            Ok(line) => println!("{target:>16}: {line}"),
            Err(error) => {
                ui::check_interrupt()?;
                println!("{target:>16}: {error:#}");
                findings.push(target.as_str());
            }
        }
    }
    if !findings.is_empty() {
        bail!("something was found by {}: the inputs are in fuzz/artifacts", findings.join(", "));
    }
    Ok(())
}

fn targets(folder: &Path) -> anyhow::Result<Vec<String>> {
    let folder = folder.join("targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort_unstable();
    Ok(names)
}

/// Builds all targets; where they are.
fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    let _step = ui::step("building the fuzz targets");
    let host = process::output(process::cargo().arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("`cargo -vV` names no host")?;
    let into = paths::target().join("fuzz");
    let mut command = process::cargo();
    // With a target named, the flags are not for build scripts, which have no fuzzer to link with.
    command
        .current_dir(folder)
        .args(["build", "--quiet", "--release", "--bins", "--target", host, "--target-dir"])
        .arg(&into)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"))
        .env_remove("MEMGUARD_EBPF_OBJECT");
    process::run(&mut command)?;
    Ok(into.join(host).join("release"))
}

/// One target.
struct Fuzzer {
    binary: PathBuf,
    /// What is kept in the repository.
    corpus: PathBuf,
    /// What was found since.
    found: PathBuf,
    artifacts: PathBuf,
}

impl Fuzzer {
    fn new(folder: &Path, binaries: &Path, target: &str) -> anyhow::Result<Self> {
        let fuzzer = Self {
            binary: binaries.join(target),
            corpus: folder.join("corpus").join(target),
            found: paths::target().join("fuzz/corpus").join(target),
            artifacts: folder.join("artifacts").join(target),
        };
        for folder in [&fuzzer.corpus, &fuzzer.found, &fuzzer.artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        }
        Ok(fuzzer)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg(format!("-artifact_prefix={}/", self.artifacts.display()))
            .arg(format!("-max_len={LONGEST_INPUT}"))
            // A second of a parser is a hang.
            .args(["-timeout=5", "-rss_limit_mb=1024"]);
        command
    }

    /// What it did, in a line.
    fn fuzz(&self, seconds: u32) -> anyhow::Result<String> {
        let log = paths::target()
            .join("fuzz")
            .join(format!("{}.log", self.binary.file_name().unwrap_or_default().to_string_lossy()));
        let _step = ui::step(format!("fuzzing {} for {seconds} s", self.binary.display()));
        let file = fs::File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        let mut command = self.command();
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg("-print_final_stats=1")
            .args([&self.found, &self.corpus])
            .stderr(file);
        let ran = process::run(&mut command);
        ui::check_interrupt()?;
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        ran.with_context(|| format!("{} (all of it in {})", finding(&said), log.display()))?;
        Ok(statistics(&said))
    }

    fn minimise(&self) -> anyhow::Result<String> {
        let _step = ui::step(format!("minimising the corpus of {}", self.binary.display()));
        let merged = tempfile::tempdir_in(paths::target())?;
        process::output(self.command().args(SMALLEST).arg(merged.path()).args([&self.corpus, &self.found]))?;
        fs::remove_dir_all(&self.corpus)?;
        fs::create_dir_all(&self.corpus)?;
        let (mut files, mut bytes) = (0, 0);
        for entry in fs::read_dir(merged.path())?.flatten() {
            bytes += fs::copy(entry.path(), self.corpus.join(entry.file_name()))?;
            files += 1;
        }
        Ok(format!("{files} inputs, {bytes} bytes"))
    }
}

/// What libFuzzer says at its end.
fn statistics(said: &str) -> String {
    let number = |name: &str| {
        let line = said.lines().rev().find_map(|line| line.strip_prefix(name));
        line.map_or("?", |line| line.trim_start_matches(':').trim())
    };
    // "#4096 DONE   cov: 12 ft: 34 corp: 5/67b ..."
    let done = said.lines().rev().find(|line| line.starts_with('#') && line.contains("cov: ")).unwrap_or_default();
    let field = |name: &str| done.split(name).nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or("?");
    format!(
        "{} runs, {} a second, {} edges covered, {} features, {} inputs kept",
        number("stat::number_of_executed_units"),
        number("stat::average_exec_per_sec"),
        field("cov: "),
        field("ft: "),
        field("corp: ").split('/').next().unwrap_or("?")
    )
}

/// What was found: the panic's message, or what libFuzzer calls it.
fn finding(said: &str) -> String {
    let mut lines = said.lines();
    let panic = lines.find(|line| line.contains("panicked at")).map(|at| {
        let message = lines.next().unwrap_or_default();
        format!("{at} {message}")
    });
    panic
        .or_else(|| said.lines().find(|line| line.contains("ERROR: libFuzzer")).map(str::to_owned))
        .unwrap_or_else(|| "it ended early".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_is_told_in_a_line() {
        let said = "#2\tINITED cov: 3 ft: 4 corp: 1/1b exec/s: 0 rss: 30Mb\n#99\tDONE   cov: 12 ft: 34 corp: 5/67b lim: 8\n\
                    stat::number_of_executed_units: 99\nstat::average_exec_per_sec:     33\n";
        assert_eq!(statistics(said), "99 runs, 33 a second, 12 edges covered, 34 features, 5 inputs kept");
    }

    #[test]
    fn a_panic_is_quoted() {
        let said = "noise\nthread '<unnamed>' panicked at src/a.rs:1:2:\nattempt to add with overflow\nmore\n";
        assert!(finding(said).ends_with("src/a.rs:1:2: attempt to add with overflow"));
        assert!(finding("==1== ERROR: libFuzzer: timeout after 5 seconds").contains("timeout"));
    }
}
