//! The constants that the loader sets, see [`memguard_common::globals`].

use aya_ebpf::Global;
use memguard_common::{globals::ABSENT, maps::DEFAULT_SLOTS};

macro_rules! globals {
    ($($name:ident: $type:ty = $value:expr),+ $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            pub static $name: Global<$type> = Global::new($value);
        )+
    };
}

globals! {
    SLOT_MASK: u32 = DEFAULT_SLOTS - 1,
    SNAPSHOT_INTERVAL_NS: u64 = 100_000_000,
    WAKE_INTERVAL_NS: u64 = 100_000_000,
    PAGE_SHIFT: u32 = 12,
    VM_FAULT_VMA: u32 = ABSENT,
    VM_FAULT_FLAGS: u32 = ABSENT,
    VM_FAULT_PGOFF: u32 = ABSENT,
    VMA_FLAGS: u32 = ABSENT,
    VMA_FILE: u32 = ABSENT,
    FILE_INODE: u32 = ABSENT,
    FILE_RA_PAGES: u32 = ABSENT,
    INODE_NUMBER: u32 = ABSENT,
    INODE_SB: u32 = ABSENT,
    SB_DEV: u32 = ABSENT,
    FAULT_MAJOR: u32 = 0,
    FAULT_RETRY: u32 = 0,
    FAULT_TRIED: u32 = 0,
    FOLIO_FLAGS: u32 = ABSENT,
    FOLIO_MAPPING: u32 = ABSENT,
    MAPPING_HOST: u32 = ABSENT,
    FOLIO_NR_PAGES: u32 = ABSENT,
    PG_HEAD: u32 = ABSENT,
    PG_SWAPBACKED: u32 = ABSENT,
    MEMCG_CGROUP: u32 = ABSENT,
    CGROUP_KN: u32 = ABSENT,
    CGROUP_ROOT: u32 = ABSENT,
    ROOT_HIERARCHY: u32 = ABSENT,
    KERNFS_ID: u32 = ABSENT,
    TASK_CGROUPS: u32 = ABSENT,
    CSS_SET_DFL_CGRP: u32 = ABSENT,
    MARK_VICTIM_HAS_TASK: u32 = 0,
}
