//! The thread that owns the store: writes what comes, as much at once as is there, and tries again what could not be written.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SendError, SyncSender},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    disk::Word,
    incident::Incident,
    store::{Opener, Store, StoreError},
};

/// What can't be written is tried again so often.
const RETRY: Duration = Duration::from_secs(5);
/// A store that could not be read yet is tried so often while there is nothing to write.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// Incidents that wait for the disk; more are in the run folder only.
pub(super) const MOST_WAITING: usize = 512;

/// Something to keep.
pub(super) struct Order {
    pub(super) incident: Box<Incident>,
    /// Told when it is on the disk.
    pub(super) done: Vec<SyncSender<()>>,
}

/// Whom it tells what the store holds.
pub(super) struct Listeners {
    /// The start, which waits for a moment. It has to be a channel without a buffer: what is sent either arrives or comes back.
    pub(super) start: SyncSender<Result<Vec<Incident>, StoreError>>,
    /// Whoever goes on with it if the disk answers later.
    pub(super) later: oneshot::Sender<Vec<Incident>>,
}

pub(super) fn run(opener: Opener, inbox: &Receiver<Order>, listeners: Listeners, says: &Word) {
    let mut store = Store::closed(opener);
    let Listeners { start, later } = listeners;
    let found = read(&mut store);
    says.ended(found.is_ok());
    let in_use = matches!(found, Err(StoreError::InUse { .. }));
    // A disk that is full now may have room later: what comes is tried again all the same.
    let mut failing = found.is_err();
    // The start has gone on without it.
    let mut unread = match start.send(found) {
        Ok(()) => failing.then_some(later),
        Err(SendError(Ok(found))) => {
            let _ = later.send(found);
            None
        }
        Err(SendError(Err(error))) => {
            tracing::error!("{error}");
            Some(later)
        }
    };
    if in_use {
        return;
    }
    let mut pending: Vec<Order> = Vec::new();
    loop {
        let next = match (pending.is_empty(), &unread) {
            (true, None) => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (true, Some(_)) => inbox.recv_timeout(READ_AGAIN),
            (false, _) => inbox.recv_timeout(RETRY),
        };
        let ended = matches!(next, Err(RecvTimeoutError::Disconnected));
        pending.extend(next.ok());
        pending.extend(inbox.try_iter());
        latest_only(&mut pending);
        // Before anything is written, and nothing is while it can't be: what is there then was left by an earlier memguard, and
        // is not taken for what this one has begun.
        if let Some(later) = unread.take() {
            says.begins();
            match read(&mut store) {
                Ok(found) => {
                    says.ended(true);
                    let _ = later.send(found);
                }
                Err(error) => {
                    says.ended(false);
                    tracing::debug!("the journal can't be read yet: {error}");
                    unread = Some(later);
                }
            }
        }
        if !pending.is_empty() && unread.is_none() {
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
                    for done in pending.drain(..).flat_map(|order| order.done) {
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

fn read(store: &mut Store) -> Result<Vec<Incident>, StoreError> {
    store.reopen().and_then(|()| store.all())
}

/// Of several states of one incident the last one counts; and not more than fit are held while the disk is away.
pub(super) fn latest_only(orders: &mut Vec<Order>) {
    let mut latest: Vec<Order> = Vec::with_capacity(orders.len());
    for mut order in orders.drain(..) {
        if let Some(at) = latest.iter().position(|earlier| earlier.incident.id == order.incident.id) {
            // Who waits for the earlier state is served by the later one.
            let earlier = latest.remove(at);
            order.done.extend(earlier.done);
        }
        latest.push(order);
    }
    let surplus = latest.len().saturating_sub(MOST_WAITING);
    latest.drain(..surplus);
    *orders = latest;
}
