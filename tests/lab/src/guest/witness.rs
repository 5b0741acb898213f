//! Looking at cgroups. On purpose none of memguard's code: what checks memguard must not share its mistakes.

use std::{collections::BTreeMap, fs, path::Path};

use memguard_lab::record::{Figures, Sample};

use super::cgroups::{Place, Tree};

fn text(path: &Path, name: &str) -> String {
    fs::read_to_string(path.join(name)).unwrap_or_default()
}

/// The value after `key ` at the start of a line.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or_default()
}

fn total(text: &str, kind: &str) -> u64 {
    text.lines()
        .find(|line| line.starts_with(kind))
        .and_then(|line| line.rsplit_once("total=")?.1.trim().parse().ok())
        .unwrap_or_default()
}

/// memory.max of the cgroup that limits a container, or memory.high if that is lower; `None` if there is no limit.
pub(super) fn limit(place: &Place) -> Option<u64> {
    let files = ["memory.max", "memory.high"];
    files.into_iter().filter_map(|name| text(&place.limited_at, name).trim().parse().ok()).min()
}

/// memory.current of the cgroup that limits a container.
pub(super) fn current(place: &Place) -> u64 {
    text(&place.limited_at, "memory.current").trim().parse().unwrap_or_default()
}

/// The figures of a container: those about the limit from the cgroup that has it, the rest from the container itself.
pub(super) fn figures(place: &Place) -> Figures {
    let (events, stat) = (text(&place.limited_at, "memory.events"), text(&place.limited_at, "memory.stat"));
    let (memory, io) = (text(&place.path, "memory.pressure"), text(&place.path, "io.pressure"));
    Figures {
        limit: text(&place.path, "memory.max").trim().parse().ok(),
        current: current(place),
        max_events: keyed(&events, "max"),
        high_events: keyed(&events, "high"),
        oom: keyed(&events, "oom"),
        oom_kill: keyed(&events, "oom_kill"),
        anon: keyed(&stat, "anon"),
        file: keyed(&stat, "file"),
        shmem: keyed(&stat, "shmem"),
        refaults: keyed(&stat, "workingset_refault_file"),
        steals: keyed(&stat, "pgsteal"),
        major_faults: keyed(&stat, "pgmajfault"),
        memory_some_us: total(&memory, "some"),
        memory_full_us: total(&memory, "full"),
        io_some_us: total(&io, "some"),
        populated: populated(place),
    }
}

pub(super) fn populated(place: &Place) -> bool {
    keyed(&text(&place.path, "cgroup.events"), "populated") == 1
}

/// A look at everything.
pub(super) fn sample(tree: &Tree, progress: BTreeMap<String, u64>, memguard: Option<u32>) -> Sample {
    let (memguard_cpu_s, memguard_resident_kib) = memguard.and_then(process).unzip();
    Sample {
        containers: tree.containers.iter().map(|(name, place)| (name.clone(), figures(place))).collect(),
        progress,
        memguard_cpu_s,
        memguard_resident_kib,
    }
}

/// CPU time in seconds and resident memory in KiB of a process.
fn process(pid: u32) -> Option<(f64, u64)> {
    let folder = Path::new("/proc").join(pid.to_string());
    // The second number of schedstat is waiting time; the first is time on a CPU in ns, finer than the ticks of stat.
    let schedstat = fs::read_to_string(folder.join("schedstat")).ok()?;
    let ns: f64 = schedstat.split_whitespace().next()?.parse().ok()?;
    let resident = text(&folder, "status")
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().trim_end_matches(" kB").parse().ok())?;
    Some((ns / 1e9, resident))
}
