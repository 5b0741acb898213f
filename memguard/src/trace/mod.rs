//! Recordings: all that the engine sees, written down, and the engine run over it again.
//!
//! A recording is made at the engine's door ([`entry::Entry`]), so whatever happens behind it happens again: the same
//! samples give the same states and verdicts, bit for bit. What memguard decided at the time is in the recording too,
//! which lets a replay say whether it still decides so.

mod degrade;
mod entry;
pub(crate) mod file;
pub(crate) mod plot;
mod recorder;
mod replay;

pub use degrade::{Without, degrade};
pub use entry::{Decided, Entry, Start};
pub use file::{Damage, Reader, Recording, TraceError, Writer, read};
pub use plot::plot;
pub use recorder::Recorder;
pub use replay::{Judge, Moment, Replay, RuleReplay, UnitReplay, replay};
