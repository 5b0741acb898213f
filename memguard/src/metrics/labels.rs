//! Values of labels. All are known when memguard is compiled.

use crate::{
    engine::State,
    journal::Kept,
    kernel::Signal,
    remote::Progress,
    respond::{Ended, Method, Mode},
};

/// Names and values of a series' labels.
pub(super) type Labels = Vec<(&'static str, &'static str)>;

pub(super) const MODES: [Mode; 3] = [Mode::Off, Mode::Observe, Mode::Enforce];
pub(super) const METHODS: [Method; 3] = [Method::Kill, Method::Oom, Method::OomThenKill];
pub(super) const STATES: [State; 4] = [State::Calm, State::Pressed, State::Suspect, State::Livelock];
pub(super) const KEPT: [Kept; 3] = [Kept::OnDisk, Kept::InRunFolder, Kept::Nowhere];

/// What can come of an action.
pub(super) const OUTCOMES: [&str; 6] = ["dead", "lingering", "oom_killed", "nobody_died", "dry_run", FAILED];
pub(super) const FAILED: &str = "failed";

/// Why an action was suppressed: each [`Suppressed::label`](crate::respond::Suppressed::label).
pub(super) const REASONS: [&str; 17] = [
    "root",
    "own",
    "own_pod",
    "no_victim",
    "kube_system",
    "unknown_container",
    "unknown_static_pod",
    "protected",
    "not_selected",
    "pod_unknown",
    "under_way",
    "pod_delay",
    "many_at_once",
    "budget_spent",
    "namespace_budget_spent",
    "changed",
    "gone",
];

/// How a follow-up can end.
pub(super) const ENDS: [&str; 3] = ["done", "gave_up", "not_needed"];

pub(super) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Observe => "observe",
        Mode::Enforce => "enforce",
    }
}

/// As in the configuration.
pub(super) const fn method(method: Method) -> &'static str {
    match method {
        Method::Kill => "kill",
        Method::Oom => "oom",
        Method::OomThenKill => "oom-then-kill",
    }
}

pub(super) const fn outcome(ended: Ended) -> &'static str {
    match ended {
        Ended::Dead { .. } => "dead",
        Ended::Lingering { .. } => "lingering",
        Ended::OomKilled { .. } => "oom_killed",
        Ended::NobodyDied { .. } => "nobody_died",
        Ended::DryRun => "dry_run",
    }
}

/// `None` while it is open.
pub(super) const fn end(progress: &Progress) -> Option<&'static str> {
    match progress {
        Progress::Open(_) => None,
        Progress::Done { .. } => Some("done"),
        Progress::GaveUp { .. } => Some("gave_up"),
        Progress::NotNeeded { .. } => Some("not_needed"),
    }
}

pub(super) const fn state(state: State) -> &'static str {
    match state {
        State::Calm => "calm",
        State::Pressed => "pressed",
        State::Suspect => "suspect",
        State::Livelock => "livelock",
    }
}

pub(super) const fn kept(kept: Kept) -> &'static str {
    match kept {
        Kept::OnDisk => "disk",
        Kept::InRunFolder => "run_folder",
        Kept::Nowhere => "nowhere",
    }
}

pub(super) const fn signal(signal: Signal) -> &'static str {
    match signal {
        Signal::ReclaimCycles => "reclaim_cycles",
        Signal::LimitOwner => "limit_owner",
        Signal::FileFaults => "file_faults",
        Signal::Refaults => "refaults",
        Signal::Stalls => "stalls",
        Signal::OomVictims => "oom_victims",
        Signal::CgroupLifecycle => "cgroup_lifecycle",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::respond::Suppressed;

    /// The `reason`, `outcome` and so on that an event's record has, so that a series leads to its log lines.
    fn tag(value: &impl serde::Serialize, key: &str) -> String {
        serde_json::to_value(value).unwrap()[key].as_str().unwrap().to_owned()
    }

    #[test]
    fn labels_are_the_words_of_the_records() {
        let reasons = Suppressed::each();
        assert_eq!(reasons.iter().map(Suppressed::label).collect::<Vec<_>>(), REASONS);
        for ended in [
            Ended::Dead { write_us: 0, empty_after_ms: 0 },
            Ended::Lingering { write_us: 0, waited_ms: 0 },
            Ended::OomKilled { processes: 0, after_ms: 0, alive: false },
            Ended::NobodyDied { waited_ms: 0 },
            Ended::DryRun,
        ] {
            assert_eq!(outcome(ended), tag(&ended, "outcome"));
            assert!(OUTCOMES.contains(&outcome(ended)));
        }
        for of in METHODS {
            assert_eq!(method(of), serde_json::to_value(of).unwrap());
        }
        for of in MODES {
            assert_eq!(mode(of), of.to_string());
        }
        for of in STATES {
            assert_eq!(state(of), of.to_string());
        }
        for signal_of in [Signal::ReclaimCycles, Signal::FileFaults, Signal::CgroupLifecycle] {
            assert_eq!(signal(signal_of), serde_json::to_value(signal_of).unwrap());
        }
    }
}
