//! The counters that the hooks keep for each cgroup, and for what they could not count.

/// Number of buckets of the cycle time histogram.
pub const CYCLE_BUCKETS: usize = 24;

/// Number of buckets of [`Counters::text_returns`].
pub const RETURN_BUCKETS: usize = 4;

/// Upper ends of the buckets of [`Counters::text_returns`], in ns.
pub const RETURN_BOUNDS_NS: [u64; RETURN_BUCKETS] = [250_000_000, 2_000_000_000, 8_000_000_000, 32_000_000_000];

/// Of the size of a piece of program text that is remembered as one, the logarithm of its number of pages: as many as
/// a fault reads around itself (`do_sync_mmap_readahead()`), because the next fault for the same text is often on
/// another page of what one fault had brought in. At least 128 KiB, which is the kernel's default, and at most 8 MiB.
///
/// `read_around` is in pages, whose size is `1 << page_shift` bytes: 4 KiB on x86-64, up to 64 KiB on arm64.
#[inline(always)]
#[must_use]
#[expect(clippy::inline_always, reason = "a call between BPF programs costs more than this")]
pub const fn text_piece_shift(read_around: u32, page_shift: u32) -> u32 {
    let larger = if page_shift < 12 {
        0
    } else if page_shift > 16 {
        4
    } else {
        page_shift - 12
    };
    let of_4_kib = if read_around >= 2048 { 2048 } else { read_around << larger };
    let shift = if of_4_kib >= 2048 {
        11
    } else if of_4_kib >= 1024 {
        10
    } else if of_4_kib >= 512 {
        9
    } else if of_4_kib >= 256 {
        8
    } else if of_4_kib >= 128 {
        7
    } else if of_4_kib >= 64 {
        6
    } else {
        5
    };
    shift - larger
}

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
    /// File pages that were evicted before and came back (`workingset_refault()`), in pages.
    pub refaults: u64,
    /// OOM victims picked by the kernel.
    pub oom_victims: u64,
    /// Time that tasks spent without progress for want of memory, summed over tasks, in ns: reclaim, waiting for pages
    /// that were evicted a moment ago, throttling at memory.high (`psi_memstall_enter()` to `psi_memstall_leave()`). The
    /// kernel calls these whether PSI is switched on or not.
    pub stall_ns: u64,
    /// Wall time in ns during which at least one task was so stalled.
    pub stall_wall_ns: u64,
    /// Time that tasks spent in `filemap_fault()`, summed over tasks, in ns: reading what a mapping of a file needs, and all
    /// that this takes, reclaim among it.
    pub fault_ns: u64,
    /// Time that the same tasks spent between two such calls, in ns, at most [`MOST_BETWEEN_FAULTS_NS`] each time.
    pub between_faults_ns: u64,
    /// Wall time of these calls in ns, told at the end of each: the time since it began, or since the end of another one if
    /// that is later. All of the time in which at least one task was in such a call where one came after the other, and less
    /// where they were in them together. It does not add up: of two cgroups in which somebody is in a fault half of the time,
    /// somebody may be in one all of the time, or half of it.
    pub fault_wall_ns: u64,
    /// Those of [`Counters::refaults`] that belong to files which this cgroup executes: had a major fault on their text.
    pub text_refaults: u64,
    /// Major faults on program text whose piece ([`text_piece_shift`]) had its last one at most [`RETURN_BOUNDS_NS`]
    /// ago: text that was thrown out and is wanted again. Those of new text are in none.
    pub text_returns: [u64; RETURN_BUCKETS],
    /// Cycles by duration, see [`cycle_bucket`].
    pub cycle_ns_log2: [u64; CYCLE_BUCKETS],
}

