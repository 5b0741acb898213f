//! Where snapshots come from: a memguard at work, or a recording.

mod live;
mod player;
mod replay;

use std::{sync::Arc, time::Duration};

pub use self::{live::Live, player::Player, replay::Replay};
use super::state::Effect;
use crate::status::Snapshot;

/// How it stands with the source.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    Live,
    /// Nobody answers, and why.
    Waiting(String),
    Replay(Transport),
}

/// Where a replay is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transport {
    /// Name of the file, and what is known of how it was made. Escaped.
    pub file: String,
    pub about: String,
    /// Seconds.
    pub position_s: f64,
    pub length_s: f64,
    /// Times as fast as it was.
    pub speed: f64,
    pub paused: bool,
}

impl Transport {
    #[must_use]
    pub fn ended(&self) -> bool {
        self.position_s >= self.length_s
    }
}

/// Either of them.
#[derive(Debug)]
pub enum Source {
    Live(Live),
    Replay(Box<Replay>),
}

impl Source {
    /// So much time has gone by. Whether there is something new to see.
    pub fn advance(&mut self, elapsed: Duration) -> bool {
        match self {
            Self::Live(live) => live.advance(),
            Self::Replay(replay) => replay.advance(elapsed),
        }
    }

    #[must_use]
    pub const fn latest(&self) -> Option<&Arc<Snapshot>> {
        match self {
            Self::Live(live) => live.latest(),
            Self::Replay(replay) => Some(replay.latest()),
        }
    }

    #[must_use]
    pub const fn link(&self) -> &Link {
        match self {
            Self::Live(live) => live.link(),
            Self::Replay(replay) => replay.link(),
        }
    }

    /// What a person wants of a replay.
    pub fn apply(&mut self, effect: Effect) {
        if let Self::Replay(replay) = self {
            replay.apply(effect);
        }
    }
}
