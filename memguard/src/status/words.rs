//! Terms in few words: a table has some 30 columns for them. The engine's own sentences ([`Term::why`](crate::engine::Term))
//! say more, and are shown where there is room.

use super::snapshot::{EngineStatus, TermStatus, UnitStatus};
use crate::engine::State;

/// How a term is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What is asked for.
    pub label: String,
    /// What it means when it fails.
    pub fails: String,
    /// Numbers with their unit: measured, where it begins to hold, where there is no doubt.
    pub value: String,
    pub from: String,
    pub sure: String,
}

/// In which unit a term is told.
#[derive(Clone, Copy)]
enum Unit {
    Share,
    PerSecond,
    Times,
}

/// Label, words for its failure, unit.
fn known(name: &str) -> Option<(&'static str, &'static str, Unit)> {
    Some(match name {
        "at_limit" => ("memory at its limit", "below its limit", Unit::Share),
        "limit_hit" => ("limit is hit", "limit is not hit", Unit::PerSecond),
        "no_oom" => ("OOM killer not asked", "the OOM killer acts", Unit::Times),
        "hung_below" => ("nothing below it hangs", "one below it hangs", Unit::Times),
        "unreclaimable" => ("can't be reclaimed", "most can be freed", Unit::Share),
        "refault_share" => ("freed pages come back", "freed stays away", Unit::Share),
        "text_returns" => ("text comes back", "text does not return", Unit::PerSecond),
        "text_return_share" => ("... of all text read", "most text is new", Unit::Share),
        "turnover" => ("cache is replaced", "pages live long", Unit::PerSecond),
        "faulting" => ("tasks are in faults", "few waits for pages", Unit::Share),
        "text_faults" => ("faults on text", "few text faults", Unit::PerSecond),
        "lost" => ("time is lost", "work gets done", Unit::Share),
        _ => return None,
    })
}

/// A term in words. One that this version does not know bears its name.
#[must_use]
pub fn shown_term(term: &TermStatus) -> Shown {
    let name = crate::telemetry::escaped(&term.name);
    let (label, fails, unit) = match known(&term.name) {
        Some((label, fails, unit)) => (label.to_owned(), fails.to_owned(), unit),
        None => (name.clone(), format!("{name} fails"), Unit::PerSecond),
    };
    let with_unit = |value: f64| match unit {
        Unit::Share => format!("{:.0} %", value * 100.0),
        Unit::PerSecond => format!("{}/s", rate(value)),
        Unit::Times => format!("{value:.0}"),
    };
    // Some of them ask for more than nothing, or for nothing.
    let from = match term.name.as_str() {
        "limit_hit" => "> 0/s".to_owned(),
        "no_oom" | "hung_below" => "0".to_owned(),
        _ => with_unit(term.from),
    };
    let sure = if term.sure > term.from { with_unit(term.sure) } else { from.clone() };
    Shown { label, fails, value: term.value.map_or_else(|| "unknown".to_owned(), with_unit), from, sure }
}