impl Counters {
    /// Adds another cgroup's counters, for the sum over a subtree; but for [`Counters::fault_wall_ns`], of which there is none.
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
            stall_ns,
            stall_wall_ns,
            fault_ns,
            between_faults_ns,
            fault_wall_ns: _,
            text_refaults,
            text_returns,
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
        self.stall_ns = self.stall_ns.wrapping_add(*stall_ns);
        self.stall_wall_ns = self.stall_wall_ns.wrapping_add(*stall_wall_ns);
        self.fault_ns = self.fault_ns.wrapping_add(*fault_ns);
        self.between_faults_ns = self.between_faults_ns.wrapping_add(*between_faults_ns);
        self.text_refaults = self.text_refaults.wrapping_add(*text_refaults);
        for (sum, value) in self.text_returns.iter_mut().zip(text_returns) {
            *sum = sum.wrapping_add(*value);
        }
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
    /// Tasks stalled right now, see [`Counters::stall_ns`].
    pub tasks_stalled: u64,
    /// `CLOCK_MONOTONIC` ns up to which [`Counters::stall_wall_ns`] is accounted.
    pub stall_accounted_ns: u64,
    /// `CLOCK_MONOTONIC` ns of the latest end of a file fault, see [`Counters::fault_wall_ns`].
    pub fault_ended_ns: u64,
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

/// The beginning of a stall, kept by thread until it ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallStart {
    /// `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
    /// The cgroup that the task was in.
    pub cgroup_id: u64,
    /// Stalls within stalls: reclaim in a task that already waits. Only the outermost is timed.
    pub depth: u64,
}

/// The latest of a thread's file faults. The slot is shared by all threads whose ids have the same low bits, the latest wins:
/// the time of the other one's fault is lost, and that up to its next one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadFault {
    /// The thread's id; 0 for nobody's.
    pub thread: u64,
    /// When it began, `CLOCK_MONOTONIC` ns; 0 once it has ended.
    pub began_ns: u64,
    /// When the last one ended, `CLOCK_MONOTONIC` ns; 0 if none has.
    pub ended_ns: u64,
}

/// See [`Counters::between_faults_ns`]: a thread that has slept for an hour has not rested for more than this, in ns.
pub const MOST_BETWEEN_FAULTS_NS: u64 = 1_000_000_000;

/// When a piece of program text had its last major fault. The slot is shared by all pieces that hash to it, the latest
/// wins: some returns are missed, none is made up but by a collision of 64 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextPiece {
    /// Hash of file, piece and cgroup, see [`text_piece_key`]; 0 for nobody's.
    pub key: u64,
    /// `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
}

/// The key of a piece of text of a file.
#[inline(always)]
#[must_use]
#[expect(clippy::inline_always, reason = "a call between BPF programs costs more than this")]
pub const fn text_piece_key(device: u32, inode: u64, piece: u64, cgroup_id: u64) -> u64 {
    let file = inode ^ (device as u64) << 40;
    let piece = file ^ piece.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let key = (piece ^ cgroup_id.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    key ^ (key >> 32)
}

/// A file whose text came back, by cgroup. A slot is shared by all files that hash to it: the one that comes back most
/// often keeps it, because each return of it adds to its credit, and each of another one takes from it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReturnedFile {
    /// Hash of the members that say whose it is, see [`text_file_key`]: tells a slot that two CPUs took at once. 0 for
    /// nobody's.
    pub key: u64,
    /// `inode->i_ino`
    pub inode: u64,
    pub cgroup_id: u64,
    /// Returns since the slot was taken.
    pub returns: u64,
    /// `inode->i_sb->s_dev`
    pub device: u32,
    /// At most [`MOST_CREDIT`], so that a file of a container that is gone gives its slot away before long.
    pub credit: u32,
}

/// See [`ReturnedFile::credit`].
pub const MOST_CREDIT: u32 = 256;

/// The key of a whole file that a cgroup executes: that of a piece which no file has.
#[inline(always)]
#[must_use]
#[expect(clippy::inline_always, reason = "a call between BPF programs costs more than this")]
pub const fn text_file_key(device: u32, inode: u64, cgroup_id: u64) -> u64 {
    text_piece_key(device, inode, u64::MAX, cgroup_id)
}

