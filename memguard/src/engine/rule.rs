//! The rule: which signals, at which thresholds, make a window look like a livelock.

use serde::Serialize;

use super::{signals::Signals, thresholds::Thresholds};

/// One term of the rule: what was measured, what is asked for, and whether that is met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    pub name: &'static str,
    /// `None` where the signal cannot be had.
    pub value: Option<f64>,
    pub threshold: f64,
    pub met: bool,
    /// The value in words, with its unit and where it came from.
    pub why: String,
}

/// All terms of one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Terms(pub Vec<Term>);

impl Terms {
    /// Whether every term is met.
    #[must_use]
    pub fn hold(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|term| term.met)
    }

    /// The terms that are not met: why this is not a livelock.
    pub fn missing(&self) -> impl Iterator<Item = &Term> {
        self.0.iter().filter(|term| !term.met)
    }

    /// All terms in one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.0.iter().map(|term| term.why.as_str()).collect::<Vec<_>>().join("; ")
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn at_least(name: &'static str, value: f64, threshold: f64, why: String) -> Term {
    Term { name, value: Some(value), threshold, met: value >= threshold, why }
}

/// The rule fitted to the lab's first runs: at the limit, the limit keeps being hit, no OOM, hardly anything to free,
/// what is freed comes back, and soon, and it is program text, and tasks stall on it.
pub(super) fn evaluate(signals: &Signals, thresholds: &Thresholds) -> Terms {
    let t = thresholds;
    let (text_faults, text_source) = match signals.text_faults_per_s {
        Some(rate) => (rate, "on program text"),
        None => (signals.major_faults_per_s, "of any kind (the tracer does not see which mapping)"),
    };
    Terms(vec![
        at_least(
            "at_limit",
            signals.at_limit,
            t.at_limit,
            format!("memory at {} of its limit", percent(signals.at_limit)),
        ),
        Term {
            name: "limit_hit",
            value: Some(signals.max_events_per_s),
            threshold: 0.0,
            met: signals.max_events_per_s > 0.0,
            why: format!("limit hit {:.1} times/s", signals.max_events_per_s),
        },
        Term {
            name: "no_oom",
            value: Some(signals.ooms as f64),
            threshold: 0.0,
            met: signals.ooms == 0,
            why: if signals.ooms == 0 {
                "the kernel's OOM killer was not asked".to_owned()
            } else {
                format!("the kernel's OOM killer was asked {} times", signals.ooms)
            },
        },
        at_least(
            "unreclaimable",
            signals.unreclaimable,
            t.unreclaimable,
            format!("{} of the limit can't be reclaimed (anon + shmem)", percent(signals.unreclaimable)),
        ),
        Term {
            name: "refault_share",
            value: signals.refault_share,
            threshold: t.refault_share,
            met: signals.refault_share.is_some_and(|share| share >= t.refault_share),
            why: match signals.refault_share {
                Some(share) => {
                    format!("{} of the {:.0} pages/s freed came right back", percent(share), signals.steals_per_s)
                }
                None => "no page was freed".to_owned(),
            },
        },
        at_least(
            "turnover",
            signals.turnover_per_s,
            t.turnover_per_s,
            format!("a cached page lives {:.1} s", 1.0 / signals.turnover_per_s.max(1e-3)),
        ),
        at_least(
            "text_faults",
            text_faults,
            t.text_faults_per_s,
            format!("{text_faults:.0} major faults/s {text_source}"),
        ),
        stall(signals, text_faults, t),
    ])
}

/// Tasks stall: by PSI, or by the text that they fault in again and again.
fn stall(signals: &Signals, text_faults: f64, t: &Thresholds) -> Term {
    let memory = signals.memory_some;
    let any = memory.map(|memory| memory.max(signals.io_some.unwrap_or(0.0)));
    let by_psi = memory.is_some_and(|share| share >= t.memory_some) && any.is_some_and(|share| share >= t.any_some);
    let by_text = signals.text_faults_per_s.is_some()
        && signals.unreclaimable >= t.text_thrash_unreclaimable
        && signals.refault_share.is_some_and(|share| share >= t.text_thrash_refault_share)
        && signals.turnover_per_s >= t.text_thrash_turnover_per_s
        && text_faults >= t.text_thrash_faults_per_s;
    let psi = match (memory, signals.io_some) {
        (Some(memory), Some(io)) => {
            format!("tasks stall {} of the time on memory, {} on io", percent(memory), percent(io))
        }
        (Some(memory), None) => format!("tasks stall {} of the time on memory", percent(memory)),
        (None, _) => "PSI is not available".to_owned(),
    };
    let why = match (by_psi, by_text) {
        (false, true) => format!("{psi}, and the program text thrashes"),
        _ => psi,
    };
    Term { name: "stall", value: any, threshold: t.any_some, met: by_psi || by_text, why }
}
