//! What the hooks say for debugging, on a real kernel: with it the verifier has more to look at than without, so that it takes
//! the programs then, too, has to be seen.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{accel::Accel, command::command, kernels::Kernel};
use crate::ui;

/// memguard for some seconds, in which a cgroup comes and goes, and one of cgroup v1, whose removal goes through the same
/// tracepoint and is nothing to the hooks. `mkdir` and the like are those of the root disk, which has no `mount`.
const SCRIPT: &str = "\
RUST_LOG=info,memguard_ebpf=trace /memguard run --mode observe --kubernetes off --log-format json --duration 8 &
export PATH=/disk/usr/bin:/disk/bin LD_LIBRARY_PATH=/disk/usr/lib/x86_64-linux-gnu:/disk/lib/x86_64-linux-gnu
sleep 5; mkdir /sys/fs/cgroup/spoken && rmdir /sys/fs/cgroup/spoken
mkdir /old && perl -e '@a = (\"old\", \"/old\", \"cgroup\", \"none,name=old\"); exit syscall(165, $a[0], $a[1], $a[2], 0, $a[3])' &&
mkdir /old/spoken && rmdir /old/spoken && echo v1 too
wait";

/// Fails unless memguard has the same plan as when the hooks are silent, and what they say arrives.
pub(super) fn check(guest: &Path, memguard: &Path, kernel: &Kernel, accel: Accel, level: &str) -> anyhow::Result<()> {
    let _step = ui::step(format!("having the hooks speak on {}", kernel.release));
    let argv = ["/disk/bin/dash", "-c", SCRIPT].map(str::to_owned).to_vec();
    let (said, _) = command(guest, memguard, &[], kernel, accel, argv)?;
    understood(&said, level)
        .with_context(|| format!("on {}, with RUST_LOG=info,memguard_ebpf=trace: {said}", kernel.release))
}

fn understood(said: &str, level: &str) -> anyhow::Result<()> {
    let lines: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let started = lines.iter().find(|line| line["kind"] == "started").context("memguard did not start")?;
    let plan = &started["plan"]["level"];
    ensure!(plan == level, "the plan is {plan} while the hooks speak, and {level} else");
    ensure!(said.lines().any(|line| line == "v1 too"), "no cgroup of v1 came and went");
    let removed = |line: &&Value| {
        line["message"].as_str().is_some_and(|text| text.starts_with("cgroup ") && text.ends_with("was removed"))
    };
    let told = lines.iter().filter(removed).count();
    ensure!(told == 1, "the hooks said of {told} cgroups that they were removed, and it was one of v2");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_plan_and_a_line_are_asked_for() {
        let started = r#"{"kind":"started","plan":{"level":"full"}}"#;
        let removed = r#"{"message":"cgroup 7 was removed"}"#;
        let all = [started, "v1 too", removed].join("\n");
        understood(&all, "full").unwrap();
        for (said, level, why) in [
            (all.as_str(), "degraded", "the plan"),
            (removed, "full", "did not start"),
            (&[started, removed].join("\n"), "full", "no cgroup of v1"),
            (&[started, "v1 too"].join("\n"), "full", "said of 0 cgroups"),
            (&[all.as_str(), removed].join("\n"), "full", "said of 2 cgroups"),
        ] {
            let error = understood(said, level).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
