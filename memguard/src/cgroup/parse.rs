//! The formats of cgroup files: text in, values or a complaint out. No panic on any input.

use std::time::Duration;

use crate::engine::{Cpu, LocalEvents, Memory, Stall};

/// Calls `found` with each key and value of a flat keyed file (memory.stat, memory.events). Lines of another shape are
/// left out: new kernels add keys, and what is needed is checked by the caller.
pub(crate) fn flat_keyed(text: &str, mut found: impl FnMut(&str, u64)) {
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(' ')
            && let Ok(value) = value.trim().parse()
        {
            found(key, value);
        }
    }
}

/// A single number, such as memory.current.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let text = text.trim();
    text.parse().map_err(|_| format!("expected a number, found {text:?}"))
}

/// A limit: a number, or `max` for none.
pub(crate) fn limit(text: &str) -> Result<Option<u64>, String> {
    match text.trim() {
        "max" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("expected a number or `max`, found {text:?}")),
    }
}

/// A PSI file: two lines, `some` and `full`, each with `total=` in microseconds.
pub(crate) fn pressure(text: &str) -> Result<Stall, String> {
    let total = |kind: &str| {
        text.lines()
            .filter_map(|line| {
                line.strip_prefix(kind)?.split_whitespace().find_map(|field| field.strip_prefix("total="))
            })
            .find_map(|total| total.parse().ok())
            .map(Duration::from_micros)
            .ok_or_else(|| format!("no total of `{kind}` in {text:?}"))
    };
    Ok(Stall { some: total("some")?, full: total("full")? })
}

/// memory.events: the counts that are known; each kernel has some of them.
pub(crate) fn memory_events(text: &str, memory: &mut Memory) {
    flat_keyed(text, |key, value| match key {
        "max" => memory.max_events = value,
        "high" => memory.high_events = value,
        "oom" => memory.oom_events = value,
        "oom_kill" => memory.oom_kills = value,
        _ => {}
    });
}

/// memory.stat. Those without which nothing can be judged have to be there: a kernel that renames one must not look like
/// a calm cgroup.
pub(crate) fn memory_stat(text: &str, memory: &mut Memory) -> Result<(), String> {
    let mut needed =
        [("anon", false), ("file", false), ("shmem", false), ("pgsteal", false), ("workingset_refault_file", false)];
    flat_keyed(text, |key, value| {
        match key {
            "anon" => memory.anon = value,
            "file" => memory.file = value,
            "shmem" => memory.shmem = value,
            "active_file" => memory.active_file = value,
            "inactive_file" => memory.inactive_file = value,
            "unevictable" => memory.unevictable = value,
            "file_mapped" => memory.file_mapped = value,
            "file_dirty" => memory.file_dirty = value,
            "file_writeback" => memory.file_writeback = value,
            "slab_reclaimable" => memory.slab_reclaimable = value,
            "slab_unreclaimable" => memory.slab_unreclaimable = value,
            "pgscan" => memory.scans = value,
            "workingset_activate_file" => memory.activates = value,
            "workingset_restore_file" => memory.restores = value,
            "pgsteal" => memory.steals = value,
            "workingset_refault_file" => memory.refaults = value,
            "pgmajfault" => memory.major_faults = value,
            _ => return,
        }
        if let Some(seen) = needed.iter_mut().find(|(name, _)| *name == key) {
            seen.1 = true;
        }
    });
    match needed.iter().find(|(_, seen)| !seen) {
        Some((missing, _)) => Err(format!("has no `{missing}`")),
        None => Ok(()),
    }
}

/// cpu.stat: times in microseconds.
pub(crate) fn cpu_stat(text: &str) -> Result<Cpu, String> {
    let (mut user, mut system, mut throttled) = (None, None, Duration::ZERO);
    flat_keyed(text, |key, value| match key {
        "user_usec" => user = Some(Duration::from_micros(value)),
        "system_usec" => system = Some(Duration::from_micros(value)),
        "throttled_usec" => throttled = Duration::from_micros(value),
        _ => {}
    });
    match (user, system) {
        (Some(user), Some(system)) => Ok(Cpu { user, system, throttled }),
        _ => Err("has no `user_usec` and `system_usec`".to_owned()),
    }
}

