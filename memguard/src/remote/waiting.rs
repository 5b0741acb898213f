//! How much remains to be done, for who only wants to know that.

use std::sync::{Arc, Mutex, PoisonError};

use super::follow_up::{FollowUp, Kind};
use crate::journal::Incident;

/// What is open, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting([OfKind; Kind::ALL.len()]);

/// What is open of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfKind {
    pub open: u64,
    /// When the verdict of the oldest was, seconds since 1970.
    pub oldest: Option<u64>,
}

impl Waiting {
    /// Counts.
    #[must_use]
    pub fn new<'i>(incidents: impl Iterator<Item = &'i Incident>) -> Self {
        let mut waiting = Self::default();
        for incident in incidents {
            for follow_up in incident.follow_ups.iter().filter(|follow_up| follow_up.is_open()) {
                waiting.add(follow_up, incident.decided_at);
            }
        }
        waiting
    }

    fn add(&mut self, follow_up: &FollowUp, decided_at: u64) {
        if let Some(place) = place(follow_up.kind) {
            let this = &mut self.0[place];
            this.open += 1;
            this.oldest = Some(this.oldest.map_or(decided_at, |oldest| oldest.min(decided_at)));
        }
    }

    #[must_use]
    pub fn of(&self, kind: Kind) -> OfKind {
        place(kind).map(|place| self.0[place]).unwrap_or_default()
    }
}

fn place(kind: Kind) -> Option<usize> {
    Kind::ALL.iter().position(|other| *other == kind)
}

/// The latest count, written by the worker and read by the agent.
#[derive(Clone, Debug, Default)]
pub(super) struct Board(Arc<Mutex<Waiting>>);

impl Board {
    pub(super) fn put(&self, waiting: Waiting) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }

    pub(super) fn read(&self) -> Waiting {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::example;

    #[test]
    fn only_what_is_open_counts_and_the_oldest_verdict_is_told() {
        let mut old = Incident { follow_ups: Kind::ALL.map(FollowUp::new).to_vec(), ..example("a", 100) };
        let young = Incident { follow_ups: vec![FollowUp::new(Kind::Cancel)], ..example("b", 200) };
        let of = |incidents: &[&Incident], kind| Waiting::new(incidents.iter().copied()).of(kind);
        assert_eq!(of(&[&young, &old], Kind::Cancel), OfKind { open: 2, oldest: Some(100) });
        old.follow_ups.iter_mut().for_each(|follow_up| follow_up.not_needed("x"));
        assert_eq!(of(&[&young, &old], Kind::Cancel), OfKind { open: 1, oldest: Some(200) });
        assert_eq!(of(&[&young, &old], Kind::CheckRun), OfKind::default());
    }
}
