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
    /// There is evidence for [`Settings::hold`].
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
    /// Evidence: the time for which it held since, each moment of it counted by its confidence.
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

/// Time between two looks at a cgroup, as a rule.
const TICK: Duration = Duration::from_secs(1);

/// A tick that is later than this counts for no more.
const LONGEST_TICK: Duration = Duration::from_millis(1250);

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
    missed: Duration,
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
            watched.quiet_until = at.saturating_add(self.settings.post_action_delay);
        }
    }

    /// Stops watching a cgroup that is gone or at rest.
    pub fn forget(&mut self, unit: UnitId) {
        self.watched.remove(&unit);
    }

    /// Samples that are kept of all cgroups.
    #[cfg(test)]
    pub(super) fn samples(&self) -> usize {
        self.watched.values().map(|watched| watched.window.len()).sum()
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
        let last = self.window.last().map(|last| last.at);
        if last.is_some_and(|last| now <= last) {
            // Of the past, or the same once more: there is nothing in it that was not judged.
            return Observation { before, state: before, signals: None, terms: None, verdict: None };
        }
        // Time in which nobody looked is not evidence, so a late tick counts as an ordinary one.
        let since_last = last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        let counted = since_last.min(LONGEST_TICK);
        if since_last > settings.window {
            // What was gathered before a gap says nothing about what is now.
            self.suspicion = None;
        }
        self.window.push(sample);

        let signals = Signals::of(&self.window, settings.page_size);
        let terms = signals.as_ref().map(|signals| rule::evaluate(signals, &settings.thresholds));
        let confidence = terms.as_ref().filter(|terms| terms.hold()).map_or(0.0, Terms::confidence);
        let holds = now >= self.quiet_until && confidence > 0.0;

        match (&mut self.suspicion, holds) {
            (None, true) => {
                self.suspicion =
                    Some(Suspicion { since: now, held: Duration::ZERO, missed: Duration::ZERO, reported: false });
            }
            (Some(suspicion), true) => {
                suspicion.held += counted.mul_f64(confidence.clamp(0.0, 1.0));
                suspicion.missed = Duration::ZERO;
            }
            (Some(suspicion), false) => {
                // Evidence against it takes away as fast as evidence for it adds, so that what flaps never gets there.
                suspicion.missed += counted;
                suspicion.held = suspicion.held.saturating_sub(counted);
                // By time and not by number, so that whoever looks twice as often is not half as patient. Half a tick
                // is for jitter.
                if suspicion.missed + TICK / 2 >= TICK.saturating_mul(settings.grace_ticks) {
                    self.suspicion = None;
                }
            }
            (None, false) => {}
        }

        let mut verdict = None;
        self.state = match &mut self.suspicion {
            Some(suspicion) if suspicion.reported || suspicion.held >= settings.hold => {
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
                Some(s) if s.at_limit >= settings.thresholds.at_limit.from && s.limit_hits_per_s > 0.0 => {
                    State::Pressed
                }
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
        Cpu, Pressure,
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
    fn a_clear_hang_is_suspect_after_one_window_and_a_livelock_after_the_hold() {
        let (_, observations) = run((0..60).map(hang));
        assert_eq!(first(&observations, State::Suspect), Some(5));
        assert_eq!(first(&observations, State::Livelock), Some(12));
        let verdicts: Vec<_> = observations.iter().filter_map(|o| o.verdict.as_ref()).collect();
        assert_eq!(verdicts.len(), 1, "one verdict for one livelock");
        assert_eq!(verdicts[0].held, Duration::from_secs(7));
        assert!(verdicts[0].terms.hold());
    }

    #[test]
    fn what_is_less_clear_takes_longer() {
        // Only just beyond the first threshold of one term.
        let unclear = |second| {
            let mut sample = hang(second);
            sample.memory.anon = 512 * MIB * 26 / 100;
            sample
        };
        let (_, observations) = run((0..60).map(unclear));
        assert_eq!(first(&observations, State::Suspect), Some(5));
        let livelock = first(&observations, State::Livelock).unwrap();
        assert!((22..=28).contains(&livelock), "three times as long, and not {livelock} s");
    }

    /// Each term on its own keeps a hang from being one.
    #[test]
    fn every_term_is_necessary() {
        type Change = fn(&mut Sample, u64);
        let changes: [(&str, Change); 8] = [
            ("at_limit", |s, _| s.memory.current = 400 * MIB),
            ("limit_hit", |s, _| s.memory.max_events = 5),
            ("no_oom", |s, second| s.memory.oom_kills = second / 5),
            ("unreclaimable", |s, _| s.memory.anon = 100 * MIB),
            ("refault_share", |s, second| s.memory.refaults = 500 * second),
            ("text_returns", |s, second| {
                if let Some(tracer) = &mut s.tracer {
                    (tracer.text_faults, tracer.text_returns) = (Some(2 * second), Some([0, 2 * second, 0, 0]));
                }
            }),
            ("text_return_share", |s, second| {
                s.memory.anon = 420 * MIB;
                if let Some(tracer) = &mut s.tracer {
                    tracer.text_returns = Some([0, 20 * second, 0, 0]);
                }
            }),
            ("lost", |s, second| {
                if let Some(cpu) = &mut s.cpu {
                    cpu.user = Duration::from_secs(2 * second);
                }
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
            assert!(terms.confidence() <= 0.0);
        }
    }

    #[test]
    fn a_crowded_container_need_not_wait_until_text_has_come_back_once() {
        let fresh = |anon| {
            move |second| {
                let mut sample = hang(second);
                sample.memory.anon = anon;
                if let Some(tracer) = &mut sample.tracer {
                    tracer.text_returns = Some([0; 4]);
                }
                sample
            }
        };
        let (_, observations) = run((0..60).map(fresh(480 * MIB)));
        assert_eq!(first(&observations, State::Livelock), Some(12));
        let (_, observations) = run((0..60).map(fresh(400 * MIB)));
        assert_eq!(first(&observations, State::Suspect), None, "other files may be what comes back");
    }

    #[test]
    fn each_missing_signal_has_a_stand_in() {
        type Change = fn(&mut Sample);
        let changes: [(&str, Change); 5] = [
            ("no PSI", |s| s.pressure = Pressure::default()),
            ("no cpu.stat", |s| s.cpu = None),
            ("no tracer", |s| s.tracer = None),
            ("which text came back is not known", |s| {
                if let Some(tracer) = &mut s.tracer {
                    tracer.text_returns = None;
                }
            }),
            ("no stalls from the tracer", |s| {
                if let Some(tracer) = &mut s.tracer {
                    tracer.stall = None;
                }
            }),
        ];
        for (name, change) in changes {
            let (_, observations) = run((0..60).map(|second| {
                let mut sample = hang(second);
                change(&mut sample);
                sample
            }));
            assert!(first(&observations, State::Livelock).is_some_and(|at| at <= 35), "{name}");
        }
    }

    #[test]
    fn with_nothing_that_tells_whether_it_works_there_is_no_verdict() {
        let (_, observations) = run((0..60).map(|second| Sample {
            pressure: Pressure::default(),
            cpu: None,
            tracer: None,
            ..hang(second)
        }));
        assert_eq!(first(&observations, State::Suspect), None);
    }

    #[test]
    fn a_hang_at_memory_high_is_one() {
        let (_, observations) = run((0..60).map(|second| {
            let mut sample = hang(second);
            (sample.memory.high, sample.memory.max) = (sample.memory.max, Some(1024 * MIB));
            (sample.memory.high_events, sample.memory.max_events) = (sample.memory.max_events, 0);
            sample
        }));
        assert_eq!(first(&observations, State::Livelock), Some(12));
        let verdict = observations.iter().find_map(|o| o.verdict.as_ref()).unwrap();
        assert!(verdict.terms.sentence().contains("memory.high"), "{}", verdict.terms.sentence());
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
    fn a_lapse_delays_a_verdict_and_a_long_one_ends_the_suspicion() {
        let oom_at = |from: u64| {
            move |second: u64| {
                let mut sample = hang(second);
                sample.memory.oom_events = u64::from(second >= from);
                sample
            }
        };
        // One oom event stays in five windows, more than the grace.
        let (_, observations) = run((0..60).map(oom_at(10)));
        assert_eq!(first(&observations, State::Livelock), Some(22), "begins again when the window has passed it");
        assert!(observations[13].state < State::Suspect);
    }

    #[test]
    fn what_flaps_never_gets_there() {
        // Works every other five seconds: what was gathered is lost again.
        let (_, observations) = run((0..300).map(|second| {
            let mut sample = hang(second);
            let (rounds, rest) = (second / 10, second % 10);
            let returns = rounds * 500 + rest.min(5) * 100;
            if let Some(tracer) = &mut sample.tracer {
                tracer.text_returns = Some([0, returns, 0, 0]);
            }
            sample.cpu = Some(Cpu {
                user: Duration::from_secs(10 * rounds + 2 * rest.saturating_sub(5)),
                system: Duration::from_secs(second),
            });
            sample
        }));
        assert_eq!(first(&observations, State::Livelock), None);
    }

    #[test]
    fn time_nobody_looked_at_is_not_evidence() {
        let seconds = (0..=5).chain([9, 13, 17]);
        let (_, observations) = run(seconds.map(hang));
        assert!(observations.iter().all(|o| o.state != State::Livelock), "12 s in 3 looks are not 7 s held");
    }

    #[test]
    fn after_an_action_it_begins_again_only_after_the_delay() {
        let (mut engine, _) = run((0..=12).map(hang));
        assert_eq!(engine.state(UNIT), State::Livelock);
        engine.acted(UNIT, hang(12).at);
        let later: Vec<_> = (13..=130).map(|second| engine.observe(UNIT, hang(second))).collect();
        assert!(later[..29].iter().all(|o| o.state <= State::Pressed), "within the delay");
        let verdict = later.iter().position(|o| o.verdict.is_some());
        assert_eq!(verdict, Some(29 + 7), "held once more for as long");
    }

    #[test]
    fn forgetting_starts_from_nothing() {
        let (mut engine, _) = run((0..=11).map(hang));
        engine.forget(UNIT);
        assert_eq!(engine.observe(UNIT, hang(12)).state, State::Calm);
    }

    #[test]
    fn the_same_samples_give_the_same_verdicts() {
        let (_, one) = run((0..60).map(hang));
        let (_, two) = run((0..60).map(hang));
        assert_eq!(one, two);
    }
}
