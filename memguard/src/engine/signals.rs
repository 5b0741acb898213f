//! The signals: what a window of samples says, as shares and rates.

use std::time::Duration;

use memguard_common::{RETURN_BUCKETS, counters::RETURN_BOUNDS_NS};
use serde::{Deserialize, Serialize};

use super::{
    sample::{Cpu, Limit, LocalEvents, Sample, Stall},
    thresholds::Settings,
    window::Window,
};

/// Signals of one cgroup over one window. Shares are of 1, rates per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Signals {
    /// Length of the window in seconds.
    pub window_s: f64,
    /// The limit that the cgroup is up against, in bytes, and which one it is.
    pub limit: u64,
    pub limited_by: Limit,
    /// Mean memory.current of the limit.
    pub at_limit: f64,
    /// Of this very limit where that is told (memory.events.local), else of those below it too.
    pub limit_hits_per_s: f64,
    /// Those, of all hits in the subtree; `None` where that can't be told, and without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_hits: Option<f64>,
    /// `oom` events and OOM kills in the window, of this very limit where that is told.
    pub ooms: u64,
    /// Mean anon + shmem of the limit.
    pub unreclaimable: f64,
    /// Refaults for each page read in; `None` when nothing was freed. Of what was freed, some goes to whoever takes memory:
    /// that says nothing about what is wanted again.
    pub refault_share: Option<f64>,
    /// How often a second the page cache was replaced as a whole: 1 / mean lifetime of a cached page.
    pub turnover_per_s: f64,
    pub refaults_per_s: f64,
    pub steals_per_s: f64,
    /// Pages that were read in: those that were freed, less what the page cache has shrunk by.
    pub reads_per_s: f64,
    /// Pages that reclaim looked at for each page that it freed.
    pub scans_per_steal: Option<f64>,
    pub major_faults_per_s: f64,
    /// Major faults on program text (all faults on it where major ones can't be told), from the tracer.
    pub text_faults_per_s: Option<f64>,
    /// Major faults on program text that was there less than [`SOON_S`] ago.
    pub text_returns_per_s: Option<f64>,
    /// Those, of all major faults on program text; `None` when there were none.
    pub text_return_share: Option<f64>,
    /// Refaults of files that are executed, of all refaults, as the tracer counted them.
    pub text_of_refaults: Option<f64>,
    /// The same as `text_return_share` without a memory of earlier faults: refaulted pages of text for each page read in.
    /// Where the tracer can't tell them from others, an estimate: all refaults, times the share of major faults that is on
    /// text, which is right where there is hardly anything but text that could come back.
    pub text_refault_share: Option<f64>,
    /// PSI, shares of the window.
    pub memory_some: Option<f64>,
    pub memory_full: Option<f64>,
    pub io_some: Option<f64>,
    pub cpu_some: Option<f64>,
    /// Share of the window in which all that could run were denied a CPU, by cpu.max or by other cgroups: PSI's cpu `full`.
    /// Without PSI, what the kernel tells of cpu.max alone. `None` without both.
    pub denied: Option<f64>,
    /// Share of the window with at least one task stalled for want of memory, and how many were on average, from the
    /// tracer.
    pub stall_wall: Option<f64>,
    pub stall_tasks: Option<f64>,
    /// Tasks in file faults on average, from the tracer.
    pub faulting_tasks: Option<f64>,
    /// Share of the window in which just one task was in a file fault, at least; from the tracer, `None` where `faulting` is.
    /// Near 1 where one has the fault and all others wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faulting_in_turns: Option<f64>,
    /// Of the time of the tasks that have file faults, how much they spend in these, from the tracer; `None` when there were
    /// none, and at memory.high, where it says nothing.
    pub faulting: Option<f64>,
    /// CPUs kept busy in user space, and in the kernel.
    pub user_cpus: Option<f64>,
    pub system_cpus: Option<f64>,
    /// Share of the window in which at least one task waited, for memory or for a disk: the greatest of PSI's and the
    /// tracer's, which without PSI counts all of the time in faults.
    pub waiting: Option<f64>,
    /// Of the time that the tasks would work, how much they do not: (system + waiting) / (user + system + waiting). The
    /// latter is at least [`Thresholds::least_busy`](super::Thresholds), and where PSI tells of CPUs, the time in which no
    /// task waits for one: who neither runs nor waits for anything loses nothing. The time in which all that could run are
    /// denied a CPU does not count as waiting for memory. `None` without cpu.stat.
    pub lost: Option<f64>,
    /// The same where only waiting for memory counts: reclaim, and pages that were thrown out a moment ago.
    pub lost_to_memory: Option<f64>,
    /// Reclaim cycles, from the tracer.
    pub cycles_per_s: Option<f64>,
    /// Cycles that freed nothing, in the window.
    pub empty_cycles: Option<u64>,
    /// Share of the window with at least one task in reclaim.
    pub reclaim_wall: Option<f64>,
    /// Tasks in reclaim on average.
    pub reclaim_tasks: Option<f64>,
}