/// cgroup.events: whether a process is left.
pub(crate) fn populated(text: &str) -> Result<bool, String> {
    let mut populated = None;
    flat_keyed(text, |key, value| {
        if key == "populated" {
            populated = Some(value != 0);
        }
    });
    populated.ok_or_else(|| "has no `populated`".to_owned())
}

/// memory.events.local: what happened at this cgroup's own limits. `None` where neither `max` nor `high` is told.
pub(crate) fn local_events(text: &str) -> Option<LocalEvents> {
    let (mut local, mut told) = (LocalEvents::default(), false);
    flat_keyed(text, |key, value| {
        let member = match key {
            "max" => &mut local.max,
            "high" => &mut local.high,
            "oom" => &mut local.oom,
            "oom_kill" => &mut local.oom_kills,
            _ => return,
        };
        *member = value;
        told |= matches!(key, "max" | "high");
    });
    told.then_some(local)
}

/// A count of cgroup.stat: cgroups below, at any depth.
pub(crate) fn descendants(text: &str) -> Option<u64> {
    let mut descendants = None;
    flat_keyed(text, |key, value| {
        if key == "nr_descendants" {
            descendants = Some(value);
        }
    });
    descendants
}

/// Bytes that can't be reclaimed, by memory.stat: anonymous memory and shmem.
pub(crate) fn unreclaimable(text: &str) -> u64 {
    let mut sum = 0_u64;
    flat_keyed(text, |key, value| {
        if key == "anon" || key == "shmem" {
            sum = sum.saturating_add(value);
        }
    });
    sum
}

/// Whether cgroup.procs lists a process.
pub(crate) fn lists_process(text: &str, pid: u32) -> bool {
    text.lines().any(|line| line.parse() == Ok(pid))
}

/// The path in cgroup v2 that /proc/PID/cgroup tells, without its leading slash.
pub(crate) fn v2_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let mut found = Vec::new();
        flat_keyed("anon 5242880\nfile 0\nworkingset_refault_file 12\n", |key, value| {
            found.push((key.to_owned(), value));
        });
        assert_eq!(
            found,
            [("anon".to_owned(), 5_242_880), ("file".to_owned(), 0), ("workingset_refault_file".to_owned(), 12)]
        );
        assert_eq!(number("4096\n"), Ok(4096));
        assert_eq!(limit("max\n"), Ok(None));
        assert_eq!(limit("536870912\n"), Ok(Some(536_870_912)));
        let text =
            "some avg10=1.00 avg60=0.50 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=250\n";
        assert_eq!(pressure(text), Ok(Stall { some: Duration::from_millis(1500), full: Duration::from_micros(250) }));
    }

    #[test]
    fn complains_about_what_it_does_not_understand() {
        assert!(number("").unwrap_err().contains("\"\""));
        assert!(number("-1").unwrap_err().contains("-1"));
        assert!(number("99999999999999999999").is_err());
        assert!(limit("maximum").unwrap_err().contains("maximum"));
        assert!(pressure("some avg10=0.00").unwrap_err().contains("some"));
        assert!(pressure("some total=1\n").unwrap_err().contains("full"));
        assert!(memory_stat("anon 1\nfile 1\nshmem 1\npgsteal 1\n", &mut Memory::default()).is_err());
        let limited = cpu_stat("user_usec 1\nsystem_usec 2\nnr_throttled 4\nthrottled_usec 3\n").unwrap();
        assert_eq!(limited.throttled, Duration::from_micros(3));
        assert!(cpu_stat("user_usec 1\nuser_usec 2\n").unwrap_err().contains("system_usec"), "one of them twice");
        assert!(populated("frozen 0\n").unwrap_err().contains("populated"));
        assert_eq!(unreclaimable("anon 18446744073709551615\nshmem 1\n"), u64::MAX);
        assert_eq!(local_events("oom 1\n"), None);
        assert_eq!(descendants("nr_dying_descendants 3\n"), None);
        flat_keyed("\n \nx\nx y\nx 1 2\n\u{0} 1\n", |key, value| assert_eq!((key, value), ("\u{0}", 1)));
    }
}
