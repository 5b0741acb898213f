//! The hottest files of a cgroup while somebody looks at it in `memguard top`: from the same looks as reports, with paths that a
//! thread of its own finds, because walking a container's root may wait for a disk.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    collector::{Shared, locked},
    look::{HotFile, Returns, Seen},
    resolve::resolve,
};
use crate::engine::UnitId;

/// Cgroups whose files are looked at for a view: those with the most going on.
pub const MOST_SHOWN: usize = 8;
/// Time between two looks for a view.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// A report's look may come right after one for a view, or before it: nothing comes back in between, and that is no rate.
const LEAST_BETWEEN: Duration = Duration::from_millis(500);
/// Nobody has asked for so long: the view is gone.
const GONE_AFTER: Duration = Duration::from_secs(15);
/// Time between two walks for the paths of one cgroup's files.
const WALK_EVERY: Duration = Duration::from_secs(10);
/// Walks that wait for their turn.
const MOST_WAITING: usize = 4;

/// Which file: device as the kernel has it, inode.
type Key = (u32, u64);

/// The files of one cgroup, as somebody sees them.
#[derive(Debug)]
struct Unit {
    asked: Instant,
    looked: Option<Instant>,
    /// At the latest look, and when that was.
    counts: Option<(Instant, Returns)>,
    files: Vec<(Key, HotFile)>,
    root: Option<OwnedFd>,
    walked: Option<Instant>,
    /// Those that a walk was asked for.
    tried: HashSet<Key>,
    /// What walks have found: a path, and whether the inode number alone told it.
    paths: HashMap<Key, (String, bool)>,
}

/// All that somebody looks at.
#[derive(Debug, Default)]
pub(super) struct Shown(HashMap<UnitId, Unit>);

impl Shown {
    /// Somebody looks at this cgroup. Whether its tasks are to be looked at for that, now.
    pub(super) fn asked(&mut self, id: UnitId, now: Instant) -> bool {
        self.0.retain(|_, unit| now.saturating_duration_since(unit.asked) < GONE_AFTER);
        if !self.0.contains_key(&id) && self.0.len() >= MOST_SHOWN {
            return false;
        }
        let unit = self.0.entry(id).or_insert_with(|| Unit {
            asked: now,
            looked: None,
            counts: None,
            files: Vec::new(),
            root: None,
            walked: None,
            tried: HashSet::new(),
            paths: HashMap::new(),
        });
        unit.asked = now;
        let due = unit.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY);
        if due {
            unit.looked = Some(now);
        }
        due
    }

    /// Takes in a look, whoever asked for it.
    pub(super) fn seen(&mut self, id: UnitId, at: Instant, seen: &Seen) {
        let Some(unit) = self.0.get_mut(&id) else { return };
        if unit.counts.as_ref().is_some_and(|(before, _)| at.saturating_duration_since(*before) < LEAST_BETWEEN) {
            return;
        }
        let mut look = seen.look.clone();
        match &unit.counts {
            Some((before, counts)) => {
                look.rates_since(counts, at.saturating_duration_since(*before).as_secs_f64());
            }
            None => look.files.iter_mut().flatten().for_each(|file| file.per_s = None),
        }
        let keys = seen.devices.iter().zip(look.files.iter().flatten()).map(|(device, file)| (*device, file.inode));
        let keys: Vec<Key> = keys.collect();
        unit.counts = Some((at, look.returns()));
        unit.files = keys.into_iter().zip(look.files.unwrap_or_default()).collect();
        unit.root = seen.root.as_ref().and_then(|root| root.try_clone().ok());
    }

    /// The files of a cgroup with their rates, those that came back most first; and a walk, if one is due.
    fn files(&mut self, id: UnitId, now: Instant) -> (Vec<HotFile>, Option<Walk>) {
        let Some(unit) = self.0.get_mut(&id) else { return (Vec::new(), None) };
        for (key, file) in unit.files.iter_mut().filter(|(_, file)| file.path.is_none()) {
            if let Some((path, by_inode)) = unit.paths.get(key) {
                (file.path, file.by_inode) = (Some(path.clone()), *by_inode);
            }
        }
        let unknown = unit.files.iter().any(|(key, file)| file.path.is_none() && !unit.tried.contains(key));
        let due = unit.walked.is_none_or(|walked| now.saturating_duration_since(walked) >= WALK_EVERY);
        let root = unit.root.as_ref().filter(|_| unknown && due).and_then(|root| root.try_clone().ok());
        let walk = root.map(|root| {
            let (keys, files): (Vec<Key>, Vec<HotFile>) =
                unit.files.iter().filter(|(_, file)| file.path.is_none()).cloned().unzip();
            unit.walked = Some(now);
            unit.tried.extend(&keys);
            Walk { unit: id, root, keys, files }
        });
        let mut files: Vec<HotFile> = unit
            .files
            .iter()
            .map(|(_, file)| file)
            .filter(|file| file.per_s.is_some_and(|rate| rate > 0.0))
            .cloned()
            .collect();
        files.sort_by(|a, b| b.per_s.unwrap_or(0.0).total_cmp(&a.per_s.unwrap_or(0.0)));
        (files, walk)
    }

    fn found(&mut self, walk: Walk) {
        let Some(unit) = self.0.get_mut(&walk.unit) else { return };
        let found = walk.keys.into_iter().zip(walk.files);
        unit.paths.extend(found.filter_map(|(key, file)| Some((key, (file.path?, file.by_inode)))));
    }
}

