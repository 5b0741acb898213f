//! The file system that has memguard's journal, and what is wrong with it.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use memguard_lab::chain::Fault;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{guest::machine::Frozen, workload::DISK};

/// For so long after the container's death, or after memguard's.
pub(super) const SICK_FOR: Duration = Duration::from_secs(10);

/// A file system that fills up, in memory and small.
const SMALL: &str = "/run/small";
/// The journal takes 4 MiB when it is made.
const SMALL_KIB: u32 = 6 * 1024;

pub(super) struct Disk {
    /// The file system, and the journal's folder in it.
    at: PathBuf,
    frozen: Option<Frozen>,
    full: bool,
}

impl Disk {
    pub(super) fn new(fault: Fault) -> anyhow::Result<Self> {
        let small = matches!(fault, Fault::DiskFull | Fault::DiskFullAtStart);
        let at = if small { SMALL } else { DISK };
        let mut disk = Self { at: PathBuf::from(at), frozen: None, full: false };
        if small {
            fs::create_dir_all(SMALL)?;
            let size = std::ffi::CString::new(format!("size={SMALL_KIB}k"))?;
            mount("tmpfs", SMALL, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))
                .context("can't mount a tmpfs")?;
        }
        fs::create_dir_all(disk.state())?;
        if fault == Fault::DiskFullAtStart {
            disk.fill()?;
        }
        Ok(disk)
    }

    /// memguard's `--state-dir`.
    pub(super) fn state(&self) -> PathBuf {
        self.at.join("var/lib/memguard")
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Leaves no room.
    pub(super) fn fill(&mut self) -> anyhow::Result<()> {
        self.full = true;
        let mut file = File::create(self.filler()).context("can't fill the disk")?;
        let page = [0x5a; 4096];
        while file.write_all(&page).is_ok() {}
        Ok(())
    }

    /// Has every write hang.
    pub(super) fn freeze(&mut self) -> anyhow::Result<()> {
        self.frozen = Some(Frozen::freeze(Path::new(DISK))?);
        Ok(())
    }

    pub(super) const fn is_sick(&self) -> bool {
        self.full || self.frozen.is_some()
    }

    /// Has it work again.
    pub(super) fn heal(&mut self) {
        self.frozen = None;
        if self.full {
            self.full = false;
            let _ = fs::remove_file(self.filler());
        }
    }

    /// Leaves nothing for the next round.
    pub(super) fn clear(self) -> anyhow::Result<()> {
        if self.at == Path::new(SMALL) {
            return unmount(SMALL, UnmountFlags::empty()).context("can't unmount a tmpfs");
        }
        let state = self.state();
        fs::remove_dir_all(&state).with_context(|| format!("can't remove {}", state.display()))
    }
}
