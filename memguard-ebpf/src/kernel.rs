//! Reading kernel structures through offsets that the loader took from the running kernel's BTF.

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};
use memguard_common::globals::ABSENT;

use crate::globals::{
    CGROUP_KN, CGROUP_ROOT, CSS_SET_DFL_CGRP, FILE_INODE, FILE_RA_PAGES, FOLIO_FLAGS, FOLIO_MAPPING, FOLIO_NR_PAGES,
    INODE_NUMBER, INODE_SB, KERNFS_ID, MAPPING_HOST, MEMCG_CGROUP, PG_HEAD, PG_SWAPBACKED, ROOT_HIERARCHY, SB_DEV,
    TASK_CGROUPS, VM_FAULT_FLAGS, VM_FAULT_PGOFF, VM_FAULT_VMA, VMA_FILE, VMA_FLAGS,
};

/// `VM_EXEC` of include/linux/mm.h: a macro, so not in BTF; the same value on every architecture and kernel since 1.0.
const VM_EXEC: u64 = 0x4;

/// How kernel memory is read.
pub trait Memory {
    /// The value of type `T` at `base + offset`, or 0 where it cannot be read.
    unsafe fn read<T: Copy + Default>(base: *const u8, offset: &Global<u32>) -> T;
}

/// A plain load. Only through pointers whose type the verifier knows from BTF (arguments of BTF tracepoints and
/// fentry, and what is reached from them): it checks each load when the program is loaded, and the kernel's exception
/// table turns a bad pointer into 0.
pub struct Typed;

/// `bpf_probe_read_kernel()`, for pointers that come out of registers (kprobes).
pub struct Probed;

impl Memory for Typed {
    #[inline(always)]
    unsafe fn read<T: Copy + Default>(base: *const u8, offset: &Global<u32>) -> T {
        unsafe { base.add(offset.load() as usize).cast::<T>().read_volatile() }
    }
}

impl Memory for Probed {
    #[inline(always)]
    unsafe fn read<T: Copy + Default>(base: *const u8, offset: &Global<u32>) -> T {
        unsafe { bpf_probe_read_kernel(base.add(offset.load() as usize).cast::<T>()) }.unwrap_or_default()
    }
}

/// A pointer cannot implement `Default`, so it is read as its address.
#[inline(always)]
unsafe fn pointer<M: Memory>(base: *const u8, offset: &Global<u32>) -> *const u8 {
    unsafe { M::read::<usize>(base, offset) as *const u8 }
}

/// `vmf->vma->vm_flags & VM_EXEC`: is this a fault on program text?
#[inline(always)]
pub unsafe fn fault_on_text<M: Memory>(vmf: *const u8) -> bool {
    let vma = unsafe { pointer::<M>(vmf, &VM_FAULT_VMA) };
    !vma.is_null() && unsafe { M::read::<u64>(vma, &VMA_FLAGS) } & VM_EXEC != 0
}

/// A page of a file.
pub struct FilePage {
    /// `inode->i_sb->s_dev`
    pub device: u32,
    /// `inode->i_ino`
    pub inode: u64,
    /// In pages.
    pub index: u64,
    /// Pages that a fault reads around itself, `file->f_ra.ra_pages`; 0 where that is not known.
    pub read_around: u32,
}

/// The page that a fault is for: `vmf->vma->vm_file->f_inode` and `vmf->pgoff`.
///
/// The inode is told by its number: its address would be a typed pointer, which the verifier lets nobody compute with.
#[inline(always)]
pub unsafe fn fault_page<M: Memory>(vmf: *const u8) -> Option<FilePage> {
    let vma = unsafe { pointer::<M>(vmf, &VM_FAULT_VMA) };
    if vma.is_null() {
        return None;
    }
    let file = unsafe { pointer::<M>(vma, &VMA_FILE) };
    if file.is_null() {
        return None;
    }
    let inode = unsafe { pointer::<M>(file, &FILE_INODE) };
    if inode.is_null() {
        return None;
    }
    let superblock = unsafe { pointer::<M>(inode, &INODE_SB) };
    if superblock.is_null() {
        return None;
    }
    Some(unsafe {
        FilePage {
            device: M::read(superblock, &SB_DEV),
            inode: M::read(inode, &INODE_NUMBER),
            index: M::read(vmf, &VM_FAULT_PGOFF),
            read_around: if FILE_RA_PAGES.load() == ABSENT { 0 } else { M::read(file, &FILE_RA_PAGES) },
        }
    })
}

