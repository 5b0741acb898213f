//! One cgroup, held open.
//!
//! Files are opened once, when the cgroup is first looked at, and read again from their beginning: while the node
//! thrashes, no path has to be walked and nothing has to be opened to decide and to kill.

use std::{
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{CgroupError, parse};
use crate::engine::{Cpu, Memory, Pressure, Stall};

/// An open cgroup folder with its open files.
#[derive(Debug)]
pub struct CgroupHandle {
    path: PathBuf,
    inode: u64,
    folder: OwnedFd,
    current: File,
    max: File,
    high: Option<File>,
    stat: File,
    events: File,
    local_events: Option<File>,
    memory_pressure: Option<File>,
    io_pressure: Option<File>,
    cpu_pressure: Option<File>,
    cpu: Option<File>,
    state: File,
    kill: Option<File>,
}

/// memory.max of a cgroup, open for writing.
#[derive(Debug)]
pub struct LimitFile {
    file: File,
    path: PathBuf,
}

impl LimitFile {
    /// Sets the limit in bytes; `None` is `max`. Lowering it below what is used takes as long as the kernel needs to get
    /// there, by reclaim and by its OOM killer, or until a signal comes.
    pub fn write(&self, limit: Option<u64>) -> Result<(), CgroupError> {
        let text = limit.map_or_else(|| "max\n".to_owned(), |bytes| format!("{bytes}\n"));
        self.file.write_all_at(text.as_bytes(), 0).map_err(|error| CgroupError::io("write to", &self.path, error))
    }
}

/// memory.stat is the longest file that is read: about 2.5 KiB on 6.18.
const LONGEST_FILE: usize = 16 * 1024;

fn read<'b>(file: &File, path: &Path, name: &str, buffer: &'b mut [u8]) -> Result<&'b str, CgroupError> {
    let mut filled = 0;
    loop {
        match file.read_at(&mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CgroupError::io("read", path.join(name), error)),
        }
        if filled == buffer.len() {
            break;
        }
    }
    std::str::from_utf8(&buffer[..filled])
        .map_err(|error| CgroupError::Malformed { path: path.join(name), what: error.to_string() })
}

