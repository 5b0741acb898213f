//! The async reader of the ring buffer.

use std::io;

use aya::maps::{MapData, RingBuf};
use memguard_common::Record;
use tokio::io::{Interest, unix::AsyncFd};

use super::record::decode;

/// The ring buffer as user space reads it.
#[derive(Debug)]
pub struct Ring {
    ring: AsyncFd<Debuggable>,
    /// Records that could not be decoded so far.
    undecodable: u64,
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
        Ok(Self { ring, undecodable: 0 })
    }

    /// Waits for the kernel's wake-up. It comes at most ten times a second for the whole node, and never while no
    /// cgroup is in reclaim.
    pub async fn woken(&mut self) -> io::Result<()> {
        // epoll reports an edge: cleared now, a wake-up that comes during the drain is not missed.
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Takes all records that are there, without waiting.
    pub fn drain(&mut self, mut each: impl FnMut(Record)) {
        let ring = &mut self.ring.get_mut().0;
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
