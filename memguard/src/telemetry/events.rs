//! Everything that memguard has to say, as types: one sentence for people and one record for machines each.

use std::fmt;

use serde::Serialize;

use super::{
    histogram::Rates,
    name::{CgroupName, escaped},
};
use crate::{
    cgroup::RootFacts,
    engine::{Memory, Signals, State, TracerSample, Verdict},
    journal::Incident,
    kernel::{Level, Plan},
    remote::{FollowUp, Progress},
    respond::{Ended, Method, Mode, Policy, Suppressed},
    tracer::TracerCost,
};

/// memguard is at work.
#[derive(Clone, Debug, Serialize)]
pub struct Started {
    pub version: &'static str,
    pub mode: Mode,
    pub root: RootFacts,
    pub plan: Plan,
    /// ms from the start of the process to here.
    pub attached_after_ms: u64,
    pub memory_locked: bool,
    pub own_cgroup: Option<String>,
}

/// A cgroup went from one state to another.
#[derive(Clone, Debug, Serialize)]
pub struct StateChange {
    #[serde(flatten)]
    pub unit: CgroupName,
    pub from: State,
    pub to: State,
    /// The signals against the rule, in words.
    pub why: String,
    pub signals: Option<Signals>,
}

/// A verdict with all its evidence.
#[derive(Clone, Debug, Serialize)]
pub struct VerdictEvent {
    pub incident: String,
    pub mode: Mode,
    /// The rule of the policy, and why the mode is what it is.
    pub rule: String,
    pub because: String,
    #[serde(flatten)]
    pub unit: CgroupName,
    /// Seconds since the rule first held.
    pub suspect_for_s: f64,
    pub verdict: Verdict,
    pub memory: Memory,
    pub tracer: Option<TracerSample>,
    /// How much of the tracer was at work.
    pub signals_from: Level,
}

/// What was done about a verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Action {
    pub incident: String,
    #[serde(flatten)]
    pub victim: CgroupName,
    /// The cgroup whose limit was hit, if that is another one.
    pub on_behalf_of: CgroupName,
    pub method: Method,
    pub rule: String,
    pub because: String,
    /// From the verdict to the write that kills, in ms.
    pub verdict_to_action_ms: f64,
    #[serde(flatten)]
    pub ended: Option<Ended>,
    pub error: Option<String>,
}

/// What was not done about a verdict, and why.
#[derive(Clone, Debug, Serialize)]
pub struct SuppressedAction {
    pub incident: String,
    #[serde(flatten)]
    pub unit: CgroupName,
    pub rule: String,
    #[serde(flatten)]
    pub reason: Suppressed,
}

/// Refault rates of a cgroup under reclaim since the last report, and its counters beside the kernel's own.
#[derive(Clone, Debug, Serialize)]
pub struct RefaultReport {
    #[serde(flatten)]
    pub unit: CgroupName,
    pub state: State,
    /// `CLOCK_MONOTONIC` seconds at which both sets of counters were read.
    pub at_s: f64,
    pub refaults_per_s: Rates,
    pub signals: Option<Signals>,
    /// Cumulative, from the tracer.
    pub tracer: Option<TracerSample>,
    /// Reclaim cycles by duration, cumulative: bucket `i` from `2^(10+i)` ns, the first from 0.
    pub cycle_ns_log2: Option<Vec<u64>>,
    /// Cumulative, from the cgroup's files.
    pub kernel: Memory,
}

/// What memguard costs.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// User and system time of memguard's own process so far, seconds.
    pub cpu_s: f64,
    /// Wall time since its start, seconds.
    pub up_s: f64,
    /// Resident memory now and at its highest, KiB.
    pub resident_kib: u64,
    pub resident_peak_kib: u64,
    pub records: u64,
    pub wake_ups: u64,
    pub tracer: Option<TracerCost>,
}

/// What came of a follow-up of an incident, or that it has trouble.
#[derive(Clone, Debug, Serialize)]
pub struct FollowUpEvent {
    pub incident: String,
    /// Namespace, pod and container.
    pub workload: String,
    #[serde(flatten)]
    pub follow_up: FollowUp,
}

impl FollowUpEvent {
    #[must_use]
    pub fn new(incident: &Incident, follow_up: &FollowUp) -> Self {
        let workload = incident.workload.as_ref().map(|workload| escaped(&workload.name())).unwrap_or_default();
        Self { incident: incident.id.clone(), workload, follow_up: follow_up.clone() }
    }
}

