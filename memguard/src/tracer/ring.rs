//! The async reader of the ring buffer.

use std::io;

use aya::maps::{MapData, RingBuf};
use memguard_common::Record;
use tokio::io::{Interest, unix::AsyncFd};

use super::record::decode;

/// The ring buffer as user space reads it.
#[derive(Debug)]
pub struct Ring {
    source: Source,
    /// Records that could not be decoded so far.
    undecodable: u64,
}

#[derive(Debug)]
enum Source {
    Kernel(AsyncFd<Debuggable>),
    /// Records that nobody is woken up for.
    #[cfg(test)]
    Silent(Vec<Record>),
}

/// aya's ring buffer has no `Debug` of its own.
struct Debuggable(RingBuf<MapData>);

impl std::fmt::Debug for Debuggable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RingBuf")
    }
}

impl std::os::fd::AsRawFd for Debuggable {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl Ring {
    pub(super) fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the map owns its file descriptor, keeps it open until it is dropped, and never exchanges it.
        let ring = unsafe { AsyncFd::register_with_interest(Debuggable(ring), Interest::READABLE) }
            .map_err(|error| error.into_parts().1)?;
        Ok(Self { source: Source::Kernel(ring), undecodable: 0 })
    }

    /// One that holds these, and wakes nobody up.
    #[cfg(test)]
    pub(crate) const fn silent(records: Vec<Record>) -> Self {
        Self { source: Source::Silent(records), undecodable: 0 }
    }

    /// Waits for the kernel's wake-up. It comes at most ten times a second for the whole node, or eighty while more than
    /// a quarter of the ring waits to be read, and never while no cgroup is in reclaim. Not every record has one, and a
    /// ring that is full has none: who waits here has to [`drain`](Self::drain) it now and then without.
    pub async fn woken(&mut self) -> io::Result<()> {
        match &mut self.source {
            // epoll reports an edge: cleared now, a wake-up that comes during the drain is not missed.
            Source::Kernel(ring) => ring.readable_mut().await?.clear_ready(),
            #[cfg(test)]
            Source::Silent(_) => std::future::pending::<()>().await,
        }
        Ok(())
    }

    /// Takes all records that are there, without waiting.
    pub fn drain(&mut self, mut each: impl FnMut(Record)) {
        let ring = match &mut self.source {
            Source::Kernel(ring) => &mut ring.get_mut().0,
            #[cfg(test)]
            Source::Silent(records) => return records.drain(..).for_each(each),
        };
        while let Some(item) = ring.next() {
            match decode(&item) {
                Ok(record) => each(record),
                Err(error) => {
                    self.undecodable += 1;
                    if self.undecodable.is_power_of_two() {
                        tracing::warn!(%error, undecodable = self.undecodable, "a ring record can't be decoded");
                    }
                }
            }
        }
    }

    #[must_use]
    pub const fn undecodable(&self) -> u64 {
        self.undecodable
    }
}
