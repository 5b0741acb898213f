//! From windows to states, and from a state that lasts to a verdict.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;

use super::{
    UnitId,
    rule::{self, Terms},
    sample::Sample,
    signals::Signals,
    thresholds::Settings,
    window::Window,
};

/// How a cgroup is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Below its limit, or without one.
    #[default]
    Calm,
    /// At its limit and reclaiming, as any busy cgroup may.
    Pressed,
    /// Every term of the rule holds, but not for long enough yet.
    Suspect,
    /// The rule held for [`Settings::hold`].
    Livelock,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Calm => "calm",
            Self::Pressed => "pressed",
            Self::Suspect => "suspect",
            Self::Livelock => "livelock",
        })
    }
}

/// A cgroup is in livelock, and this is the evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    pub unit: UnitId,
    /// `CLOCK_MONOTONIC`.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// When the rule began to hold.
    #[serde(serialize_with = "seconds")]
    pub suspect_since: Duration,
    /// For how long it held since, without the evaluations in which it did not.
    #[serde(serialize_with = "seconds")]
    pub held: Duration,
    pub signals: Signals,
    pub terms: Terms,
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// What one sample led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    pub before: State,
    pub state: State,
    /// `None` until the window is complete, and for a cgroup without a limit.
    pub signals: Option<Signals>,
    pub terms: Option<Terms>,
    /// Set once when the cgroup enters [`State::Livelock`], and again if it is still there some time after an action.
    pub verdict: Option<Verdict>,
}

/// Watches any number of cgroups.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    watched: HashMap<UnitId, Watched>,
}

#[derive(Debug)]
struct Watched {
    window: Window,
    state: State,
    suspicion: Option<Suspicion>,
    quiet_until: Duration,
}

#[derive(Debug)]
struct Suspicion {
    since: Duration,
    held: Duration,
    missed_ticks: u32,
    reported: bool,
}

impl Engine {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, watched: HashMap::new() }
    }

    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes in a sample of a cgroup.
    pub fn observe(&mut self, unit: UnitId, sample: Sample) -> Observation {
        let settings = &self.settings;
        let watched = self.watched.entry(unit).or_insert_with(|| Watched {
            window: Window::new(settings.window),
            state: State::Calm,
            suspicion: None,
            quiet_until: Duration::ZERO,
        });
        watched.observe(unit, sample, settings)
    }

    /// An action was taken on this cgroup, or decided against: begin again, and not before the post-action delay.
    pub fn acted(&mut self, unit: UnitId, at: Duration) {
        if let Some(watched) = self.watched.get_mut(&unit) {
            watched.suspicion = None;
            watched.quiet_until = at + self.settings.post_action_delay;
        }
    }

    /// Stops watching a cgroup that is gone or at rest.
    pub fn forget(&mut self, unit: UnitId) {
        self.watched.remove(&unit);
    }

    #[must_use]
    pub fn state(&self, unit: UnitId) -> State {
        self.watched.get(&unit).map_or(State::Calm, |watched| watched.state)
    }
}

impl Watched {
    fn observe(&mut self, unit: UnitId, sample: Sample, settings: &Settings) -> Observation {
        let before = self.state;
        let now = sample.at;
        // Time in which nobody looked is not evidence, so a late tick counts as an ordinary one.
        let since_last = self.window.last().map_or(Duration::ZERO, |last| now.saturating_sub(last.at));
        let counted = since_last.min(settings.window / 4);
        self.window.push(sample);

        let signals = Signals::of(&self.window, settings.page_size);
        let terms = signals.as_ref().map(|signals| rule::evaluate(signals, &settings.thresholds));
        let holds = now >= self.quiet_until && terms.as_ref().is_some_and(Terms::hold);

        match (&mut self.suspicion, holds) {
            (None, true) => {
                self.suspicion = Some(Suspicion { since: now, held: Duration::ZERO, missed_ticks: 0, reported: false });
            }
            (Some(suspicion), true) => {
                suspicion.held += counted;
                suspicion.missed_ticks = 0;
            }
            (Some(suspicion), false) => {
                suspicion.missed_ticks += 1;
                if suspicion.missed_ticks >= settings.grace_ticks {
                    self.suspicion = None;
                }
            }
            (None, false) => {}
        }

        let mut verdict = None;
        self.state = match &mut self.suspicion {
            Some(suspicion) if suspicion.held >= settings.hold => {
                // In a tick of grace the evidence of this very window is missing, so the verdict waits.
                if let (true, false, Some(signals), Some(terms)) = (holds, suspicion.reported, &signals, &terms) {
                    suspicion.reported = true;
                    verdict = Some(Verdict {
                        unit,
                        at: now,
                        suspect_since: suspicion.since,
                        held: suspicion.held,
                        signals: signals.clone(),
                        terms: terms.clone(),
                    });
                }
                State::Livelock
            }
            Some(_) => State::Suspect,
            None => match &signals {
                Some(s) if s.at_limit >= settings.thresholds.at_limit && s.max_events_per_s > 0.0 => State::Pressed,
                _ => State::Calm,
            },
        };
        Observation { before, state: self.state, signals, terms, verdict }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        Pressure,
        fixture::{MIB, hang},
    };

    const UNIT: UnitId = UnitId(7);

    fn run(samples: impl Iterator<Item = Sample>) -> (Engine, Vec<Observation>) {
        let mut engine = Engine::new(Settings::default());
        let observations = samples.map(|sample| engine.observe(UNIT, sample)).collect();
        (engine, observations)
    }

