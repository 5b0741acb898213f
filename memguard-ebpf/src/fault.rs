//! File faults: how many, how many on program text, how many that read from the disk, and how long they take.

use aya_ebpf::{
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};

use memguard_common::{
    Counters,
    counters::{
        CgroupEntry, MOST_BETWEEN_FAULTS_NS, MOST_CREDIT, ThreadFault, return_bucket, text_file_key, text_piece_key,
        text_piece_shift,
    },
    maps::{RETURNED_FILES_SLOTS, TEXT_FILES_SLOTS, TEXT_PIECES_SLOTS, THREAD_FAULTS_SLOTS},
};

use crate::{
    atomic,
    globals::{FAULT_MAJOR, FAULT_RETRY, FAULT_TRIED, PAGE_SHIFT},
    kernel::{FilePage, Probed, Typed, fault_flags, fault_on_text, fault_page},
    maps::{RETURNED_FILES, TEXT_FILES, TEXT_PIECES, THREAD_FAULTS, entry},
};

/// `filemap_fault()` on its way out: the one hook that tells all three.
///
/// A fault that has to wait for the disk mostly leaves twice: with `VM_FAULT_MAJOR | VM_FAULT_RETRY` (the kernel counts
/// `PGMAJFAULT` then), and, tried again, with neither. So a call is a fault unless it asks for a retry, and a major one
/// whenever it says so.
#[fexit(function = "filemap_fault")]
pub fn fault_fexit(ctx: FExitContext) -> i32 {
    // The argument array ends with the return value; filemap_fault() has one argument. A load from it is cheaper than
    // bpf_get_func_ret().
    let outcome = ctx.arg::<u64>(1) as u32;
    let major = outcome & FAULT_MAJOR.load() != 0;
    let finished = outcome & FAULT_RETRY.load() == 0;
    let cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    let Some(entry) = entry(cgroup_id) else { return 0 };
    if major || finished {
        let on_text = unsafe { fault_on_text::<Typed>(ctx.arg(0)) };
        unsafe {
            let counters = &raw mut (*entry).counters;
            if finished {
                atomic::add(&raw mut (*counters).faults, 1);
                if on_text {
                    atomic::add(&raw mut (*counters).exec_faults, 1);
                }
            }
            if major {
                atomic::add(&raw mut (*counters).major_faults, 1);
                if on_text {
                    atomic::add(&raw mut (*counters).exec_major_faults, 1);
                    count_return(ctx.arg(0), cgroup_id, counters);
                }
            }
        }
    }
    // The one that asks for a retry is the one that has waited. At the end, so that the verifier does not look at all of the
    // above once more for each way through this.
    fault_ends(entry);
    0
}

#[inline(always)]
fn thread_fault() -> Option<(u64, *mut ThreadFault)> {
    let thread = bpf_get_current_pid_tgid() as u32;
    let fault = THREAD_FAULTS.get_ptr_mut(thread & (THREAD_FAULTS_SLOTS - 1))?;
    Some((u64::from(thread), fault))
}

/// A fault that this thread comes back from: how long it took, and the time before it. Nothing if its begin was not seen.
#[inline(always)]
fn fault_ends(entry: *mut CgroupEntry) {
    let Some((thread, fault)) = thread_fault() else { return };
    unsafe {
        let began = (&raw const (*fault).began_ns).read_volatile();
        if (&raw const (*fault).thread).read_volatile() != thread || began == 0 {
            return;
        }
        let now = bpf_ktime_get_ns();
        let ended = (&raw const (*fault).ended_ns).read_volatile();
        (&raw mut (*fault).began_ns).write_volatile(0);
        (&raw mut (*fault).ended_ns).write_volatile(now);
        let counters = &raw mut (*entry).counters;
        atomic::add(&raw mut (*counters).fault_ns, now.saturating_sub(began));
        let other = atomic::swap(&raw mut (*entry).fault_ended_ns, now);
        let alone_since = if other > began { other } else { began };
        atomic::add(&raw mut (*counters).fault_wall_ns, now.saturating_sub(alone_since));
        if ended != 0 {
            let between = began.saturating_sub(ended);
            let between = if between > MOST_BETWEEN_FAULTS_NS { MOST_BETWEEN_FAULTS_NS } else { between };
            atomic::add(&raw mut (*counters).between_faults_ns, between);
        }
    }
}

#[inline(always)]
fn fault_begins() {
    let Some((thread, fault)) = thread_fault() else { return };
    unsafe {
        // Of one whose end was not seen nobody knows how long it took, nor what came then.
        let unended = (&raw const (*fault).began_ns).read_volatile() != 0;
        if (&raw const (*fault).thread).read_volatile() != thread || unended {
            (&raw mut (*fault).thread).write_volatile(thread);
            (&raw mut (*fault).ended_ns).write_volatile(0);
        }
        (&raw mut (*fault).began_ns).write_volatile(bpf_ktime_get_ns());
    }
}