/// A rate with as many digits as it needs: `0.23`, `4.2`, `5`, `310`.
fn rate(value: f64) -> String {
    let digits = match value.abs() {
        small if small < 1.0 => format!("{value:.2}"),
        middle if middle < 10.0 => format!("{value:.1}"),
        _ => return format!("{value:.0}"),
    };
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Why a cgroup is not, or not yet, called a livelock; or that it is.
#[must_use]
pub fn why(unit: &UnitStatus, engine: &EngineStatus) -> String {
    let failing = unit.terms.iter().find(|term| !term.met).map(failing);
    let evidence = || format!("evidence {:.1} of {:.0} s", unit.held_s.unwrap_or(0.0), engine.hold_s);
    match (unit.state, failing) {
        _ if unit.ending => "being ended".to_owned(),
        (State::Livelock, None) => "livelock: every term holds".to_owned(),
        (State::Livelock, Some(failing)) => format!("livelock, but now {failing}"),
        (State::Suspect, None) => evidence(),
        (State::Suspect, Some(failing)) => format!("{}; now {failing}", evidence()),
        _ if unit.quiet_for_s > 0.0 => format!("left alone for {:.0} s, after an action", unit.quiet_for_s.ceil()),
        (_, Some(failing)) => failing,
        (_, None) if unit.terms.is_empty() => "no whole window yet".to_owned(),
        (_, None) => "every term holds".to_owned(),
    }
}

/// `text does not return: 0.23 of 5/s`: in a terminal of 80 columns 33 are left for it.
fn failing(term: &TermStatus) -> String {
    let Shown { fails, value, from, .. } = shown_term(term);
    match (term.name.as_str(), term.value) {
        ("refault_share", None) => "no page is freed".to_owned(),
        ("lost", None) => "no cpu.stat, can't be told".to_owned(),
        (_, None) => format!("{fails}: unknown"),
        ("limit_hit", Some(rate)) if rate > 0.0 => "one below it is at its limit".to_owned(),
        ("limit_hit" | "hung_below", _) => fails,
        ("no_oom", _) => format!("{fails}: asked {value} times"),
        ("lost", _) => format!("{fails}: lost {} of {from}", bare(&value)),
        _ => format!("{fails}: {} of {from}", bare(&value)),
    }
}

/// Without its unit.
fn bare(value: &str) -> &str {
    value.trim_end_matches(" %").trim_end_matches("/s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Engine, Settings, UnitId, fixture::hang},
        status::{Trail, UnitStatus},
        telemetry::CgroupName,
    };

    /// As the engine sees it after so many seconds of the lab's hang.
    fn unit(seconds: u64, change: impl Fn(&mut crate::engine::Sample)) -> (UnitStatus, EngineStatus) {
        let mut engine = Engine::new(Settings::default());
        let mut trail = Trail::new(hang(0).at);
        for second in 0..=seconds {
            let mut sample = hang(second);
            change(&mut sample);
            let (at, memory) = (sample.at, sample.memory);
            let observation = engine.observe(UnitId(7), sample);
            trail.observed(at, &memory, &observation);
        }
        let name = CgroupName { id: 7, cgroup: "a.scope".to_owned(), place: None, pod: None };
        let memory = hang(seconds).memory;
        let unit = UnitStatus::new(name, &memory, &trail, &engine, hang(seconds).at);
        (unit, EngineStatus { window_s: 5.0, hold_s: 7.0 })
    }

    fn said(seconds: u64, change: impl Fn(&mut crate::engine::Sample)) -> String {
        let (unit, engine) = unit(seconds, change);
        why(&unit, &engine)
    }

    #[test]
    fn every_term_of_the_engine_has_words() {
        let without_tracer = |sample: &mut crate::engine::Sample| sample.tracer = None;
        for (unit, _) in [unit(8, |_| {}), unit(8, without_tracer)] {
            assert!(unit.terms.len() >= 7);
            for term in &unit.terms {
                assert!(known(&term.name).is_some(), "{}", term.name);
                let shown = shown_term(term);
                assert!(shown.label.len() <= 22 && shown.fails.len() <= 20, "{shown:?}");
            }
        }
    }

    #[test]
    fn says_why_not() {
        assert_eq!(said(2, |_| {}), "no whole window yet");
        assert_eq!(said(8, |_| {}), "evidence 3.0 of 7 s");
        assert_eq!(said(30, |_| {}), "livelock: every term holds");
        assert_eq!(said(8, |sample| sample.memory.current /= 2), "below its limit: 50 of 95 %");
        assert_eq!(said(8, |sample| sample.memory.steals = 0), "no page is freed");
        assert_eq!(said(8, |sample| sample.cpu = None), "no cpu.stat, can't be told");
        assert_eq!(
            said(8, |sample| {
                if let Some(tracer) = &mut sample.tracer {
                    tracer.text_returns = Some([0; 4]);
                    tracer.major_faults = None;
                }
                sample.memory.anon /= 2;
            }),
            "text does not return: 0 of 5/s"
        );
    }

    #[test]
    fn says_that_it_is_being_ended_or_was() {
        let (mut unit, engine) = unit(30, |_| {});
        unit.ending = true;
        assert_eq!(why(&unit, &engine), "being ended");
        (unit.ending, unit.state, unit.quiet_for_s) = (false, State::Pressed, 21.3);
        assert_eq!(why(&unit, &engine), "left alone for 22 s, after an action");
    }
}
