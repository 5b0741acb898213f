//! What processes of a scenario do.

use serde::{Deserialize, Serialize};

use super::Size;

/// What a process does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "program", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Program {
    /// Does nothing, as the pause container.
    Pause,
    /// Computes a little and reports progress: a neighbour that must not be touched.
    Steady,
    /// Executes code all over the shared objects of /text, as a managed runtime does with its assemblies. Progress is
    /// requests served.
    Listener {
        threads: u32,
        /// Of the text, how much most requests run through.
        hot_mib: u32,
        /// Functions, each a page of code, that a request calls.
        calls: u32,
        /// What each thread rests between two requests, in milliseconds.
        pause_ms: u32,
        /// Of a thousand calls, how many are to text anywhere, hot or not.
        #[serde(default = "a_tenth")]
        cold_per_mille: u32,
        /// Calls `mlockall(MCL_CURRENT | MCL_FUTURE)`, so that none of its text can be reclaimed.
        #[serde(default)]
        mlockall: bool,
        /// What only one of its threads may do at a time.
        #[serde(default, skip_serializing_if = "Turns::is_none")]
        turns: Turns,
    },
    /// Takes anonymous or shared memory, and keeps it. Progress is MiB taken.
    Hog {
        memory: HogMemory,
        /// Where it stops; without, it never does.
        stop: Option<Size>,
        mib_per_s: u32,
    },
    /// Reads the big file from the disk from end to end, again and again. Progress is MiB read.
    Stream { seconds: u32 },
    /// Reads the same part of the big file again and again. Progress is MiB read.
    Reread { seconds: u32, mib: u32 },
    /// Maps the big file and touches page after page. Progress is pages touched.
    MmapScan { seconds: u32 },
    /// Takes anonymous memory up to a size, keeps it for a moment, gives it back, and reads files in between. Progress
    /// is bursts.
    Burst { seconds: u32, size: Size, keep_ms: u32 },
    /// Reads single pages of the first `mib` of the big file: nine of ten in the hot part, the others anywhere.
    /// Progress is pages read.
    Database { seconds: u32, access: Access, mib: u32, hot_mib: u32 },
    /// Starts a program that calls every function of the text once and ends, again and again. Progress is programs run.
    Startups { seconds: u32 },
    /// What `startups` runs.
    TouchText,
    /// Writes files of `file_mib` into a tmpfs, reads each once, and deletes the oldest when all take more than `keep`.
    /// Progress is MiB written.
    TmpfsFiles { seconds: u32, keep: Size, file_mib: u32 },
    /// Reads so much of the big file once, and does nothing more. Progress is MiB read.
    Idle { fill_mib: u32 },
    /// Reads memory.pressure of a container (`pod/container`) once a second, as a watcher does that would act at this
    /// full avg10, and only says what it saw. Progress is readings.
    PsiWatch { container: String, full_avg10: f64 },
    /// A program of the root disk, run once. It reports no progress.
    Exec { argv: Vec<String> },
    /// A program of the root disk, run again and again; a run that fails ends it. After `seconds` it is stopped; without
    /// them it goes on.
    Repeat {
        argv: Vec<String>,
        seconds: Option<u32>,
        #[serde(default)]
        progress: Counted,
    },
}

const fn a_tenth() -> u32 {
    100
}

impl Program {
    /// After how many seconds it comes to its end by itself, if it does. `None` inside: nobody knows when.
    #[must_use]
    pub fn ends(&self) -> Option<Option<u32>> {
        match self {
            Self::Pause
            | Self::Steady
            | Self::Listener { .. }
            | Self::Hog { .. }
            | Self::Idle { .. }
            | Self::PsiWatch { .. }
            | Self::Repeat { seconds: None, .. } => None,
            Self::TouchText | Self::Exec { .. } => Some(None),
            Self::Stream { seconds }
            | Self::Reread { seconds, .. }
            | Self::MmapScan { seconds }
            | Self::Burst { seconds, .. }
            | Self::Database { seconds, .. }
            | Self::Startups { seconds }
            | Self::TmpfsFiles { seconds, .. }
            | Self::Repeat { seconds: Some(seconds), .. } => Some(Some(*seconds)),
        }
    }

    /// Whether it works all along and says how much it did.
    #[must_use]
    pub fn reports_progress(&self) -> bool {
        !matches!(
            self,
            Self::Pause
                | Self::Hog { .. }
                | Self::Idle { .. }
                | Self::PsiWatch { .. }
                | Self::TouchText
                | Self::Exec { .. }
        )
    }
}

/// What threads take turns at: while one of them waits for a page, the others wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turns {
    /// Each goes its own way.
    #[default]
    None,
    /// A lock is held for a whole request.
    Requests,
    /// A lock goes round from call to call, as Python's does from thread to thread every five milliseconds.
    Calls,
}

impl Turns {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// How a database reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    Mmap,
    Pread,
}

/// What of a repeated program is progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// Runs that succeeded.
    #[default]
    Runs,
    /// Lines of standard output.
    Lines,
}

/// What a hog takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HogMemory {
    Anon,
    /// `MAP_SHARED | MAP_ANONYMOUS`, which is shmem.
    Shmem,
}
