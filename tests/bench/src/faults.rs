//! Minor faults on a mapped file.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    ptr,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};

use crate::pairs::{Attached, measure, skip};

const PAGES: usize = 16 * 1024;
const PAGE: usize = 4096;
const LENGTH: usize = PAGES * PAGE;

/// Each way to hook a file fault, best first: a program that tells it, and what has to be left out for the plan to take it.
const WAYS: &[(&str, &str, &[&str])] = &[
    ("fentry and fexit", "fault_fentry", &[]),
    ("fexit", "fault_fexit", &["fault_fentry"]),
    ("kprobe", "fault_kprobe", &["fault_fexit"]),
    ("tracepoint", "fault_tracepoint", &["fault_fexit", "fault_kprobe"]),
];

pub(crate) fn run(folder: &Path, pairs: u32) -> anyhow::Result<()> {
    let mapping = Mapping::new(folder)?;
    for (way, tells, without) in WAYS {
        let name = format!("minor file fault, {way}");
        let (_, planned) = Attached::start(without, false)?;
        if !planned.programs().any(|program| program == *tells) {
            let why: Vec<_> = planned.signals.iter().filter_map(|signal| signal.lost).collect();
            skip(&name, &format!("the kernel does not take it (lost: {})", why.join("; ")))?;
            continue;
        }
        measure(name, "ns", pairs, |stats| Ok(Attached::start(without, stats)?.0), || mapping.fault_all())?.tell()?;
    }
    Ok(())
}

/// A file in the page cache, mapped so that every touch of a page faults.
struct Mapping {
    file: File,
    address: *mut u8,
    _uffd: OwnedFd,
}

impl Mapping {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("hooks-bench.data");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .with_context(|| format!("can't make {}", path.display()))?;
        file.write_all(&vec![1; LENGTH])?;
        file.sync_all()?;
        // The data stay for as long as the file is open.
        std::fs::remove_file(&path)?;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let address =
            unsafe { mmap(ptr::null_mut(), LENGTH, ProtFlags::READ, MapFlags::SHARED, &file, 0) }?.cast::<u8>();
        // A page cache of large folios would be mapped 2 MiB at a time.
        // SAFETY: a setting of the mapping.
        unsafe { madvise(address.cast(), LENGTH, Advice::LinuxNoHugepage) }?;
        let uffd = without_fault_around(address)?;
        let mapping = Self { file, address, _uffd: uffd };
        let before = minor_faults();
        mapping.fault_all()?;
        let faults = minor_faults() - before;
        ensure!(faults >= PAGES as u64, "{PAGES} pages took {faults} faults only: the kernel maps around a fault");
        Ok(mapping)
    }

    /// ns for each fault.
    fn fault_all(&self) -> anyhow::Result<f64> {
        // Somebody may have dropped it.
        let mut buffer = vec![0; 1 << 20];
        let mut offset = 0;
        while offset < LENGTH as u64 {
            offset += std::os::unix::fs::FileExt::read_at(&self.file, &mut buffer, offset)? as u64;
        }
        // SAFETY: this is the whole mapping, and it is read-only: dropping its page table entries loses nothing.
        unsafe { madvise(self.address.cast(), LENGTH, Advice::LinuxDontNeed) }?;
        let mut sum = 0_u64;
        let began = Instant::now();
        for page in 0..PAGES {
            // SAFETY: inside the mapping.
            sum = sum.wrapping_add(u64::from(unsafe { self.address.add(page * PAGE).read_volatile() }));
        }
        let took = began.elapsed();
        ensure!(sum == PAGES as u64, "the file does not hold what was written");
        Ok(took.as_secs_f64() * 1e9 / PAGES as f64)
    }
}

fn minor_faults() -> u64 {
    // SAFETY: rusage is plain data, and getrusage fills it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    usage.ru_minflt.unsigned_abs()
}

/// Registers a mapping for asynchronous write protection, which keeps the kernel from mapping the neighbours of a page
/// that is faulted in (`should_fault_around()` of mm/memory.c); nothing is ever protected.
fn without_fault_around(address: *mut u8) -> anyhow::Result<OwnedFd> {
    /// include/uapi/linux/userfaultfd.h
    const UFFD_API: u64 = 0xaa;
    const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
    const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
    const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
    const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
    const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;

    // SAFETY: creates a file descriptor, which is ours from then on.
    let uffd = unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
        if fd < 0 {
            bail!("userfaultfd: {} (needs CONFIG_USERFAULTFD and root)", std::io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(i32::try_from(fd)?)
    };
    let mut api = [UFFD_API, UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED, 0];
    let mut register = [address as u64, LENGTH as u64, UFFDIO_REGISTER_MODE_WP, 0];
    for (what, request, argument) in
        [("UFFDIO_API", UFFDIO_API, api.as_mut_ptr()), ("UFFDIO_REGISTER", UFFDIO_REGISTER, register.as_mut_ptr())]
    {
        // SAFETY: the argument points to a structure of the size that the request says.
        if unsafe { libc::ioctl(uffd.as_raw_fd(), request, argument) } < 0 {
            bail!("{what}: {} (asynchronous write protection needs kernel 6.7)", std::io::Error::last_os_error());
        }
    }
    Ok(uffd)
}
