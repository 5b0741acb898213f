//! Finding cgroups under reclaim without a tracer: by looking at all of them.

use std::{collections::HashMap, fs, path::Path};

use crate::cgroup::{Tree, limit_hits};

/// Remembers how often each limit was hit.
#[derive(Debug, Default)]
pub(super) struct Poller {
    hits: HashMap<u64, u64>,
}

impl Poller {
    /// The cgroups that have a limit of their own and hit it since the last call (memory.events.local `max`, `high`).
    pub(super) fn poll(&mut self, tree: &Tree) -> Vec<u64> {
        let mut reclaiming = Vec::new();
        let mut seen = HashMap::with_capacity(self.hits.len());
        for (id, path) in tree.iter() {
            let Some(hits) = hits(path) else { continue };
            // The first look tells nothing about now.
            if self.hits.get(&id).is_some_and(|before| hits > *before) {
                reclaiming.push(id);
            }
            seen.insert(id, hits);
        }
        self.hits = seen;
        reclaiming.sort_unstable();
        reclaiming
    }
}

/// How often the limits of this cgroup were hit; `None` without a limit.
fn hits(path: &Path) -> Option<u64> {
    let limited = ["memory.max", "memory.high"]
        .iter()
        .any(|name| fs::read_to_string(path.join(name)).is_ok_and(|limit| limit.trim() != "max"));
    if limited { limit_hits(path) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fake_cgroup;

    #[test]
    fn a_limit_that_is_hit_between_two_looks_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let limited = dir.path().join("a.scope");
        let unlimited = dir.path().join("b.scope");
        for path in [&limited, &unlimited] {
            fake_cgroup(path);
            fs::write(path.join("memory.events.local"), "max 5\n").unwrap();
        }
        fs::write(unlimited.join("memory.max"), "max\n").unwrap();
        let mut tree = Tree::new(dir.path());
        tree.walk();
        let mut poller = Poller::default();
        assert!(poller.poll(&tree).is_empty(), "the first look");
        assert!(poller.poll(&tree).is_empty(), "nothing happened");
        for path in [&limited, &unlimited] {
            fs::write(path.join("memory.events.local"), "max 6\n").unwrap();
        }
        let found = poller.poll(&tree);
        assert_eq!(found.iter().filter_map(|id| tree.path(*id)).collect::<Vec<_>>(), [limited.as_path()]);
    }
}
