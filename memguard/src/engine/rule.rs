//! The rule: which signals, at which thresholds, make a window look like a livelock, and how sure that is.

use serde::Serialize;

use super::{
    signals::Signals,
    thresholds::{Ramp, Thresholds},
};

/// One term of the rule: what was measured, what is asked for, and whether that is met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    pub name: &'static str,
    /// `None` where the signal cannot be had.
    pub value: Option<f64>,
    /// Where the term begins to hold.
    pub threshold: f64,
    /// Where it leaves no doubt. Not in records: it says nothing of what was measured.
    #[serde(skip)]
    pub sure: f64,
    pub met: bool,
    /// 0 when it is not met, up to 1 when there is no doubt.
    pub confidence: f64,
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

    /// That of the least certain term: a chain of evidence is as strong as its weakest link.
    #[must_use]
    pub fn confidence(&self) -> f64 {
        self.0.iter().map(|term| term.confidence).reduce(f64::min).unwrap_or(0.0)
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

/// A term that is met or not.
fn fact(name: &'static str, value: f64, threshold: f64, met: bool, why: String) -> Term {
    Term { name, value: Some(value), threshold, sure: threshold, met, confidence: f64::from(u8::from(met)), why }
}

/// A term that can be met more or less clearly.
fn graded(name: &'static str, value: Option<f64>, ramp: Ramp, why: String) -> Term {
    let confidence = value.map_or(0.0, |value| ramp.confidence(value));
    Term { name, value, threshold: ramp.from, sure: ramp.sure, met: confidence > 0.0, confidence, why }
}

/// Whether it is this limit that is hit. What a cgroup shows is summed over its subtree: where nearly all hits are those of
/// a smaller limit below it, so is all the rest.
fn limit_hit(signals: &Signals, t: &Thresholds) -> Term {
    let rate = signals.limit_hits_per_s;
    let of_all = signals.own_hits.filter(|share| *share < t.own_hits.from);
    let why = match of_all {
        Some(share) if rate > 0.0 => {
            format!("limit hit {rate:.1} times/s, {} of all hits: the others are of limits below it", percent(share))
        }
        _ => format!("limit hit {rate:.1} times/s"),
    };
    fact("limit_hit", rate, 0.0, rate > 0.0 && of_all.is_none(), why)
}

/// What is seen of a cgroup below which something hangs at a limit of its own is that hang once more.
pub(super) fn hung_below() -> Term {
    fact("hung_below", 1.0, 0.0, false, "something below it hangs at a limit of its own".to_owned())
}

/// At the limit, the limit keeps being hit, no OOM, much that can't be freed, what is freed comes back, and soon, and it
/// is program text, and so the tasks hardly get to work.
pub(super) fn evaluate(signals: &Signals, thresholds: &Thresholds) -> Terms {
    let t = thresholds;
    let mut terms = vec![
        fact(
            "at_limit",
            signals.at_limit,
            t.at_limit.from,
            signals.at_limit >= t.at_limit.from,
            format!("memory at {} of {}", percent(signals.at_limit), signals.limited_by),
        ),
        limit_hit(signals, t),
        fact(
            "no_oom",
            signals.ooms as f64,
            0.0,
            signals.ooms == 0,
            if signals.ooms == 0 {
                "the kernel's OOM killer was not asked".to_owned()
            } else {
                format!("the kernel's OOM killer was asked {} times", signals.ooms)
            },
        ),
        graded(
            "unreclaimable",
            Some(signals.unreclaimable),
            t.unreclaimable,
            format!("{} of the limit can't be reclaimed (anon + shmem)", percent(signals.unreclaimable)),
        ),
        refault_share(signals, t),
    ];
    terms.extend(text(signals, t));
    terms.extend(faulting(signals, t));
    terms.push(lost(signals, t));
    Terms(terms)
}

/// What is freed is wanted again. Where it is known that the tasks that need text do nothing but wait for it, others may read
/// files beside them, old or new.
fn refault_share(signals: &Signals, t: &Thresholds) -> Term {
    let why = match signals.refault_share {
        Some(share) => {
            format!("{} of the {:.0} pages/s read in had been thrown out", percent(share), signals.reads_per_s)
        }
        None => "no page was freed".to_owned(),
    };
    let mut term = graded("refault_share", signals.refault_share, t.refault_share, why);
    if signals.refault_share.is_some() && others_read(signals, t) {
        term.confidence =
            term.confidence.max(signals.faulting.map_or(0.0, |share| t.faulting_beside.confidence(share)));
        term.met = term.confidence > 0.0;
    }
    term
}

/// Program text is thrown out and wanted again: by the tracer's memory of which text had its last fault when, or, where
/// that can't be had, by the number of faults and the mean lifetime of a cached page.
fn text(signals: &Signals, t: &Thresholds) -> Vec<Term> {
    // Where nothing at all gets done, pages that live long say little. But a slow disk, or a CPU of which there is too little,
    // may be waited for all the time while work goes on, by one task or another: there they decide, unless it is known that
    // each of these tasks does nothing but wait.
    let (slow_disk, few_cpus) = (waits_for_disk(signals, t), is_denied_cpus(signals, t));
    let (nothing_done, ramp) = if slow_disk || few_cpus {
        (signals.faulting, t.faulting_utterly)
    } else {
        (signals.lost_to_memory, t.lost_utterly)
    };
    let utterly = nothing_done.map_or(0.0, |share| ramp.confidence(share));
    // Who waits for a CPU between two faults spends less of his time in them.
    let by_cpus = signals.faulting.filter(|_| few_cpus && !slow_disk).map_or(0.0, |share| {
        t.faulting_beside.confidence(share).min(t.turnover_per_s.confidence(signals.turnover_per_s))
    });
    let turnover = |ramp: Ramp| {
        let mut term = graded(
            "turnover",
            Some(signals.turnover_per_s),
            ramp,
            format!("a cached page lives {:.1} s", 1.0 / signals.turnover_per_s.max(1e-3)),
        );
        term.confidence = term.confidence.max(utterly).max(by_cpus);
        term.met = term.confidence > 0.0;
        term
    };
    if let Some(returns) = signals.text_returns_per_s {
        let known = signals.text_return_share.unwrap_or(0.0);
        // Text that came back once before was seen to. In a container that has just begun to hang on a slow disk that takes
        // its time, and the kernel's own memory of what it threw out says it at once. That reaches further back than ours,
        // so it is believed only where hardly anything else is left to drop.
        let refaulted = signals.text_refault_share.filter(|_| signals.unreclaimable >= t.crowded.from).unwrap_or(0.0);
        let share = known.max(refaulted);
        let returns = returns.max(refaulted * signals.text_faults_per_s.unwrap_or(0.0));
        return vec![
            graded(
                "text_returns",
                Some(returns),
                t.text_returns_per_s,
                format!("{returns:.0} times/s program text had to be read that was there a moment ago"),
            ),
            graded(
                "text_return_share",
                Some(share),
                t.text_return_share,
                format!("{} of all text that had to be read", percent(share)),
            ),
            turnover(if slow_disk || few_cpus { t.scarce_turnover_per_s } else { t.turnover_per_s }),
        ];
    }
    let (faults, what) = match signals.text_faults_per_s {
        Some(rate) => (rate, "faults/s on program text"),
        // A database that is mapped has these too: it has to be text because hardly anything else is left to drop.
        None if signals.unreclaimable < t.crowded.from => {
            (0.0, "major faults/s that must be on text (no tracer tells, and other files are in memory too)")
        }
        None => (signals.major_faults_per_s, "major faults/s of any kind (the tracer does not see which mapping)"),
    };
    // Without eBPF nobody knows whose time it is that is lost.
    let lives = if signals.text_faults_per_s.is_some() { t.text_turnover_per_s } else { t.blind_turnover_per_s };
    vec![graded("text_faults", Some(faults), t.text_faults_per_s, format!("{faults:.0} {what}")), turnover(lives)]
}

/// Whether the disk alone accounts for what is lost, or, without PSI, may do so. One slow enough is waited for all of the time
/// while work goes on.
fn waits_for_disk(signals: &Signals, t: &Thresholds) -> bool {
    signals.io_some.is_none_or(|waiting| waiting >= t.lost.from)
}

/// Whether there is so little of a CPU for it that its work is always behind. Then it can't be seen that tasks would rest,
/// and the work in the kernel that reads text in weighs more.
fn is_denied_cpus(signals: &Signals, t: &Thresholds) -> bool {
    signals.denied.is_some_and(|denied| denied >= t.denied_cpus.from)
}

/// Whether most of what is read in is no text that was thrown out: then somebody reads files, and what is lost to the disk, to
/// reclaim and to the kernel may be what he takes, who works.
fn others_read(signals: &Signals, t: &Thresholds) -> bool {
    // Counted, not estimated.
    signals.text_of_refaults.is_some() && signals.text_refault_share.is_some_and(|share| share < t.text_read.from)
}

/// Of the time in which all that could run are denied a CPU, no more than this is taken off what is asked for: before Linux 6.18
/// a task is denied it in the midst of a fault, too (`throttle_cfs_rq()`), and then it says nothing about the rest.
const MOST_DENIED: f64 = 0.5;

/// Whether those who need pages of mapped files do hardly anything but get them: who works, or sleeps, is between two faults.
/// And so is who is denied a CPU there, so it takes less where that is. `None` where nothing tells, and nothing asks for it.
///
/// Where one has the fault and the others wait for it (a lock, Python's GIL, a collector of garbage that stops the world), each
/// spends little of its time so, and all together as much as one would. So do those who sleep and have to queue for a lock when
/// they wake up, and these may get all of their work done: only where all text is replaced at every moment are the first meant.
fn faulting(signals: &Signals, t: &Thresholds) -> Option<Term> {
    let others = others_read(signals, t);
    let brief = is_replaced(signals, t, t.brief_turnover_per_s);
    let ramp = if others || waits_for_disk(signals, t) {
        t.faulting_beside
    } else {
        let ramp = if brief { t.faulting_brief } else { t.faulting };
        ramp.times(1.0 - signals.denied.unwrap_or(0.0).min(MOST_DENIED))
    };
    let Some(each) = signals.faulting else {
        let why = "most of what is read is no text, and whose time is lost to that can't be told".to_owned();
        return others.then(|| graded("faulting", None, ramp, why));
    };
    // What is replaced beside somebody who reads files may be what he reads.
    let in_turns = signals.faulting_in_turns.filter(|in_turns| brief && !others && *in_turns > each);
    let (share, why) = if let Some(in_turns) = in_turns {
        (in_turns, format!("one task after another gets pages of files, {} of the time", percent(in_turns)))
    } else {
        (each, format!("tasks that need pages of files spend {} of their time on getting them", percent(each)))
    };
    Some(graded("faulting", Some(share), ramp, why))
}

/// Hardly anything but text is left to drop, all of it comes back, and no page of it lives for longer than that: then not all of
/// the time in user mode is work, much of it is spent on filling caches again and on instructions that are tried again.
fn is_replaced(signals: &Signals, t: &Thresholds, turnover_per_s: Ramp) -> bool {
    signals.turnover_per_s >= turnover_per_s.from
        && signals.unreclaimable >= t.crowded.from
        && signals.text_return_share.is_some_and(|share| share >= t.text_return_share.sure)
}

/// From this share of the time on it is told that tasks are denied a CPU.
const WORTH_TELLING: f64 = 0.1;

/// How little of its time the cgroup gets to compute.
fn lost(signals: &Signals, t: &Thresholds) -> Term {
    let waiting = signals.waiting.map_or_else(
        || "neither PSI nor the tracer tell how long tasks wait".to_owned(),
        |waiting| format!("tasks wait {} of the time", percent(waiting)),
    );
    match (signals.lost, signals.user_cpus, signals.system_cpus) {
        (Some(lost), Some(user), Some(system)) => {
            let cpus = format!("{user:.2} CPUs compute, {system:.2} are in the kernel");
            let denied = signals
                .denied
                .filter(|denied| *denied >= WORTH_TELLING)
                .map_or_else(String::new, |denied| format!(", and all are denied a CPU {} of it", percent(denied)));
            let why = format!("{} of its time is lost: {cpus}, {waiting}{denied}", percent(lost));
            graded(
                "lost",
                Some(lost),
                if is_replaced(signals, t, t.frantic_turnover_per_s) { t.lost_frantic } else { t.lost },
                why,
            )
        }
        // That tasks wait does not tell a hang from work: in jobs that went on at two thirds of their speed one of them
        // waited all of the time. Without cpu.stat nothing says whether any work gets done, so nothing is ended.
        _ => graded("lost", None, t.lost, format!("no cpu.stat, so it can't be told what gets done; {waiting}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_time_is_lost_the_less_pages_that_live_long_speak_against_a_hang() {
        let turnover = |turnover_per_s, lost| {
            let signals = Signals {
                turnover_per_s,
                text_returns_per_s: Some(1.0),
                io_some: Some(0.1),
                lost_to_memory: Some(lost),
                ..Signals::default()
            };
            let Terms(terms) = evaluate(&signals, &Thresholds::default());
            let term = terms.into_iter().find(|term| term.name == "turnover").unwrap();
            assert_eq!(term.met, term.confidence > 0.0);
            term.confidence
        };
        assert!(turnover(0.01, 0.94).abs() < 1e-9, "long-lived pages, and work gets done");
        let slope = [0.95, 0.96, 0.97, 0.98, 1.0].map(|lost| turnover(0.01, lost));
        assert!(slope[0] > 0.3 && slope.is_sorted() && slope[2] < 1.0, "{slope:?}");
        assert!((slope[3] - 1.0).abs() < 1e-9 && (slope[4] - 1.0).abs() < 1e-9, "{slope:?}");
        assert!(turnover(0.2, 0.95) > 0.99, "pages that live for five seconds need no help");
    }

    #[test]
    fn where_the_disk_is_waited_for_all_the_time_pages_have_to_live_shorter() {
        let met = |turnover_per_s, io_some: Option<f64>| {
            let (text_returns_per_s, lost_to_memory) = (Some(1.0), Some(io_some.unwrap_or(1.0)));
            let signals = Signals { turnover_per_s, text_returns_per_s, io_some, lost_to_memory, ..Signals::default() };
            let Terms(terms) = evaluate(&signals, &Thresholds::default());
            terms.iter().any(|term| term.name == "turnover" && term.met)
        };
        assert!(met(0.1, Some(0.5)) && !met(0.1, Some(1.0)) && met(0.2, Some(1.0)));
        assert!(!met(0.1, None) && met(0.2, None), "nobody knows what is waited for");
    }
}
