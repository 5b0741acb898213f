//! What the engine sees of one cgroup at one instant.

use std::time::Duration;

use memguard_common::RETURN_BUCKETS;
use serde::{Deserialize, Serialize};

/// One look at one cgroup that owns a memory limit. Counts are cumulative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// `CLOCK_MONOTONIC`.
    #[serde(with = "super::ns")]
    pub at: Duration,
    pub memory: Memory,
    pub pressure: Pressure,
    /// `None` where cpu.stat can't be read.
    #[serde(default)]
    pub cpu: Option<Cpu>,
    /// What the tracer counted for the tasks of this cgroup and all below it; `None` without a tracer.
    pub tracer: Option<TracerSample>,
    /// Something below it looks hung at a limit of its own. Nearly all that is read of a cgroup is summed over its
    /// subtree, so that hang shows up here too, and says nothing about this limit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hung_below: bool,
}

/// From cpu.stat, which every cgroup has, whether the cpu controller is on or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Time that its tasks computed in user space, summed over CPUs.
    #[serde(with = "super::ns")]
    pub user: Duration,
    /// ... and in the kernel, reclaim and faults among it.
    #[serde(with = "super::ns")]
    pub system: Duration,
    /// For how long cpu.max of this very cgroup kept its tasks off the CPUs, summed over CPUs (`throttled_usec`). None at all
    /// where the cpu controller is off, and in recordings of older builds.
    #[serde(with = "super::ns", default, skip_serializing_if = "Duration::is_zero")]
    pub throttled: Duration,
}

/// From memory.current, memory.max, memory.stat and memory.events (Documentation/admin-guide/cgroup-v2.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Bytes.
    pub current: u64,
    /// Bytes; `None` for `max`, no limit.
    pub max: Option<u64>,
    /// Bytes; `None` for `max`.
    pub high: Option<u64>,
    /// Bytes of anonymous memory.
    pub anon: u64,
    /// Bytes of page cache, shmem among them.
    pub file: u64,
    /// Bytes of shmem (tmpfs, shared anonymous mappings): counted as file, but there is no file to drop it to.
    pub shmem: u64,
    /// Bytes on the LRU lists of files: what reclaim may drop. Mlocked text and shmem are on others.
    pub active_file: u64,
    pub inactive_file: u64,
    /// Bytes that can't be reclaimed because they are mlocked or otherwise pinned.
    pub unevictable: u64,
    /// Bytes of page cache that are mapped.
    pub file_mapped: u64,
    /// Bytes of page cache that have to be written before they can be dropped, or are being written.
    pub file_dirty: u64,
    pub file_writeback: u64,
    /// Bytes of kernel memory that shrinkers may free, and of what they can't.
    pub slab_reclaimable: u64,
    pub slab_unreclaimable: u64,
    /// Pages that reclaim looked at (`pgscan`).
    pub scans: u64,
    /// Pages that reclaim freed (`pgsteal`).
    pub steals: u64,
    /// Refaulted file pages that went straight to the active list (`workingset_activate_file`), and those that had been
    /// active when they were evicted (`workingset_restore_file`).
    pub activates: u64,
    pub restores: u64,
    /// File pages that came back after they had been evicted (`workingset_refault_file`).
    pub refaults: u64,
    /// `pgmajfault`.
    pub major_faults: u64,
    /// Times that the limit was about to be exceeded (`max` of memory.events).
    pub max_events: u64,
    /// Times that processes were throttled at memory.high (`high`).
    pub high_events: u64,
    /// Times that an allocation was about to fail (`oom`).
    pub oom_events: u64,
    /// Processes that the kernel's OOM killer ended (`oom_kill`).
    pub oom_kills: u64,
    /// What happened at the limits of this very cgroup; `None` before kernel 5.3, and in recordings that are older than
    /// this. The counts above are those of the whole subtree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalEvents>,
}

/// From memory.events.local. `max`, `high` and `oom` count where the limit is, `oom_kill` where the process was that
/// died, whoever's limit it was for (`mem_cgroup_oom()`, `__oom_kill_process()`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalEvents {
    pub max: u64,
    pub high: u64,
    pub oom: u64,
    pub oom_kills: u64,
}

impl LocalEvents {
    /// Times that a limit of this very cgroup was about to be exceeded.
    #[must_use]
    pub const fn limit_hits(&self) -> u64 {
        self.max.saturating_add(self.high)
    }

    /// Times that the kernel's OOM killer was asked for this very limit, or ended a process of this very cgroup.
    #[must_use]
    pub const fn ooms(&self) -> u64 {
        self.oom.saturating_add(self.oom_kills)
    }
}