/// Any of them.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    Started(Box<Started>),
    State(Box<StateChange>),
    Verdict(Box<VerdictEvent>),
    Action(Box<Action>),
    Suppressed(Box<SuppressedAction>),
    FollowUp(Box<FollowUpEvent>),
    Refaults(Box<RefaultReport>),
    Cost(Box<Cost>),
    Summary(Box<super::Summary>),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(e) => {
                write!(
                    f,
                    "memguard {} watches {} in {} mode, signals: {}",
                    e.version,
                    e.root.path.display(),
                    e.mode,
                    e.plan.level
                )?;
                if let Some(why) = &e.plan.no_tracer {
                    write!(f, " ({why})")?;
                }
                Ok(())
            }
            Self::State(e) => write!(f, "{} is {} (was {}): {}", e.unit.short(), e.to, e.from, e.why),
            Self::Verdict(e) => write!(
                f,
                "LIVELOCK in {} ({}): for {:.0} s {}",
                e.unit,
                e.incident,
                e.suspect_for_s,
                e.verdict.terms.sentence()
            ),
            Self::Action(e) => {
                let rule = if e.rule == Policy::DEFAULT { String::new() } else { format!(", by the rule {}", e.rule) };
                let on_behalf = if e.victim.id == e.on_behalf_of.id {
                    rule
                } else {
                    format!("{rule}, for the limit of {}", e.on_behalf_of)
                };
                match (&e.error, &e.ended) {
                    (Some(error), _) => write!(f, "can't end {} ({}): {error}", e.victim, e.incident),
                    (None, Some(ended @ Ended::Dead { empty_after_ms, .. })) => write!(
                        f,
                        "KILLED {} by {} ({}){on_behalf}: {:.1} ms after the verdict{}, empty after {empty_after_ms} ms",
                        e.victim,
                        e.method,
                        e.incident,
                        e.verdict_to_action_ms,
                        ended.late()
                    ),
                    (None, Some(ended @ Ended::Lingering { waited_ms, .. })) => write!(
                        f,
                        "killed {} by {} ({}){on_behalf}{}, but a process is still there after {waited_ms} ms: it waits \
                         uninterruptibly, and dies when that ends",
                        e.victim,
                        e.method,
                        e.incident,
                        ended.late()
                    ),
                    (None, Some(Ended::OomKilled { processes, after_ms, alive })) => write!(
                        f,
                        "RELIEVED {} ({}){on_behalf}: the kernel's OOM killer ended {processes} of its processes {after_ms} ms \
                         after its limit was lowered, {}; the limit is what it was",
                        e.victim,
                        e.incident,
                        if *alive { "the others live" } else { "and none is left" }
                    ),
                    (None, Some(Ended::NobodyDied { waited_ms })) => write!(
                        f,
                        "lowered the limit of {} ({}){on_behalf} for {waited_ms} ms, and nobody died of it: it still hangs \
                         (action oom-then-kill would have killed it now)",
                        e.victim, e.incident
                    ),
                    (None, Some(Ended::DryRun)) => write!(
                        f,
                        "would end {} by {} now ({}){on_behalf}: nothing is done, {}",
                        e.victim, e.method, e.incident, e.because
                    ),
                    (None, None) => write!(f, "nothing came of ending {} ({})", e.victim, e.incident),
                }
            }
            Self::Suppressed(e) => {
                write!(f, "no action on {} ({}): {}", e.unit, e.incident, escaped(&e.reason.to_string()))
            }
            Self::FollowUp(e) => write!(f, "{} ({}): {}", e.workload, e.incident, escaped(&e.follow_up.outcome())),
            Self::Refaults(e) => {
                let rates = &e.refaults_per_s;
                write!(
                    f,
                    "refaults of {} ({}) in {:.0} s: {} mean {:.0}/s, highest {:.0}/s; {}",
                    e.unit.short(),
                    e.state,
                    rates.seconds,
                    rates.bars(),
                    rates.mean,
                    rates.highest,
                    rates.levels_in_words()
                )
            }
            Self::Cost(e) => {
                write!(
                    f,
                    "memguard used {:.2} s of CPU in {:.0} s, {} KiB resident (peak {}), {} records, {} wake-ups",
                    e.cpu_s, e.up_s, e.resident_kib, e.resident_peak_kib, e.records, e.wake_ups
                )?;
                match &e.tracer {
                    Some(tracer) if !tracer.lossless() => write!(
                        f,
                        "; lost: {} records (ring full), {} events of cgroups without a place, {} cycles untimed, {} \
                         ends of cycles and stalls, {} stalls untimed, {} records undecodable",
                        tracer.ring_full,
                        tracer.cgroups_left_out,
                        tracer.cycles_untimed,
                        tracer.ends_lost,
                        tracer.stalls_untimed,
                        tracer.undecodable
                    ),
                    Some(_) => f.write_str(", nothing lost"),
                    None => Ok(()),
                }
            }
            Self::Summary(e) => e.fmt(f),
        }
    }
}