/// A walk through a container's root for the paths of files.
struct Walk {
    unit: UnitId,
    root: OwnedFd,
    keys: Vec<Key>,
    files: Vec<HotFile>,
}

/// The thread that walks. Started when the first path is wanted; nobody waits for it.
#[derive(Debug, Default)]
pub(super) struct Paths {
    walks: Mutex<Option<SyncSender<Walk>>>,
}

impl Paths {
    /// The files of a cgroup at which somebody looks; empty until there is a rate. Takes no time.
    pub(super) fn files(
        &self,
        shared: &Arc<(Mutex<Shared>, Condvar)>,
        unit: UnitId,
        ending: &Arc<AtomicBool>,
    ) -> Vec<HotFile> {
        let (files, walk) = locked(shared).shown.files(unit, Instant::now());
        if let Some(walk) = walk {
            let mut walks = self.walks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if walks.is_none() {
                *walks = start(shared, ending)
                    .inspect_err(|error| tracing::warn!(%error, "paths of files will not be shown: no thread for it"))
                    .ok();
            }
            // One that finds no place is asked for again when other files turn up.
            let _ = walks.as_ref().map(|walks| walks.try_send(walk));
        }
        files
    }
}

fn start(shared: &Arc<(Mutex<Shared>, Condvar)>, ending: &Arc<AtomicBool>) -> io::Result<SyncSender<Walk>> {
    let (walks, inbox) = mpsc::sync_channel::<Walk>(MOST_WAITING);
    let (shared, ending) = (Arc::clone(shared), Arc::clone(ending));
    thread::Builder::new().name("report-paths".to_owned()).spawn(move || {
        while let Ok(mut walk) = inbox.recv() {
            if ending.load(Ordering::Relaxed) {
                return;
            }
            let devices: Vec<u32> = walk.keys.iter().map(|(device, _)| *device).collect();
            if resolve(&walk.root, &mut walk.files, &devices, &ending) {
                locked(&shared).shown.found(walk);
            }
        }
    })?;
    Ok(walks)
}

#[cfg(test)]
mod tests {
    use super::{super::look::Look, *};

    fn seen(counts: &[(u64, u64)]) -> Seen {
        let files = counts.iter().map(|(inode, returns)| HotFile {
            device: "8:1".to_owned(),
            inode: *inode,
            returns: *returns,
            // Since the first look, which is not what a view shows.
            per_s: Some(1e9),
            ..HotFile::default()
        });
        Seen {
            look: Look { files: Some(files.collect()), ..Look::default() },
            root: None,
            devices: vec![8 << 20 | 1; counts.len()],
        }
    }

    #[test]
    fn files_are_shown_by_their_rate_between_two_looks() {
        let (mut shown, began, unit) = (Shown::default(), Instant::now(), UnitId(7));
        shown.seen(unit, began, &seen(&[(1, 5)]));
        assert!(shown.files(unit, began).0.is_empty(), "nobody looks");
        assert!(shown.asked(unit, began));
        assert!(!shown.asked(unit, began + Duration::from_secs(1)), "not each second");
        shown.seen(unit, began, &seen(&[(1, 1000), (2, 10)]));
        assert!(shown.files(unit, began).0.is_empty(), "no rate yet");
        let later = began + Duration::from_secs(4);
        assert!(shown.asked(unit, later));
        shown.seen(unit, later, &seen(&[(1, 1004), (2, 50), (3, 0)]));
        let files = shown.files(unit, later).0;
        let rates: Vec<_> = files.iter().map(|file| (file.inode, file.per_s)).collect();
        assert_eq!(rates, [(2, Some(10.0)), (1, Some(1.0))]);
        // A report's look in the same second has nothing to tell.
        shown.seen(unit, later + Duration::from_millis(5), &seen(&[(1, 1004), (2, 50), (3, 0)]));
        assert_eq!(shown.files(unit, later).0, files);
        // A view of another cgroup, long after.
        assert!(shown.asked(UnitId(8), later + GONE_AFTER));
        assert!(shown.files(unit, later).0.is_empty());
    }

    #[test]
    fn no_more_than_a_few_cgroups_are_looked_at_for_a_view() {
        let (mut shown, began) = (Shown::default(), Instant::now());
        let asked = (0..100).filter(|id| shown.asked(UnitId(*id), began)).count();
        assert_eq!(asked, MOST_SHOWN);
    }

    #[test]
    fn a_file_without_a_path_is_looked_for_once_and_keeps_what_was_found() {
        let dir = tempfile::tempdir().unwrap();
        let (mut shown, began, unit) = (Shown::default(), Instant::now(), UnitId(7));
        let with_root =
            |count| Seen { root: Some(std::fs::File::open(dir.path()).unwrap().into()), ..seen(&[(1, count)]) };
        shown.asked(unit, began);
        shown.seen(unit, began, &with_root(1));
        let walk = shown.files(unit, began).1.unwrap();
        assert_eq!(walk.keys, [(8 << 20 | 1, 1)]);
        assert!(shown.files(unit, began + 2 * WALK_EVERY).1.is_none(), "it was tried");
        let file = HotFile { path: Some("/usr/lib/libx.so".to_owned()), ..walk.files[0].clone() };
        shown.found(Walk { files: vec![file], ..walk });
        let later = began + Duration::from_secs(4);
        shown.seen(unit, later, &with_root(9));
        assert_eq!(shown.files(unit, later).0[0].path.as_deref(), Some("/usr/lib/libx.so"));
    }
}
