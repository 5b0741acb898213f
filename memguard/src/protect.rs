//! Keeping memguard itself alive and quick while the node thrashes.

use std::{fs, io};

use rustix::mm::{Advice, MlockAllFlags, madvise, mlockall};

/// As low as systemd-journald's and the kubelet's neighbours: the last to go, but not exempt.
const OOM_SCORE_ADJ: &str = "-999";

/// Locks memguard's memory, so that no decision waits for a page of its own text from a thrashing disk.
///
/// Text and data are read in now; stacks and heap, which are mostly address space, are locked as they are used
/// (`MCL_ONFAULT`), or each thread would cost two resident megabytes.
pub fn lock_memory() -> Result<(), String> {
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(|error| format!("can't lock memory: {error} (needs CAP_IPC_LOCK or `ulimit -l unlimited`)"))?;
    let maps = fs::read_to_string("/proc/self/maps").map_err(|error| format!("can't read /proc/self/maps: {error}"))?;
    for (start, length) in maps.lines().filter_map(file_mapping) {
        // A mapping that vanished in between, or a kernel before 5.14: then it is read in when it is used.
        // SAFETY: MADV_POPULATE_READ reads pages in and changes nothing, whatever is mapped there.
        let _ = unsafe { madvise(start as *mut _, length, Advice::LinuxPopulateRead) };
    }
    Ok(())
}

/// Start and length of a line of /proc/PID/maps that maps a file.
fn file_mapping(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    // Offset, device, inode, path.
    let path = fields.nth(3)?;
    if !path.starts_with('/') || !permissions.starts_with('r') {
        return None;
    }
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

/// Makes memguard a late choice of the OOM killer.
pub fn lower_oom_score() -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ)
}

/// Gives freed heap back to the kernel: the start needs more than the work.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes no pointer and may be called at any time.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Keeps credentials out of core dumps: there are none, and nobody but root can look into the process.
pub fn no_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::debug!(%error, "core dumps can't be limited");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::debug!(%error, "core dumps can't be switched off");
    }
}

/// Raises the limit on open files to what is allowed: each watched cgroup holds about nine.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "the limit on open files can't be raised");
    }
}

/// Resident memory now and at its highest, KiB.
#[must_use]
pub fn resident_kib() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or_default()
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// User and system time of this process, seconds.
#[must_use]
pub fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_mappings_are_told_from_others() {
        let text = "55d0-55f0 r-xp 00002000 fe:00 1234      /usr/bin/memguard";
        assert_eq!(file_mapping(text), Some((0x55d0, 0x20)));
        for other in [
            "7ffd0000-7ffd2000 rw-p 00000000 00:00 0    [stack]",
            "7f000000-7f100000 rw-p 00000000 00:00 0",
            "7f000000-7f100000 ---p 00000000 fe:00 12   /usr/lib/libc.so.6",
            "",
            "zz-yy r-xp 0 0 0 /x",
        ] {
            assert_eq!(file_mapping(other), None, "{other}");
        }
    }

    #[test]
    fn a_core_dump_has_no_room() {
        no_core_dumps();
        assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Core).maximum, Some(0));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
    }

    #[test]
    fn resident_memory_is_read() {
        let (now, peak) = resident_kib();
        assert!(now > 0 && peak >= now);
    }
}
