//! A recording that is played: at a speed, with a pause, from any place.

use std::{fmt::Write as _, path::Path, sync::Arc, time::Duration};

use super::{Link, Player, Transport};
use crate::{
    engine::Settings,
    status::Snapshot,
    telemetry::{escaped, shown},
    top::state::Effect,
    trace::{Entry, Recording},
};

const SPEEDS: [f64; 9] = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// A recording at a place.
#[derive(Debug)]
pub struct Replay {
    player: Player,
    latest: Arc<Snapshot>,
    link: Link,
}

impl Replay {
    /// `None` if there is nothing to see in it. `settings`: in the place of those that it was recorded with.
    #[must_use]
    pub fn new(path: &Path, recording: Recording, settings: Option<Settings>, speed: f64) -> Option<Self> {
        let lost: u64 = recording
            .entries
            .iter()
            .map(|entry| if let Entry::Lost { entries } = entry { *entries } else { 0 })
            .fold(0, u64::saturating_add);
        let other = if settings.is_some() { ", judged by other settings" } else { "" };
        let player = Player::new(recording.entries, settings)?;
        let mut about = player.start().map_or_else(String::new, |start| {
            format!("Linux {}, signals {}{other}", escaped(&start.kernel), escaped(&start.signals_from))
        });
        if lost > 0 {
            let _ = write!(about, ", {lost} entries lost");
        }
        if recording.damage.is_some() {
            about.push_str(", DAMAGED at its end");
        }
        let transport = Transport {
            file: shown(Path::new(path.file_name().unwrap_or_default())),
            about,
            position_s: 0.0,
            length_s: player.length().as_secs_f64(),
            speed,
            paused: false,
        };
        Some(Self { latest: Arc::new(player.snapshot()), player, link: Link::Replay(transport) })
    }

    pub(super) const fn latest(&self) -> &Arc<Snapshot> {
        &self.latest
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn advance(&mut self, elapsed: Duration) -> bool {
        let Link::Replay(transport) = &self.link else { return false };
        if transport.paused || transport.ended() {
            return false;
        }
        self.go_to(transport.position_s + elapsed.as_secs_f64() * transport.speed);
        true
    }

    fn go_to(&mut self, position_s: f64) {
        let Link::Replay(transport) = &mut self.link else { return };
        transport.position_s = position_s.clamp(0.0, transport.length_s);
        let at = Duration::try_from_secs_f64(transport.position_s).unwrap_or_default();
        if self.player.go_to(at) {
            self.latest = Arc::new(self.player.snapshot());
        }
    }

    pub(super) fn apply(&mut self, effect: Effect) {
        let Link::Replay(transport) = &mut self.link else { return };
        match effect {
            Effect::Nothing | Effect::Quit | Effect::Stop | Effect::Redraw => {}
            Effect::Pause => transport.paused = !transport.paused,
            Effect::Faster => {
                let faster = SPEEDS.iter().find(|speed| **speed > transport.speed);
                transport.speed = faster.copied().unwrap_or(transport.speed);
            }
            Effect::Slower => {
                let slower = SPEEDS.iter().rev().find(|speed| **speed < transport.speed);
                transport.speed = slower.copied().unwrap_or(transport.speed);
            }
            Effect::Seek(seconds) => {
                let position = transport.position_s + seconds;
                self.go_to(position);
            }
            Effect::NextMoment => {
                // So that there is time to look at it.
                transport.paused = true;
                let length = transport.length_s;
                let at = self.player.next_moment().map_or(length, |at| at.as_secs_f64());
                transport.position_s = at.min(length);
                self.latest = Arc::new(self.player.snapshot());
            }
            Effect::Restart => self.go_to(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace;

    fn replay() -> Replay {
        let path = trace::of_the_lab("livelock-440-6.12.73");
        let recording = trace::read(&path).unwrap();
        Replay::new(&path, recording, None, 1.0).unwrap()
    }

    fn transport(replay: &Replay) -> Transport {
        let Link::Replay(transport) = replay.link() else { panic!("{:?}", replay.link()) };
        transport.clone()
    }

    #[test]
    fn time_goes_by_at_the_speed_that_was_chosen_and_not_in_a_pause() {
        let mut replay = replay();
        replay.advance(Duration::from_secs(2));
        assert!((transport(&replay).position_s - 2.0).abs() < 1e-9);
        replay.apply(Effect::Faster);
        replay.advance(Duration::from_secs(2));
        assert!((transport(&replay).position_s - 6.0).abs() < 1e-9);
        replay.apply(Effect::Pause);
        assert!(!replay.advance(Duration::from_secs(2)));
        replay.apply(Effect::Seek(-100.0));
        assert!(transport(&replay).position_s.abs() < 1e-9);
        for _ in 0..20 {
            replay.apply(Effect::Slower);
        }
        assert!((transport(&replay).speed - 0.25).abs() < 1e-9);
        replay.apply(Effect::Seek(1e9));
        assert!(transport(&replay).ended());
    }

    #[test]
    fn the_next_change_is_shown_in_peace() {
        let mut replay = replay();
        for _ in 0..100 {
            replay.apply(Effect::NextMoment);
        }
        assert!(transport(&replay).paused && transport(&replay).ended());
        assert_eq!(replay.latest().totals.verdicts, 1);
        replay.apply(Effect::Restart);
        assert_eq!(replay.latest().totals.verdicts, 0);
    }
}
