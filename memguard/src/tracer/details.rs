//! What the tracer knows of single tasks and files, for the report of an incident.

use aya::maps::{Array, HashMap, MapData};
use memguard_common::counters::{CycleStart, ReturnedFile, text_file_key};

use super::loader::Pod;
use crate::report::{self, InCycle, Insight};

/// Tasks in reclaim that are read at most.
const MOST_CYCLES: usize = 4096;

/// Maps that are read when a cgroup is suspect, by another thread than the tracer's.
pub struct Details {
    pub(super) cycles: HashMap<MapData, u32, Pod<CycleStart>>,
    /// `None` where no hook fills it.
    pub(super) files: Option<Array<MapData, Pod<ReturnedFile>>>,
}

impl std::fmt::Debug for Details {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Details").field("files", &self.files.is_some()).finish_non_exhaustive()
    }
}

impl Insight for Details {
    fn in_cycles(&self) -> Vec<InCycle> {
        // The table changes while it is read; an entry may come twice, and the reader sorts by thread.
        let entries = self.cycles.iter().take(MOST_CYCLES).flatten();
        entries.map(|(tid, Pod(start))| InCycle { tid, since_ns: start.at_ns, cgroup: start.cgroup_id }).collect()
    }

    fn text_files(&self) -> Option<Vec<report::ReturnedFile>> {
        let slots = self.files.as_ref()?;
        let whole =
            |file: &ReturnedFile| file.key != 0 && file.key == text_file_key(file.device, file.inode, file.cgroup_id);
        let files = slots.iter().flatten().map(|Pod(file)| file).filter(whole);
        Some(
            files
                .map(|file| report::ReturnedFile {
                    device: file.device,
                    inode: file.inode,
                    cgroup: file.cgroup_id,
                    returns: file.returns,
                })
                .collect(),
        )
    }
}
