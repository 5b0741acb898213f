//! The engine, run over a recording.

use std::collections::BTreeMap;

use serde::Serialize;

use super::entry::{Decided, Entry, Start};
use crate::engine::{Engine, Settings, Signals, State, Terms, UnitId};

/// What came of a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replay {
    pub starts: Vec<Start>,
    /// By id, in the order of their first sample.
    pub units: Vec<UnitReplay>,
    pub samples: u64,
    /// Samples of which the engine now makes something else than it did then: another state, verdict or number. `None`
    /// when it was run with other settings, and so has every right to.
    pub different: Option<u64>,
    /// Entries that the recording lacks.
    pub lost: u64,
}

/// One cgroup's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnitReplay {
    pub unit: UnitId,
    pub cgroup: String,
    /// Seconds from its first sample to its last.
    pub watched_s: f64,
    pub moments: Vec<Moment>,
}

/// A cgroup's state changed, or a verdict was given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// Seconds since the first sample of the recording.
    pub at_s: f64,
    pub from: State,
    pub to: State,
    pub verdict: bool,
    pub signals: Option<Signals>,
    pub terms: Option<Terms>,
}

impl Replay {
    pub fn verdicts(&self) -> impl Iterator<Item = (&UnitReplay, &Moment)> {
        self.units
            .iter()
            .flat_map(|unit| unit.moments.iter().map(move |moment| (unit, moment)))
            .filter(|(_, m)| m.verdict)
    }
}

/// Runs the engine with the settings that the recording was made with, or with these.
#[must_use]
pub fn replay(entries: &[Entry], settings: Option<&Settings>) -> Replay {
    let mut replay = Replay { different: settings.is_none().then_some(0), ..Replay::default() };
    let mut engine = Engine::new(settings.cloned().unwrap_or_default());
    let mut names: BTreeMap<UnitId, String> = BTreeMap::new();
    let mut began = None;
    for entry in entries {
        match entry {
            Entry::Start(start) => {
                engine = Engine::new(settings.unwrap_or(&start.settings).clone());
                replay.starts.push((**start).clone());
            }
            Entry::Watch { unit, cgroup } => {
                names.insert(*unit, cgroup.clone());
            }
            Entry::Sample { unit, sample, decided } => {
                let began = *began.get_or_insert(sample.at);
                let at_s = sample.at.saturating_sub(began).as_secs_f64();
                let observation = engine.observe(*unit, (**sample).clone());
                replay.samples += 1;
                if let Some(different) = &mut replay.different {
                    *different += u64::from(Decided::of(&observation) != *decided);
                }
                let place = replay.units.iter().position(|known| known.unit == *unit).unwrap_or_else(|| {
                    let cgroup = names.get(unit).cloned().unwrap_or_else(|| format!("cgroup {unit}"));
                    replay.units.push(UnitReplay { unit: *unit, cgroup, watched_s: 0.0, moments: Vec::new() });
                    replay.units.len() - 1
                });
                let known = &mut replay.units[place];
                known.watched_s = at_s;
                if observation.state != observation.before || observation.verdict.is_some() {
                    known.moments.push(Moment {
                        at_s,
                        from: observation.before,
                        to: observation.state,
                        verdict: observation.verdict.is_some(),
                        signals: observation.signals,
                        terms: observation.terms,
                    });
                }
            }
            Entry::Acted { unit, at } => engine.acted(*unit, *at),
            Entry::Forget { unit } => engine.forget(*unit),
            Entry::Lost { entries } => replay.lost += entries,
        }
    }
    replay
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
        let replay = replay(&recording.entries, None);
        assert_eq!((replay.samples, replay.different, replay.lost), (50, Some(0), 0));
        let verdicts: Vec<_> = replay.verdicts().collect();
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
        assert!(replay(&recording.entries, None).different.unwrap() > 0);
    }

    #[test]
    fn other_settings_are_tried_without_complaint() {
        let recording = recorded();
        let longer = Settings { hold: Duration::from_secs(60), ..Settings::default() };
        let replay = replay(&recording.entries, Some(&longer));
        assert_eq!(replay.different, None);
        assert_eq!(replay.verdicts().count(), 0);
    }
}
