//! Refaults: file pages that were evicted and came back.

use aya_ebpf::{
    helpers::bpf_get_current_cgroup_id,
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use memguard_common::{counters::text_file_key, maps::TEXT_FILES_SLOTS};

use crate::{
    atomic,
    kernel::{Memory, Probed, Typed, file_folio_pages, folio_file},
    maps::{TEXT_FILES, entry},
};

#[inline(always)]
unsafe fn count<M: Memory>(folio: *const u8) {
    let pages = unsafe { file_folio_pages::<M>(folio) };
    if pages == 0 {
        return;
    }
    let cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    let Some(entry) = entry(cgroup_id) else { return };
    unsafe { atomic::add(&raw mut (*entry).counters.refaults, pages) };
    if unsafe { is_text::<M>(folio, cgroup_id) } {
        unsafe { atomic::add(&raw mut (*entry).counters.text_refaults, pages) };
    }
}

/// Whether the folio is of a file that the cgroup executes. Which mapping it is read for can't be told here, so that is
/// what the hook of major faults has seen.
#[inline(always)]
unsafe fn is_text<M: Memory>(folio: *const u8, cgroup_id: u64) -> bool {
    let Some((device, inode)) = (unsafe { folio_file::<M>(folio) }) else { return false };
    let key = text_file_key(device, inode, cgroup_id);
    TEXT_FILES.get(key as u32 & (TEXT_FILES_SLOTS - 1)).is_some_and(|known| *known == key)
}

/// `workingset_refault(struct folio *, void *shadow)`.
#[fentry(function = "workingset_refault")]
pub fn refault_fentry(ctx: FEntryContext) -> i32 {
    unsafe { count::<Typed>(ctx.arg(0)) };
    0
}

#[kprobe(function = "workingset_refault")]
pub fn refault_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(folio) = ctx.arg(0) {
        unsafe { count::<Probed>(folio) };
    }
    0
}
