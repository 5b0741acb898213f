//! A counter in shared memory.

use std::{
    fs::File,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Context as _;
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Counts in a page of a tmpfs file that PID 1 made, and that therefore is not charged to the workload's cgroup and
/// not reclaimed with it.
#[derive(Clone, Copy)]
pub(super) struct Progress(&'static AtomicU64);

impl Progress {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = File::options().read(true).write(true).open(path).with_context(|| format!("can't open {shown}"))?;
        // SAFETY: a new mapping at an address that the kernel chooses; it is never unmapped.
        let page =
            unsafe { mmap(std::ptr::null_mut(), 8, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0) }
                .with_context(|| format!("can't map {shown}"))?;
        // SAFETY: the file has at least 8 bytes, the mapping is aligned to a page and lives for ever, and everybody
        // who uses it uses atomics.
        Ok(Self(unsafe { AtomicU64::from_ptr(page.cast()) }))
    }

    pub(super) fn add(self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}
