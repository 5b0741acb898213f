//! Refaults: file pages that were evicted and came back.

use aya_ebpf::{
    helpers::bpf_get_current_cgroup_id,
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use crate::{
    atomic,
    kernel::{Memory, Probed, Typed, file_folio_pages},
    maps::entry,
};

#[inline(always)]
unsafe fn count<M: Memory>(folio: *const u8) {
    let pages = unsafe { file_folio_pages::<M>(folio) };
    if pages == 0 {
        return;
    }
    if let Some(entry) = entry(unsafe { bpf_get_current_cgroup_id() }) {
        unsafe { atomic::add(&raw mut (*entry).counters.refaults, pages) };
    }
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
