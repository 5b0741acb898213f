//! memguard while nothing happens.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};

/// After the start everything settles for so long before it is measured.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) fn run(memguard: &Path, seconds: u64) -> anyhow::Result<()> {
    let mut child = Command::new(memguard)
        .args(["run", "--log-format", "json", "--duration", &(seconds + 10).to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {}", memguard.display()))?;
    let lines = BufReader::new(child.stderr.take().context("no pipe")?).lines();
    let mut started = None;
    for line in lines.map_while(Result::ok) {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        if entry["kind"] == "started" {
            started = Some(entry);
            break;
        }
        eprintln!("{line}");
    }
    let started = started.context("memguard did not start (it needs root and cgroup v2)")?;
    thread::sleep(SETTLE);
    let pid = child.id();
    let before = cpu_ns(pid)?;
    thread::sleep(Duration::from_secs(seconds));
    let used = cpu_ns(pid)? - before;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name)?.trim().trim_end_matches(" kB").parse().ok())
    };
    let report = json!({
        "name": "at rest",
        "level": started["plan"]["level"],
        "attached_after_ms": started["attached_after_ms"],
        "memory_locked": started["memory_locked"],
        "cpu_percent": used as f64 / (seconds as f64 * 1e9) * 100.0,
        "resident_kib": kib("VmRSS:"),
        "resident_peak_kib": kib("VmHWM:"),
    });
    let _ = child.kill();
    let _ = child.wait();
    println!("{report}");
    Ok(())
}

/// ns that the threads of a process have spent on a CPU.
fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat"))?;
        sum += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).context("no schedstat")?;
    }
    Ok(sum)
}
