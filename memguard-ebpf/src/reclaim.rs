//! Memcg reclaim: cycles, what they freed, how long they took, and whose limit they were for.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};
use aya_log_ebpf::{debug, trace};
use memguard_common::{
    Counters, Kind, RecordHeader,
    counters::{CYCLE_BUCKETS, CgroupEntry, CycleStart, cycle_bucket},
    record::Snapshot,
};

use crate::{
    atomic,
    globals::SNAPSHOT_INTERVAL_NS,
    kernel::{Memory, Probed, Typed, memcg_id},
    maps::{CYCLE_STARTS, RING, entry, find, lose},
    ring::wake_flag,
    span::Span,
};

#[inline(always)]
unsafe fn span(entry: *mut CgroupEntry) -> Span {
    unsafe {
        Span {
            tasks: &raw mut (*entry).tasks_in_reclaim,
            accounted_ns: &raw mut (*entry).wall_accounted_ns,
            wall_ns: &raw mut (*entry).counters.reclaim_wall_ns,
        }
    }
}

/// `mm_vmscan_memcg_reclaim_begin`, from `try_to_free_mem_cgroup_pages()`.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn reclaim_begin(ctx: BtfTracePointContext) -> i32 {
    let thread = bpf_get_current_pid_tgid() as u32;
    let cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(entry) = entry(cgroup_id) else { return 0 };

    if let Some(stale) = CYCLE_STARTS.get_ptr(thread) {
        // Its end was never seen. From 7.1 on tracepoints can be preempted (kernel commit a46023d5616e), and the kernel
        // skips a program that is entered again on a CPU where it has not finished. Take the begin back, or the cgroup
        // would seem to be in reclaim for ever.
        let stale_id = unsafe { (*stale).cgroup_id };
        let _ = CYCLE_STARTS.remove(thread);
        let stale_entry = find(stale_id);
        if !stale_entry.is_null() {
            unsafe { span(stale_entry).forget() };
        }
        lose(|losses| unsafe { &raw mut (*losses).ends_lost });
        debug!(&ctx, "the end of a cycle of thread {} in cgroup {} was never seen", thread, stale_id);
    }
    let start = CycleStart { at_ns: now, cgroup_id };
    if CYCLE_STARTS.insert(thread, start, u64::from(BPF_ANY)).is_err() {
        lose(|losses| unsafe { &raw mut (*losses).cycles_untimed });
        debug!(&ctx, "no room to take the time of a cycle of thread {} in cgroup {}", thread, cgroup_id);
        return 0;
    }
    unsafe { span(entry).enter(now) };
    0
}

/// `mm_vmscan_memcg_reclaim_end(unsigned long nr_reclaimed)`.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
pub fn reclaim_end(ctx: BtfTracePointContext) -> i32 {
    let reclaimed: u64 = ctx.arg(0);
    let thread = bpf_get_current_pid_tgid() as u32;
    let now = unsafe { bpf_ktime_get_ns() };

    let mut cgroup_id = 0;
    let mut began = 0;
    if let Some(start) = CYCLE_STARTS.get_ptr(thread) {
        (cgroup_id, began) = unsafe { ((*start).cgroup_id, (*start).at_ns) };
        let _ = CYCLE_STARTS.remove(thread);
    }
    let timed = began != 0;
    if !timed {
        cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    }
    let Some(entry) = entry(cgroup_id) else { return 0 };
    unsafe {
        let counters = &raw mut (*entry).counters;
        atomic::add(&raw mut (*counters).cycles, 1);
        if reclaimed == 0 {
            atomic::add(&raw mut (*counters).empty_cycles, 1);
        } else {
            atomic::add(&raw mut (*counters).pages_reclaimed, reclaimed);
        }
        if timed {
            let took = now.saturating_sub(began);
            atomic::add(&raw mut (*counters).reclaim_ns, took);
            let bucket = cycle_bucket(took);
            if bucket < CYCLE_BUCKETS {
                atomic::add(((&raw mut (*counters).cycle_ns_log2).cast::<u64>()).add(bucket), 1);
            }
            span(entry).leave(now);
        }
        trace!(&ctx, "a cycle of thread {} in cgroup {} freed {} pages", thread, cgroup_id, reclaimed);
        hand_over(cgroup_id, entry, now);
    }
    0
}

/// Sends the counters to user space, if the last snapshot of this cgroup is old enough.
#[inline(always)]
unsafe fn hand_over(cgroup_id: u64, entry: *mut CgroupEntry, now: u64) {
    unsafe {
        let sent = (&raw const (*entry).snapshot_sent_ns).read_volatile();
        // Another CPU may have read its clock later and been here first: then `sent` is past `now`, and not long ago.
        if now.saturating_sub(sent) < SNAPSHOT_INTERVAL_NS.load()
            || atomic::compare_and_swap(&raw mut (*entry).snapshot_sent_ns, sent, now) != sent
        {
            return;
        }
        let Some(mut slot) = RING.reserve::<Snapshot>(0) else {
            lose(|losses| &raw mut (*losses).ring_full);
            return;
        };
        let snapshot = slot.as_mut_ptr();
        (&raw mut (*snapshot).header).write(RecordHeader {
            kind: Kind::Snapshot as u32,
            size: size_of::<Snapshot>() as u32,
            at_ns: now,
            cgroup_id,
        });
        copy_counters(&raw const (*entry).counters, &raw mut (*snapshot).counters);
        (&raw mut (*snapshot).limit_owner).write((*entry).limit_owner);
        (&raw mut (*snapshot).tasks_in_reclaim).write((*entry).tasks_in_reclaim);
        slot.submit(wake_flag(now));
    }
}

/// Copies word by word: the compiler's `memcpy` for BPF goes byte by byte.
#[inline(always)]
unsafe fn copy_counters(from: *const Counters, to: *mut Counters) {
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    for word in 0..size_of::<Counters>() / size_of::<u64>() {
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
    }
}

/// Remembers whose limit the cycle that now begins is for.
#[inline(always)]
unsafe fn note_limit_owner<M: Memory>(memcg: *const u8) {
    let owner = unsafe { memcg_id::<M>(memcg) };
    if owner == 0 {
        return;
    }
    if let Some(entry) = entry(unsafe { bpf_get_current_cgroup_id() }) {
        unsafe { (&raw mut (*entry).limit_owner).write_volatile(owner) };
    }
}

#[fentry(function = "try_to_free_mem_cgroup_pages")]
pub fn limit_owner_fentry(ctx: FEntryContext) -> i32 {
    unsafe { note_limit_owner::<Typed>(ctx.arg(0)) };
    0
}

#[kprobe(function = "try_to_free_mem_cgroup_pages")]
pub fn limit_owner_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(memcg) = ctx.arg(0) {
        unsafe { note_limit_owner::<Probed>(memcg) };
    }
    0
}
