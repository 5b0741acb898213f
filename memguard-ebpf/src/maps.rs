//! Maps, and finding the entry of a cgroup in them.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use memguard_common::{
    counters::{CgroupEntry, CycleStart, Losses},
    maps::{DEFAULT_CGROUPS, DEFAULT_CYCLE_STARTS, DEFAULT_RING_BYTES},
};

use crate::atomic;

// A shared hash with atomic counters rather than a per-CPU one: it costs the same on a fault, it can be handed over
// whole from any CPU, and on a node of 192 CPUs it is 1.7 MiB and not 330.
#[map]
pub static CGROUPS: HashMap<u64, CgroupEntry> = HashMap::with_max_entries(DEFAULT_CGROUPS, 0);

#[map]
pub static CYCLE_STARTS: HashMap<u32, CycleStart> = HashMap::with_max_entries(DEFAULT_CYCLE_STARTS, 0);

#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(DEFAULT_RING_BYTES, 0);

#[map]
pub static LOSSES: Array<Losses> = Array::with_max_entries(1, 0);

#[map]
pub static LAST_WAKE: Array<u64> = Array::with_max_entries(1, 0);

/// A fresh entry. In read-only data, because 300 bytes would take most of a BPF stack.
static EMPTY: CgroupEntry = CgroupEntry {
    counters: memguard_common::Counters {
        cycles: 0,
        pages_reclaimed: 0,
        empty_cycles: 0,
        reclaim_ns: 0,
        reclaim_wall_ns: 0,
        faults: 0,
        exec_faults: 0,
        major_faults: 0,
        exec_major_faults: 0,
        refaults: 0,
        oom_victims: 0,
        cycle_ns_log2: [0; memguard_common::CYCLE_BUCKETS],
    },
    limit_owner: 0,
    tasks_in_reclaim: 0,
    wall_accounted_ns: 0,
    snapshot_sent_ns: 0,
};

/// Adds one to a member of [`Losses`].
#[inline(always)]
pub fn lose(member: impl FnOnce(*mut Losses) -> *mut u64) {
    if let Some(losses) = LOSSES.get_ptr_mut(0) {
        unsafe { atomic::add(member(losses), 1) };
    }
}

/// The entry of a cgroup, made where there is none yet.
#[inline(always)]
pub fn entry(cgroup_id: u64) -> Option<*mut CgroupEntry> {
    if let Some(found) = CGROUPS.get_ptr_mut(cgroup_id) {
        return Some(found);
    }
    // If another CPU was faster, BPF_NOEXIST refuses, and the second look-up finds its entry.
    let _ = CGROUPS.insert(cgroup_id, &EMPTY, u64::from(BPF_NOEXIST));
    let found = CGROUPS.get_ptr_mut(cgroup_id);
    if found.is_none() {
        lose(|losses| unsafe { &raw mut (*losses).cgroups_left_out });
    }
    found
}
