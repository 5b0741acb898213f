//! Cgroups that come and go.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use memguard_common::Kind;

use crate::{
    kernel::{Typed, cgroup_id},
    maps::release,
    oom::send,
};

/// `cgroup_mkdir(struct cgroup *, const char *path)`. Nobody has to hurry for it: the record waits for the next
/// wake-up.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_made(ctx: BtfTracePointContext) -> i32 {
    let id = unsafe { cgroup_id::<Typed>(ctx.arg(0)) };
    debug!(&ctx, "cgroup {} was made", id);
    send(Kind::CgroupMade, id, u64::from(BPF_RB_NO_WAKEUP));
    0
}

/// `cgroup_rmdir(struct cgroup *, const char *path)`: makes room in the table.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_removed(ctx: BtfTracePointContext) -> i32 {
    let id = unsafe { cgroup_id::<Typed>(ctx.arg(0)) };
    debug!(&ctx, "cgroup {} was removed", id);
    release(id);
    send(Kind::CgroupRemoved, id, u64::from(BPF_RB_NO_WAKEUP));
    0
}
