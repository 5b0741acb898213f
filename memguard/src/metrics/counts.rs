//! What happened, counted.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::labels::{ENDS, FAILED, KEPT, Labels, METHODS, MODES, OUTCOMES, REASONS, end, kept, method, mode, outcome};
use crate::{
    engine::Signals,
    journal::Kept,
    remote::Kind,
    respond::Ended,
    telemetry::{Action, Event},
};

/// Seconds; from the verdict to the write that kills, mostly.
const FAST: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Seconds for which a cgroup was suspect before there was a verdict.
const PATIENT: [f64; 10] = [5.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 60.0, 120.0];
/// Pages per second: as in the histograms of the log.
const RATES: [f64; 11] = [1.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5];

/// Counters and histograms. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    verdicts: Family<Labels, Counter>,
    actions: Family<Labels, Counter>,
    suppressed: Family<Labels, Counter>,
    follow_ups: Family<Labels, Counter>,
    kept: Family<Labels, Counter>,
    reloads: Family<Labels, Counter>,
    suspect_to_verdict: Histogram,
    verdict_to_kill: Histogram,
    kill_to_empty: Histogram,
    refault_rate: Histogram,
    configuration: Arc<Mutex<Configuration>>,
}

/// How the latest attempt to read the configuration went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Configuration {
    pub(super) good: bool,
    /// When the one in force was read.
    pub(super) read_at: SystemTime,
}

impl Default for Metrics {
    fn default() -> Self {
        let new = Self {
            verdicts: Family::default(),
            actions: Family::default(),
            suppressed: Family::default(),
            follow_ups: Family::default(),
            kept: Family::default(),
            reloads: Family::default(),
            suspect_to_verdict: Histogram::new(PATIENT),
            verdict_to_kill: Histogram::new(FAST),
            kill_to_empty: Histogram::new(FAST),
            refault_rate: Histogram::new(RATES),
            configuration: Arc::new(Mutex::new(Configuration { good: true, read_at: SystemTime::now() })),
        };
        new.begin();
        new
    }
}

fn one(family: &Family<Labels, Counter>, labels: &[(&'static str, &'static str)]) {
    family.get_or_create_owned(&labels.to_vec()).inc();
}

impl Metrics {
    /// Every series is there from the start, with 0: `increase()` sees only what comes after a first sample.
    fn begin(&self) {
        let make = |family: &Family<Labels, Counter>, labels: Labels| drop(family.get_or_create_owned(&labels));
        for of in MODES {
            make(&self.verdicts, vec![("mode", mode(of))]);
        }
        for of in METHODS {
            for outcome in OUTCOMES {
                make(&self.actions, vec![("method", method(of)), ("outcome", outcome)]);
            }
        }
        for reason in REASONS {
            make(&self.suppressed, vec![("reason", reason)]);
        }
        for kind in Kind::ALL {
            for end in ENDS {
                make(&self.follow_ups, vec![("kind", kind.label()), ("outcome", end)]);
            }
        }
        for of in KEPT {
            make(&self.kept, vec![("where", kept(of))]);
        }
        for outcome in ["success", "failure"] {
            make(&self.reloads, vec![("outcome", outcome)]);
        }
    }

    /// Counts an event.
    pub fn observe(&self, event: &Event) {
        match event {
            Event::Verdict(verdict) => {
                one(&self.verdicts, &[("mode", mode(verdict.mode))]);
                self.suspect_to_verdict.observe(verdict.suspect_for_s);
            }
            Event::Action(action) => self.acted(action),
            Event::Suppressed(suppressed) => one(&self.suppressed, &[("reason", suppressed.reason.label())]),
            Event::FollowUp(follow_up) => {
                let follow_up = &follow_up.follow_up;
                if let Some(end) = end(&follow_up.progress) {
                    one(&self.follow_ups, &[("kind", follow_up.kind.label()), ("outcome", end)]);
                }
            }
            // The present, which the agent is asked for; or nothing to count.
            Event::Started(_) | Event::State(_) | Event::Refaults(_) | Event::Cost(_) | Event::Summary(_) => {}
        }
    }

    fn acted(&self, action: &Action) {
        let came_of_it = match (&action.error, action.ended) {
            (None, Some(ended)) => outcome(ended),
            _ => FAILED,
        };
        one(&self.actions, &[("method", method(action.method)), ("outcome", came_of_it)]);
        if action.error.is_some() || matches!(action.ended, Some(Ended::DryRun) | None) {
            return;
        }
        self.verdict_to_kill.observe(action.verdict_to_action_ms / 1e3);
        if let Some(Ended::Dead { empty_after_ms, .. }) = action.ended {
            self.kill_to_empty.observe(empty_after_ms as f64 / 1e3);
        }
    }

    /// One look at a cgroup under reclaim.
    pub fn looked(&self, signals: &Signals) {
        self.refault_rate.observe(signals.refaults_per_s);
    }

    /// An incident was kept before its container was ended.
    pub fn kept(&self, how: Kept) {
        one(&self.kept, &[("where", kept(how))]);
    }

    /// The configuration was read again, and is in force or has mistakes.
    pub fn reloaded(&self, good: bool) {
        one(&self.reloads, &[("outcome", if good { "success" } else { "failure" })]);
        let mut configuration = self.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        configuration.good = good;
        if good {
            configuration.read_at = SystemTime::now();
        }
    }

    pub(super) fn configuration(&self) -> Configuration {
        *self.configuration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("verdicts", "Livelocks found, by the mode that holds for the cgroup", self.verdicts.clone());
        registry.register(
            "actions",
            "Actions on cgroups in livelock, by how it was tried and what came of it. dry_run: observe mode, nothing was done",
            self.actions.clone(),
        );
        registry.register(
            "actions_suppressed",
            "Verdicts on which nothing was done, by reason",
            self.suppressed.clone(),
        );
        registry.register_with_unit(
            "suspect_to_verdict",
            "Time from the first look at which the rule held to the verdict",
            Unit::Seconds,
            self.suspect_to_verdict.clone(),
        );
        registry.register_with_unit(
            "verdict_to_kill",
            "Time from a verdict to the write that kills, the journal and the last look included",
            Unit::Seconds,
            self.verdict_to_kill.clone(),
        );
        registry.register_with_unit(
            "kill_to_empty",
            "Time from the write that kills until no process was left",
            Unit::Seconds,
            self.kill_to_empty.clone(),
        );
        registry.register_with_unit(
            "refault_rate",
            "Looks at cgroups under reclaim, one a second each, by the rate at which evicted file pages came back",
            Unit::Other("pages_per_second".to_owned()),
            self.refault_rate.clone(),
        );
        registry.register(
            "follow_ups",
            "Follow-ups of kills that have come to their end, by kind and end",
            self.follow_ups.clone(),
        );
        registry.register(
            "journal_kept",
            "Incidents by where they were kept when their container was ended. run_folder: the disk was late or failed",
            self.kept.clone(),
        );
        registry.register("config_reloads", "Times that the configuration was read again", self.reloads.clone());
    }
}
