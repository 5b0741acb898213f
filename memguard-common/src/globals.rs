//! Load-time constants of the eBPF object.
//!
//! Each is a read-only variable of the object that the loader overrides by name before the programs are verified, so
//! the verifier and the JIT see constants. Struct member offsets come from the running kernel's BTF.

macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $($(#[$doc])* pub const $name: &str = stringify!($name);)+
        /// All of them, for a test that the object and the loader agree.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

globals! {
    /// Number of slots of the table of cgroups, less one.
    SLOT_MASK,
    /// Shortest time between two snapshots of one cgroup, ns.
    SNAPSHOT_INTERVAL_NS,
    /// Shortest time between two wake-ups of user space, for the whole node, ns.
    WAKE_INTERVAL_NS,
    /// Logarithm of the size of a page in bytes: 12, and 14 or 16 on some arm64 kernels.
    PAGE_SHIFT,
    /// Offset of `vma` in `struct vm_fault`.
    VM_FAULT_VMA,
    /// Offset of `flags` in `struct vm_fault`.
    VM_FAULT_FLAGS,
    /// Offset of `pgoff` in `struct vm_fault`.
    VM_FAULT_PGOFF,
    /// Offset of `vm_file` in `struct vm_area_struct`.
    VMA_FILE,
    /// Offset of `f_inode` in `struct file`.
    FILE_INODE,
    /// Offset of `f_ra.ra_pages` in `struct file`, or [`ABSENT`].
    FILE_RA_PAGES,
    /// Offset of `i_ino` in `struct inode`.
    INODE_NUMBER,
    /// Offset of `i_sb` in `struct inode`.
    INODE_SB,
    /// Offset of `s_dev` in `struct super_block`.
    SB_DEV,
    /// Offset of `vm_flags` in `struct vm_area_struct`.
    VMA_FLAGS,
    /// Value of `VM_FAULT_MAJOR`.
    FAULT_MAJOR,
    /// Value of `VM_FAULT_RETRY`.
    FAULT_RETRY,
    /// Value of `FAULT_FLAG_TRIED`.
    FAULT_TRIED,
    /// Offset of `flags` in `struct folio`.
    FOLIO_FLAGS,
    /// Offset of `mapping` in `struct folio`.
    FOLIO_MAPPING,
    /// Offset of `host` in `struct address_space`.
    MAPPING_HOST,
    /// Offset of the page count of a large folio in `struct folio`, or [`ABSENT`].
    FOLIO_NR_PAGES,
    /// Bit number of `PG_head` in the folio's flags, or [`ABSENT`].
    PG_HEAD,
    /// Bit number of `PG_swapbacked` in the folio's flags.
    PG_SWAPBACKED,
    /// Offset of `css.cgroup` in `struct mem_cgroup`.
    MEMCG_CGROUP,
    /// Offset of `kn` in `struct cgroup`.
    CGROUP_KN,
    /// Offset of `root` in `struct cgroup`.
    CGROUP_ROOT,
    /// Offset of `hierarchy_id` in `struct cgroup_root`.
    ROOT_HIERARCHY,
    /// Offset of `id` in `struct kernfs_node`.
    KERNFS_ID,
    /// Offset of `cgroups` in `struct task_struct`.
    TASK_CGROUPS,
    /// Offset of `dfl_cgrp` in `struct css_set`.
    CSS_SET_DFL_CGRP,
    /// 1 if `mark_victim` hands over the task (6.8 and newer), 0 if only its pid.
    MARK_VICTIM_HAS_TASK,
}

/// Stands for an offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;
