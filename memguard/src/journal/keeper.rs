//! The thread that owns the store, and the handle that the agent has.

use std::{
    io,
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    copies::Copies,
    disk::{Disk, Word},
    incident::Incident,
    store::{Opener, Store, StoreError, opener},
};

/// How long a start waits for the disk.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a kill waits for the disk at most. A disk with nothing else to do takes 1 to 30 ms.
const PATIENCE: Duration = Duration::from_millis(200);
/// What can't be written is tried again so often.
const RETRY: Duration = Duration::from_secs(5);
/// Incidents that wait for the disk; more are in the run folder only.
const MOST_WAITING: usize = 512;

/// Why memguard can't go on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("can't start the journal's thread: {0}")]
    Thread(#[source] io::Error),
}

/// How well an incident is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It outlives a power loss.
    OnDisk,
    /// It outlives memguard; the disk has not answered in time, and gets it later.
    InRunFolder,
    /// In memory only.
    Nowhere,
}

/// What an earlier memguard left, and the journal to go on with.
#[derive(Debug)]
pub struct Opened {
    pub journal: Journal,
    pub incidents: Vec<Incident>,
}

struct Order {
    incident: Box<Incident>,
    /// Told when it is on the disk.
    done: Option<SyncSender<()>>,
}

/// Writes into the journal, without ever waiting for a disk.
#[derive(Clone, Debug)]
pub struct Pen {
    copies: Option<Copies>,
    orders: Option<SyncSender<Order>>,
}

/// Keeps incidents. Without a store they are kept in the run folder alone.
#[derive(Debug)]
pub struct Journal {
    pen: Pen,
    /// The disk did not answer in time: nobody waits for it until it has.
    late: Option<Receiver<()>>,
    word: Option<Word>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the store in `state_dir`, and reads what both it and the run folder hold. Fails only where another memguard
    /// is at work; with a disk that can't be used memguard goes on without it, and says so.
    pub fn open(state_dir: &Path, run_dir: &Path) -> Result<Opened, JournalError> {
        Self::open_with(opener(state_dir.to_owned()), Copies::below(run_dir))
    }

    fn open_with(opener: Opener, copies: Copies) -> Result<Opened, JournalError> {
        let (orders, inbox) = mpsc::sync_channel(MOST_WAITING);
        let (tell, outcome) = mpsc::sync_channel(1);
        let word = Word::new();
        let says = word.clone();
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || keep(opener, &inbox, &tell, &says))
            .map_err(JournalError::Thread)?;
        let at_hand = copies.all();
        let stored = match outcome.recv_timeout(OPEN_PATIENCE) {
            Ok(Ok(stored)) => stored,
            Ok(Err(error @ StoreError::InUse { .. })) => return Err(error.into()),
            Ok(Err(error)) => {
                tracing::error!(
                    "{error}; until it can be used, incidents are in the run folder only, which does not outlive the machine's start"
                );
                Vec::new()
            }
            Err(_) => {
                tracing::error!("the disk of the journal does not answer; going on without what it holds");
                Vec::new()
            }
        };
        let pen = Pen { copies: Some(copies), orders: Some(orders) };
        let journal = Self { pen, late: None, word: Some(word), thread: Some(thread) };
        // A copy is never older than what is on the disk, which may have hung or been full.
        for copy in at_hand.iter().filter(|copy| !stored.contains(copy)) {
            journal.pen.send(Order { incident: Box::new(copy.clone()), done: None });
        }
        let mut incidents = stored;
        incidents.retain(|stored| at_hand.iter().all(|copy| copy.id != stored.id));
        incidents.extend(at_hand);
        incidents.sort_by(|a, b| (a.decided_at, &a.id).cmp(&(b.decided_at, &b.id)));
        Ok(Opened { journal, incidents })
    }

    /// Keeps nothing: for who only looks on.
    #[must_use]
    pub const fn none() -> Self {
        Self { pen: Pen { copies: None, orders: None }, late: None, word: None, thread: None }
    }

    /// How the disk does.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.word.as_ref().map(|word| word.disk(Instant::now())).unwrap_or_default()
    }

    /// Keeps an incident before something is done, and waits a moment for the disk.
    pub fn before(&mut self, incident: &Incident) -> Kept {
        let copied = self.pen.copy(incident);
        let (done, answer) = mpsc::sync_channel(1);
        let sent = self.pen.send(Order { incident: Box::new(incident.clone()), done: Some(done) });
        if let Some(late) = &self.late
            && !matches!(late.try_recv(), Ok(()))
        {
            // It is stuck with an earlier one: this one will not be faster.
            return copied;
        }
        self.late = None;
        if !sent {
            return copied;
        }
        let began = Instant::now();
        match answer.recv_timeout(PATIENCE) {
            Ok(()) => Kept::OnDisk,
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(
                    waited_ms = began.elapsed().as_millis(),
                    "the disk of the journal is slow; not waiting for it"
                );
                self.late = Some(answer);
                copied
            }
            Err(RecvTimeoutError::Disconnected) => copied,
        }
    }

    /// Keeps what has become of an incident, without waiting.
    pub fn after(&self, incident: &Incident) {
        self.pen.after(incident);
    }

    /// For somebody else who has something to keep. All of them have to be gone before [`Journal::close`].
    #[must_use]
    pub fn pen(&self) -> Pen {
        self.pen.clone()
    }

    /// Waits until all that was handed over is on the disk, or for so long. Whether it is.
    #[must_use]
    pub fn close(self, patience: Duration) -> bool {
        let Self { pen, thread, .. } = self;
        drop(pen);
        let began = Instant::now();
        while thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if began.elapsed() >= patience {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Pen {
    /// Keeps what has become of an incident.
    pub fn after(&self, incident: &Incident) {
        self.copy(incident);
        self.send(Order { incident: Box::new(incident.clone()), done: None });
    }

    fn copy(&self, incident: &Incident) -> Kept {
        match self.copies.as_ref().map_or(Ok(()), |copies| copies.put(incident)) {
            Ok(()) if self.copies.is_none() => Kept::Nowhere,
            Ok(()) => Kept::InRunFolder,
            Err(error) => {
                tracing::warn!(%error, "no copy of the incident in the run folder (--run-dir names another one)");
                Kept::Nowhere
            }
        }
    }

    fn send(&self, order: Order) -> bool {
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(order))) => {
                tracing::warn!(
                    incident = order.incident.id,
                    "the journal is too far behind, this is in the run folder only"
                );
                false
            }
            Some(Err(TrySendError::Disconnected(_))) | None => false,
        }
    }
}

