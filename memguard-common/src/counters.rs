//! The counters that the hooks keep for each cgroup, and for what they could not count.

/// Number of buckets of the cycle time histogram.
pub const CYCLE_BUCKETS: usize = 24;

/// Cumulative counters of one cgroup, keyed by the id of the cgroup that the acting task is in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Ended memcg reclaim cycles (`mm_vmscan_memcg_reclaim_end`).
    pub cycles: u64,
    /// Pages that those cycles freed.
    pub pages_reclaimed: u64,
    /// Cycles that freed no page at all: what lets `try_charge_memcg()` give up and ask the OOM killer.
    pub empty_cycles: u64,
    /// Time that tasks spent in cycles, summed over tasks, in ns.
    pub reclaim_ns: u64,
    /// Wall time in ns during which at least one task was in a cycle.
    pub reclaim_wall_ns: u64,
    /// Finished `filemap_fault()` calls; a call that asks to be retried is counted when its retry finishes.
    pub faults: u64,
    /// Those on mappings with `VM_EXEC`: program text.
    pub exec_faults: u64,
    /// `filemap_fault()` calls that had to read from the disk (`VM_FAULT_MAJOR`).
    pub major_faults: u64,
    /// Major faults on mappings with `VM_EXEC`.
    pub exec_major_faults: u64,
    /// File pages that were evicted before and came back (`workingset_refault()`), in pages of 4 KiB.
    pub refaults: u64,
    /// OOM victims picked by the kernel.
    pub oom_victims: u64,
    /// Cycles by duration, see [`cycle_bucket`].
    pub cycle_ns_log2: [u64; CYCLE_BUCKETS],
}

impl Counters {
    /// Adds another cgroup's counters, for the sum over a subtree.
    pub fn accumulate(&mut self, other: &Self) {
        let Self {
            cycles,
            pages_reclaimed,
            empty_cycles,
            reclaim_ns,
            reclaim_wall_ns,
            faults,
            exec_faults,
            major_faults,
            exec_major_faults,
            refaults,
            oom_victims,
            cycle_ns_log2,
        } = other;
        self.cycles = self.cycles.wrapping_add(*cycles);
        self.pages_reclaimed = self.pages_reclaimed.wrapping_add(*pages_reclaimed);
        self.empty_cycles = self.empty_cycles.wrapping_add(*empty_cycles);
        self.reclaim_ns = self.reclaim_ns.wrapping_add(*reclaim_ns);
        self.reclaim_wall_ns = self.reclaim_wall_ns.wrapping_add(*reclaim_wall_ns);
        self.faults = self.faults.wrapping_add(*faults);
        self.exec_faults = self.exec_faults.wrapping_add(*exec_faults);
        self.major_faults = self.major_faults.wrapping_add(*major_faults);
        self.exec_major_faults = self.exec_major_faults.wrapping_add(*exec_major_faults);
        self.refaults = self.refaults.wrapping_add(*refaults);
        self.oom_victims = self.oom_victims.wrapping_add(*oom_victims);
        for (sum, value) in self.cycle_ns_log2.iter_mut().zip(cycle_ns_log2) {
            *sum = sum.wrapping_add(*value);
        }
    }
}

/// The bucket of the histogram that a cycle of `ns` falls into.
///
/// Bucket 0 takes all below 2048 ns, bucket `i` takes `2^(10+i) <= ns < 2^(11+i)`, the last one takes all above.
#[inline(always)]
#[must_use]
#[expect(clippy::inline_always, reason = "a call between BPF programs costs more than this")]
pub const fn cycle_bucket(ns: u64) -> usize {
    // A search by halves: BPF has no instruction that counts leading zeros, and a loop costs the verifier more.
    let mut units = ns >> 10;
    if units >= 1 << (CYCLE_BUCKETS - 1) {
        return CYCLE_BUCKETS - 1;
    }
    let mut bucket = 0;
    if units >= 1 << 16 {
        units >>= 16;
        bucket += 16;
    }
    if units >= 1 << 8 {
        units >>= 8;
        bucket += 8;
    }
    if units >= 1 << 4 {
        units >>= 4;
        bucket += 4;
    }
    if units >= 1 << 2 {
        units >>= 2;
        bucket += 2;
    }
    if units >= 1 << 1 {
        bucket += 1;
    }
    bucket
}

/// The shortest cycle, in ns, that falls into `bucket`.
#[must_use]
pub const fn cycle_bucket_floor_ns(bucket: usize) -> u64 {
    if bucket == 0 { 0 } else { 1 << (10 + bucket) }
}

/// One slot of the table of cgroups: the counters, and what the hooks need to keep them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupEntry {
    /// Whose slot this is: a cgroup's id, or 0 for nobody's.
    pub cgroup_id: u64,
    pub counters: Counters,
    /// Id of the cgroup whose limit the latest cycle was for (`try_to_free_mem_cgroup_pages(memcg)`): the task's own
    /// cgroup or one above it. 0 while not known.
    pub limit_owner: u64,
    /// Tasks in a cycle right now.
    pub tasks_in_reclaim: u64,
    /// `CLOCK_MONOTONIC` ns up to which [`Counters::reclaim_wall_ns`] is accounted.
    pub wall_accounted_ns: u64,
    /// `CLOCK_MONOTONIC` ns of the latest snapshot sent to the ring.
    pub snapshot_sent_ns: u64,
}

/// The beginning of a reclaim cycle, kept by thread until it ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CycleStart {
    /// `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
    /// The cgroup that the task was in, so that both ends are booked on the same one.
    pub cgroup_id: u64,
}

/// What the hooks could not count or hand over. All zero on a healthy node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records that found the ring full. Counters are cumulative, so the next record makes up for it.
    pub ring_full: u64,
    /// Events of cgroups that found no place in the map.
    pub cgroups_left_out: u64,
    /// Cycles whose begin found no place in the map: counted, but not timed.
    pub cycles_untimed: u64,
    /// Cycles that were begun and whose end was never seen.
    pub ends_lost: u64,
}

const _: () = {
    assert!(size_of::<Counters>() == 8 * (11 + CYCLE_BUCKETS));
    assert!(size_of::<CgroupEntry>() == size_of::<Counters>() + 40);
    assert!(size_of::<CycleStart>() == 16);
    assert!(size_of::<Losses>() == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two_and_cover_everything() {
        assert_eq!(cycle_bucket(0), 0);
        assert_eq!(cycle_bucket(2047), 0);
        for bucket in 1..CYCLE_BUCKETS {
            let floor = cycle_bucket_floor_ns(bucket);
            assert_eq!(cycle_bucket(floor), bucket, "floor of {bucket}");
            assert_eq!(cycle_bucket(floor - 1), bucket - 1, "just below {bucket}");
        }
        assert_eq!(cycle_bucket(u64::MAX), CYCLE_BUCKETS - 1);
    }
}
