//! What memguard decided and did, kept through crashes and restarts of the machine.
//!
//! Each incident is in two places. A copy in the run folder (a tmpfs: it takes microseconds and no disk can hold it up)
//! is there when memguard itself is killed, and is what `memguard incidents` reads. The store on the disk is there after
//! a power loss, and belongs to a thread of its own: a disk that is full or hangs delays what is kept, never a kill.

mod copies;
mod disk;
mod incident;
mod keeper;
#[cfg(test)]
mod power;
mod store;
mod writer;

#[cfg(test)]
pub(crate) use self::incident::example;
pub(crate) use self::keeper::latest;
pub use self::{
    copies::Copies,
    disk::Disk,
    incident::{Found, Incident, Stage, boot_id},
    keeper::{Journal, JournalError, Kept, Opened, Pen},
    store::{StoreError, read_only},
};
