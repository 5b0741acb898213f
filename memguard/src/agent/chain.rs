//! Cgroups under reclaim that stand above one another: a container, its pod, a slice of pods.
//!
//! Nearly all that is read of a cgroup is summed over its subtree. So a container that hangs at its own limit shows up in
//! all cgroups above it, and must be neither judged nor counted more than once.

use std::{
    cmp::Reverse,
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use super::Agent;
use crate::{engine::UnitId, respond::Actions};

/// Where, at this look, something hangs further down.
#[derive(Debug, Default)]
pub(super) struct Hanging {
    above: HashSet<PathBuf>,
}

impl Hanging {
    /// This one hangs, or is being ended.
    pub(super) fn add(&mut self, path: &Path) {
        self.above.extend(path.ancestors().skip(1).map(Path::to_owned));
    }

    /// Whether one does below this.
    pub(super) fn is_below(&self, path: &Path) -> bool {
        self.above.contains(path)
    }
}

/// The order in which cgroups are judged: those further down before those above them.
pub(super) fn deepest_first<'a>(units: impl Iterator<Item = (UnitId, &'a Path)>) -> Vec<UnitId> {
    let mut order: Vec<_> = units.map(|(id, path)| (Reverse(path.components().count()), id)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, id)| id).collect()
}

/// How many there are with none of the others below: each chain counts once.
fn chains<'a>(paths: impl Iterator<Item = &'a Path> + Clone) -> usize {
    let above: HashSet<&Path> = paths.clone().flat_map(|path| path.ancestors().skip(1)).collect();
    paths.filter(|path| !above.contains(path)).count()
}

impl<A: Actions> Agent<A> {
    /// How many cgroups are under reclaim, for the share of those that look hung: a pod and its container are one.
    pub(super) fn under_reclaim(&self) -> usize {
        chains(self.units.values().map(|unit| unit.handle.path()))
    }

    /// Whether a unit hangs, by its own limit, so that what is seen above it is explained.
    pub(super) fn hangs(&self, id: UnitId, now: Duration) -> bool {
        self.engine.looks_hung(id, now) || self.units.get(&id).is_some_and(|unit| unit.kill_under_way)
    }
}

#[cfg(test)]
mod tests;
