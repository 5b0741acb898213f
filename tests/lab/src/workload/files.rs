//! Workloads that read files.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path, ptr, time::Instant};

use anyhow::{Context as _, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::{DISK, progress::Progress};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// The big file of the root disk: larger than any limit.
pub(super) struct BigFile {
    file: File,
    length: u64,
}

impl BigFile {
    pub(super) fn open() -> anyhow::Result<Self> {
        let path = Path::new(DISK).join("data/big");
        let file = File::open(&path).with_context(|| format!("can't open {}", path.display()))?;
        let length = file.metadata()?.len();
        ensure!(length >= MIB as u64, "{} is too small", path.display());
        Ok(Self { file, length })
    }

    /// Reads at an offset, and returns the next one: from the beginning again after the end.
    pub(super) fn read_next(&self, buffer: &mut [u8], offset: u64) -> anyhow::Result<u64> {
        let count = self.file.read_at(buffer, offset)?;
        let next = offset + count as u64;
        Ok(if count == 0 || next >= self.length { 0 } else { next })
    }
}

pub(super) fn stream(until: Instant, progress: Progress) -> anyhow::Result<()> {
    let file = BigFile::open()?;
    let mut buffer = vec![0; MIB];
    let mut offset = 0;
    while Instant::now() < until {
        offset = file.read_next(&mut buffer, offset)?;
        progress.add(1);
    }
    Ok(())
}

pub(super) fn reread(until: Instant, mib: u32, progress: Progress) -> anyhow::Result<()> {
    let file = BigFile::open()?;
    let end = u64::from(mib) * MIB as u64;
    let mut buffer = vec![0; MIB];
    let mut offset = 0;
    while Instant::now() < until {
        offset = file.read_next(&mut buffer, offset)?;
        if offset >= end {
            offset = 0;
        }
        progress.add(1);
    }
    Ok(())
}

pub(super) fn mmap_scan(until: Instant, progress: Progress) -> anyhow::Result<()> {
    let file = BigFile::open()?;
    let length = usize::try_from(file.length)?;
    // SAFETY: a new mapping at an address that the kernel chooses; nobody truncates the file.
    let address = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, &file.file, 0) }
        .context("can't map the big file")?
        .cast::<u8>();
    let mut sum = 0_u8;
    loop {
        for page in 0..length / PAGE {
            // SAFETY: inside the mapping.
            sum = sum.wrapping_add(unsafe { address.add(page * PAGE).read_volatile() });
            progress.add(1);
            if page % 64 == 0 && Instant::now() >= until {
                std::hint::black_box(sum);
                return Ok(());
            }
        }
    }
}
