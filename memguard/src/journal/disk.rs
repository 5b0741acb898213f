//! How the journal's disk does, told by the thread that writes to it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A disk that takes longer than this for one thing is late.
const LATE: Duration = Duration::from_secs(5);

/// How the disk does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    /// There is no journal.
    #[default]
    NotWanted,
    Works,
    /// It has had something to write for too long.
    Late,
    /// The store can't be opened, or what there is can't be written.
    Fails,
}

/// What the thread says of itself.
#[derive(Clone, Debug)]
pub(super) struct Word(Arc<Mutex<Said>>);

#[derive(Clone, Copy, Debug)]
struct Said {
    /// Since when it waits for the disk.
    busy_since: Option<Instant>,
    works: bool,
}

impl Word {
    /// It begins by opening the store.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Said { busy_since: Some(Instant::now()), works: true })))
    }

    pub(super) fn begins(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).busy_since = Some(Instant::now());
    }

    pub(super) fn ended(&self, works: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Said { busy_since: None, works };
    }

    pub(super) fn disk(&self, now: Instant) -> Disk {
        let Said { busy_since, works } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match busy_since {
            Some(since) if now.saturating_duration_since(since) >= LATE => Disk::Late,
            _ if works => Disk::Works,
            _ => Disk::Fails,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_long_is_late_until_it_has_answered() {
        let (word, now) = (Word::new(), Instant::now());
        assert_eq!(word.disk(now), Disk::Works);
        assert_eq!(word.disk(now + LATE), Disk::Late);
        word.ended(true);
        assert_eq!(word.disk(now + LATE), Disk::Works);
        word.begins();
        word.ended(false);
        assert_eq!(word.disk(now), Disk::Fails);
        word.begins();
        assert_eq!(word.disk(now), Disk::Fails, "another attempt is no success yet");
        assert_eq!(word.disk(now + 2 * LATE), Disk::Late);
    }
}