/// Text that comes back within this time, in seconds, was thrown out too soon: the last bound of
/// [`memguard_common::counters::RETURN_BOUNDS_NS`]. Shorter would do on a fast disk; on one that gives 65 reads a second
/// a hung container gets around to the same text after 10 to 30 s only.
const SOON_S: u64 = 32;

const _: () = assert!(RETURN_BOUNDS_NS[RETURN_BUCKETS - 1] == SOON_S * 1_000_000_000);

/// Of the pages freed at least so many count as read in. Somebody who takes memory faster than that is not stuck, and the
/// few pages that are read meanwhile say little.
const LEAST_READ: f64 = 0.25;

/// Returns within [`SOON_S`].
fn soon(returns: &[u64; RETURN_BUCKETS]) -> u64 {
    returns.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

impl Signals {
    /// The signals of a complete window on a cgroup that has a limit.
    pub(super) fn of(window: &Window, settings: &Settings) -> Option<Self> {
        let (first, last) = window.ends()?;
        let (limit, limited_by) = last.memory.limit().filter(|(limit, _)| *limit > 0)?;
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        let delta = |value: fn(&Sample) -> u64| value(last).saturating_sub(value(first));
        let per_s = |count: u64| count as f64 / seconds;
        let traced = |value: fn(&Sample) -> Option<u64>| Some(value(last)?.saturating_sub(value(first)?));
        let stalled = |value: fn(&Sample) -> Option<Stall>, kind: fn(Stall) -> Duration| {
            let time = kind(value(last)?).saturating_sub(kind(value(first)?));
            Some((time.as_secs_f64() / seconds).min(1.0))
        };
        let busy =
            |kind: fn(Cpu) -> Duration| Some(kind(last.cpu?).saturating_sub(kind(first.cpu?)).as_secs_f64() / seconds);
        let share_of_limit = |bytes: f64| bytes / limit as f64;
        let local = |value: fn(&LocalEvents) -> u64| {
            Some(value(&last.memory.local?).saturating_sub(value(&first.memory.local?)))
        };
        let (hits, own_hits) = (delta(|s| s.memory.limit_hits()), local(LocalEvents::limit_hits));

        let steals = delta(|s| s.memory.steals);
        // The multi-gen LRU leaves a refault out of memory.stat if another cgroup threw the page out (lru_gen_refault()):
        // containers of one image that hang together do that to each other all the time. The tracer counts them all.
        let traced_refaults = traced(|s| s.tracer?.refaults);
        let refaults = delta(|s| s.memory.refaults).max(traced_refaults.unwrap_or(0));
        let cached = |sample: &Sample| sample.memory.page_cache() as f64 / settings.page_size as f64;
        let reads = (steals as f64 + cached(last) - cached(first)).max(steals as f64 * LEAST_READ);
        let refault_share = (steals > 0).then(|| refaults as f64 / reads);
        let major_faults = delta(|s| s.memory.major_faults);
        // An empty page cache would divide by zero; then the turnover is as high as it gets.
        let cached_pages = window.mean(cached).max(1.0);
        let (user, system) = (busy(|cpu| cpu.user), busy(|cpu| cpu.system));
        let memory_some = stalled(|s| s.pressure.memory, |stall| stall.some);
        let io_some = stalled(|s| s.pressure.io, |stall| stall.some);
        let stall_tasks = traced(|s| Some(s.tracer?.stall?.task_ns)).map(|ns| per_s(ns) / 1e9);
        // A stall whose end was never seen (a program that is preempted can miss an event) counts as one task that waits
        // for ever, in wall time alone. The sum over tasks is taken when stalls end, so it bounds what really was.
        let stall_wall = traced(|s| Some(s.tracer?.stall?.wall_ns))
            .zip(stall_tasks)
            .map(|(ns, tasks)| (per_s(ns) / 1e9).min(tasks).min(1.0));
        let most = |kinds: &[Option<f64>]| kinds.iter().copied().flatten().reduce(f64::max);
        let in_faults = traced(|s| Some(s.tracer?.fault_time?.in_ns));
        let between_faults = traced(|s| Some(s.tracer?.fault_time?.between_ns));
        // Without PSI, faults are what tasks are known to wait in for the disk. How many tasks there are in these bounds how much
        // of the time there is one.
        let faulting_tasks = in_faults.map(|ns| per_s(ns) / 1e9);
        // Where k tasks are in faults together their wall time counts once and the sum k times: twice the one less the other
        // is the time with one, less that with three, and so on.
        let in_turns = traced(|s| s.tracer?.fault_time?.wall_ns)
            .zip(in_faults)
            .map(|(wall, tasks)| (per_s(wall.saturating_mul(2).saturating_sub(tasks)) / 1e9).min(1.0));
        let for_disk = io_some.or(faulting_tasks.map(|tasks| tasks.min(1.0)));
        let waiting = most(&[memory_some, for_disk, stall_wall]);
        let cpu_some = stalled(|s| s.pressure.cpu, |stall| stall.some);
        let denied = stalled(|s| s.pressure.cpu, |stall| stall.full)
            .or_else(|| busy(|cpu| cpu.throttled).map(|cpus| cpus.min(1.0)));
        // The kernel takes the CPU away in the midst of a fault or of reclaim too (throttle_cfs_rq(); not before the return to
        // user mode since 6.18), and then PSI has that task wait for memory until it is given one again, up to all of the
        // time. How much of the waiting that is can't be told, so all of it may be. Who waits for the disk wants no CPU.
        let without_cpu = denied.unwrap_or(0.0);
        let for_memory = most(&[memory_some, stall_wall]).map(|waiting| (waiting - without_cpu).max(0.0));
        let share_lost = |waiting: Option<f64>| {
            let (user, system) = user.zip(system)?;
            let t = &settings.thresholds;
            let busy = if for_disk.is_some() { t.least_busy } else { t.least_busy_without_io };
            // The time in which no task waits for a CPU. As far as none runs either, nor waits for anything else, nobody
            // wants to work. That takes all three kinds of PSI.
            let at_leisure = io_some.and(cpu_some).map_or(0.0, |queued| 1.0 - queued);
            let not_worked = system + waiting.unwrap_or(0.0);
            let all = (user + not_worked).max(busy.from * (1.0 - without_cpu)).max(at_leisure);
            // Nothing at all was done where nothing was asked for either.
            Some(if all > 0.0 { not_worked / all } else { 0.0 })
        };
        let text_faults = traced(|s| s.tracer?.text_faults);
        let text_refaults = traced(|s| s.tracer?.text_refaults);
        let text_returns = traced(|s| Some(soon(&s.tracer?.text_returns?)));
        Some(Self {
            window_s: seconds,
            limit,
            limited_by,
            at_limit: share_of_limit(window.mean(|s| s.memory.current as f64)),
            limit_hits_per_s: per_s(own_hits.unwrap_or(hits)),
            own_hits: own_hits.filter(|_| hits > 0).map(|own| (own as f64 / hits as f64).min(1.0)),
            ooms: local(LocalEvents::ooms)
                .unwrap_or_else(|| delta(|s| s.memory.oom_events).saturating_add(delta(|s| s.memory.oom_kills))),
            unreclaimable: share_of_limit(window.mean(|s| s.memory.unreclaimable() as f64)),
            refault_share,
            turnover_per_s: per_s(steals) / cached_pages,
            refaults_per_s: per_s(refaults),
            steals_per_s: per_s(steals),
            reads_per_s: reads / seconds,
            scans_per_steal: (steals > 0).then(|| delta(|s| s.memory.scans) as f64 / steals as f64),
            major_faults_per_s: per_s(major_faults),
            text_faults_per_s: text_faults.map(per_s),
            text_returns_per_s: text_returns.map(per_s),
            text_return_share: text_returns
                .zip(text_faults.filter(|faults| *faults > 0))
                .map(|(returns, faults)| returns as f64 / faults as f64),
            text_of_refaults: traced_refaults
                .filter(|refaults| *refaults > 0)
                .zip(text_refaults)
                .map(|(refaults, text)| (text as f64 / refaults as f64).min(1.0)),
            text_refault_share: match text_refaults {
                Some(text) => (steals > 0).then(|| (text as f64 / reads).min(1.0)),
                None => text_faults
                    .zip(refault_share)
                    .zip((major_faults > 0).then_some(major_faults))
                    .map(|((text, refaulted), major)| refaulted.min(1.0) * (text as f64 / major as f64).min(1.0)),
            },
            memory_some,
            memory_full: stalled(|s| s.pressure.memory, |stall| stall.full),
            io_some,
            cpu_some,
            denied,
            stall_wall,
            stall_tasks,
            faulting_tasks,
            // At memory.high tasks reclaim and sleep on the way out of a fault (mem_cgroup_handle_over_high()).
            faulting: in_faults
                .zip(between_faults)
                .filter(|(within, _)| *within > 0 && limited_by == Limit::Max)
                .map(|(within, between)| within as f64 / within.saturating_add(between) as f64),
            faulting_in_turns: in_turns.filter(|_| in_faults.is_some_and(|ns| ns > 0) && limited_by == Limit::Max),
            user_cpus: user,
            system_cpus: system,
            waiting,
            lost: share_lost(most(&[for_memory, for_disk])),
            lost_to_memory: share_lost(for_memory),
            cycles_per_s: traced(|s| Some(s.tracer?.reclaim?.cycles)).map(per_s),
            empty_cycles: traced(|s| Some(s.tracer?.reclaim?.empty_cycles)),
            reclaim_wall: traced(|s| Some(s.tracer?.reclaim?.wall_ns)).map(|ns| (per_s(ns) / 1e9).min(1.0)),
            reclaim_tasks: traced(|s| Some(s.tracer?.reclaim?.task_ns)).map(|ns| per_s(ns) / 1e9),
        })
    }
}
