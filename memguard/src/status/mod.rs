//! What memguard sees at this moment, for who wants to look: `memguard top` and `memguard status`.
//!
//! A [`Snapshot`] is made by the agent once a second while somebody is connected to the socket in the run folder, and not
//! at all otherwise ([`Publisher`]). A thread of its own serves the socket ([`serve`]), so nobody who reads slowly or not at
//! all can hold up the detection loop. `memguard top --replay` makes the same snapshots from a recording.

mod client;
mod incidents;
mod server;
mod snapshot;
#[cfg(test)]
mod tests;
mod text;
mod trail;
mod words;

pub use self::{
    client::{Client, ClientError, socket},
    server::{Publisher, ServeError, serve},
    snapshot::{
        CostStatus, EngineStatus, FORMAT, HotFile, IncidentStatus, LostSignal, MOST_FILES, MOST_INCIDENTS, MOST_UNITS,
        MemoryStatus, PodsStatus, Snapshot, TermStatus, Totals, UnitStatus, WorkloadStatus,
    },
    text::text,
    trail::{HISTORY, Trail},
    words::{Shown, shown_term, why},
};
