//! When the tree of cgroups is walked anew. Nothing is looked at meanwhile.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use super::Agent;
use crate::respond::Actions;

/// The tree is walked at most this often for cgroups that are not in it.
pub(super) const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// ... and where it has more of them than a walk goes to: there always is one that is not in it.
const CROWDED_EVERY: Duration = Duration::from_secs(5);
/// Between two walks so many times as long as the last one took: nothing is looked at meanwhile.
const PAUSE: u32 = 20;

impl<A: Actions> Agent<A> {
    pub(super) fn walk_if_due(&mut self, now: Duration, every: Duration) {
        let every = pause(every, self.tree.left_out() > 0, self.walk_took);
        if self.last_walk.is_some_and(|last| now.saturating_sub(last) < every) {
            return;
        }
        let began = Instant::now();
        self.tree.walk();
        self.last_walk = Some(now);
        let ids: HashMap<&Path, u64> = self.tree.iter().map(|(id, path)| (path, id)).collect();
        self.activity.place(&self.tree, &ids);
        self.activity.keep_only(|id| self.tree.path(id).is_some());
        if let Some(tracer) = &mut self.tracer {
            tracer.sweep_if_crowded(|id| self.tree.path(id).is_some());
        }
        self.walk_took = began.elapsed();
    }
}

/// Time between the beginnings of two walks, if nothing stood against one `every` so often.
fn pause(every: Duration, crowded: bool, took: Duration) -> Duration {
    every.max(if crowded { CROWDED_EVERY } else { Duration::ZERO }).max(took.saturating_mul(PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_takes_a_twentieth_of_the_time_at_most_however_many_cgroups_there_are() {
        let ms = Duration::from_millis;
        assert_eq!(pause(AT_MOST_EVERY, false, ms(5)), AT_MOST_EVERY);
        assert_eq!(pause(AT_MOST_EVERY, false, ms(400)), ms(8000));
        assert_eq!(pause(AT_MOST_EVERY, true, ms(80)), CROWDED_EVERY);
        assert_eq!(pause(AT_MOST_EVERY, true, ms(800)), ms(16_000));
        assert_eq!(pause(ms(0), true, Duration::MAX), Duration::MAX);
    }
}
