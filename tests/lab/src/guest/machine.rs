//! The machine: file systems, modules, kernel switches, power.

use std::{
    fs::{self, File},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use memguard_lab::scenario::{KernelSwitches, Vm};
use rustix::{
    mount::{MountFlags, mount, mount_bind},
    system::{RebootCommand, reboot},
};

use crate::workload::DISK;

/// Where cgroup v2 is mounted.
pub(super) const CGROUP: &str = memguard_lab::place::ROOT;
/// tmpfs for progress counters.
pub(super) const PROGRESS: &str = "/run/progress";

pub(super) fn mount_virtual() -> anyhow::Result<()> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("cgroup2", CGROUP),
        ("bpf", "/sys/fs/bpf"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        fs::create_dir_all(target).or_else(|error| if Path::new(target).is_dir() { Ok(()) } else { Err(error) })?;
        mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("can't mount {kind} at {target}"))?;
    }
    fs::create_dir_all(PROGRESS)?;
    Ok(())
}

/// Loads `/modules/*`. Which needs which differs between kernels, so they are tried in turn until all are in.
pub(super) fn load_modules() -> anyhow::Result<()> {
    let mut waiting: Vec<_> =
        fs::read_dir("/modules").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    waiting.sort();
    while !waiting.is_empty() {
        let (failed, errors): (Vec<_>, Vec<_>) =
            waiting.iter().filter_map(|path| load_module(path).err().map(|error| (path.clone(), error))).unzip();
        if failed.len() == waiting.len() {
            bail!("can't load {}: {}", failed[0].display(), errors[0]);
        }
        waiting = failed;
    }
    Ok(())
}

fn load_module(path: &Path) -> std::io::Result<()> {
    /// `MODULE_INIT_COMPRESSED_FILE` of include/uapi/linux/module.h.
    const COMPRESSED: libc::c_int = 4;
    let file = File::open(path)?;
    let flags = if path.extension().is_some_and(|extension| extension == "ko") { 0 } else { COMPRESSED };
    // SAFETY: the descriptor is open, and the parameters are an empty string.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), flags) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Has the machine talk to itself: nobody else is there to do it.
pub(crate) fn loopback() -> anyhow::Result<()> {
    // SAFETY: a plain socket, which nobody else has.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, "no socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is open and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zeroes are a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        // Signed here, unsigned there: c_char is the architecture's.
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: the request is initialised, and lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    ensure!(result == 0, "can't bring up lo: {}", std::io::Error::last_os_error());
    Ok(())
}

/// A file system on which every write hangs, until this is dropped.
pub(super) struct Frozen(File);

impl Frozen {
    pub(super) fn freeze(at: &Path) -> anyhow::Result<Self> {
        let folder = File::open(at).with_context(|| format!("can't open {}", at.display()))?;
        freezer(&folder, FIFREEZE).with_context(|| format!("can't freeze {}", at.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = freezer(&self.0, FITHAW) {
            println!("lab-guest: can't thaw a file system: {error}");
        }
    }
}

/// `FIFREEZE` and `FITHAW` of include/uapi/linux/fs.h.
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

fn freezer(folder: &File, order: libc::c_ulong) -> std::io::Result<()> {
    // SAFETY: the descriptor is open, and the argument is not used.
    let result = unsafe { libc::ioctl(folder.as_raw_fd(), order, 0) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Devices of virtio by what they are (`include/uapi/linux/virtio_ids.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Virtio {
    Block = 2,
    Console = 3,
}

/// Whether this machine was given such a device. What its driver makes of it appears a moment later.
pub(super) fn has(wanted: Virtio) -> bool {
    let devices = fs::read_dir("/sys/bus/virtio/devices").into_iter().flatten().flatten();
    devices.into_iter().any(|device| {
        let kind = fs::read_to_string(device.path().join("device")).unwrap_or_default();
        u32::from_str_radix(kind.trim().trim_start_matches("0x"), 16) == Ok(wanted as u32)
    })
}

/// Mounts the root disk and sets what the scenario asks for.
pub(super) fn prepare(vm: &Vm, switches: &KernelSwitches) -> anyhow::Result<()> {
    let device = Path::new("/dev/vda");
    for _ in 0..100 {
        if device.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    fs::create_dir_all(DISK)?;
    mount(device, DISK, "ext4", MountFlags::NOATIME, None).context("can't mount /dev/vda")?;
    for folder in ["proc", "dev", "tmp"] {
        let target = Path::new(DISK).join(folder);
        fs::create_dir_all(&target)?;
        mount_bind(Path::new("/").join(folder), &target)
            .with_context(|| format!("can't mount {}", target.display()))?;
    }
    if let Some(kib) = vm.disk.readahead_kib {
        write("/sys/block/vda/queue/read_ahead_kb", &kib.to_string())?;
    }
    if let Some(on) = switches.mglru {
        let path = "/sys/kernel/mm/lru_gen/enabled";
        match write(path, if on { "y" } else { "n" }) {
            // A kernel without it has it off.
            Err(_) if !on && !Path::new(path).exists() => {}
            other => other?,
        }
    }
    Ok(())
}

/// Writes a file of a virtual file system.
pub(super) fn write(path: impl AsRef<Path>, text: &str) -> anyhow::Result<()> {
    let path = path.as_ref();
    fs::write(path, text).with_context(|| format!("can't write {text:?} to {}", path.display()))
}

/// Puts a program on the root disk, and out of memory again, so that it is read in from there.
pub(super) fn install(from: &str, name: &str) -> anyhow::Result<std::path::PathBuf> {
    let to = Path::new(DISK).join(name);
    fs::copy(from, &to).with_context(|| format!("can't copy {from} to {}", to.display()))?;
    drop_caches()?;
    Ok(to)
}

/// Puts everything that was read or written out of memory.
pub(super) fn drop_caches() -> anyhow::Result<()> {
    rustix::fs::sync();
    write("/proc/sys/vm/drop_caches", "3")
}

pub(super) fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

pub(super) fn cpus() -> u32 {
    thread::available_parallelism().map_or(0, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX))
}

pub(super) fn power_off() -> ! {
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}
