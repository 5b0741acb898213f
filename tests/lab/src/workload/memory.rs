//! Workloads that take memory.

use std::{
    ptr, thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use memguard_lab::scenario::HogMemory;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::{files::BigFile, progress::Progress, sleep_for_ever};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// Fresh memory, page by page written to.
struct Taken {
    address: *mut u8,
    length: usize,
}

impl Taken {
    fn take(memory: HogMemory, length: usize) -> anyhow::Result<Self> {
        let flags = match memory {
            HogMemory::Anon => MapFlags::PRIVATE,
            HogMemory::Shmem => MapFlags::SHARED,
        };
        // SAFETY: a new mapping at an address that the kernel chooses.
        let address = unsafe {
            mmap_anonymous(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags | MapFlags::NORESERVE)
        }
        .context("can't map memory")?
        .cast::<u8>();
        for offset in (0..length).step_by(PAGE) {
            // SAFETY: inside the mapping.
            unsafe { address.add(offset).write_volatile(1) };
        }
        Ok(Self { address, length })
    }

    fn give_back(self) {
        // SAFETY: this is the whole mapping, and nothing else refers to it.
        let _ = unsafe { munmap(self.address.cast(), self.length) };
    }
}

/// Takes memory until `stop` and keeps it; without a stop until somebody ends it.
pub(super) fn hog(memory: HogMemory, stop: Option<u64>, mib_per_s: u32, progress: Progress) -> anyhow::Result<()> {
    let stop_mib = stop.map_or(u64::MAX, |bytes| bytes / MIB as u64);
    let began = Instant::now();
    let mut taken = 0_u64;
    while taken < stop_mib {
        Taken::take(memory, MIB)?;
        taken += 1;
        progress.add(1);
        let due = Duration::from_secs_f64(taken as f64 / f64::from(mib_per_s.max(1)));
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    sleep_for_ever()
}

/// Peaks of anonymous memory with file reading in between.
pub(super) fn burst(until: Instant, size: u64, keep: Duration, progress: Progress) -> anyhow::Result<()> {
    let file = BigFile::open()?;
    let mut buffer = vec![0; MIB];
    let mut offset = 0;
    while Instant::now() < until {
        let rest = Instant::now() + Duration::from_secs(3);
        while Instant::now() < rest {
            offset = file.read_next(&mut buffer, offset)?;
        }
        let taken = Taken::take(HogMemory::Anon, usize::try_from(size)?)?;
        thread::sleep(keep);
        taken.give_back();
        progress.add(1);
    }
    Ok(())
}