/// Writes an event to the log, and tells who else wants to know ([`tell_also`](super::tell_also)).
pub fn emit(event: &Event) {
    super::also::tell(event);
    let record = serde_json::to_string(event).unwrap_or_default();
    match event {
        Event::Verdict(_) | Event::Suppressed(_) => tracing::warn!(target: "memguard", record, "{event}"),
        Event::Action(action) if action.error.is_some() => tracing::error!(target: "memguard", record, "{event}"),
        Event::Action(_) => tracing::warn!(target: "memguard", record, "{event}"),
        Event::FollowUp(e) => match &e.follow_up.progress {
            Progress::Done { .. } | Progress::NotNeeded { .. } => {
                tracing::info!(target: "memguard", record, "{event}");
            }
            Progress::GaveUp { .. } => tracing::error!(target: "memguard", record, "{event}"),
            Progress::Open(open) if open.failures > 0 => tracing::warn!(target: "memguard", record, "{event}"),
            Progress::Open(_) => tracing::info!(target: "memguard", record, "{event}"),
        },
        Event::Started(_) | Event::State(_) | Event::Refaults(_) | Event::Cost(_) | Event::Summary(_) => {
            tracing::info!(target: "memguard", record, "{event}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::{
        engine::{Terms, UnitId, Verdict},
        telemetry::PodName,
    };

    /// The log puts these before an event's own members, and a key that comes twice is no valid JSON for many readers.
    const RESERVED: [&str; 3] = ["time", "level", "message"];

    fn unit() -> CgroupName {
        let id = "a".repeat(64);
        let path = format!("/r/kubepods/pod7fb47c9c-45d8-4a2c-8f1e-0123456789ab/{id}/x");
        CgroupName::new(Path::new("/r"), 7, Path::new(&path)).of_pod(Some(PodName {
            namespace: "ci".to_owned(),
            pod: "runner-1".to_owned(),
            container: Some("runner".to_owned()),
            pod_facts_stale: true,
        }))
    }

    fn each() -> Vec<Event> {
        let verdict = Verdict {
            unit: UnitId(7),
            held: Duration::ZERO,
            at: Duration::ZERO,
            suspect_since: Duration::ZERO,
            signals: Signals::default(),
            terms: Terms(Vec::new()),
        };
        let suppressed = Suppressed::each().into_iter().map(|reason| {
            Event::Suppressed(Box::new(SuppressedAction {
                incident: String::new(),
                unit: unit(),
                rule: String::new(),
                reason,
            }))
        });
        let others = [
            Event::State(Box::new(StateChange {
                unit: unit(),
                from: State::Calm,
                to: State::Pressed,
                why: String::new(),
                signals: Some(Signals::default()),
            })),
            Event::Verdict(Box::new(VerdictEvent {
                incident: String::new(),
                mode: Mode::Observe,
                rule: String::new(),
                because: String::new(),
                unit: unit(),
                suspect_for_s: 0.0,
                verdict,
                memory: Memory::default(),
                tracer: Some(TracerSample::default()),
                signals_from: Level::Full,
            })),
            Event::Action(Box::new(Action {
                incident: String::new(),
                victim: unit(),
                on_behalf_of: unit(),
                method: Method::default(),
                rule: String::new(),
                because: String::new(),
                verdict_to_action_ms: 0.0,
                ended: Some(Ended::DryRun),
                error: None,
            })),
            Event::Summary(Box::default()),
        ];
        suppressed.chain(others).collect()
    }

    #[test]
    fn what_was_done_and_what_was_not_names_the_rule() {
        let action = |rule: &str, ended| {
            let (incident, because) = ("mg-1-7".to_owned(), "the rule ci says observe".to_owned());
            let victim = CgroupName { id: 7, cgroup: "a.scope".to_owned(), place: None, pod: None };
            Event::Action(Box::new(Action {
                incident,
                on_behalf_of: CgroupName { place: None, ..victim.clone() },
                victim,
                method: Method::Kill,
                rule: rule.to_owned(),
                because,
                verdict_to_action_ms: 1.0,
                ended: Some(ended),
                error: None,
            }))
            .to_string()
        };
        let killed = Ended::Dead { write_us: 1, empty_after_ms: 2 };
        assert!(action("ci", killed).starts_with("KILLED a.scope by cgroup.kill (mg-1-7), by the rule ci: "));
        assert!(action("default", killed).starts_with("KILLED a.scope by cgroup.kill (mg-1-7): "));
        assert!(action("ci", Ended::DryRun).ends_with(": nothing is done, the rule ci says observe"));
    }

    #[test]
    fn events_leave_the_logs_own_names_alone() {
        for event in each() {
            let value = serde_json::to_value(&event).unwrap();
            let members = value.as_object().unwrap();
            assert!(members.contains_key("kind"));
            for name in RESERVED {
                assert!(!members.contains_key(name), "{value} has {name}");
            }
            // Of keys that come twice a map keeps one.
            assert_eq!(serde_json::to_string(&event).unwrap().len(), value.to_string().len(), "twice: {value}");
        }
    }
}
