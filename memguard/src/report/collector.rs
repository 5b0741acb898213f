//! The thread that looks at tasks, so that nobody else has to wait for /proc.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::AtomicBool,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    look::{HotFile, Look, Returns, Seen, Sources, look},
    shown::{Paths, Shown},
};
use crate::engine::UnitId;

/// A look reads no further after this time; a single read that takes longer is not waited for.
const BUDGET: Duration = Duration::from_millis(150);
/// Cgroups whose looks are kept: those that are suspect.
const MOST_KEPT: usize = 64;
/// Looks that wait for their turn.
const MOST_WAITING: usize = 64;

/// What was seen of a unit.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) seen: Seen,
    pub(super) at: Option<Instant>,
    /// Counts of hot files at the first look, and when that was.
    first: Option<(Instant, Returns)>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    kept: HashMap<UnitId, Kept>,
    /// What somebody looks at meanwhile.
    pub(super) shown: Shown,
    /// The look that is being taken, as far as it has come.
    partial: Option<(UnitId, Instant, Look)>,
}

enum Order {
    Look {
        unit: UnitId,
        folder: PathBuf,
    },
    /// The same, and nothing is kept for a report.
    Show {
        unit: UnitId,
        folder: PathBuf,
    },
    Forget(UnitId),
}

/// Has tasks looked at.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    orders: SyncSender<Order>,
    shared: Arc<(Mutex<Shared>, Condvar)>,
    paths: Arc<Paths>,
}

pub(super) fn locked(shared: &(Mutex<Shared>, Condvar)) -> MutexGuard<'_, Shared> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collector {
    pub(super) fn start(sources: Sources) -> io::Result<Self> {
        let (orders, inbox) = mpsc::sync_channel(MOST_WAITING);
        let shared = Arc::new((Mutex::new(Shared::default()), Condvar::new()));
        let its = Arc::clone(&shared);
        // Not waited for at the end: it has nothing to finish, and may be stuck.
        thread::Builder::new().name("report-tasks".to_owned()).spawn(move || collect(&sources, &inbox, &its))?;
        Ok(Self { orders, shared, paths: Arc::default() })
    }

    /// Asks for a look; takes no time. One that finds no place, because the thread is stuck, is not taken.
    pub(super) fn look(&self, unit: UnitId, folder: PathBuf) {
        let _ = self.orders.try_send(Order::Look { unit, folder });
    }

    /// Somebody looks at the unit: has its files counted, every few seconds. Takes no time.
    pub(super) fn show(&self, unit: UnitId, folder: &Path) {
        let due = locked(&self.shared).shown.asked(unit, Instant::now());
        if due {
            let _ = self.orders.try_send(Order::Show { unit, folder: folder.to_owned() });
        }
    }

    /// The unit's files for who looks at it.
    pub(super) fn files(&self, unit: UnitId, ending: &Arc<AtomicBool>) -> Vec<HotFile> {
        self.paths.files(&self.shared, unit, ending)
    }

    /// What was seen of this unit is not needed any more.
    pub(super) fn forget(&self, unit: UnitId) {
        let _ = self.orders.try_send(Order::Forget(unit));
    }

    /// What was seen of the unit, if there is anything yet. Takes no time.
    pub(super) fn at_hand(&self, unit: UnitId) -> Option<Kept> {
        locked(&self.shared).kept.remove(&unit)
    }

    /// What was seen of the unit. Waits for a first look that is under way until its time is over, and then takes what
    /// there is of it; says why it is not all.
    pub(super) fn take(&self, unit: UnitId) -> (Kept, Option<String>) {
        let deadline = Instant::now() + BUDGET + BUDGET / 3;
        let mut shared = locked(&self.shared);
        loop {
            if let Some(kept) = shared.kept.remove(&unit) {
                return (kept, None);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.shared.1.wait_timeout(shared, left).unwrap_or_else(PoisonError::into_inner);
            shared = woken.0;
        }
        match &shared.partial {
            Some((of, began, look)) if *of == unit => {
                let why = format!("a file in /proc has not answered for {:.1} s", began.elapsed().as_secs_f64());
                let look = Look { cut: Some(why), ..look.clone() };
                (Kept { seen: Seen { look, ..Seen::default() }, at: Some(*began), first: None }, None)
            }
            Some((_, began, _)) => (
                Kept::default(),
                Some(format!(
                    "its tasks were not looked at: a file in /proc of another cgroup's task has not answered for {:.1} s",
                    began.elapsed().as_secs_f64()
                )),
            ),
            None => (Kept::default(), Some("its tasks were not looked at in time".to_owned())),
        }
    }
}

fn collect(sources: &Sources, inbox: &Receiver<Order>, shared: &(Mutex<Shared>, Condvar)) {
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Forget(unit) => drop(locked(shared).kept.remove(&unit)),
            Order::Look { unit, folder } => {
                let began = Instant::now();
                locked(shared).partial = Some((unit, began, Look::default()));
                let mut progress = |look: &Look| {
                    if let Some((_, _, partial)) = &mut locked(shared).partial {
                        partial.clone_from(look);
                    }
                };
                let seen = look(sources, &folder, began, began + BUDGET, &mut progress);
                let mut shared_now = locked(shared);
                shared_now.partial = None;
                shared_now.shown.seen(unit, began, &seen);
                shared_now.keep(unit, began, seen);
                drop(shared_now);
                shared.1.notify_all();
            }
            Order::Show { unit, folder } => {
                let began = Instant::now();
                let seen = look(sources, &folder, began, began + BUDGET, &mut |_| {});
                locked(shared).shown.seen(unit, began, &seen);
            }
        }
    }
}

impl Shared {
    fn keep(&mut self, unit: UnitId, at: Instant, mut seen: Seen) {
        if !self.kept.contains_key(&unit) && self.kept.len() >= MOST_KEPT {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.at).map(|(unit, _)| *unit);
            if let Some(oldest) = oldest {
                self.kept.remove(&oldest);
            }
        }
        let kept = self.kept.entry(unit).or_default();
        let (first_at, first) = kept.first.get_or_insert_with(|| (at, seen.look.returns()));
        seen.look.rates_since(first, at.saturating_duration_since(*first_at).as_secs_f64());
        if kept.at.is_none() || seen.look.supersedes(&kept.seen.look) {
            (kept.seen, kept.at) = (seen, Some(at));
        }
    }
}