    fn first(observations: &[Observation], state: State) -> Option<usize> {
        observations.iter().position(|observation| observation.state == state)
    }

    #[test]
    fn a_hang_is_suspect_after_one_window_and_a_livelock_after_the_hold() {
        let (_, observations) = run((0..60).map(hang));
        assert_eq!(first(&observations, State::Suspect), Some(10));
        assert_eq!(first(&observations, State::Livelock), Some(40));
        let verdicts: Vec<_> = observations.iter().filter_map(|o| o.verdict.as_ref()).collect();
        assert_eq!(verdicts.len(), 1, "one verdict for one livelock");
        assert_eq!(verdicts[0].held, Duration::from_secs(30));
        assert!(verdicts[0].terms.hold());
    }

    /// Each term on its own keeps a hang from being one.
    #[test]
    fn every_term_is_necessary() {
        type Change = fn(&mut Sample, u64);
        let changes: [(&str, Change); 8] = [
            ("at_limit", |s, _| s.memory.current = 400 * MIB),
            ("limit_hit", |s, _| s.memory.max_events = 5),
            ("no_oom", |s, second| s.memory.oom_kills = second / 5),
            ("unreclaimable", |s, _| s.memory.anon = 300 * MIB),
            ("refault_share", |s, second| s.memory.refaults = 1000 * second),
            ("turnover", |s, _| s.memory.file = 200 * MIB),
            ("text_faults", |s, second| {
                if let Some(tracer) = &mut s.tracer {
                    tracer.text_faults = Some(2 * second);
                }
            }),
            ("stall", |s, second| {
                if let Some(memory) = &mut s.pressure.memory {
                    memory.some = Duration::from_millis(100 * second);
                }
                // Still thrashing text would stand in for PSI.
                s.memory.file = 100 * MIB;
            }),
        ];
        for (name, change) in changes {
            let (_, observations) = run((0..60).map(|second| {
                let mut sample = hang(second);
                change(&mut sample, second);
                sample
            }));
            assert_eq!(first(&observations, State::Suspect), None, "{name}");
            let terms = observations.last().unwrap().terms.as_ref().unwrap();
            let missing: Vec<_> = terms.missing().map(|term| term.name).collect();
            assert_eq!(missing, [name], "{}", terms.sentence());
        }
    }

    #[test]
    fn without_psi_thrashing_text_stands_in_for_it() {
        let without_psi = |second| Sample { pressure: Pressure::default(), ..hang(second) };
        let (_, observations) = run((0..60).map(without_psi));
        assert_eq!(first(&observations, State::Livelock), Some(40));
        // But only where faults on text are really known to be that.
        let blind = |second| Sample { tracer: None, ..without_psi(second) };
        let (_, observations) = run((0..60).map(blind));
        assert_eq!(first(&observations, State::Suspect), None);
    }

    #[test]
    fn without_a_tracer_major_faults_stand_in_for_text_faults() {
        let (_, observations) = run((0..60).map(|second| Sample { tracer: None, ..hang(second) }));
        assert_eq!(first(&observations, State::Livelock), Some(40));
    }

    #[test]
    fn a_cgroup_without_a_limit_is_never_judged() {
        let (_, observations) = run((0..60).map(|second| {
            let mut sample = hang(second);
            sample.memory.max = None;
            sample
        }));
        assert!(observations.iter().all(|o| o.state == State::Calm && o.terms.is_none()));
    }

    #[test]
    fn short_lapses_delay_a_verdict_and_long_ones_end_the_suspicion() {
        let lapse = |from: u64| {
            move |second: u64| {
                let mut sample = hang(second);
                sample.memory.oom_events = u64::from(second >= from);
                sample
            }
        };
        // One oom event stays in ten windows, more than the grace.
        let (_, observations) = run((0..90).map(lapse(20)));
        assert_eq!(first(&observations, State::Livelock), Some(60), "begins again when the window has passed it");
        assert!(observations[25].state < State::Suspect);
    }

    #[test]
    fn time_nobody_looked_at_is_not_evidence() {
        let seconds = (0..=10).chain([14, 18, 22, 26, 30, 34]);
        let (_, observations) = run(seconds.map(hang));
        assert!(observations.iter().all(|o| o.state != State::Livelock), "24 s in 6 looks are not 30 s held");
    }

    #[test]
    fn after_an_action_it_begins_again_only_after_the_delay() {
        let (mut engine, _) = run((0..=40).map(hang));
        assert_eq!(engine.state(UNIT), State::Livelock);
        engine.acted(UNIT, hang(40).at);
        let later: Vec<_> = (41..=130).map(|second| engine.observe(UNIT, hang(second))).collect();
        assert!(later[..29].iter().all(|o| o.state <= State::Pressed), "within the delay");
        let verdict = later.iter().position(|o| o.verdict.is_some());
        assert_eq!(verdict, Some(29 + 30), "held once more for as long");
    }

    #[test]
    fn forgetting_starts_from_nothing() {
        let (mut engine, _) = run((0..=39).map(hang));
        engine.forget(UNIT);
        assert_eq!(engine.observe(UNIT, hang(40)).state, State::Calm);
    }

    #[test]
    fn the_same_samples_give_the_same_verdicts() {
        let (_, one) = run((0..60).map(hang));
        let (_, two) = run((0..60).map(hang));
        assert_eq!(one, two);
    }
}
