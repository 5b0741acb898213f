//! The page: what was counted and what is so now, in one of two formats.

use std::{
    fmt,
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::{prometheus_text, text},
    metrics::{
        counter::{self, ConstCounter, Counter},
        family::Family,
        gauge::{self, ConstGauge, Gauge},
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::{
    counts::Metrics,
    format::Format,
    labels::{self, Labels, MODES, STATES},
    present::{Outside, Present},
    process::Process,
};
use crate::{
    journal::Disk,
    kernel::{Kernel, Level, Plan, hook},
    remote::Kind,
    tracer::TracerCost,
};

/// What does not change while memguard runs.
#[derive(Clone, Debug)]
pub struct About {
    pub kernel: Kernel,
    pub plan: Plan,
    pub memory_locked: bool,
}

/// All that a page is made from.
pub(super) struct Page<'a> {
    pub(super) metrics: &'a Metrics,
    pub(super) about: &'a About,
    /// `None` if the detection loop does not answer.
    pub(super) present: Option<&'a Present>,
    pub(super) process: &'a Process,
    pub(super) lost_lines: u64,
    pub(super) now: SystemTime,
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn gauges<N>(values: impl IntoIterator<Item = (Labels, N)>) -> Family<Labels, Gauge<N, AtomicU64>>
where
    AtomicU64: gauge::Atomic<N>,
{
    let family = Family::<Labels, Gauge<N, AtomicU64>>::default();
    for (labels, value) in values {
        family.get_or_create_owned(&labels).set(value);
    }
    family
}

fn counters<N>(values: impl IntoIterator<Item = (Labels, N)>) -> Family<Labels, Counter<N, AtomicU64>>
where
    AtomicU64: counter::Atomic<N>,
{
    let family = Family::<Labels, Counter<N, AtomicU64>>::default();
    for (labels, value) in values {
        family.get_or_create_owned(&labels).inc_by(value);
    }
    family
}

fn count(registry: &mut Registry, name: &str, help: &str, value: Option<u64>) {
    if let Some(value) = value {
        registry.register(name, help, ConstCounter::new(value));
    }
}

fn count_seconds(registry: &mut Registry, name: &str, help: &str, ns: Option<u64>) {
    if let Some(ns) = ns {
        registry.register_with_unit(name, help, Unit::Seconds, ConstCounter::new(seconds(ns)));
    }
}

impl Page<'_> {
    pub(super) fn write(&self, format: Format) -> Result<String, fmt::Error> {
        let registry = self.registry();
        let mut page = String::with_capacity(32 * 1024);
        match format {
            Format::Text => prometheus_text::encode(&mut page, &registry)?,
            Format::OpenMetrics => text::encode(&mut page, &registry)?,
        }
        Ok(page)
    }

    fn registry(&self) -> Registry {
        let mut root = Registry::default();
        process(&mut root, self.process);
        let own = root.sub_registry_with_prefix("memguard");
        about(own, self.about);
        own.register(
            "loop_responds",
            "1 if the detection loop answered when this page was made; without it, what it would have told is left out",
            ConstGauge::new(u32::from(self.present.is_some())),
        );
        count(own, "log_lines_lost", "Lines of the log that nobody took in time", Some(self.lost_lines));
        self.configuration(own);
        self.metrics.register(own);
        if let Some(present) = self.present {
            cgroups(own, present);
            reclaim(own, present);
            tracer(own, present);
            journal(own, present.journal);
            if let Some(outside) = &present.outside {
                self.outside(own, outside);
            }
        }
        root
    }

    fn age(&self, since: SystemTime) -> f64 {
        self.now.duration_since(since).unwrap_or_default().as_secs_f64()
    }

    fn configuration(&self, registry: &mut Registry) {
        let configuration = self.metrics.configuration();
        registry.register(
            "config_last_reload_successful",
            "1 if the configuration file was good when it was last read; else the one of before is in force",
            ConstGauge::new(u32::from(configuration.good)),
        );
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            "When the configuration that is in force was read",
            Unit::Seconds,
            ConstGauge::new(since_1970(configuration.read_at)),
        );
    }

    fn outside(&self, registry: &mut Registry, outside: &Outside) {
        registry.register("kubernetes_pods", "Pods of this node that are known", ConstGauge::new(outside.pods));
        registry.register_with_unit(
            "kubernetes_watch_stale",
            "For how long the watch of this node's pods has not worked; 0 while it does",
            Unit::Seconds,
            ConstGauge::new(outside.stale_since.map_or(0.0, |since| self.age(since))),
        );
        let of = |kind: Kind| (vec![("kind", kind.label())], outside.waiting.of(kind));
        registry.register(
            "follow_ups_open",
            "Follow-ups that are open: what remains to be done elsewhere after a kill, by kind",
            gauges(Kind::ALL.map(of).map(|(labels, waiting)| (labels, waiting.open))),
        );
        registry.register_with_unit(
            "follow_ups_oldest_open_age",
            "Time since the verdict of the oldest follow-up that is open; 0 if there is none",
            Unit::Seconds,
            gauges(Kind::ALL.map(of).map(|(labels, waiting)| {
                // A journal may say anything.
                let time = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
                let oldest = waiting.oldest.and_then(time);
                (labels, oldest.map_or(0.0, |oldest| self.age(oldest)))
            })),
        );
    }
}