/// The thread: writes what comes, as much at once as is there, and tries again what could not be written.
fn keep(opener: Opener, inbox: &Receiver<Order>, tell: &SyncSender<Result<Vec<Incident>, StoreError>>, says: &Word) {
    let mut store = Store::closed(opener);
    let found = store.reopen().and_then(|()| store.all());
    says.ended(found.is_ok());
    let in_use = matches!(found, Err(StoreError::InUse { .. }));
    // A disk that is full now may have room later: what comes is tried again all the same.
    let mut failing = found.is_err();
    let _ = tell.send(found);
    if in_use {
        return;
    }
    let mut pending: Vec<Order> = Vec::new();
    loop {
        let next = if pending.is_empty() {
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(RETRY)
        };
        let ended = matches!(next, Err(RecvTimeoutError::Disconnected));
        pending.extend(next.ok());
        pending.extend(inbox.try_iter());
        latest_only(&mut pending);
        if !pending.is_empty() {
            let incidents: Vec<_> = pending.iter().map(|order| (*order.incident).clone()).collect();
            says.begins();
            let put = store.put(&incidents);
            says.ended(put.is_ok());
            match put {
                Ok(()) => {
                    if failing {
                        tracing::info!("the journal can be written again");
                    }
                    failing = false;
                    for done in pending.drain(..).filter_map(|order| order.done) {
                        let _ = done.try_send(());
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::error!("can't write the journal: {error}; trying again");
                    }
                    failing = true;
                }
            }
        }
        if ended {
            if !pending.is_empty() {
                let left = pending.len();
                tracing::error!(
                    left,
                    "incidents are not on the journal's disk; they are in the run folder, for the next start"
                );
            }
            return;
        }
    }
}