/// `filemap_fault()` on its way in: when.
#[fentry(function = "filemap_fault")]
pub fn fault_fentry(_ctx: FEntryContext) -> i32 {
    fault_begins();
    0
}

/// A major fault on program text: was this very text here a moment ago?
#[inline(always)]
unsafe fn count_return(vmf: *const u8, cgroup_id: u64, counters: *mut Counters) {
    let Some(page) = (unsafe { fault_page::<Typed>(vmf) }) else { return };
    // For the refaults of this file, whichever page of it they are for.
    let file = text_file_key(page.device, page.inode, cgroup_id);
    if let Some(known) = TEXT_FILES.get_ptr_mut(file as u32 & (TEXT_FILES_SLOTS - 1)) {
        unsafe { known.write_volatile(file) };
    }
    let piece = page.index >> text_piece_shift(page.read_around, PAGE_SHIFT.load());
    let key = text_piece_key(page.device, page.inode, piece, cgroup_id);
    let Some(piece) = TEXT_PIECES.get_ptr_mut(key as u32 & (TEXT_PIECES_SLOTS - 1)) else { return };
    let now = unsafe { bpf_ktime_get_ns() };
    unsafe {
        let before = (&raw const (*piece).at_ns).read_volatile();
        let known = (&raw const (*piece).key).read_volatile() == key;
        (&raw mut (*piece).key).write_volatile(key);
        (&raw mut (*piece).at_ns).write_volatile(now);
        if known && let Some(bucket) = return_bucket(now.saturating_sub(before)) {
            atomic::add((&raw mut (*counters).text_returns).cast::<u64>().add(bucket), 1);
            count_file(&page, cgroup_id);
        }
    }
}

/// Text of this file came back: for the report of an incident, which tells the files that did so most.
///
/// Other CPUs may be here for other files with the same slot. A return more or less does no harm, and members of two files
/// in one slot do not fit its key.
#[inline(always)]
unsafe fn count_file(page: &FilePage, cgroup_id: u64) {
    let key = text_file_key(page.device, page.inode, cgroup_id);
    let Some(file) = RETURNED_FILES.get_ptr_mut(key as u32 & (RETURNED_FILES_SLOTS - 1)) else { return };
    unsafe {
        let credit = (&raw const (*file).credit).read_volatile();
        if (&raw const (*file).key).read_volatile() == key {
            atomic::add(&raw mut (*file).returns, 1);
            if credit < MOST_CREDIT {
                (&raw mut (*file).credit).write_volatile(credit + 1);
            }
        } else if credit > 1 {
            (&raw mut (*file).credit).write_volatile(credit - 1);
        } else {
            (&raw mut (*file).key).write_volatile(key);
            (&raw mut (*file).inode).write_volatile(page.inode);
            (&raw mut (*file).cgroup_id).write_volatile(cgroup_id);
            (&raw mut (*file).device).write_volatile(page.device);
            (&raw mut (*file).returns).write_volatile(1);
            (&raw mut (*file).credit).write_volatile(1);
        }
    }
}

/// `filemap_fault()` on its way in. Whether it will be a major fault is not known yet, so only the first two counters.
#[kprobe(function = "filemap_fault")]
pub fn fault_kprobe(ctx: ProbeContext) -> u32 {
    fault_begins();
    let Some(vmf) = ctx.arg::<*const u8>(0) else { return 0 };
    if unsafe { fault_flags::<Probed>(vmf) } & FAULT_TRIED.load() != 0 {
        return 0;
    }
    let on_text = unsafe { fault_on_text::<Probed>(vmf) };
    let Some(entry) = entry(unsafe { bpf_get_current_cgroup_id() }) else { return 0 };
    unsafe {
        let counters = &raw mut (*entry).counters;
        atomic::add(&raw mut (*counters).faults, 1);
        if on_text {
            atomic::add(&raw mut (*counters).exec_faults, 1);
        }
    }
    0
}

/// `filemap_fault()` on its way out, where it can't be seen any more what the fault was for: how long it took.
#[kretprobe(function = "filemap_fault")]
pub fn fault_kretprobe(_ctx: RetProbeContext) -> u32 {
    if let Some(entry) = entry(unsafe { bpf_get_current_cgroup_id() }) {
        fault_ends(entry);
    }
    0
}

/// `mm_filemap_fault(mapping, index)`: no mapping flags, no outcome, so only the number of faults. A retried fault
/// passes here twice.
#[btf_tracepoint(function = "mm_filemap_fault")]
pub fn fault_tracepoint(_ctx: BtfTracePointContext) -> i32 {
    if let Some(entry) = entry(unsafe { bpf_get_current_cgroup_id() }) {
        unsafe { atomic::add(&raw mut (*entry).counters.faults, 1) };
    }
    0
}
