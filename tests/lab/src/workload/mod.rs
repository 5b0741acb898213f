//! Workloads. Each counts its progress in a page that PID 1 reads without disturbing it.

mod files;
mod listener;
mod memory;
mod progress;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use memguard_lab::scenario::Program;

use self::progress::Progress;

/// Where the root disk is mounted in the guest.
pub(crate) const DISK: &str = "/disk";

pub(crate) fn run(program: &Program, progress: &Path) -> anyhow::Result<()> {
    let progress = Progress::open(progress)?;
    match program {
        Program::Pause => sleep_for_ever(),
        Program::Steady => steady(progress),
        Program::Listener { threads, hot_mib, calls, pause_ms } => {
            let pause = Duration::from_millis(u64::from(*pause_ms));
            listener::run(*threads, *hot_mib, *calls, pause, progress)
        }
        Program::Hog { memory, stop, mib_per_s } => {
            memory::hog(*memory, stop.and_then(|stop| stop.0), *mib_per_s, progress)
        }
        Program::Stream { seconds } => files::stream(until(*seconds), progress),
        Program::Reread { seconds, mib } => files::reread(until(*seconds), *mib, progress),
        Program::MmapScan { seconds } => files::mmap_scan(until(*seconds), progress),
        Program::Burst { seconds, size, keep_ms } => {
            let Some(size) = size.0 else { bail!("a burst needs a size") };
            memory::burst(until(*seconds), size, Duration::from_millis(u64::from(*keep_ms)), progress)
        }
        Program::Exec { .. } => bail!("PID 1 runs these itself"),
    }
}

fn until(seconds: u32) -> Instant {
    Instant::now() + Duration::from_secs(u64::from(seconds))
}

fn sleep_for_ever() -> ! {
    loop {
        thread::sleep(Duration::from_hours(1));
    }
}

/// Some work every 10 ms.
fn steady(progress: Progress) -> ! {
    let mut value = 1_u64;
    loop {
        for _ in 0..10_000 {
            value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        progress.add(1);
        thread::sleep(Duration::from_millis(10));
    }
}
