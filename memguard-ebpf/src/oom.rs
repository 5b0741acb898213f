//! Victims of the kernel's own OOM killer.

use aya_ebpf::{
    bindings::BPF_RB_FORCE_WAKEUP,
    helpers::{bpf_get_current_cgroup_id, bpf_ktime_get_ns},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use memguard_common::{Kind, RecordHeader};

use crate::{
    atomic,
    globals::MARK_VICTIM_HAS_TASK,
    kernel::{Typed, task_cgroup_id},
    maps::{RING, entry, lose},
};

/// `mark_victim(struct task_struct *, uid_t)`; before 6.8, and before later stable releases of 6.1 and 6.6,
/// `mark_victim(int pid)` (kernel commit 72ba14deb40a).
///
/// With only the pid at hand the event is booked on the cgroup of the task that ran out of memory, which in a memcg
/// OOM is in the same limit's subtree.
#[btf_tracepoint(function = "mark_victim")]
pub fn oom_victim(ctx: BtfTracePointContext) -> i32 {
    let cgroup_id = if MARK_VICTIM_HAS_TASK.load() == 1 {
        unsafe { task_cgroup_id::<Typed>(ctx.arg(0)) }
    } else {
        unsafe { bpf_get_current_cgroup_id() }
    };
    if let Some(entry) = entry(cgroup_id) {
        unsafe { atomic::add(&raw mut (*entry).counters.oom_victims, 1) };
    }
    debug!(&ctx, "the kernel's OOM killer chose a victim in cgroup {}", cgroup_id);
    send(Kind::OomVictim, cgroup_id, u64::from(BPF_RB_FORCE_WAKEUP));
    0
}

/// Sends a record that has nothing but its header.
#[inline(always)]
pub fn send(kind: Kind, cgroup_id: u64, wake_flag: u64) {
    let Some(mut slot) = RING.reserve::<RecordHeader>(0) else {
        lose(|losses| unsafe { &raw mut (*losses).ring_full });
        return;
    };
    unsafe {
        slot.as_mut_ptr().write(RecordHeader {
            kind: kind as u32,
            size: size_of::<RecordHeader>() as u32,
            at_ns: bpf_ktime_get_ns(),
            cgroup_id,
        });
    }
    slot.submit(wake_flag);
}
