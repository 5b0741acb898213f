//! Victims of the kernel's own OOM killer.

use aya_ebpf::{helpers::bpf_get_current_cgroup_id, macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use memguard_common::Kind;

use crate::{
    atomic,
    globals::MARK_VICTIM_HAS_TASK,
    kernel::{Typed, task_cgroup_id},
    maps::entry,
    ring::{Wake, send},
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
    send(Kind::OomVictim, cgroup_id, Wake::Paced);
    0
}
