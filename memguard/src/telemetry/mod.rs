//! What memguard tells: log lines for people, records for machines.

mod also;
mod cause;
mod events;
mod format;
mod histogram;
mod logs;
mod name;
mod summary;

pub use also::tell_also;
pub use cause::with_causes;
pub use events::{
    Action, Cost, Event, FollowUpEvent, RefaultReport, Started, StateChange, SuppressedAction, VerdictEvent, emit,
};
pub use histogram::RefaultHistogram;
pub use logs::{LogFormat, LogGuard, LostLines, init};
pub use name::{CgroupName, PodName, escaped, shown};
pub use summary::Summary;