impl CgroupHandle {
    /// Opens the cgroup at `path` and everything that is read of it regularly.
    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty()).map_err(|e| CgroupError::io("open", path, e))?;
        let inode = rustix::fs::fstat(&folder).map_err(|e| CgroupError::io("stat", path, e))?.st_ino;
        let open = |name: &str| {
            openat(&folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .map(File::from)
                .map_err(|error| CgroupError::io("open", path.join(name), error))
        };
        // PSI may be off for the kernel (no file) or for cgroups (EOPNOTSUPP); memory.high is there since 4.5,
        // memory.events.local since 5.3.
        let optional = |name: &str| open(name).ok();
        Ok(Self {
            inode,
            current: open("memory.current")?,
            max: open("memory.max")?,
            high: optional("memory.high"),
            stat: open("memory.stat")?,
            events: open("memory.events")?,
            local_events: optional("memory.events.local"),
            memory_pressure: optional("memory.pressure"),
            io_pressure: optional("io.pressure"),
            cpu_pressure: optional("cpu.pressure"),
            cpu: optional("cpu.stat"),
            state: open("cgroup.events")?,
            kill: None,
            path: path.to_owned(),
            folder,
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Inode number of the folder, which is the cgroup's id.
    #[must_use]
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    fn parsed<T>(
        &self,
        file: &File,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, CgroupError> {
        let mut buffer = [0; LONGEST_FILE];
        parse(read(file, &self.path, name, &mut buffer)?)
            .map_err(|what| CgroupError::Malformed { path: self.path.join(name), what })
    }

    /// Reads memory.current, memory.max, memory.high, memory.events, memory.events.local and memory.stat.
    pub fn memory(&self) -> Result<Memory, CgroupError> {
        let mut memory = Memory {
            current: self.parsed(&self.current, "memory.current", parse::number)?,
            max: self.max()?,
            ..Memory::default()
        };
        if let Some(high) = &self.high {
            memory.high = self.parsed(high, "memory.high", parse::limit)?;
        }
        // Before the counts of the subtree, so that what happens in between does not make a part larger than the whole.
        if let Some(local) = &self.local_events {
            memory.local = self.parsed(local, "memory.events.local", |text| Ok(parse::local_events(text)))?;
        }
        self.parsed(&self.events, "memory.events", |text| {
            parse::memory_events(text, &mut memory);
            Ok(())
        })?;
        self.parsed(&self.stat, "memory.stat", |text| parse::memory_stat(text, &mut memory))?;
        Ok(memory)
    }

    /// How often the OOM killer has ended a whole group in here, as memory.oom.group asks it to; 0 where the kernel does not
    /// count that (before 5.17).
    pub fn oom_group_kills(&self) -> Result<u64, CgroupError> {
        self.parsed(&self.events, "memory.events", |text| {
            let mut kills = 0;
            parse::flat_keyed(text, |key, value| {
                if key == "oom_group_kill" {
                    kills = value;
                }
            });
            Ok(kills)
        })
    }

    /// Reads memory.max: bytes, `None` for `max`.
    pub fn max(&self) -> Result<Option<u64>, CgroupError> {
        self.parsed(&self.max, "memory.max", parse::limit)
    }

    /// Opens memory.max for writing.
    pub fn limit(&self) -> Result<LimitFile, CgroupError> {
        let path = self.path.join("memory.max");
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.folder, "memory.max", flags, Mode::empty()) {
            Ok(file) => Ok(LimitFile { file: File::from(file), path }),
            Err(error) => Err(CgroupError::io("open", path, error)),
        }
    }

    /// Reads the PSI files, as far as there are any.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let read =
            |file: &Option<File>, name| -> Option<Stall> { self.parsed(file.as_ref()?, name, parse::pressure).ok() };
        Pressure {
            memory: read(&self.memory_pressure, "memory.pressure"),
            io: read(&self.io_pressure, "io.pressure"),
            cpu: read(&self.cpu_pressure, "cpu.pressure"),
        }
    }

    /// Reads cpu.stat, if it is there.
    #[must_use]
    pub fn cpu(&self) -> Option<Cpu> {
        self.parsed(self.cpu.as_ref()?, "cpu.stat", parse::cpu_stat).ok()
    }

    /// Whether a process is left in the cgroup or below it.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        self.parsed(&self.state, "cgroup.events", parse::populated)
    }

    fn open_kill(&self) -> Result<File, CgroupError> {
        openat(&self.folder, "cgroup.kill", OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map(File::from)
            .map_err(|error| CgroupError::io("open", self.path.join("cgroup.kill"), error))
    }

    /// Opens cgroup.kill, so that the kill itself needs nothing but a write. Kernel 5.14 and newer.
    pub fn arm(&mut self) -> Result<(), CgroupError> {
        if self.kill.is_none() {
            self.kill = Some(self.open_kill()?);
        }
        Ok(())
    }

    /// Closes cgroup.kill again.
    pub fn disarm(&mut self) {
        self.kill = None;
    }

    /// Checks that the path still leads to this very cgroup.
    pub fn check_identity(&self) -> Result<(), CgroupError> {
        let now = std::fs::symlink_metadata(&self.path).map_err(|e| CgroupError::io("stat", &self.path, e))?.ino();
        if now == self.inode {
            Ok(())
        } else {
            Err(CgroupError::Replaced { path: self.path.clone(), expected: self.inode, now })
        }
    }

    /// Kills every process in the cgroup and below it: `1` to cgroup.kill.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let opened;
        let file = if let Some(armed) = &self.kill {
            armed
        } else {
            opened = self.open_kill()?;
            &opened
        };
        file.write_all_at(b"1", 0).map_err(|error| CgroupError::io("write 1 to", self.path.join("cgroup.kill"), error))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::engine::LocalEvents;

    /// A folder that looks like a cgroup.
    pub(crate) fn fake(path: &Path) {
        fs::create_dir_all(path).unwrap();
        for (name, text) in [
            ("memory.current", "1000\n"),
            ("memory.max", "2000\n"),
            ("memory.high", "max\n"),
            ("memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 0\n"),
            (
                "memory.stat",
                "anon 10\nfile 30\nshmem 20\npgsteal 5\nworkingset_refault_file 6\npgmajfault 7\nnew_key 1\n",
            ),
            ("memory.pressure", "some avg10=0.00 total=11\nfull avg10=0.00 total=12\n"),
            ("cpu.stat", "usage_usec 30\nuser_usec 10\nsystem_usec 20\n"),
            ("cgroup.events", "populated 1\nfrozen 0\n"),
            ("cgroup.procs", ""),
            ("cgroup.kill", ""),
        ] {
            fs::write(path.join(name), text).unwrap();
        }
    }

    #[test]
    fn reads_a_cgroup() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path());
        let handle = CgroupHandle::open(dir.path()).unwrap();
        let memory = handle.memory().unwrap();
        assert_eq!((memory.local, memory.ooms()), (None, 7), "a kernel before 5.3");
        fs::write(dir.path().join("memory.events.local"), "low 0\nhigh 1\nmax 2\noom 5\noom_kill 1\n").unwrap();
        let handle = CgroupHandle::open(dir.path()).unwrap();
        let memory = handle.memory().unwrap();
        assert_eq!((memory.current, memory.max, memory.high), (1000, Some(2000), None));
        assert_eq!((memory.unreclaimable(), memory.page_cache()), (30, 10));
        assert_eq!((memory.high_events, memory.max_events, memory.oom_events, memory.oom_kills), (1, 2, 3, 4));
        assert_eq!((memory.steals, memory.refaults, memory.major_faults), (5, 6, 7));
        assert_eq!(memory.local, Some(LocalEvents { max: 2, high: 1, oom: 5, oom_kills: 1 }));
        assert_eq!(memory.ooms(), 6, "of this very limit");
        let pressure = handle.pressure();
        assert_eq!(pressure.memory.unwrap().full, Duration::from_micros(12));
        assert_eq!((pressure.io, pressure.cpu), (None, None), "no such files here");
        let cpu = handle.cpu().unwrap();
        assert_eq!((cpu.user, cpu.system), (Duration::from_micros(10), Duration::from_micros(20)));
        assert!(handle.populated().unwrap());
        assert_eq!(handle.inode(), fs::metadata(dir.path()).unwrap().ino());
    }

    #[test]
    fn names_the_file_and_the_value_that_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path());
        fs::write(dir.path().join("memory.max"), "lots\n").unwrap();
        let error = CgroupHandle::open(dir.path()).unwrap().memory().unwrap_err().to_string();
        assert!(error.contains("memory.max") && error.contains("lots"), "{error}");

        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        fs::write(dir.path().join("memory.stat"), "anon 1\nfile 1\nshmem 1\n").unwrap();
        let error = CgroupHandle::open(dir.path()).unwrap().memory().unwrap_err().to_string();
        assert!(error.contains("memory.stat") && error.contains("pgsteal"), "{error}");

        fs::write(dir.path().join("memory.stat"), [0xff, 0xfe]).unwrap();
        let error = CgroupHandle::open(dir.path()).unwrap().memory().unwrap_err().to_string();
        assert!(error.contains("memory.stat"), "{error}");
    }

    #[test]
    fn a_cgroup_that_vanished_or_was_made_anew_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod");
        assert!(CgroupHandle::open(&path).unwrap_err().is_gone());
        fake(&path);
        let handle = CgroupHandle::open(&path).unwrap();
        handle.check_identity().unwrap();
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        assert!(matches!(handle.check_identity(), Err(CgroupError::Gone { .. })));
        fake(&path);
        assert!(matches!(handle.check_identity(), Err(CgroupError::Replaced { .. })));
    }

    #[test]
    fn a_kill_writes_to_the_file_that_was_opened_early() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("pod"), dir.path().join("moved"));
        fake(&path);
        let mut handle = CgroupHandle::open(&path).unwrap();
        handle.arm().unwrap();
        fs::rename(&path, &moved).unwrap();
        handle.kill().unwrap();
        assert_eq!(fs::read_to_string(moved.join("cgroup.kill")).unwrap(), "1");
    }
}
