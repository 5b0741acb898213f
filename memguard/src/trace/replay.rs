//! The engine, and other people's rules, run over a recording.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    degrade::{Without, degrade},
    entry::{Decided, Entry, Start},
};
use crate::engine::{
    Engine, Observation, Sample, Settings, Signals, State, Terms, UnitId,
    baselines::{Baseline, Watch},
};

/// Who judges a recording.
#[derive(Clone, Debug, PartialEq)]
pub enum Judge {
    /// The engine, with the settings that the recording was made with.
    Recorded,
    /// The engine with these settings.
    Engine(Box<Settings>),
    /// Somebody else's rule.
    Baseline(Baseline),
}

impl Judge {
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Recorded | Self::Engine(_) => "memguard",
            Self::Baseline(rule) => rule.name(),
        }
    }
}

/// What came of a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replay {
    pub starts: Vec<Start>,
    pub samples: u64,
    /// Samples with which the engine now decides otherwise than it did then: another state, or a verdict where there was
    /// none, or none where there was one. `None` when nobody asked for that: it was run with other settings or with less to
    /// go by.
    pub different: Option<u64>,
    /// Samples with which it decides the same, and says so with other figures or words: a memguard of another version. `None` as
    /// above.
    pub other_figures: Option<u64>,
    /// Entries that the recording lacks.
    pub lost: u64,
    /// In the order of the judges.
    pub rules: Vec<RuleReplay>,
}

/// What one judge made of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleReplay {
    pub rule: &'static str,
    /// By id, in the order of their first sample.
    pub units: Vec<UnitReplay>,
}

/// One cgroup's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnitReplay {
    pub unit: UnitId,
    pub cgroup: String,
    /// Seconds from the first sample of the recording to its last.
    pub watched_s: f64,
    pub moments: Vec<Moment>,
}

/// A cgroup's state changed, or a verdict was given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// Seconds since the first sample of the recording.
    pub at_s: f64,
    /// `CLOCK_MONOTONIC` of the machine that it was made on, in seconds.
    pub monotonic_s: f64,
    pub from: State,
    pub to: State,
    pub verdict: bool,
    pub signals: Option<Signals>,
    pub terms: Option<Terms>,
}

impl RuleReplay {
    pub fn verdicts(&self) -> impl Iterator<Item = (&UnitReplay, &Moment)> {
        self.units
            .iter()
            .flat_map(|unit| unit.moments.iter().map(move |moment| (unit, moment)))
            .filter(|(_, m)| m.verdict)
    }
}

/// A judge at work.
enum Judging {
    Engine(Box<Engine>),
    Baseline(Watch),
}

impl Judging {
    fn new(judge: &Judge, recorded: &Settings) -> Self {
        match judge {
            Judge::Recorded => Self::Engine(Box::new(Engine::new(recorded.clone()))),
            Judge::Engine(settings) => Self::Engine(Box::new(Engine::new((**settings).clone()))),
            Judge::Baseline(rule) => Self::Baseline(Watch::new(*rule)),
        }
    }

    fn observe(&mut self, unit: UnitId, sample: Sample) -> Observation {
        match self {
            Self::Engine(engine) => engine.observe(unit, sample),
            // What such a rule would do is a verdict; it knows no states.
            Self::Baseline(watch) => {
                let acts = watch.observe(unit, &sample);
                let state = if acts { State::Livelock } else { State::Calm };
                Observation { before: State::Calm, state, signals: None, terms: None, verdict: None }
            }
        }
    }
}

