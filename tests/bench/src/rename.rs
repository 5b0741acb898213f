//! The programs of a reclaim cycle, run from another tracepoint.
//!
//! Where the memory controller is not on cgroup v2 no reclaim cycle can be provoked. The two programs then run when a
//! thread renames itself: the same instructions on the same CPU, one after the other, without a reclaim in between.

use std::time::Instant;

use memguard::{
    kernel::{Attach, Hook, Layout, btf},
    tracer,
};
use rustix::thread::set_name;

use crate::pairs::{Attached, measure};

const RENAMES: u32 = 100_000;

/// `task_rename(task, comm)`: the first argument stands for the number of pages.
const HOOKS: &[Hook] = &[
    Hook { program: "reclaim_begin", attach: Attach::Tracepoint, target: "task_rename", arguments: 0, needs: &[] },
    Hook { program: "reclaim_end", attach: Attach::Tracepoint, target: "task_rename", arguments: 1, needs: &[] },
];

pub(crate) fn run(pairs: u32) -> anyhow::Result<()> {
    let start = |stats| {
        let names: Vec<_> = Layout::names().chain(["btf_trace_task_rename"]).collect();
        let btf = btf::Btf::read(btf::VMLINUX.as_ref(), &names)?;
        let layout = Layout::from_btf(&btf);
        let (tracer, ring) = tracer::start_at(btf, &layout, HOOKS, stats)?;
        Ok(Attached::from_parts(tracer, ring))
    };
    measure("begin and end of a reclaim cycle, at task_rename", "ns", pairs, start, || {
        let began = Instant::now();
        for _ in 0..RENAMES {
            set_name(c"hooks-bench")?;
        }
        Ok(began.elapsed().as_secs_f64() * 1e9 / f64::from(RENAMES))
    })?
    .tell()
}
