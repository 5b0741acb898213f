//! Real reclaim cycles: a process reads a sparse file, larger than its limit, so that every page is fresh and clean and
//! no disk is waited for.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};

use crate::pairs::{Attached, measure, skip};

const ROOT: &str = "/sys/fs/cgroup";
const LIMIT: u64 = 64 << 20;
const FILE: u64 = 512 << 20;

pub(crate) fn run(folder: &Path, pairs: u32) -> anyhow::Result<()> {
    let name = "memcg reclaim cycle";
    let controllers = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
    if !controllers.split_whitespace().any(|controller| controller == "memory") {
        return skip(name, "the memory controller is not on cgroup v2 here");
    }
    let reader = Reader::start(folder)?;
    measure(name, "ns", pairs, |stats| Ok(Attached::start(&[], stats)?.0), || reader.ns_per_cycle())?.tell()
}

/// A cgroup with a process in it, both gone when this is dropped.
struct Reader {
    cgroup: PathBuf,
    file: PathBuf,
    worker: std::cell::RefCell<(Child, ChildStdin, BufReader<ChildStdout>)>,
}

impl Reader {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        // The root passes the controller on almost everywhere; where it does not, nobody else uses it.
        let control = Path::new(ROOT).join("cgroup.subtree_control");
        if !fs::read_to_string(&control)?.contains("memory") {
            fs::write(&control, "+memory").context("can't pass the memory controller on")?;
        }
        let cgroup = Path::new(ROOT).join(format!("memguard-bench-{}", std::process::id()));
        fs::create_dir(&cgroup).with_context(|| format!("can't make {}", cgroup.display()))?;
        fs::write(cgroup.join("memory.max"), LIMIT.to_string())?;
        let file = folder.join("hooks-bench.sparse");
        File::create(&file).and_then(|sparse| sparse.set_len(FILE))?;
        let procs = File::options().write(true).open(cgroup.join("cgroup.procs"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("cycles-worker").arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: a single system call between fork and exec.
        unsafe { command.pre_exec(move || Ok(rustix::io::write(&procs, b"0").map(drop)?)) };
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("no pipe")?;
        let output = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { cgroup, file, worker: std::cell::RefCell::new((child, input, output)) })
    }

    fn cycles(&self) -> anyhow::Result<u64> {
        let events = fs::read_to_string(self.cgroup.join("memory.events"))?;
        let max = events.lines().find_map(|line| line.strip_prefix("max ")?.parse().ok());
        max.context("memory.events has no max")
    }

    fn ns_per_cycle(&self) -> anyhow::Result<f64> {
        let before = self.cycles()?;
        let mut worker = self.worker.borrow_mut();
        writeln!(worker.1)?;
        let mut line = String::new();
        worker.2.read_line(&mut line)?;
        let ns: f64 = line.trim().parse().context("the worker is gone")?;
        let cycles = self.cycles()? - before;
        ensure!(cycles > 100, "{cycles} reclaim cycles are too few");
        Ok(ns / cycles as f64)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let worker = self.worker.get_mut();
        let _ = worker.0.kill();
        let _ = worker.0.wait();
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// Reads the file once for each line on standard input, and says how many ns that took.
pub(crate) fn worker(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    for line in std::io::stdin().lines() {
        line?;
        let began = Instant::now();
        let mut offset = 0;
        while offset < FILE {
            offset += std::os::unix::fs::FileExt::read_at(&file, &mut buffer, offset)? as u64;
        }
        println!("{}", began.elapsed().as_nanos());
    }
    Ok(())
}