/// Runs the judges over a recording, with some sources of signals taken away.
#[must_use]
pub fn replay(entries: &[Entry], judges: &[Judge], without: &[Without]) -> Replay {
    let compares = without.is_empty() && judges.contains(&Judge::Recorded);
    let counted = compares.then_some(0);
    let mut replay = Replay { different: counted, other_figures: counted, ..Replay::default() };
    let settings = |entry: &Entry| match entry {
        Entry::Start(start) => Some(start.settings.clone()),
        _ => None,
    };
    let recorded = entries.iter().find_map(settings).unwrap_or_default();
    let mut at_work: Vec<Judging> = judges.iter().map(|judge| Judging::new(judge, &recorded)).collect();
    replay.rules = judges.iter().map(|judge| RuleReplay { rule: judge.name(), units: Vec::new() }).collect();
    let mut names: BTreeMap<UnitId, String> = BTreeMap::new();
    let mut began = None;
    for entry in entries {
        match entry {
            Entry::Start(start) => {
                at_work = judges.iter().map(|judge| Judging::new(judge, &start.settings)).collect();
                replay.starts.push((**start).clone());
            }
            Entry::Watch { unit, cgroup } => {
                names.insert(*unit, cgroup.clone());
            }
            Entry::Sample { unit, sample, decided } => {
                let at_s = sample.at.saturating_sub(*began.get_or_insert(sample.at)).as_secs_f64();
                replay.samples += 1;
                for (index, judging) in at_work.iter_mut().enumerate() {
                    let observation = judging.observe(*unit, degrade((**sample).clone(), without));
                    if judges[index] == Judge::Recorded
                        && let (Some(different), Some(other_figures)) =
                            (&mut replay.different, &mut replay.other_figures)
                    {
                        let now = Decided::of(&observation);
                        *different += u64::from(!now.agrees(decided));
                        *other_figures += u64::from(now.agrees(decided) && now != *decided);
                    }
                    let known = replay.rules[index].unit(*unit, &names);
                    known.watched_s = at_s;
                    let acts = matches!(judging, Judging::Baseline(_)) && observation.state == State::Livelock;
                    let verdict = acts || observation.verdict.is_some();
                    if verdict || observation.state != observation.before {
                        known.moments.push(Moment {
                            at_s,
                            monotonic_s: sample.at.as_secs_f64(),
                            from: observation.before,
                            to: observation.state,
                            verdict,
                            signals: observation.signals,
                            terms: observation.terms,
                        });
                    }
                }
            }
            Entry::Acted { unit, at } => at_work.iter_mut().for_each(|judging| {
                if let Judging::Engine(engine) = judging {
                    engine.acted(*unit, *at);
                }
            }),
            Entry::Forget { unit } => at_work.iter_mut().for_each(|judging| match judging {
                Judging::Engine(engine) => engine.forget(*unit),
                Judging::Baseline(watch) => watch.forget(*unit),
            }),
            Entry::Lost { entries } => replay.lost = replay.lost.saturating_add(*entries),
        }
    }
    replay
}

impl RuleReplay {
    fn unit(&mut self, unit: UnitId, names: &BTreeMap<UnitId, String>) -> &mut UnitReplay {
        let place = self.units.iter().position(|known| known.unit == unit).unwrap_or_else(|| {
            let cgroup = names.get(&unit).cloned().unwrap_or_else(|| format!("cgroup {unit}"));
            self.units.push(UnitReplay { unit, cgroup, watched_s: 0.0, moments: Vec::new() });
            self.units.len() - 1
        });
        &mut self.units[place]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        engine::fixture::hang,
        trace::{self, Recorder, Writer},
    };

    const UNIT: UnitId = UnitId(9);

    /// Through the recorder and the file, as the agent does it.
    fn recorded() -> trace::Recording {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.mgtrace");
        let settings = Settings { hold: Duration::from_secs(20), ..Settings::default() };
        let start = Start {
            version: "1".to_owned(),
            kernel: "6.12".to_owned(),
            signals_from: "full".to_owned(),
            unix_time_s: 0,
            settings: settings.clone(),
        };
        let mut recorder = Recorder::new(Writer::append(&path).unwrap().0, start).unwrap();
        let mut engine = Engine::new(settings);
        recorder.watch(UNIT, "a.scope");
        for second in 0..50 {
            let observation = engine.observe(UNIT, hang(second));
            recorder.sample(UNIT, hang(second), &observation);
        }
        recorder.forget(UNIT);
        recorder.finish().unwrap();
        trace::read(&path).unwrap()
    }