/// `vmf->flags`.
#[inline(always)]
pub unsafe fn fault_flags<M: Memory>(vmf: *const u8) -> u32 {
    unsafe { M::read::<u32>(vmf, &VM_FAULT_FLAGS) }
}

/// Pages of a folio that belongs to a file, or 0 for anonymous and shmem folios.
///
/// The kernel tells them apart by `PG_swapbacked` (`folio_is_file_lru()`), and a folio of one page has no `PG_head`
/// and no page count of its own (`folio_nr_pages()`).
#[inline(always)]
pub unsafe fn file_folio_pages<M: Memory>(folio: *const u8) -> u64 {
    let flags = unsafe { M::read::<u64>(folio, &FOLIO_FLAGS) };
    if flags >> (PG_SWAPBACKED.load() & 63) & 1 != 0 {
        return 0;
    }
    if FOLIO_NR_PAGES.load() == ABSENT || PG_HEAD.load() == ABSENT || flags >> (PG_HEAD.load() & 63) & 1 == 0 {
        return 1;
    }
    u64::from(unsafe { M::read::<u32>(folio, &FOLIO_NR_PAGES) })
}

/// The file that a folio belongs to: `folio->mapping->host`, as device and number of its inode.
///
/// Set already when `filemap_add_folio()` calls `workingset_refault()`: `__filemap_add_folio()` comes first.
#[inline(always)]
pub unsafe fn folio_file<M: Memory>(folio: *const u8) -> Option<(u32, u64)> {
    let mapping = unsafe { pointer::<M>(folio, &FOLIO_MAPPING) };
    if mapping.is_null() {
        return None;
    }
    let inode = unsafe { pointer::<M>(mapping, &MAPPING_HOST) };
    if inode.is_null() {
        return None;
    }
    let superblock = unsafe { pointer::<M>(inode, &INODE_SB) };
    if superblock.is_null() {
        return None;
    }
    Some(unsafe { (M::read(superblock, &SB_DEV), M::read(inode, &INODE_NUMBER)) })
}

/// `cgrp->kn->id`.
#[inline(always)]
pub unsafe fn cgroup_id<M: Memory>(cgroup: *const u8) -> u64 {
    if cgroup.is_null() {
        return 0;
    }
    let kn = unsafe { pointer::<M>(cgroup, &CGROUP_KN) };
    if kn.is_null() { 0 } else { unsafe { M::read::<u64>(kn, &KERNFS_ID) } }
}

/// Whether a cgroup is one of v2: `cgrp->root->hierarchy_id` is 0. Those of v1 are counted from 1.
#[inline(always)]
pub unsafe fn is_v2<M: Memory>(cgroup: *const u8) -> bool {
    if cgroup.is_null() {
        return false;
    }
    let root = unsafe { pointer::<M>(cgroup, &CGROUP_ROOT) };
    !root.is_null() && unsafe { M::read::<u32>(root, &ROOT_HIERARCHY) } == 0
}

/// `memcg->css.cgroup->kn->id`.
#[inline(always)]
pub unsafe fn memcg_id<M: Memory>(memcg: *const u8) -> u64 {
    if memcg.is_null() {
        return 0;
    }
    unsafe { cgroup_id::<M>(pointer::<M>(memcg, &MEMCG_CGROUP)) }
}

/// `task->cgroups->dfl_cgrp->kn->id`: the task's cgroup in the v2 hierarchy.
#[inline(always)]
pub unsafe fn task_cgroup_id<M: Memory>(task: *const u8) -> u64 {
    if task.is_null() {
        return 0;
    }
    let css_set = unsafe { pointer::<M>(task, &TASK_CGROUPS) };
    if css_set.is_null() {
        return 0;
    }
    unsafe { cgroup_id::<M>(pointer::<M>(css_set, &CSS_SET_DFL_CGRP)) }
}
