//! Writing a recording without ever waiting for a disk.

use std::{
    fs::File,
    io,
    sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use super::{
    entry::{Decided, Entry, Start},
    file::Writer,
};
use crate::engine::{Observation, Sample, Settings, UnitId};

/// Entries that wait for a slow disk; behind that they are lost, and counted.
const WAITING: usize = 8192;
/// What was seen is on its way to the disk after this time at the latest.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// Takes entries from the agent and has a thread write them.
#[derive(Debug)]
pub struct Recorder {
    start: Start,
    to: Option<SyncSender<Entry>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    lost: u64,
}

impl Recorder {
    /// Begins. An error of the disk later on ends the recording, not memguard; [`finish`](Self::finish) tells it.
    pub fn new(writer: Writer<File>, start: Start) -> io::Result<Self> {
        let (to, from) = sync_channel(WAITING);
        let first = start.clone();
        let thread = thread::Builder::new().name("memguard-record".to_owned()).spawn(move || {
            let mut writer = writer;
            writer.write(&Entry::Start(Box::new(first)))?;
            loop {
                match from.recv_timeout(FLUSH_EVERY) {
                    Ok(entry) => writer.write(&entry)?,
                    Err(RecvTimeoutError::Timeout) => writer.flush()?,
                    Err(RecvTimeoutError::Disconnected) => return writer.finish().map(drop),
                }
            }
        })?;
        Ok(Self { start, to: Some(to), thread: Some(thread), lost: 0 })
    }

    fn send(&mut self, entry: Entry) {
        let Some(to) = &self.to else { return };
        if self.lost > 0 && to.try_send(Entry::Lost { entries: self.lost }).is_ok() {
            self.lost = 0;
        }
        match to.try_send(entry) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.lost += 1,
            Err(TrySendError::Disconnected(_)) => {
                tracing::error!("the recording has ended early: its disk took no more");
                self.to = None;
            }
        }
    }

    /// The engine begins anew with other settings.
    pub fn begin_again(&mut self, settings: Settings) {
        let unix_time_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.send(Entry::Start(Box::new(Start { unix_time_s, settings, ..self.start.clone() })));
    }

    pub fn watch(&mut self, unit: UnitId, cgroup: &str) {
        self.send(Entry::Watch { unit, cgroup: cgroup.to_owned() });
    }

    pub fn sample(&mut self, unit: UnitId, sample: Sample, observation: &Observation) {
        self.send(Entry::Sample { unit, sample: Box::new(sample), decided: Decided::of(observation) });
    }

    pub fn acted(&mut self, unit: UnitId, at: Duration) {
        self.send(Entry::Acted { unit, at });
    }

    pub fn forget(&mut self, unit: UnitId) {
        self.send(Entry::Forget { unit });
    }

    /// Writes what is left and closes the file.
    pub fn finish(mut self) -> io::Result<()> {
        self.to = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the thread that writes the recording panicked")),
            None => Ok(()),
        }
    }
}
