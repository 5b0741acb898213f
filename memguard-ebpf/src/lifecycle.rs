//! Cgroups that are removed.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use memguard_common::Kind;

use crate::{
    kernel::{Typed, cgroup_id, is_v2},
    maps::release,
    ring::{Wake, send},
};

/// `cgroup_rmdir(struct cgroup *, const char *path)`: makes room in the table.
///
/// The tracepoint is that of cgroup v1 too, whose folders have ids of their own: any of them may be that of another
/// cgroup, which lives, in v2.
///
/// A job that may make cgroups can remove as many as it likes. User space hears of those only that it knows of, because a
/// snapshot was sent: each has cost the job a process and a reclaim cycle, which is more work than to read of it. Nobody
/// has to hurry for it.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_removed(ctx: BtfTracePointContext) -> i32 {
    let cgroup = ctx.arg(0);
    if !unsafe { is_v2::<Typed>(cgroup) } {
        return 0;
    }
    let id = unsafe { cgroup_id::<Typed>(cgroup) };
    debug!(&ctx, "cgroup {} was removed", id);
    if release(id) {
        send(Kind::CgroupRemoved, id, Wake::Never);
    }
    0
}
