//! The thread that owns the store, and the handle that the agent has.

use std::{
    collections::HashSet,
    io,
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    copies::Copies,
    disk::{Disk, Word},
    incident::Incident,
    store::{Opener, StoreError, opener},
    writer::{self, Listeners, MOST_WAITING, Order},
};

#[cfg(test)]
mod tests;

/// How long a start waits for the disk.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a kill waits for the disk at most. A disk with nothing else to do takes 1 to 30 ms.
const PATIENCE: Duration = Duration::from_millis(200);

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
    /// What the store held, if it could not be read at the start.
    found_later: Option<FoundLater>,
    word: Option<Word>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct FoundLater {
    found: oneshot::Receiver<Vec<Incident>>,
    /// What was at hand in the run folder, and is gone on with already.
    known: HashSet<String>,
}

impl Journal {
    /// Opens the store in `state_dir`, and reads what both it and the run folder hold. Fails only where another memguard
    /// is at work; with a disk that can't be used memguard goes on without it, and says so.
    pub fn open(state_dir: &Path, run_dir: &Path) -> Result<Opened, JournalError> {
        Self::open_with(opener(state_dir.to_owned()), Copies::below(run_dir))
    }

    fn open_with(opener: Opener, copies: Copies) -> Result<Opened, JournalError> {
        let (orders, inbox) = mpsc::sync_channel(MOST_WAITING);
        let (start, outcome) = mpsc::sync_channel(0);
        let (later, found) = oneshot::channel();
        let word = Word::new();
        let says = word.clone();
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer::run(opener, &inbox, Listeners { start, later }, &says))
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
                tracing::error!("the disk of the journal does not answer; what it holds is gone on with when it does");
                Vec::new()
            }
        };
        drop(outcome);
        let known = at_hand.iter().map(|copy| copy.id.clone()).collect();
        let pen = Pen { copies: Some(copies), orders: Some(orders) };
        let found_later = Some(FoundLater { found, known });
        let journal = Self { pen, late: None, found_later, word: Some(word), thread: Some(thread) };
        for copy in at_hand.iter().filter(|copy| !stored.contains(copy)) {
            journal.pen.send(Order { incident: Box::new(copy.clone()), done: Vec::new() });
        }
        Ok(Opened { journal, incidents: latest(stored, at_hand) })
    }

    /// Keeps nothing: for who only looks on.
    #[must_use]
    pub const fn none() -> Self {
        Self { pen: Pen { copies: None, orders: None }, late: None, found_later: None, word: None, thread: None }
    }

    /// How the disk does.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.word.as_ref().map(|word| word.disk(Instant::now())).unwrap_or_default()
    }

    /// What the store held at the start, if the disk could not be read then: once, when it can be. Until then, and for ever
    /// where it was read at once, this does not end. Nothing is lost if it is not waited for to the end.
    pub async fn found_later(&mut self) -> Vec<Incident> {
        if let Some(later) = &mut self.found_later {
            let found = (&mut later.found).await;
            let known = self.found_later.take().map(|later| later.known).unwrap_or_default();
            if let Ok(mut found) = found {
                found.retain(|incident| !known.contains(&incident.id));
                return found;
            }
        }
        std::future::pending().await
    }

    /// Keeps an incident before something is done, and waits a moment for the disk.
    pub fn before(&mut self, incident: &mut Incident) -> Kept {
        incident.revision += 1;
        let copied = self.pen.copy(incident);
        let (done, answer) = mpsc::sync_channel(1);
        let sent = self.pen.send(Order { incident: Box::new(incident.clone()), done: vec![done] });
        if let Some(late) = &self.late
            && matches!(late.try_recv(), Err(TryRecvError::Empty))
        {
            // It is stuck with an earlier one: this one will not be faster. One that it has dropped says nothing any more.
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
    pub fn after(&self, incident: &mut Incident) {
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
    pub fn after(&self, incident: &mut Incident) {
        incident.revision += 1;
        self.copy(incident);
        self.send(Order { incident: Box::new(incident.clone()), done: Vec::new() });
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

/// Of each incident what was written last. Either place can be behind: the disk hung or was full, or the run folder was. What an
/// older memguard wrote has no revision; then it is the copy, which nothing but a full tmpfs holds up.
pub(crate) fn latest(stored: Vec<Incident>, copies: Vec<Incident>) -> Vec<Incident> {
    let mut incidents = copies;
    for stored in stored {
        match incidents.iter_mut().find(|copy| copy.id == stored.id) {
            Some(copy) if copy.revision < stored.revision => *copy = stored,
            Some(_) => {}
            None => incidents.push(stored),
        }
    }
    incidents.sort_by(|a, b| (a.decided_at, &a.id).cmp(&(b.decided_at, &b.id)));
    incidents
}
