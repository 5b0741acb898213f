//! The tracer's counts beside the kernel's own.
//!
//! memguard's reports carry both sets of cumulative counters, read in the same tick, so the increase between the first
//! and the last report can be compared. They cannot be equal to the last event:
//!
//! - A snapshot is up to 100 ms old when the files are read, which at the start and at the end of a minute and more
//!   makes a few permille.
//! - Refaults: with the multi-gen LRU, `lru_gen_refault()` leaves out a page that another cgroup had evicted, while the
//!   hook sees every call. Page cache that was read before the cgroup existed comes back that way.
//! - Cycles: `try_charge_memcg()` raises `max` before each call of `try_to_free_mem_cgroup_pages()`, and also when it may
//!   not wait for reclaim at all (no cycle), while writes to memory.max and memory.high reclaim without it.
//! - Major faults: `filemap_fault()` raises `PGMAJFAULT` itself, in the same place as it decides on `VM_FAULT_MAJOR`;
//!   swap-ins and shmem raise it elsewhere, and there are none in the lab.
//! - Pages freed: khugepaged, which takes huge pages for a cgroup, reclaims for it in a kernel thread. The hook books those
//!   cycles on the root, the kernel their pages on the cgroup: few cycles of several hundred pages each.

use serde_json::Value;

use super::{Judgement, Run, memguard};

/// A pair of counters: what it is called, where it stands in a report of either side, and how far they may be apart.
struct Pair {
    name: &'static str,
    tracer: &'static [&'static str],
    kernel: &'static str,
    tolerance: f64,
}

const PAIRS: &[Pair] = &[
    Pair { name: "refaults", tracer: &["refaults"], kernel: "refaults", tolerance: 0.02 },
    Pair { name: "cycles and events.max", tracer: &["reclaim", "cycles"], kernel: "max_events", tolerance: 0.05 },
    Pair { name: "major faults", tracer: &["major_faults"], kernel: "major_faults", tolerance: 0.02 },
    Pair { name: "pages freed and pgsteal", tracer: &["reclaim", "pages"], kernel: "steals", tolerance: 0.10 },
];

pub(super) fn compare(run: &Run<'_>, judgement: &mut Judgement) {
    // The unit that the scenario is about reports most; others are not under reclaim.
    let reports: Vec<Value> =
        memguard::log(run.lines).map(|(_, entry)| entry).filter(|entry| entry["kind"] == "refaults").collect();
    let Some(busiest) = reports.iter().max_by_key(|report| report["kernel"]["refaults"].as_u64()) else {
        judgement.failures.push("memguard reported no refaults".to_owned());
        return;
    };
    let of_it: Vec<&Value> = reports.iter().filter(|report| report["id"] == busiest["id"]).collect();
    let (Some(first), Some(last)) = (of_it.first(), of_it.last()) else { return };
    let seconds = last["at_s"].as_f64().unwrap_or_default() - first["at_s"].as_f64().unwrap_or_default();
    judgement.expect(seconds >= 30.0, || format!("the reports to compare span {seconds:.0} s only"));
    let full = memguard::Said::of(run.lines).level.as_deref() == Some("full");
    for pair in PAIRS {
        let tracer = |report: &Value| pair.tracer.iter().fold(&report["tracer"], |value, name| &value[*name]).as_u64();
        let kernel = |report: &Value| report["kernel"][pair.kernel].as_u64();
        let delta = |value: &dyn Fn(&Value) -> Option<u64>| Some(value(last)?.saturating_sub(value(first)?));
        match (delta(&tracer), delta(&kernel)) {
            (Some(ours), Some(theirs)) => {
                let apart = (ours as f64 - theirs as f64).abs() / theirs.max(1) as f64;
                judgement.facts.push(format!("{}: tracer {ours}, kernel {theirs} ({:.2} %)", pair.name, apart * 100.0));
                judgement.expect(theirs > 0, || format!("{}: there were none, so this proves nothing", pair.name));
                judgement.expect(apart <= pair.tolerance, || {
                    format!(
                        "{}: tracer {ours} and kernel {theirs} are {:.1} % apart, not within {:.0} %",
                        pair.name,
                        apart * 100.0,
                        pair.tolerance * 100.0
                    )
                });
            }
            (None, _) if full => judgement.failures.push(format!("{}: the tracer did not report it", pair.name)),
            // A plan without that hook says so; there is nothing to compare.
            (None, _) => judgement.facts.push(format!("{}: not counted by the tracer on this kernel", pair.name)),
            (_, None) => judgement.failures.push(format!("{}: the report lacks the kernel's count", pair.name)),
        }
    }
}
