//! The signals: what a window of samples says, as shares and rates.

use std::time::Duration;

use serde::Serialize;

use super::{
    sample::{Sample, Stall},
    window::Window,
};

/// Signals of one cgroup over one window. Shares are of 1, rates per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Signals {
    /// Length of the window in seconds.
    pub window_s: f64,
    /// memory.max in bytes.
    pub limit: u64,
    /// Mean memory.current of the limit.
    pub at_limit: f64,
    pub max_events_per_s: f64,
    /// `oom` events and OOM kills in the window.
    pub ooms: u64,
    /// Mean anon + shmem of the limit.
    pub unreclaimable: f64,
    /// Refaults for each page freed; `None` when nothing was freed.
    pub refault_share: Option<f64>,
    /// How often a second the page cache was replaced as a whole.
    pub turnover_per_s: f64,
    pub refaults_per_s: f64,
    pub steals_per_s: f64,
    pub major_faults_per_s: f64,
    /// Faults on program text, from the tracer.
    pub text_faults_per_s: Option<f64>,
    /// PSI, shares of the window.
    pub memory_some: Option<f64>,
    pub memory_full: Option<f64>,
    pub io_some: Option<f64>,
    /// Reclaim cycles, from the tracer.
    pub cycles_per_s: Option<f64>,
    /// Cycles that freed nothing, in the window.
    pub empty_cycles: Option<u64>,
    /// Share of the window with at least one task in reclaim.
    pub reclaim_wall: Option<f64>,
    /// Tasks in reclaim on average.
    pub reclaim_tasks: Option<f64>,
}

impl Signals {
    /// The signals of a complete window on a cgroup that has a limit.
    pub(super) fn of(window: &Window, page_size: u64) -> Option<Self> {
        let (first, last) = window.ends()?;
        let limit = last.memory.max.filter(|max| *max > 0)?;
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        let delta = |value: fn(&Sample) -> u64| value(last).saturating_sub(value(first));
        let per_s = |count: u64| count as f64 / seconds;
        let traced = |value: fn(&Sample) -> Option<u64>| Some(value(last)?.saturating_sub(value(first)?));
        let stalled = |value: fn(&Sample) -> Option<Stall>, kind: fn(Stall) -> Duration| {
            let time = kind(value(last)?).saturating_sub(kind(value(first)?));
            Some((time.as_secs_f64() / seconds).min(1.0))
        };
        let share_of_limit = |bytes: f64| bytes / limit as f64;

        let steals = delta(|s| s.memory.steals);
        let refaults = delta(|s| s.memory.refaults);
        // An empty page cache would divide by zero; then the turnover is as high as it gets.
        let cached_pages = window.mean(|s| s.memory.page_cache() as f64 / page_size as f64).max(1.0);
        Some(Self {
            window_s: seconds,
            limit,
            at_limit: share_of_limit(window.mean(|s| s.memory.current as f64)),
            max_events_per_s: per_s(delta(|s| s.memory.max_events)),
            ooms: delta(|s| s.memory.oom_events) + delta(|s| s.memory.oom_kills),
            unreclaimable: share_of_limit(window.mean(|s| s.memory.unreclaimable() as f64)),
            refault_share: (steals > 0).then(|| refaults as f64 / steals as f64),
            turnover_per_s: per_s(steals) / cached_pages,
            refaults_per_s: per_s(refaults),
            steals_per_s: per_s(steals),
            major_faults_per_s: per_s(delta(|s| s.memory.major_faults)),
            text_faults_per_s: traced(|s| s.tracer?.text_faults).map(per_s),
            memory_some: stalled(|s| s.pressure.memory, |stall| stall.some),
            memory_full: stalled(|s| s.pressure.memory, |stall| stall.full),
            io_some: stalled(|s| s.pressure.io, |stall| stall.some),
            cycles_per_s: traced(|s| Some(s.tracer?.reclaim?.cycles)).map(per_s),
            empty_cycles: traced(|s| Some(s.tracer?.reclaim?.empty_cycles)),
            reclaim_wall: traced(|s| Some(s.tracer?.reclaim?.wall_ns)).map(|ns| per_s(ns) / 1e9),
            reclaim_tasks: traced(|s| Some(s.tracer?.reclaim?.task_ns)).map(|ns| per_s(ns) / 1e9),
        })
    }
}
