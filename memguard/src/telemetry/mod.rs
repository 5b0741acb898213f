//! What memguard tells: log lines for people, records for machines.

mod events;
mod format;
mod histogram;
mod logs;
mod summary;

pub use events::{
    Action, CgroupName, Cost, Event, RefaultReport, Started, StateChange, SuppressedAction, VerdictEvent, emit,
};
pub use histogram::RefaultHistogram;
pub use logs::{LogFormat, LogGuard, init};
pub use summary::Summary;

/// A path for people's eyes: what a job can name (a nested cgroup) cannot break a line or move a cursor.
#[must_use]
pub fn shown(path: &std::path::Path) -> String {
    path.to_string_lossy()
        .chars()
        .flat_map(|c| if c.is_control() || is_bidi(c) { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// Characters that change the direction of text, and so can make a line read as another one.
const fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

    use super::shown;

    #[test]
    fn names_that_jobs_choose_are_escaped() {
        assert_eq!(shown(Path::new("a.scope/docker/ok-1")), "a.scope/docker/ok-1");
        assert_eq!(shown(Path::new("x\n2026 KILLED\x1b[2K")), "x\\n2026 KILLED\\u{1b}[2K");
        assert_eq!(shown(Path::new("a\u{202e}b")), "a\\u{202e}b");
        assert_eq!(shown(Path::new(OsStr::from_bytes(b"\xff\x07"))), "\u{fffd}\\u{7}");
    }
}
