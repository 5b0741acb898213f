//! Maps, and finding the slot of a cgroup.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use memguard_common::{
    counters::{CgroupEntry, CycleStart, Losses, ReturnedFile, StallStart, TextPiece, ThreadFault},
    maps::{
        DEFAULT_CYCLE_STARTS, DEFAULT_RING_BYTES, DEFAULT_SLOTS, DEFAULT_STALL_STARTS, PROBES, RETURNED_FILES_SLOTS,
        TEXT_FILES_SLOTS, TEXT_PIECES_SLOTS, THREAD_FAULTS_SLOTS, home_slot,
    },
};

use crate::{atomic, globals::SLOT_MASK};

// A hash table in an array, because the verifier inlines look-ups in arrays: a fault costs some 30 ns less than with a
// map of type hash. Shared between CPUs, with atomic counters, rather than one for each CPU: it can be handed over whole
// from any CPU, and on a node of 192 CPUs it is 3 MiB and not 576.
#[map]
pub static CGROUPS: Array<CgroupEntry> = Array::with_max_entries(DEFAULT_SLOTS, 0);

#[map]
pub static CYCLE_STARTS: HashMap<u32, CycleStart> = HashMap::with_max_entries(DEFAULT_CYCLE_STARTS, 0);

#[map]
pub static STALL_STARTS: HashMap<u32, StallStart> = HashMap::with_max_entries(DEFAULT_STALL_STARTS, 0);

#[map]
pub static THREAD_FAULTS: Array<ThreadFault> = Array::with_max_entries(THREAD_FAULTS_SLOTS, 0);

#[map]
pub static TEXT_PIECES: Array<TextPiece> = Array::with_max_entries(TEXT_PIECES_SLOTS, 0);

#[map]
pub static TEXT_FILES: Array<u64> = Array::with_max_entries(TEXT_FILES_SLOTS, 0);

#[map]
pub static RETURNED_FILES: Array<ReturnedFile> = Array::with_max_entries(RETURNED_FILES_SLOTS, 0);

#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(DEFAULT_RING_BYTES, 0);

#[map]
pub static LOSSES: Array<Losses> = Array::with_max_entries(1, 0);

#[map]
pub static LAST_WAKE: Array<u64> = Array::with_max_entries(1, 0);

/// Adds one to a member of [`Losses`].
#[inline(always)]
pub fn lose(member: impl FnOnce(*mut Losses) -> *mut u64) {
    if let Some(losses) = LOSSES.get_ptr_mut(0) {
        unsafe { atomic::add(member(losses), 1) };
    }
}

#[inline(always)]
fn slot(home: u32, probe: u32) -> Option<*mut CgroupEntry> {
    CGROUPS.get_ptr_mut(home.wrapping_add(probe) & SLOT_MASK.load())
}

#[inline(always)]
unsafe fn owner(entry: *mut CgroupEntry) -> u64 {
    unsafe { (&raw const (*entry).cgroup_id).read_volatile() }
}

/// The slot of a cgroup, taken if it has none yet.
#[inline(always)]
pub fn entry(cgroup_id: u64) -> Option<*mut CgroupEntry> {
    match slot(home_slot(cgroup_id), 0) {
        Some(home) if unsafe { owner(home) } == cgroup_id && cgroup_id != 0 => Some(home),
        _ => {
            let found = entry_elsewhere(cgroup_id);
            if found.is_null() { None } else { Some(found) }
        }
    }
}

/// The rest of the search, out of the way of the common case.
#[inline(never)]
fn entry_elsewhere(cgroup_id: u64) -> *mut CgroupEntry {
    let found = find(cgroup_id);
    if !found.is_null() || cgroup_id == 0 {
        return found;
    }
    // All of the probes were looked at before a free slot is taken: slots that were given back leave holes. Another CPU
    // that is here for the same cgroup goes for the same slot first, and the exchange tells the two.
    let home = home_slot(cgroup_id);
    for probe in 0..PROBES {
        let Some(entry) = slot(home, probe) else { continue };
        let before = unsafe { atomic::compare_and_swap(&raw mut (*entry).cgroup_id, 0, cgroup_id) };
        if before == 0 || before == cgroup_id {
            return entry;
        }
    }
    lose(|losses| unsafe { &raw mut (*losses).cgroups_left_out });
    core::ptr::null_mut()
}

/// The slot of a cgroup, or null.
#[inline(always)]
pub fn find(cgroup_id: u64) -> *mut CgroupEntry {
    if cgroup_id != 0 {
        let home = home_slot(cgroup_id);
        for probe in 0..PROBES {
            if let Some(entry) = slot(home, probe)
                && unsafe { owner(entry) } == cgroup_id
            {
                return entry;
            }
        }
    }
    core::ptr::null_mut()
}

/// Gives the slot of a cgroup back, and says whether user space knows of the cgroup. It is removed, so no task is in it any
/// more and nobody counts meanwhile.
#[inline(always)]
pub fn release(cgroup_id: u64) -> bool {
    let entry = find(cgroup_id);
    if entry.is_null() {
        return false;
    }
    let known = unsafe { (&raw const (*entry).snapshot_sent_ns).read_volatile() } != 0;
    let words = entry.cast::<u64>();
    // The owner is the first word, and goes last.
    for word in 1..size_of::<CgroupEntry>() / size_of::<u64>() {
        unsafe { words.add(word).write_volatile(0) };
    }
    unsafe { atomic::swap(words, 0) };
    known
}