fn since_1970(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// By the names that all clients of Prometheus have for these.
fn process(registry: &mut Registry, process: &Process) {
    registry.register_with_unit(
        "process_cpu",
        "User and system time of memguard's process",
        Unit::Seconds,
        ConstCounter::new(process.cpu_s),
    );
    registry.register_with_unit(
        "process_resident_memory",
        "Resident memory of memguard's process",
        Unit::Bytes,
        ConstGauge::new(process.resident_bytes),
    );
    registry.register("process_open_fds", "Open file descriptors", ConstGauge::new(process.open_fds));
    registry.register(
        "process_max_fds",
        "File descriptors that can be open",
        ConstGauge::new(i64::try_from(process.max_fds).unwrap_or(i64::MAX)),
    );
    registry.register_with_unit(
        "process_start_time",
        "When memguard was started, since 1970",
        Unit::Seconds,
        ConstGauge::new(since_1970(process.started)),
    );
}

fn about(registry: &mut Registry, about: &About) {
    registry.register("build", "This memguard", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    registry.register(
        "kernel",
        "The kernel that it watches",
        Info::new(vec![("release", about.kernel.release.clone()), ("machine", about.kernel.machine.clone())]),
    );
    let level = match about.plan.level {
        Level::Files => "files",
        Level::Degraded => "degraded",
        Level::Full => "full",
    };
    registry.register(
        "plan",
        "How much of the tracer is at work: full, degraded (a signal has a lesser source), files (no eBPF at all)",
        Info::new(vec![("level", level)]),
    );
    let signals = about.plan.signals.iter();
    registry.register(
        "signal_complete",
        "Where each signal comes from: a program of the tracer, or files. 0 if something is lost against the best source",
        gauges(signals.map(|plan| {
            let source = plan.programs.last().copied().unwrap_or("files");
            (vec![("signal", labels::signal(plan.signal)), ("source", source)], u64::from(plan.lost.is_none()))
        })),
    );
    registry.register(
        "memory_locked",
        "1 if memguard's memory is locked, so that it waits for no page of its own",
        ConstGauge::new(u32::from(about.memory_locked)),
    );
}

fn cgroups(registry: &mut Registry, present: &Present) {
    let modes = MODES.map(|mode| (vec![("mode", labels::mode(mode))], u64::from(mode == present.mode)));
    registry.register("mode", "1 for the mode that is in force, 0 for the others", gauges(modes));
    registry.register(
        "cgroups",
        "Cgroups that are, or were a moment ago, under reclaim, by state",
        gauges(STATES.iter().zip(present.states).map(|(of, n)| (vec![("state", labels::state(*of))], n))),
    );
    count(registry, "cgroups_watched", "Cgroups that were seen under reclaim", Some(present.watched));
    count(registry, "cgroups_suspected", "Cgroups that were ever suspect", Some(present.suspected));
    count(
        registry,
        "cgroups_turned_away",
        "Cgroups under reclaim that were not watched because there were too many at once",
        Some(present.turned_away),
    );
    registry.register(
        "cgroups_unseen",
        "Cgroups that the last walk of the tree did not get to, because there are too many, at all or below one container",
        ConstGauge::new(present.unseen),
    );
}

fn reclaim(registry: &mut Registry, present: &Present) {
    let totals = &present.totals;
    count(registry, "reclaim_cycles", "Rounds of memcg reclaim, of all cgroups; tracer only", totals.cycles);
    count(
        registry,
        "reclaim_empty_cycles",
        "Rounds that freed nothing, after which the kernel asks its OOM killer; tracer only",
        totals.empty_cycles,
    );
    count(registry, "reclaimed_pages", "Pages that memcg reclaim freed; tracer only", totals.pages_reclaimed);
    count_seconds(registry, "reclaim", "Time that tasks spent in reclaim; tracer only", totals.reclaim_ns);
    count_seconds(
        registry,
        "stall",
        "Time that tasks were stalled for want of memory, reclaim included; tracer only",
        totals.stall_ns,
    );
    count(
        registry,
        "refaulted_pages",
        "Evicted file pages that came back, of all cgroups from the tracer, else of those watched from their files",
        Some(totals.refaults),
    );
    count(
        registry,
        "text_returns",
        "Major faults on program text that had its last one at most 32 s before; tracer only",
        totals.text_returns,
    );
    count(registry, "kernel_oom_victims", "Victims of the kernel's own OOM killer; tracer only", totals.oom_victims);
}

fn tracer(registry: &mut Registry, present: &Present) {
    registry.register(
        "looks_at_files",
        "1 if nothing wakes memguard up, so that it looks at all cgroups every second",
        ConstGauge::new(u32::from(present.looks_at_files)),
    );
    count(registry, "tracer_records", "Snapshots and events from the tracer's ring", Some(present.records));
    count(registry, "tracer_wake_ups", "Times that the tracer woke memguard up", Some(present.wake_ups));
    if let Some(table) = present.table {
        registry.register("tracer_table_slots", "Slots of the tracer's table of cgroups", ConstGauge::new(table.slots));
        if let Some(used) = table.used {
            registry.register(
                "tracer_table_used_slots",
                "Slots of the tracer's table of cgroups that are taken, counted piece by piece over several scrapes",
                ConstGauge::new(used),
            );
        }
    }
    let Some(cost) = &present.tracer else { return };
    registry.register("tracer_lost", "What the tracer could not count or hand over, by what it was", lost(cost));
    // Named by memguard's own table of hooks.
    let programs = || {
        let known = cost.programs.iter().filter_map(|program| Some((hook(&program.program)?.program, program)));
        known.map(|(name, program)| (vec![("program", name)], program))
    };
    registry.register(
        "tracer_program_runs",
        "Runs of the tracer's programs, while the kernel measures them (--bpf-stats)",
        counters(programs().map(|(labels, program)| (labels, program.runs))),
    );
    registry.register_with_unit(
        "tracer_program_run_time",
        "Time that the tracer's programs took, while the kernel measures it (--bpf-stats)",
        Unit::Seconds,
        counters(programs().map(|(labels, program)| (labels, seconds(program.run_ns)))),
    );
}

fn lost(cost: &TracerCost) -> Family<Labels, Counter> {
    let lost = [
        ("ring_full", cost.ring_full),
        ("cgroups_left_out", cost.cgroups_left_out),
        ("cycles_untimed", cost.cycles_untimed),
        ("ends_lost", cost.ends_lost),
        ("stalls_untimed", cost.stalls_untimed),
        ("undecodable", cost.undecodable),
    ];
    counters(lost.map(|(what, count)| (vec![("what", what)], count)))
}

fn journal(registry: &mut Registry, disk: Disk) {
    if disk == Disk::NotWanted {
        return;
    }
    registry.register(
        "journal_on_disk",
        "1 if the journal's disk takes what is to be kept; else incidents outlive memguard, but not the machine's start",
        ConstGauge::new(u32::from(disk == Disk::Works)),
    );
}

#[cfg(test)]
mod tests;
