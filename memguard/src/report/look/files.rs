//! Files whose text came back most often, and what they are called.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::{Deserialize, Serialize};

use super::{Look, Task};
use crate::report::record::shown;

/// Files that are kept: those with the most.
const MOST_FILES: usize = 32;
const LONGEST_PATH: usize = 256;

/// A file whose text was thrown out and read again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HotFile {
    /// `major:minor` of the file system that the page cache belongs to.
    pub device: String,
    pub inode: u64,
    /// Major faults on text of it that was there a moment ago; at least so many.
    pub returns: u64,
    /// Of the time between the first look and this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_s: Option<f64>,
    /// As the container sees it, escaped; `None` where it was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The path was told by the inode number alone: overlayfs and btrfs show other devices than the page cache has.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_inode: bool,
}

/// A file as the tracer counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnedFile {
    /// As in the kernel: `major << 20 | minor`.
    pub device: u32,
    pub inode: u64,
    pub cgroup: u64,
    pub returns: u64,
}

/// How often text came back, by device and inode.
pub(in crate::report) type Returns = HashMap<(String, u64), u64>;

/// The program's path, and with it that of a hot file.
pub(super) fn name_program(proc: &Path, task: &mut Task, files: &mut Option<Vec<HotFile>>, devices: &[u32]) {
    let link = proc.join(task.pid.to_string()).join("exe");
    let Ok(path) = fs::read_link(&link) else { return };
    let path = shown(&path.to_string_lossy(), LONGEST_PATH);
    // A network file system is not asked.
    let told = statx(CWD, &link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
    if let (Ok(told), Some(files)) = (told, files) {
        for (file, device) in files.iter_mut().zip(devices) {
            name(file, *device, (told.stx_dev_major, told.stx_dev_minor), told.stx_ino, &path);
        }
    }
    task.exe = Some(path);
}

/// A device's number as the kernel has it (`MKDEV()`).
pub(in crate::report) const fn device(major: u32, minor: u32) -> u32 {
    major << 20 | minor & 0xf_ffff
}

/// Gives a hot file this path, if it is it. Whether it is, beyond doubt.
///
/// The page cache belongs to the inode of the file system below. overlayfs shows its own device, and for a file that it has
/// not copied up the inode number of the one below; btrfs shows a device for each subvolume. Such devices have no major
/// number, so there the inode number alone has to do, and that is said.
pub(in crate::report) fn name(
    file: &mut HotFile,
    device: u32,
    (major, minor): (u32, u32),
    inode: u64,
    path: &str,
) -> bool {
    let exact = device == self::device(major, minor);
    if file.inode != inode || !exact && (major != 0 || file.path.is_some()) {
        return false;
    }
    (file.path, file.by_inode) = (Some(path.to_owned()), !exact);
    exact
}

/// Puts the files of these cgroups into the look, and returns their devices.
pub(super) fn hot_files(look: &mut Look, files: Option<Vec<ReturnedFile>>, ids: &BTreeSet<u64>) -> Vec<u32> {
    let Some(files) = files else { return Vec::new() };
    let mut sums: HashMap<(u32, u64), u64> = HashMap::new();
    for file in files.iter().filter(|file| ids.contains(&file.cgroup)) {
        let sum = sums.entry((file.device, file.inode)).or_default();
        *sum = sum.saturating_add(file.returns);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(file, returns)| (std::cmp::Reverse(*returns), *file));
    sums.truncate(MOST_FILES);
    look.files = Some(
        sums.iter()
            .map(|((device, inode), returns)| HotFile {
                device: format!("{}:{}", device >> 20, device & 0xf_ffff),
                inode: *inode,
                returns: *returns,
                ..HotFile::default()
            })
            .collect(),
    );
    sums.into_iter().map(|((device, _), _)| device).collect()
}

impl Look {
    /// How fast text of each file came back since an earlier look, `seconds` before.
    pub(in crate::report) fn rates_since(&mut self, earlier: &Returns, seconds: f64) {
        if seconds < 0.5 {
            return;
        }
        for file in self.files.iter_mut().flatten() {
            let before = earlier.get(&(file.device.clone(), file.inode)).copied().unwrap_or(0);
            file.per_s = Some(file.returns.saturating_sub(before) as f64 / seconds);
        }
    }

    pub(in crate::report) fn returns(&self) -> Returns {
        self.files.iter().flatten().map(|file| ((file.device.clone(), file.inode), file.returns)).collect()
    }
}
