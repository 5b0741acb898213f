//! What memguard's own process takes.

use std::{fs, time::SystemTime};

use crate::protect;

#[derive(Clone, Debug)]
pub(super) struct Process {
    /// User and system time, seconds.
    pub(super) cpu_s: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
    pub(super) started: SystemTime,
}

impl Process {
    pub(super) fn look(started: SystemTime) -> Self {
        let (resident_kib, _) = protect::resident_kib();
        // One of them is the folder itself, which is open only to count.
        let open_fds = fs::read_dir("/proc/self/fd").map_or(0, |open| open.count().saturating_sub(1));
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            cpu_s: protect::cpu_seconds(),
            resident_bytes: resident_kib * 1024,
            open_fds: open_fds as u64,
            max_fds: limit.current.unwrap_or(u64::MAX),
            started,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_this_process_own() {
        let process = Process::look(SystemTime::now());
        assert!(process.cpu_s > 0.0 && process.resident_bytes > 1 << 20);
        assert!(process.open_fds >= 3 && process.open_fds < process.max_fds, "{process:?}");
    }
}
