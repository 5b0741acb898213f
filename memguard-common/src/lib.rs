//! What the eBPF object and user space share: the layout of maps, ring records and load-time constants.
//!
//! Every type here is `#[repr(C)]`, has no implicit padding, and its size is asserted, because one side is compiled for
//! the BPF target and the other for the host. All counters are cumulative from the first event of a cgroup and are
//! never reset while its map entry lives, so a lost ring record loses nothing.
#![cfg_attr(not(any(feature = "std", test)), no_std)]

pub mod counters;
pub mod globals;
pub mod record;

pub use counters::{CYCLE_BUCKETS, Counters, Losses, cycle_bucket, cycle_bucket_floor_ns};
pub use record::{Kind, Record, RecordHeader};

/// Names of the maps in the eBPF object, as user space looks them up.
pub mod maps {
    /// Hash: cgroup id (`u64`) to [`CgroupEntry`](crate::counters::CgroupEntry).
    pub const CGROUPS: &str = "CGROUPS";
    /// Hash: thread id (`u32`) to [`CycleStart`](crate::counters::CycleStart), one entry for each task in reclaim.
    pub const CYCLE_STARTS: &str = "CYCLE_STARTS";
    /// Ring buffer of [`Record`](crate::record::Record)s.
    pub const RING: &str = "RING";
    /// Array of one [`Losses`](crate::counters::Losses).
    pub const LOSSES: &str = "LOSSES";
    /// Array of one `u64`: `CLOCK_MONOTONIC` ns of the last wake-up sent to user space.
    pub const LAST_WAKE: &str = "LAST_WAKE";

    /// Cgroups that can be counted at once, unless the loader says otherwise. Entries are preallocated, so that a hook
    /// never allocates while memory is short: 4096 take about 1.7 MiB of kernel memory.
    pub const DEFAULT_CGROUPS: u32 = 4096;
    /// Tasks that can be in memcg reclaim at once, node-wide, with their cycle timed.
    pub const DEFAULT_CYCLE_STARTS: u32 = 8192;
    /// Size of the ring in bytes. It is mapped twice into user space and counts there as resident once touched.
    pub const DEFAULT_RING_BYTES: u32 = 256 * 1024;
}
