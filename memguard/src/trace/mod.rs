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

/// The oldest of the lab's recordings of a scenario and kernel: `livelock-440-6.12.73`.
#[cfg(test)]
pub(crate) fn of_the_lab(name: &str) -> std::path::PathBuf {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings");
    let mut found: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{name}-")))
        .collect();
    found.sort();
    found.into_iter().next().unwrap_or_else(|| panic!("no recording of {name} in {}", folder.display()))
}
