//! Workloads that read files.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    ptr,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use memguard_lab::scenario::Access;
use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::{DISK, progress::Progress, random::Random, sleep_for_ever};

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

    /// The whole file, mapped for ever.
    fn map(&self) -> anyhow::Result<*const u8> {
        let length = usize::try_from(self.length)?;
        // SAFETY: a new mapping at an address that the kernel chooses; nobody truncates the file.
        let address = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, &self.file, 0) }
            .context("can't map the big file")?;
        Ok(address.cast())
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
    let address = file.map()?;
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

/// Reads single pages of the first `mib`: nine of ten in the hot part.
pub(super) fn database(
    until: Instant,
    access: Access,
    mib: u32,
    hot_mib: u32,
    progress: Progress,
) -> anyhow::Result<()> {
    let file = BigFile::open()?;
    let pages_of = |mib: u32| mib as usize * (MIB / PAGE);
    let (all, hot) = (pages_of(mib), pages_of(hot_mib));
    ensure!(hot <= all && (all * PAGE) as u64 <= file.length, "{hot_mib} of {mib} MiB do not fit into the big file");
    let mapped = match access {
        Access::Mmap => Some(file.map()?),
        Access::Pread => None,
    };
    let mut random = Random(1);
    let mut buffer = [0; PAGE];
    let mut sum = 0_u8;
    while Instant::now() < until {
        for _ in 0..16 {
            let part = if random.below(10) < 9 { hot } else { all };
            let page = random.below(part);
            if let Some(address) = mapped {
                // SAFETY: inside the mapping.
                sum = sum.wrapping_add(unsafe { address.add(page * PAGE).read_volatile() });
            } else {
                file.file.read_exact_at(&mut buffer, (page * PAGE) as u64)?;
                sum = sum.wrapping_add(buffer[0]);
            }
            progress.add(1);
        }
    }
    std::hint::black_box(sum);
    Ok(())
}

/// Reads so much, and then sleeps.
pub(super) fn idle(mib: u32, progress: Progress) -> anyhow::Result<()> {
    let file = BigFile::open()?;
    let mut buffer = vec![0; MIB];
    let mut offset = 0;
    for _ in 0..mib {
        offset = file.read_next(&mut buffer, offset)?;
        progress.add(1);
    }
    sleep_for_ever()
}

/// Files in a tmpfs: written, read once, deleted when there are too many.
pub(super) fn tmpfs(until: Instant, keep: u64, file_mib: u32, progress: Progress) -> anyhow::Result<()> {
    let block = vec![0x5a; MIB];
    let mut there = VecDeque::new();
    for number in 0_u64.. {
        if Instant::now() >= until {
            break;
        }
        let path = Path::new("/tmp").join(format!("file{number}"));
        let mut file = File::create(&path).with_context(|| format!("can't make {}", path.display()))?;
        for _ in 0..file_mib {
            file.write_all(&block).with_context(|| format!("can't write {}", path.display()))?;
            progress.add(1);
        }
        drop(file);
        std::hint::black_box(fs::read(&path)?);
        there.push_back(path);
        while (there.len() * file_mib as usize * MIB) as u64 > keep {
            let Some(oldest) = there.pop_front() else { break };
            fs::remove_file(oldest)?;
        }
    }
    for path in there {
        fs::remove_file(path)?;
    }
    Ok(())
}
