//! Workloads. Each counts its progress in a page that PID 1 reads without disturbing it.

mod files;
mod listener;
mod memory;
mod programs;
mod progress;
mod random;
mod watch;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use memguard_lab::scenario::Program;
use rustix::mm::MlockAllFlags;

use self::progress::Progress;

/// Where the root disk is mounted in the guest.
pub(crate) const DISK: &str = "/disk";

pub(crate) fn run(program: &Program, progress: &Path) -> anyhow::Result<()> {
    let own = progress;
    let progress = Progress::open(progress)?;
    match program {
        Program::Pause => sleep_for_ever(),
        Program::Steady => steady(progress),
        Program::Listener { threads, hot_mib, calls, pause_ms, cold_per_mille, mlockall, turns } => {
            if *mlockall {
                rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).context("mlockall")?;
            }
            let calls = listener::Calls { count: *calls, hot_mib: *hot_mib, cold_per_mille: *cold_per_mille };
            listener::run(*threads, calls, *turns, Duration::from_millis(u64::from(*pause_ms)), progress)
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
        Program::Database { seconds, access, mib, hot_mib } => {
            files::database(until(*seconds), *access, *mib, *hot_mib, progress)
        }
        Program::Startups { seconds } => programs::startups(until(*seconds), own, progress),
        Program::TouchText => listener::touch(),
        Program::TmpfsFiles { seconds, keep, file_mib } => {
            let Some(keep) = keep.0 else { bail!("files in a tmpfs need a size to keep") };
            files::tmpfs(until(*seconds), keep, *file_mib, progress)
        }
        Program::Idle { fill_mib } => files::idle(*fill_mib, progress),
        Program::PsiWatch { container, full_avg10 } => watch::psi(container, *full_avg10, progress),
        Program::Repeat { argv, seconds, progress: counted } => {
            programs::repeat(argv, seconds.map(until), *counted, progress)
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
