//! Paths of hot files, found by walking the container's root once there is time.
//!
//! The walk may wait for a disk, so it is done by the thread that writes reports, after the report without these paths has
//! been written; and it is bounded in entries and in time between two reads.

use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, openat2, statx};

use super::{
    look::{HotFile, device, name},
    record::shown,
};

/// Entries of folders that are looked at.
const MOST_ENTRIES: usize = 60_000;
const MOST_TIME: Duration = Duration::from_secs(4);
/// Where program text mostly is, before the rest of the root.
const FIRST: [&str; 8] = ["usr/lib", "usr/bin", "usr/local", "lib64", "opt", "home", "usr", "."];

/// Gives paths to the files that have none, until `stop` is set. Whether any was found.
pub(super) fn resolve(root: &OwnedFd, files: &mut [HotFile], devices: &[u32], stop: &AtomicBool) -> bool {
    let deadline = Instant::now() + MOST_TIME;
    let mut entries = 0;
    let mut found = false;
    let mut walked: Vec<PathBuf> = Vec::new();
    for start in FIRST {
        if !leads_to(root, start, devices) {
            continue;
        }
        let mut open = VecDeque::from([PathBuf::from(start)]);
        while let Some(folder) = open.pop_front() {
            if files.iter().all(|file| file.path.is_some()) || entries >= MOST_ENTRIES {
                return found;
            }
            if walked.contains(&folder) {
                continue;
            }
            if Instant::now() >= deadline || stop.load(Ordering::Relaxed) {
                return found;
            }
            read(root, &folder, files, devices, &mut open, &mut entries, &mut found);
        }
        walked.push(PathBuf::from(start));
    }
    found
}

/// Looks at one folder. Links are not followed, so it never gets out of the root; and of mounts only those are entered that
/// are of a device with a hot file: neither /proc nor a network's.
fn read(
    root: &OwnedFd,
    folder: &Path,
    files: &mut [HotFile],
    devices: &[u32],
    open: &mut VecDeque<PathBuf>,
    entries: &mut usize,
    found: &mut bool,
) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let Ok(opened) = openat2(root, folder, flags, Mode::empty(), within) else { return };
    let Ok(dir) = Dir::read_from(&opened) else { return };
    for entry in dir {
        let Ok(entry) = entry else { return };
        let bytes = entry.file_name().to_bytes();
        if matches!(bytes, b"." | b"..") {
            continue;
        }
        *entries += 1;
        if *entries >= MOST_ENTRIES {
            return;
        }
        let name_of = entry.file_name().to_string_lossy();
        let path = if folder == Path::new(".") { PathBuf::from(&*name_of) } else { folder.join(&*name_of) };
        match entry.file_type() {
            FileType::Directory if is_entered(&opened, entry.file_name(), devices) => open.push_back(path),
            FileType::RegularFile if files.iter().any(|file| file.inode == entry.ino()) => {
                let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
                let Ok(told) = statx(opened.as_fd(), entry.file_name(), flags, StatxFlags::INO) else { continue };
                let path = shown(&format!("/{}", path.to_string_lossy()), 256);
                for (file, device) in files.iter_mut().zip(devices) {
                    let before = file.path.clone();
                    name(file, *device, (told.stx_dev_major, told.stx_dev_minor), told.stx_ino, &path);
                    *found |= file.path != before;
                }
            }
            _ => {}
        }
    }
}

/// Whether one of the first folders is reached by folders that are entered: any of them can be a mount. Where nothing is
/// hot below one, neither is the walk from it any use.
fn leads_to(root: &OwnedFd, start: &str, devices: &[u32]) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut folder: Option<OwnedFd> = None;
    for part in Path::new(start).components().filter(|part| *part != Component::CurDir) {
        let Ok(name) = CString::new(part.as_os_str().as_bytes()) else { return false };
        let above = folder.as_ref().unwrap_or(root);
        if !is_entered(above, &name, devices) {
            return false;
        }
        let Ok(opened) = openat2(above, &*name, flags, Mode::empty(), within) else { return false };
        folder = Some(opened);
    }
    true
}

/// Whether the walk goes on into this folder. Asking does not make an automounter mount it.
fn is_entered(folder: &OwnedFd, name: &CStr, devices: &[u32]) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(folder, name, flags, StatxFlags::TYPE).is_ok_and(|told| {
        !told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
            || devices.contains(&device(told.stx_dev_major, told.stx_dev_minor))
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    fn hot(inode: u64) -> HotFile {
        HotFile { inode, ..HotFile::default() }
    }

    /// Where a mount of a network hangs, whoever opens it hangs with it.
    #[test]
    fn a_first_folder_that_is_a_mount_or_below_one_is_not_opened_unless_something_hot_is_on_it() {
        let root = OwnedFd::from(fs::File::open("/").unwrap());
        let proc = fs::metadata("/proc").unwrap().dev();
        let of_proc = device(rustix::fs::major(proc), rustix::fs::minor(proc));
        for start in ["proc", "proc/self/task", "./proc"] {
            assert!(!leads_to(&root, start, &[8 << 20]), "{start}");
        }
        assert!(leads_to(&root, "proc", &[8 << 20, of_proc]));
        assert!(leads_to(&root, "proc/sys", &[of_proc]));
        assert!(leads_to(&root, ".", &[]), "the container's root is where it all begins");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        std::os::unix::fs::symlink("usr", dir.path().join("link")).unwrap();
        let root = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        assert!(leads_to(&root, "usr/lib", &[]));
        for start in ["usr/none", "link/lib", "..", "link"] {
            assert!(!leads_to(&root, start, &[]), "{start}");
        }
    }

    #[test]
    fn files_are_found_by_device_and_inode_and_nothing_outside_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let lib = root.join("usr/lib/x86_64-linux-gnu");
        fs::create_dir_all(&lib).unwrap();
        fs::create_dir_all(dir.path().join("outside")).unwrap();
        fs::write(lib.join("libpython\n3.11.so"), "x").unwrap();
        fs::write(root.join("tool"), "x").unwrap();
        fs::write(dir.path().join("outside/secret"), "x").unwrap();
        std::os::unix::fs::symlink("../outside", root.join("usr/out")).unwrap();
        std::os::unix::fs::symlink("/", root.join("opt")).unwrap();
        let metadata = |path: PathBuf| fs::metadata(path).unwrap();
        let (library, secret) = (metadata(lib.join("libpython\n3.11.so")), metadata(dir.path().join("outside/secret")));
        let device = device(rustix::fs::major(library.dev()), rustix::fs::minor(library.dev()));
        let tool = metadata(root.join("tool")).ino();
        let mut files = [hot(library.ino()), hot(secret.ino()), hot(tool), hot(tool)];
        let opened = OwnedFd::from(fs::File::open(&root).unwrap());
        let devices = [device, device, device, 8 << 20];
        assert!(!resolve(&opened, &mut files, &devices, &AtomicBool::new(true)), "at the end nobody waits for it");
        assert!(resolve(&opened, &mut files, &devices, &AtomicBool::new(false)));
        assert_eq!(files[0].path.as_deref(), Some("/usr/lib/x86_64-linux-gnu/libpython\\n3.11.so"));
        assert_eq!(files[1].path, None, "outside of the root");
        assert_eq!((files[2].path.as_deref(), files[2].by_inode), (Some("/tool"), false));
        // On a device with a major number the same inode number on another one is another file.
        let by_inode = rustix::fs::major(library.dev()) == 0;
        assert_eq!((files[3].path.is_some(), files[3].by_inode), (by_inode, by_inode));
    }
}
