//! Incident reports: for each verdict a bounded record of what was seen, kept on the node, and shown as text, JSON or one
//! HTML page.
//!
//! Nothing of it holds up the detector or a kill. The agent keeps a short timeline of each pressed cgroup ([`Timeline`]),
//! asks for a look at the tasks of one that turned suspect, and hands over what it has in memory after the kill was
//! written. Two threads do the rest: one reads /proc ([`look`], no file that takes `mmap_lock`), the other one writes to
//! the disk ([`Store`]) and may hang there.

mod collector;
#[cfg(test)]
pub(crate) mod fixture;
mod html;
mod keeper;
mod look;
mod record;
mod resolve;
mod shown;
mod store;
mod story;
mod text;
mod timeline;

pub use self::{
    html::html,
    keeper::{Draft, Reporter},
    look::{HotFile, InCycle, Insight, Look, ReturnedFile, Sources, Task, Waiting},
    record::{FormatError, LARGEST, Machine, Record, TermRecord, VERSION, parse},
    shown::MOST_SHOWN,
    store::{Entry, Store, StoreError},
    text::text,
    timeline::{Point, Timeline},
};
