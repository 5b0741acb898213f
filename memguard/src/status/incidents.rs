//! The latest incidents, from their copies in the run folder: what became of them is written there by several threads.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::snapshot::{IncidentStatus, MOST_INCIDENTS};
use crate::journal::Copies;

/// A folder that changed a moment ago may change again within the same tick of the file system's clock.
const SETTLED: Duration = Duration::from_secs(1);

/// Reads them again only when something has changed.
#[derive(Debug)]
pub(super) struct Latest {
    folder: PathBuf,
    copies: Copies,
    read: Option<SystemTime>,
    incidents: Vec<IncidentStatus>,
}

impl Latest {
    pub(super) fn below(run_dir: &Path) -> Self {
        let copies = Copies::below(run_dir);
        Self { folder: copies.folder().to_owned(), copies, read: None, incidents: Vec::new() }
    }

    /// The latest first.
    pub(super) fn get(&mut self) -> Vec<IncidentStatus> {
        let changed = std::fs::metadata(&self.folder).and_then(|metadata| metadata.modified()).ok();
        if changed.is_none() || changed != self.read {
            self.incidents = self.copies.all().iter().rev().take(MOST_INCIDENTS).map(IncidentStatus::of).collect();
            let settled = |at: &SystemTime| at.elapsed().is_ok_and(|age| age > SETTLED);
            self.read = changed.filter(settled);
        }
        self.incidents.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Incident, Stage, example};

    #[test]
    fn the_latest_first_and_news_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut latest = Latest::below(dir.path());
        assert!(latest.get().is_empty(), "no folder yet");
        let copies = Copies::below(dir.path());
        for n in 0..30_u64 {
            copies.put(&example(&format!("mg-{}-1", 1000 + n), 1000 + n)).unwrap();
        }
        let seen = latest.get();
        assert_eq!((seen.len(), seen[0].decided_at, seen[0].outcome.as_str()), (20, 1029, "to be ended at any moment"));
        let stage = Stage::Suppressed { why: "a\u{1b}b".to_owned() };
        copies.put(&Incident { stage, ..example("mg-1029-1", 1029) }).unwrap();
        assert_eq!(latest.get()[0].outcome, "not ended: a\\u{1b}b");
    }
}
