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
    /// When the rule last held, whether or not anything was to be decided.
    held_at: Option<Duration>,
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
            held_at: None,
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

    /// Since when there is suspicion, and the evidence gathered since; `None` without any.
    #[must_use]
    pub fn evidence(&self, unit: UnitId) -> Option<(Duration, Duration)> {
        let suspicion = self.watched.get(&unit)?.suspicion.as_ref()?;
        Some((suspicion.since, suspicion.held))
    }

    /// Until when nothing is decided about a cgroup, because something was done about it.
    #[must_use]
    pub fn quiet_until(&self, unit: UnitId) -> Duration {
        self.watched.get(&unit).map_or(Duration::ZERO, |watched| watched.quiet_until)
    }

    /// Whether a cgroup hangs or may, whatever was decided about it: it is suspect, or the rule held within the last
    /// window though something was done about it, or nothing may be.
    #[must_use]
    pub fn looks_hung(&self, unit: UnitId, now: Duration) -> bool {
        let lately = |at| now.saturating_sub(at) <= self.settings.window;
        let hung = |watched: &Watched| watched.state >= State::Suspect || watched.held_at.is_some_and(lately);
        self.watched.get(&unit).is_some_and(hung)
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
        let hung_below = sample.hung_below;
        self.window.push(sample);

        let signals = Signals::of(&self.window, settings);
        let mut terms = signals.as_ref().map(|signals| rule::evaluate(signals, &settings.thresholds));
        if let Some(Terms(terms)) = terms.as_mut().filter(|_| hung_below) {
            terms.push(rule::hung_below());
        }
        let confidence = terms.as_ref().filter(|terms| terms.hold()).map_or(0.0, Terms::confidence);
        let holds = now >= self.quiet_until && confidence > 0.0;
        if confidence > 0.0 {
            self.held_at = Some(now);
        }

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
mod tests;