/// Cumulative stall time of a resource from its PSI file (Documentation/accounting/psi.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// At least one task waited.
    #[serde(with = "super::ns")]
    pub some: Duration,
    /// All non-idle tasks waited.
    #[serde(with = "super::ns")]
    pub full: Duration,
}

/// PSI of the cgroup; `None` where the kernel does not offer it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    pub memory: Option<Stall>,
    pub io: Option<Stall>,
    /// Tasks that could run and have no CPU, be it because others have it or because of cpu.max. Not in recordings of older
    /// builds.
    pub cpu: Option<Stall>,
}

/// What the tracer counted. A member is `None` when no hook that gives it is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TracerSample {
    pub reclaim: Option<ReclaimSample>,
    /// File faults.
    pub faults: Option<u64>,
    /// File faults on executable mappings; the major ones where they can be told, else all.
    pub text_faults: Option<u64>,
    /// Major file faults.
    pub major_faults: Option<u64>,
    /// Major faults on text that had one not long before, cumulative by age: within 0.25, 2, 8 and 32 s
    /// ([`memguard_common::counters::RETURN_BOUNDS_NS`]).
    pub text_returns: Option<[u64; RETURN_BUCKETS]>,
    /// Those of `refaults` that belong to files which are executed.
    pub text_refaults: Option<u64>,
    /// Not in recordings of older builds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault_time: Option<FaultTime>,
    /// Time that tasks lost for want of memory.
    pub stall: Option<StallSample>,
    /// Pages.
    pub refaults: Option<u64>,
    pub oom_victims: Option<u64>,
}

/// Time between `psi_memstall_enter()` and `psi_memstall_leave()`, as the tracer took it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallSample {
    /// ns, summed over tasks.
    pub task_ns: u64,
    /// ns of wall time with at least one task stalled.
    pub wall_ns: u64,
}

/// Time in file faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultTime {
    /// ns in `filemap_fault()`, summed over tasks.
    pub in_ns: u64,
    /// ns that the same tasks spent between two of these, at most a second each time
    /// ([`memguard_common::counters::MOST_BETWEEN_FAULTS_NS`]).
    pub between_ns: u64,
    /// ns of wall time with at least one task in one, where they come one after the other; less where they overlap
    /// ([`memguard_common::Counters::fault_wall_ns`]). Not in recordings of older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ns: Option<u64>,
}

/// Memcg reclaim cycles, as the tracer counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimSample {
    pub cycles: u64,
    /// Cycles that freed nothing.
    pub empty_cycles: u64,
    pub pages: u64,
    /// ns, summed over tasks.
    pub task_ns: u64,
    /// ns of wall time with at least one task in reclaim.
    pub wall_ns: u64,
}

/// Which limit a cgroup is up against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// memory.max: a charge that does not fit reclaims, and asks the OOM killer when nothing can be reclaimed.
    #[default]
    Max,
    /// memory.high, below memory.max: what is charged above it reclaims and is throttled, and nobody is ever killed
    /// (Documentation/admin-guide/cgroup-v2.rst).
    High,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Max => "memory.max",
            Self::High => "memory.high",
        })
    }
}

impl Memory {
    /// The limit that is reached first, in bytes, and which one it is; `None` without any.
    #[must_use]
    pub const fn limit(&self) -> Option<(u64, Limit)> {
        match (self.max, self.high) {
            (Some(max), Some(high)) if high < max => Some((high, Limit::High)),
            (Some(max), _) => Some((max, Limit::Max)),
            (None, Some(high)) => Some((high, Limit::High)),
            (None, None) => None,
        }
    }

    /// Times that a limit was about to be exceeded, here or below.
    #[must_use]
    pub const fn limit_hits(&self) -> u64 {
        self.max_events.saturating_add(self.high_events)
    }

    /// Times that the kernel's OOM killer was asked or acted: for this limit alone where that is told, and else in the
    /// whole subtree. One that ends what hits a smaller limit further down does nothing for this one.
    #[must_use]
    pub const fn ooms(&self) -> u64 {
        match self.local {
            Some(local) => local.ooms(),
            None => self.oom_events.saturating_add(self.oom_kills),
        }
    }

    /// Bytes that reclaim cannot free without swap: anonymous memory and shmem.
    #[must_use]
    pub const fn unreclaimable(&self) -> u64 {
        self.anon.saturating_add(self.shmem)
    }

    /// Bytes of page cache that a file stands behind.
    #[must_use]
    pub const fn page_cache(&self) -> u64 {
        self.file.saturating_sub(self.shmem)
    }
}
