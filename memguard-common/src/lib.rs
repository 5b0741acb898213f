//! What the eBPF object and user space share: the layout of maps, ring records and load-time constants.
//!
//! Every type here is `#[repr(C)]`, has no implicit padding, and its size is asserted, because one side is compiled for
//! the BPF target and the other for the host. All counters are cumulative from the first event of a cgroup and are
//! never reset while its map entry lives, so a lost ring record loses nothing.
#![cfg_attr(not(any(feature = "std", test)), no_std)]

pub mod counters;
pub mod globals;
pub mod record;

pub use counters::{CYCLE_BUCKETS, Counters, Losses, RETURN_BUCKETS, cycle_bucket, cycle_bucket_floor_ns};
pub use record::{Kind, Record, RecordHeader};

/// Names of the maps in the eBPF object, as user space looks them up.
pub mod maps {
    /// Array of [`CgroupEntry`](crate::counters::CgroupEntry), used as a hash table, see [`home_slot`].
    pub const CGROUPS: &str = "CGROUPS";
    /// Hash: thread id (`u32`) to [`CycleStart`](crate::counters::CycleStart), one entry for each task in reclaim.
    pub const CYCLE_STARTS: &str = "CYCLE_STARTS";
    /// Hash: thread id (`u32`) to [`StallStart`](crate::counters::StallStart), one entry for each stalled task.
    pub const STALL_STARTS: &str = "STALL_STARTS";
    /// Array of [`ThreadFault`](crate::counters::ThreadFault), by the low bits of the thread's id.
    pub const THREAD_FAULTS: &str = "THREAD_FAULTS";
    /// Array of [`TextPiece`](crate::counters::TextPiece), used as a hash table without chains.
    pub const TEXT_PIECES: &str = "TEXT_PIECES";
    /// Array of `u64`: [keys](crate::counters::text_file_key) of files that are executed, used as a hash table without
    /// chains.
    pub const TEXT_FILES: &str = "TEXT_FILES";
    /// Array of [`ReturnedFile`](crate::counters::ReturnedFile), used as a hash table without chains.
    pub const RETURNED_FILES: &str = "RETURNED_FILES";
    /// Ring buffer of [`Record`](crate::record::Record)s.
    pub const RING: &str = "RING";
    /// Array of one [`Losses`](crate::counters::Losses).
    pub const LOSSES: &str = "LOSSES";
    /// Array of one `u64`: `CLOCK_MONOTONIC` ns of the last wake-up sent to user space.
    pub const LAST_WAKE: &str = "LAST_WAKE";

    /// Slots of the table of cgroups, a power of two, unless the loader says otherwise. They are preallocated, so that a
    /// hook never allocates while memory is short: 8192 take 3 MiB of kernel memory.
    pub const DEFAULT_SLOTS: u32 = 8192;
    /// A cgroup's slot is its home or one of the next ones, so many in all. One that finds none of its slots free is
    /// counted as left out: in a table that is half full, less than one in a hundred.
    pub const PROBES: u32 = 8;

    /// The first slot to look at for a cgroup, to be masked with the number of slots.
    ///
    /// Ids are counted up by the kernel, for each file of a cgroup too, so those of cgroups made alike are a fixed stride
    /// apart. Neither their low bits nor one multiplication spreads every stride: two do.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::inline_always, reason = "a call between BPF programs costs more than this")]
    pub const fn home_slot(cgroup_id: u64) -> u32 {
        let hash = cgroup_id.wrapping_mul(0xff51_afd7_ed55_8ccd);
        let hash = (hash ^ (hash >> 32)).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        (hash >> 32) as u32
    }

    /// Tasks that can be in memcg reclaim at once, node-wide, with their cycle timed.
    pub const DEFAULT_CYCLE_STARTS: u32 = 8192;
    /// Tasks that can be stalled at once, node-wide, with their stall timed.
    pub const DEFAULT_STALL_STARTS: u32 = 8192;
    /// Threads that can have file faults, node-wide, with their time taken; a power of two. Ids are given one after the other,
    /// so of few threads hardly two have the same low bits. They take 384 KiB.
    pub const THREAD_FAULTS_SLOTS: u32 = 16384;
    /// Pieces of program text that are remembered, node-wide; a power of two. They take 512 KiB.
    pub const TEXT_PIECES_SLOTS: u32 = 32768;
    /// Files that are executed, once for each cgroup that does, node-wide; a power of two. They take 128 KiB.
    pub const TEXT_FILES_SLOTS: u32 = 16384;
    /// Files with text that came back, node-wide; a power of two. They take 40 KiB.
    pub const RETURNED_FILES_SLOTS: u32 = 1024;
    /// Size of the ring in bytes. It is mapped twice into user space and counts there as resident once touched.
    pub const DEFAULT_RING_BYTES: u32 = 256 * 1024;
}

#[cfg(test)]
mod tests {
    use super::maps::{DEFAULT_SLOTS, PROBES, home_slot};

    /// Puts ids into a table as the hooks do, and counts those that find no place.
    fn left_out(ids: impl Iterator<Item = u64>) -> usize {
        let mut taken = vec![false; DEFAULT_SLOTS as usize];
        ids.filter(|id| {
            let slots = (0..PROBES).map(|probe| (home_slot(*id).wrapping_add(probe) & (DEFAULT_SLOTS - 1)) as usize);
            match slots.into_iter().find(|slot| !taken[*slot]) {
                Some(slot) => {
                    taken[slot] = true;
                    false
                }
                None => true,
            }
        })
        .count()
    }

    /// A multiplicative hash: ids that have nothing to do with each other.
    fn scattered(count: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20)
    }

    #[test]
    fn half_a_table_takes_nearly_everybody() {
        let half = u64::from(DEFAULT_SLOTS) / 2;
        let nearly_all = |ids: &mut dyn Iterator<Item = u64>| left_out(ids) * 100 < half as usize;
        // A cgroup has some 30 to 60 files, and a pod is two or three cgroups.
        for stride in 1..=384 {
            for first in [1000, (3 << 32) + 77] {
                let mut ids = (0..half).map(|i| first + stride * i);
                assert!(nearly_all(&mut ids), "ids {stride} apart from {first} on");
            }
        }
        let mut generations = (0..half).map(|i| (i << 32) + 4711);
        assert!(nearly_all(&mut generations), "one inode number given again and again");
        assert!(nearly_all(&mut scattered(half)), "in no order");
    }

    #[test]
    fn a_table_with_much_room_takes_everybody() {
        for (part, most) in [(16, 0), (4, 2)] {
            for stride in 1..=384 {
                let ids = (0..u64::from(DEFAULT_SLOTS) / part).map(|i| 1000 + stride * i);
                assert!(left_out(ids) <= most, "ids {stride} apart, one part in {part}");
            }
        }
    }
}