/// The bucket of [`Counters::text_returns`] for a piece that comes back after `ns`, if it counts as coming back.
#[inline(always)]
#[must_use]
#[expect(clippy::inline_always, reason = "a call between BPF programs costs more than this")]
pub const fn return_bucket(ns: u64) -> Option<usize> {
    if ns < RETURN_BOUNDS_NS[0] {
        Some(0)
    } else if ns < RETURN_BOUNDS_NS[1] {
        Some(1)
    } else if ns < RETURN_BOUNDS_NS[2] {
        Some(2)
    } else if ns < RETURN_BOUNDS_NS[3] {
        Some(3)
    } else {
        None
    }
}

/// What the hooks could not count or hand over. All zero on a healthy node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records that found no room in the ring. Counters are cumulative, so the next record makes up for a snapshot that
    /// was lost, and what is known of a cgroup that is gone goes with the next walk of the tree. Many of them say that
    /// nobody reads the ring, or not fast enough: cgroups under reclaim are seen late, or not at all.
    pub ring_full: u64,
    /// Events of cgroups that found no place in the map.
    pub cgroups_left_out: u64,
    /// Cycles whose begin found no place in the map: counted, but not timed.
    pub cycles_untimed: u64,
    /// Cycles and stalls that were begun and whose end was never seen.
    pub ends_lost: u64,
    /// Stalls whose begin found no place in the map: not timed.
    pub stalls_untimed: u64,
}

const _: () = {
    assert!(size_of::<Counters>() == 8 * (17 + RETURN_BUCKETS + CYCLE_BUCKETS));
    assert!(size_of::<CgroupEntry>() == size_of::<Counters>() + 64);
    assert!(size_of::<CycleStart>() == 16);
    assert!(size_of::<StallStart>() == 24);
    assert!(size_of::<ThreadFault>() == 24);
    assert!(size_of::<TextPiece>() == 16);
    assert!(size_of::<ReturnedFile>() == 40);
    assert!(size_of::<Losses>() == 40);
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

    #[test]
    fn returns_are_bucketed_by_their_bounds() {
        assert_eq!(return_bucket(0), Some(0));
        for (bucket, bound) in RETURN_BOUNDS_NS.into_iter().enumerate() {
            assert_eq!(return_bucket(bound - 1), Some(bucket));
            assert_eq!(return_bucket(bound), (bucket + 1 < RETURN_BUCKETS).then_some(bucket + 1));
        }
    }

    #[test]
    fn a_piece_of_text_is_one_and_no_other() {
        let key = text_piece_key(8, 1234, 64, 7);
        for other in [
            text_piece_key(8, 1234, 65, 7),
            text_piece_key(8, 1235, 64, 7),
            text_piece_key(8, 1234, 64, 8),
            text_piece_key(9, 1234, 64, 7),
            text_file_key(8, 1234, 7),
        ] {
            assert_ne!(key, other);
        }
        // Pieces of one file spread over the table.
        let slots: std::collections::BTreeSet<u64> =
            (0..512).map(|piece| text_piece_key(8, 1234, piece, 7) & 0x7fff).collect();
        assert!(slots.len() > 480, "{}", slots.len());
    }

    #[test]
    fn a_piece_is_what_a_fault_reads_in() {
        for (read_around, shift) in [(0, 5), (4, 5), (32, 5), (64, 6), (512, 9), (2048, 11), (u32::MAX, 11)] {
            assert_eq!(text_piece_shift(read_around, 12), shift, "{read_around}");
        }
        // 128 KiB and 8 MiB, whatever a page is.
        for (page_shift, least, most) in [(12, 5, 11), (14, 3, 9), (16, 1, 7)] {
            for (read_around, shift) in [(0, least), (1, least), (2048, most), (u32::MAX, most)] {
                assert_eq!(text_piece_shift(read_around, page_shift), shift, "{read_around} at {page_shift}");
            }
        }
        assert_eq!((text_piece_shift(128, 14), text_piece_shift(32, 16)), (7, 5), "2 MiB");
        assert_eq!((text_piece_shift(0, 0), text_piece_shift(u32::MAX, u32::MAX)), (5, 7), "no page has such a size");
    }
}
