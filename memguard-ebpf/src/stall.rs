//! Time that tasks lose for want of memory: in reclaim, waiting for pages that were evicted a moment ago, throttled.
//!
//! The kernel marks these spans for PSI with `psi_memstall_enter()` and `psi_memstall_leave()` (kernel/sched/psi.c),
//! and calls them whether PSI is switched on (psi=0, cgroup.pressure) or not.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use memguard_common::counters::{CgroupEntry, StallStart};

use crate::{
    atomic,
    maps::{STALL_STARTS, entry, find, lose},
    span::Span,
};

#[inline(always)]
unsafe fn span(entry: *mut CgroupEntry) -> Span {
    unsafe {
        Span {
            tasks: &raw mut (*entry).tasks_stalled,
            accounted_ns: &raw mut (*entry).stall_accounted_ns,
            wall_ns: &raw mut (*entry).counters.stall_wall_ns,
        }
    }
}

/// No stall within a stall begins so long after the outermost did, in ns. If one seems to, the end of the outermost was
/// never seen: the kernel skips a program that is entered again on a CPU where it has not finished, and a thread may have
/// been given the id of one that is gone.
const STALE_NS: u64 = 60_000_000_000;

#[inline(always)]
fn enter() {
    let thread = bpf_get_current_pid_tgid() as u32;
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(start) = STALL_STARTS.get_ptr_mut(thread) {
        let StallStart { at_ns, cgroup_id, .. } = unsafe { *start };
        if now.saturating_sub(at_ns) < STALE_NS {
            unsafe { (*start).depth += 1 };
            return;
        }
        // Take it back, or the cgroup would seem to be stalled for ever, and no stall of this thread would be timed any
        // more.
        let _ = STALL_STARTS.remove(thread);
        let stale_entry = find(cgroup_id);
        if !stale_entry.is_null() {
            unsafe { span(stale_entry).forget() };
        }
        lose(|losses| unsafe { &raw mut (*losses).ends_lost });
    }
    let cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    let Some(entry) = entry(cgroup_id) else { return };
    let start = StallStart { at_ns: now, cgroup_id, depth: 1 };
    if STALL_STARTS.insert(thread, start, u64::from(BPF_ANY)).is_err() {
        lose(|losses| unsafe { &raw mut (*losses).stalls_untimed });
        return;
    }
    unsafe { span(entry).enter(now) };
}

#[inline(always)]
fn leave() {
    let thread = bpf_get_current_pid_tgid() as u32;
    // A stall that began before the other program was attached has no start. This one is attached first, so that there is
    // no start without an end.
    let Some(start) = STALL_STARTS.get_ptr_mut(thread) else { return };
    let StallStart { at_ns, cgroup_id, depth } = unsafe { *start };
    if depth > 1 {
        unsafe { (*start).depth = depth - 1 };
        return;
    }
    let _ = STALL_STARTS.remove(thread);
    let entry = find(cgroup_id);
    if entry.is_null() {
        return;
    }
    let now = unsafe { bpf_ktime_get_ns() };
    unsafe {
        atomic::add(&raw mut (*entry).counters.stall_ns, now.saturating_sub(at_ns));
        span(entry).leave(now);
    }
}

/// `psi_memstall_enter(unsigned long *flags)`.
#[fentry(function = "psi_memstall_enter")]
pub fn stall_enter_fentry(_ctx: FEntryContext) -> i32 {
    enter();
    0
}

/// `psi_memstall_leave(unsigned long *flags)`.
#[fentry(function = "psi_memstall_leave")]
pub fn stall_leave_fentry(_ctx: FEntryContext) -> i32 {
    leave();
    0
}

#[kprobe(function = "psi_memstall_enter")]
pub fn stall_enter_kprobe(_ctx: ProbeContext) -> u32 {
    enter();
    0
}

#[kprobe(function = "psi_memstall_leave")]
pub fn stall_leave_kprobe(_ctx: ProbeContext) -> u32 {
    leave();
    0
}