/// Of several states of one incident the last one counts; and not more than fit are held while the disk is away.
fn latest_only(orders: &mut Vec<Order>) {
    let mut latest: Vec<Order> = Vec::with_capacity(orders.len());
    for mut order in orders.drain(..) {
        if let Some(at) = latest.iter().position(|earlier| earlier.incident.id == order.incident.id) {
            // Who waits for the earlier state is served by the later one.
            let earlier = latest.remove(at);
            order.done = order.done.or(earlier.done);
        }
        latest.push(order);
    }
    let surplus = latest.len().saturating_sub(MOST_WAITING);
    latest.drain(..surplus);
    *orders = latest;
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    };

    use redb::{Database, StorageBackend, backends::InMemoryBackend};

    use super::{
        super::incident::{Stage, example},
        *,
    };

    const WELL: u8 = 0;
    const FULL: u8 = 1;
    const HANGS: u8 = 2;

    /// A disk whose content outlives the database, and which can be full or hang.
    #[derive(Clone, Debug)]
    struct Disk {
        content: Arc<InMemoryBackend>,
        state: Arc<AtomicU8>,
    }

    impl Disk {
        fn new() -> Self {
            Self { content: Arc::new(InMemoryBackend::new()), state: Arc::new(AtomicU8::new(WELL)) }
        }

        fn set(&self, state: u8) {
            self.state.store(state, Ordering::SeqCst);
        }

        fn use_it(&self) -> Result<(), io::Error> {
            while self.state.load(Ordering::SeqCst) == HANGS {
                thread::sleep(Duration::from_millis(5));
            }
            if self.state.load(Ordering::SeqCst) == FULL {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        fn opener(&self) -> Opener {
            let disk = self.clone();
            Box::new(move || {
                Database::builder()
                    .create_with_backend(disk.clone())
                    .map_err(|error| StoreError::Use(Box::new(error.into())))
            })
        }

        fn holds(&self) -> Vec<Incident> {
            Store::open(self.opener()).unwrap().all().unwrap()
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> Result<u64, io::Error> {
            self.content.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
            self.content.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<(), io::Error> {
            self.use_it()?;
            self.content.set_len(len)
        }

        fn sync_data(&self) -> Result<(), io::Error> {
            self.use_it()
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
            self.use_it()?;
            self.content.write(offset, data)
        }
    }

    fn done(id: &str, at: u64) -> Incident {
        Incident { stage: Stage::Failed { error: "x".to_owned() }, ..example(id, at) }
    }

    #[test]
    fn what_is_begun_is_on_the_disk_first() {
        let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
        let Opened { mut journal, incidents } = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap();
        assert_eq!(incidents, []);
        assert_eq!(journal.before(&example("mg-1-1", 1)), Kept::OnDisk);
        journal.after(&done("mg-1-1", 1));
        assert!(journal.close(Duration::from_secs(5)));
        assert_eq!(disk.holds(), [done("mg-1-1", 1)]);
    }

    #[test]
    fn a_disk_that_hangs_holds_a_kill_up_once_and_for_a_moment_only() {
        let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
        let mut journal = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap().journal;
        disk.set(HANGS);
        assert_eq!(journal.before(&example("mg-1-1", 1)), Kept::InRunFolder);
        assert!(journal.late.is_some());
        assert_eq!(journal.disk(), super::Disk::Works, "for now");
        assert_eq!(journal.before(&example("mg-2-1", 2)), Kept::InRunFolder);
        disk.set(WELL);
        assert!(journal.close(Duration::from_secs(10)));
        assert_eq!(disk.holds().len(), 2, "nothing was lost");
    }

    #[test]
    fn what_a_hanging_disk_did_not_take_is_known_to_the_next_start() {
        let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
        let mut journal = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap().journal;
        disk.set(HANGS);
        journal.before(&example("mg-1-1", 1));
        // memguard dies: the next one sees another disk, on which it never arrived.
        let next = Disk::new();
        let Opened { journal: other, incidents } =
            Journal::open_with(next.opener(), Copies::below(dir.path())).unwrap();
        assert_eq!(incidents, [example("mg-1-1", 1)]);
        assert!(other.close(Duration::from_secs(5)));
        assert_eq!(next.holds(), [example("mg-1-1", 1)], "and is put there now");
        disk.set(WELL);
        assert!(journal.close(Duration::from_secs(10)));
    }

    #[test]
    fn a_full_disk_gets_it_when_there_is_room_again() {
        let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
        let mut journal = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap().journal;
        journal.before(&example("mg-1-1", 1));
        disk.set(FULL);
        assert_eq!(journal.disk(), super::Disk::Works);
        assert_eq!(journal.before(&example("mg-2-1", 2)), Kept::InRunFolder);
        while journal.disk() == super::Disk::Works {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(journal.disk(), super::Disk::Fails);
        disk.set(WELL);
        journal.after(&done("mg-2-1", 2));
        assert!(journal.close(Duration::from_secs(10)));
        assert_eq!(disk.holds(), [example("mg-1-1", 1), done("mg-2-1", 2)]);
    }

    #[test]
    fn a_disk_that_is_full_at_the_start_gets_it_when_there_is_room() {
        let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
        disk.set(FULL);
        let Opened { mut journal, incidents } = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap();
        assert_eq!(incidents, []);
        assert_eq!(journal.before(&example("mg-1-1", 1)), Kept::InRunFolder);
        disk.set(WELL);
        journal.after(&done("mg-2-1", 2));
        assert!(journal.close(Duration::from_secs(10)));
        assert_eq!(disk.holds(), [example("mg-1-1", 1), done("mg-2-1", 2)]);
    }

    #[test]
    fn without_a_disk_it_goes_on_and_without_both_too() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let blocked = dir.path().join("file/state");
        let mut journal = Journal::open(&blocked, dir.path()).unwrap().journal;
        assert_eq!(journal.before(&example("mg-1-1", 1)), Kept::InRunFolder);
        assert_eq!((journal.disk(), Journal::none().disk()), (super::Disk::Fails, super::Disk::NotWanted));
        let mut journal = Journal::open(&blocked, &blocked).unwrap().journal;
        assert_eq!(journal.before(&example("mg-1-1", 1)), Kept::Nowhere);
    }

    #[test]
    fn of_many_states_the_last_counts_and_who_waits_is_told() {
        let (done_at, told) = mpsc::sync_channel(1);
        let mut orders = vec![
            Order { incident: Box::new(example("a", 1)), done: Some(done_at) },
            Order { incident: Box::new(example("b", 1)), done: None },
            Order { incident: Box::new(done("a", 1)), done: None },
        ];
        latest_only(&mut orders);
        assert_eq!(orders.iter().map(|order| &*order.incident).collect::<Vec<_>>(), [&example("b", 1), &done("a", 1)]);
        orders[1].done.as_ref().unwrap().send(()).unwrap();
        told.try_recv().unwrap();
    }
}
