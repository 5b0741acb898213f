//! Records of the ring buffer.

use crate::counters::Counters;

/// What a record tells.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The counters of a cgroup at the end of a reclaim cycle.
    Snapshot = 1,
    /// The kernel's OOM killer picked a victim in this cgroup.
    OomVictim = 2,
    /// A cgroup was removed of which a snapshot had been sent.
    CgroupRemoved = 3,
}

impl Kind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Snapshot),
            2 => Some(Self::OomVictim),
            3 => Some(Self::CgroupRemoved),
            _ => None,
        }
    }
}

/// How every record begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// A [`Kind`].
    pub kind: u32,
    /// Size of the whole record in bytes: a check that both sides were built from the same source.
    pub size: u32,
    /// `CLOCK_MONOTONIC`, in ns.
    pub at_ns: u64,
    /// The cgroup that the record is about: inode number of its folder in cgroup v2.
    pub cgroup_id: u64,
}

/// A record of kind [`Kind::Snapshot`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub header: RecordHeader,
    pub counters: Counters,
    /// See [`CgroupEntry::limit_owner`](crate::counters::CgroupEntry::limit_owner).
    pub limit_owner: u64,
    /// See [`CgroupEntry::tasks_in_reclaim`](crate::counters::CgroupEntry::tasks_in_reclaim).
    pub tasks_in_reclaim: u64,
}

const _: () = {
    assert!(size_of::<RecordHeader>() == 24);
    assert!(size_of::<Snapshot>() == 24 + size_of::<Counters>() + 16);
    assert!(align_of::<Snapshot>() == 8);
};

/// A record as read from the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are snapshots, and none is kept")]
pub enum Record {
    Snapshot(Snapshot),
    OomVictim(RecordHeader),
    CgroupRemoved(RecordHeader),
}