    #[test]
    fn a_recording_gives_the_same_verdict_to_the_last_bit() {
        let recording = recorded();
        assert_eq!(recording.damage, None);
        let replay = replay(&recording.entries, &[Judge::Recorded], &[]);
        assert_eq!((replay.samples, replay.lost), (50, 0));
        assert_eq!((replay.different, replay.other_figures), (Some(0), Some(0)));
        let verdicts: Vec<_> = replay.rules[0].verdicts().collect();
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].0.cgroup, "a.scope");
        assert!((24.0..27.0).contains(&verdicts[0].1.at_s), "{}", verdicts[0].1.at_s);
    }

    #[test]
    fn an_engine_that_decides_otherwise_is_told() {
        let mut recording = recorded();
        for entry in &mut recording.entries {
            if let Entry::Start(start) = entry {
                start.settings.thresholds.unreclaimable.from = 0.97;
            }
        }
        assert!(replay(&recording.entries, &[Judge::Recorded], &[]).different.unwrap() > 0);
    }

    #[test]
    fn other_figures_are_no_other_decision() {
        let mut recording = recorded();
        let of = |recording: &trace::Recording| {
            let replay = replay(&recording.entries, &[Judge::Recorded], &[]);
            (replay.different, replay.other_figures)
        };
        let decided = |recording: &mut trace::Recording, change: fn(&mut Decided)| {
            recording.entries.iter_mut().for_each(|entry| {
                if let Entry::Sample { decided, .. } = entry {
                    change(decided);
                }
            });
        };
        // As by a memguard that words its sentences otherwise, or knows a signal less.
        decided(&mut recording, |decided| decided.digest ^= 1);
        assert_eq!(of(&recording), (Some(0), Some(50)));
        decided(&mut recording, |decided| decided.verdict = false);
        assert_eq!(of(&recording), (Some(1), Some(49)), "the verdict is one that was not given then");
    }

    #[test]
    fn other_settings_are_tried_without_complaint() {
        let recording = recorded();
        let longer = Settings { hold: Duration::from_mins(1), ..Settings::default() };
        let replay = replay(&recording.entries, &[Judge::Engine(Box::new(longer))], &[]);
        assert_eq!(replay.different, None);
        assert_eq!(replay.rules[0].verdicts().count(), 0);
    }

    #[test]
    fn other_rules_judge_beside_ours() {
        let recording = recorded();
        let judges: Vec<Judge> = [Judge::Recorded].into_iter().chain(Baseline::ALL.map(Judge::Baseline)).collect();
        let replay = replay(&recording.entries, &judges, &[]);
        let verdicts: Vec<_> = replay.rules.iter().map(|rule| (rule.rule, rule.verdicts().count())).collect();
        let expected = [
            ("memguard", 1),
            ("report-trigger", 1),
            ("psi-full-10", 1),
            ("systemd-oomd", 0),
            ("oomd-workload", 1),
            ("wait-for-oom", 0),
        ];
        assert_eq!(verdicts, expected);
        assert_eq!(replay.different, Some(0), "they do not disturb it");
    }

    #[test]
    fn with_less_to_go_by_it_still_judges_and_does_not_compare() {
        let recording = recorded();
        for (without, verdicts) in
            [(Without::Tracer, 1), (Without::Trampolines, 1), (Without::Psi, 1), (Without::Cpu, 0)]
        {
            let replay = replay(&recording.entries, &[Judge::Recorded], &[without]);
            assert_eq!(replay.different, None);
            assert_eq!(replay.rules[0].verdicts().count(), verdicts, "{without:?}");
        }
    }
}
