//! A cgroup that is being watched.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use memguard_common::{CYCLE_BUCKETS, Counters};

use crate::{
    cgroup::{CgroupError, CgroupHandle},
    engine::{Memory, Sample, Signals, State, TracerSample},
    report::Timeline,
    status::Trail,
    telemetry::{CgroupName, RefaultHistogram, RefaultReport},
};

/// The owner of a limit whose subtree is, or was a moment ago, under reclaim.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) handle: CgroupHandle,
    pub(super) name: CgroupName,
    /// `CLOCK_MONOTONIC` of the latest reclaim.
    pub(super) last_active: Duration,
    /// Opened and armed when the cgroup turned suspect, so that a kill needs one write.
    pub(super) victim: Option<CgroupHandle>,
    pub(super) was_suspect: bool,
    pub(super) kill_under_way: bool,
    /// When a change between calm and pressed was last told.
    pub(super) last_told: Option<Duration>,
    pub(super) latest: Option<Latest>,
    /// Pages that came back between the last two looks.
    pub(super) refaults: u64,
    /// For who wants to look at it.
    pub(super) trail: Trail,
    pub(super) timeline: Timeline,
    /// When its tasks were last looked at for a report.
    pub(super) last_look: Option<Duration>,
    histogram: RefaultHistogram,
    cycle_ns_log2: Option<[u64; CYCLE_BUCKETS]>,
}

/// What the last look gave.
#[derive(Clone, Debug)]
pub(super) struct Latest {
    pub(super) at: Duration,
    pub(super) memory: Memory,
    pub(super) tracer: Option<TracerSample>,
    pub(super) signals: Option<Signals>,
}

impl Unit {
    pub(super) fn open(root: &Path, path: &Path, now: Duration) -> Result<Self, CgroupError> {
        let handle = CgroupHandle::open(path)?;
        Ok(Self {
            name: CgroupName::new(root, handle.inode(), path),
            handle,
            last_active: now,
            victim: None,
            was_suspect: false,
            kill_under_way: false,
            last_told: None,
            latest: None,
            refaults: 0,
            trail: Trail::new(now),
            timeline: Timeline::default(),
            last_look: None,
            histogram: RefaultHistogram::default(),
            cycle_ns_log2: None,
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.handle.path().to_owned()
    }

    /// Looks at the files, and joins them with what the tracer counted.
    pub(super) fn sample(
        &mut self,
        at: Duration,
        tracer: Option<&(TracerSample, Counters)>,
    ) -> Result<Sample, CgroupError> {
        let memory = self.handle.memory()?;
        let (pressure, cpu) = (self.handle.pressure(), self.handle.cpu());
        if let Some(before) = &self.latest {
            let pages = memory.refaults.saturating_sub(before.memory.refaults);
            self.histogram.add(at.saturating_sub(before.at), pages);
            self.refaults = pages;
        }
        self.cycle_ns_log2 = tracer.map(|(_, counters)| counters.cycle_ns_log2);
        let tracer = tracer.map(|(sample, _)| *sample);
        self.latest = Some(Latest { at, memory, tracer, signals: None });
        Ok(Sample { at, memory, pressure, cpu, tracer, hung_below: false })
    }

    /// The refault rates since the last report; `None` if nothing came back.
    pub(super) fn report(&mut self, state: State) -> Option<RefaultReport> {
        let latest = self.latest.as_ref()?;
        if self.histogram.is_empty() {
            self.histogram.take();
            return None;
        }
        Some(RefaultReport {
            unit: self.name.clone(),
            state,
            at_s: latest.at.as_secs_f64(),
            refaults_per_s: self.histogram.take(),
            signals: latest.signals.clone(),
            tracer: latest.tracer,
            cycle_ns_log2: self.cycle_ns_log2.map(|buckets| buckets.to_vec()),
            kernel: latest.memory,
        })
    }
}
