//! What the agent makes of each look: states are told, suspects are got ready for, verdicts are responded to.

use std::time::Duration;

use super::{Agent, whose::Whose};
use crate::{
    engine::{Observation, State, UnitId},
    respond::{Actions, Mode},
    telemetry::{Event, StateChange, emit},
};

/// A change between calm and pressed is told at most this often for each cgroup; suspicion always is.
const TOLD_AT_MOST_EVERY: Duration = Duration::from_secs(30);

impl<A: Actions> Agent<A> {
    pub(super) fn observed(&mut self, id: UnitId, now: Duration, observation: Observation) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        if let Some(latest) = &unit.latest {
            unit.trail.observed(latest.at, &latest.memory, &observation);
        }
        let Observation { before, state, signals, terms, verdict } = observation;
        if let Some(latest) = &mut unit.latest {
            latest.signals.clone_from(&signals);
            unit.timeline.push(now, state, &latest.memory, signals.as_ref());
        }
        if let Some(signals) = &signals {
            self.metrics.looked(signals);
        }
        if state != before {
            let quiet = state.max(before) <= State::Pressed
                && unit.last_told.is_some_and(|last| now.saturating_sub(last) < TOLD_AT_MOST_EVERY);
            if !quiet {
                unit.last_told = Some(now);
                let why = match (&terms, state) {
                    (Some(terms), State::Suspect | State::Livelock) => terms.sentence(),
                    (Some(terms), _) => {
                        let missing: Vec<_> = terms.missing().map(|term| term.why.as_str()).collect();
                        format!("not a livelock: {}", missing.join("; "))
                    }
                    (None, _) => "no signals over a whole window yet".to_owned(),
                };
                let path = unit.path();
                let whose = Whose::of(&path, self.pods.as_ref());
                unit.name.pod = whose.name();
                let off = self.config.policy.applies(&whose.subject(self.tree.root(), &self.own_pod)).mode == Mode::Off;
                let unit = unit.name.clone();
                let event = Event::State(Box::new(StateChange { unit, from: before, to: state, why, signals }));
                if off {
                    tracing::debug!("{event}");
                } else {
                    emit(&event);
                }
            }
        }
        if state >= State::Suspect {
            self.suspects.seen(id, now);
        }
        if state >= State::Suspect && before < State::Suspect {
            self.prepare(id);
        } else if state < State::Suspect
            && let Some(unit) = self.units.get_mut(&id)
        {
            unit.victim = None;
            if let Some(reporter) = self.reporter.as_ref().filter(|_| unit.last_look.take().is_some()) {
                reporter.forget(id);
            }
        }
        if let (Some(reporter), Some(unit)) =
            (&self.reporter, self.units.get_mut(&id).filter(|_| state >= State::Suspect))
        {
            let folder = unit.victim.as_ref().map_or_else(|| unit.handle.path(), |victim| victim.path());
            reporter.suspect(id, folder, now, &mut unit.last_look);
        }
        if let Some(verdict) = verdict {
            self.respond(id, verdict);
        }
    }
}
