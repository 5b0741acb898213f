//! The store on the disk: redb, which is one file, keeps what it has confirmed through a power loss, and is all Rust.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable as _, ReadableTableMetadata as _,
    StorageBackend as _, TableDefinition, backends::InMemoryBackend,
};

use super::incident::Incident;

#[cfg(test)]
mod tests;

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("incidents");
const NAME: &str = "journal.redb";
/// As many are kept: years, or the weeks of a very bad time.
const MOST: u64 = 2000;
/// redb would take up to a GiB of memory for its cache, and memguard's is locked.
const CACHE: usize = 256 * 1024;
/// Taken from the disk at once, so that it can fill up later without keeping an incident from being kept.
const RESERVED: u64 = 4 * 1024 * 1024;
/// A store that was not closed is read in a copy, in memory. [`MOST`] incidents are some 10 MiB; a file that is larger than
/// this is none of ours.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("can't use the folder {}: {source} (--state-dir names another one)", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("{} is in use: another memguard runs on this machine (stop it, or name another folder with --state-dir)", file.display())]
    InUse { file: PathBuf },
    #[error("can't use {}: {source}", file.display())]
    Open { file: PathBuf, source: Box<redb::Error> },
    #[error("can't read {}: {what}", file.display())]
    Unreadable { file: PathBuf, what: String },
    #[error("{0}")]
    Use(#[from] Box<redb::Error>),
    #[error("it was closed after an error")]
    Closed,
}

/// How a store is opened to be written to, wherever it is. The whole file is checked each time, which takes a moment: redb trusts one
/// that was closed cleanly, and where a disk has damaged a page of it, it would end memguard in the middle of reading, at each
/// start anew.
pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

fn used(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Use(Box::new(error.into()))
}

/// Something that opens the database, again after an error: redb closes itself to be safe when a write failed.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, StoreError> + Send>;

/// All incidents, by id.
pub(super) struct Store {
    opener: Opener,
    database: Option<Database>,
}

impl Store {
    #[cfg(test)]
    pub(super) fn open(opener: Opener) -> Result<Self, StoreError> {
        let mut store = Self::closed(opener);
        store.reopen()?;
        Ok(store)
    }

    /// One that is opened when it is first needed.
    pub(super) fn closed(opener: Opener) -> Self {
        Self { opener, database: None }
    }

    /// Opens it, if it is not open.
    pub(super) fn reopen(&mut self) -> Result<(), StoreError> {
        if self.database.is_none() {
            self.database = Some((self.opener)()?);
        }
        Ok(())
    }

    pub(super) fn all(&self) -> Result<Vec<Incident>, StoreError> {
        all(self.database.as_ref().ok_or(StoreError::Closed)?)
    }

    /// Keeps these, and forgets the oldest if there are too many. Once it returns they outlive a power loss.
    pub(super) fn put(&mut self, incidents: &[Incident]) -> Result<(), StoreError> {
        self.reopen()?;
        let result = self.write(incidents);
        if result.is_err() {
            self.database = None;
        }
        result
    }

    fn write(&self, incidents: &[Incident]) -> Result<(), StoreError> {
        let database = self.database.as_ref().ok_or(StoreError::Closed)?;
        let writing = database.begin_write().map_err(used)?;
        {
            let mut table = writing.open_table(TABLE).map_err(used)?;
            for incident in incidents {
                let newer = match table.get(incident.id.as_str()).map_err(used)? {
                    Some(there) => revision(there.value()) > incident.revision,
                    None => false,
                };
                // A copy that could not be written for a while does not undo what the disk has taken meanwhile.
                if newer {
                    continue;
                }
                let value = serde_json::to_vec(incident).unwrap_or_default();
                table.insert(incident.id.as_str(), value.as_slice()).map_err(used)?;
            }
            let surplus = table.len().map_err(used)?.saturating_sub(MOST);
            let mut oldest = Vec::new();
            // Ids begin with the time, so the first in order is the oldest.
            for entry in table.iter().map_err(used)? {
                if oldest.len() as u64 >= surplus {
                    break;
                }
                let (id, value) = entry.map_err(used)?;
                // What remains to be done is not forgotten, however much came after it.
                if !serde_json::from_slice(value.value()).is_ok_and(|incident: Incident| incident.is_open()) {
                    oldest.push(id.value().to_owned());
                }
            }
            for id in oldest {
                table.remove(id.as_str()).map_err(used)?;
            }
        }
        writing.commit().map_err(used)
    }
}

/// That of an incident as it is kept.
fn revision(value: &[u8]) -> u64 {
    #[derive(serde::Deserialize)]
    struct Kept {
        #[serde(default)]
        revision: u64,
    }
    serde_json::from_slice(value).map_or(0, |kept: Kept| kept.revision)
}

/// Opens the store in `folder`, and makes both if they are not there. One that is damaged is put aside.
pub(super) fn opener(folder: PathBuf) -> Opener {
    Box::new(move || {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| StoreError::Folder { folder: folder.clone(), source })?;
        let file = folder.join(NAME);
        match open(&file) {
            Err(StoreError::Open { source, .. }) if is_damaged(&source) => {
                let aside = file.with_extension("damaged");
                tracing::error!("{} is damaged ({source}); it is now {}", file.display(), aside.display());
                fs::rename(&file, aside).map_err(|source| StoreError::Folder { folder: folder.clone(), source })?;
                open(&file)
            }
            other => other,
        }
    })
}

/// Whether this file can't become a database any more. Without a header it is what a crash or a full disk has left of one that was
/// being made.
pub(super) fn is_damaged(error: &redb::Error) -> bool {
    match error {
        // The second one is of a version that this memguard does not know; a bad byte is enough for that.
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => true,
        redb::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let failed = |source| StoreError::Open { file: path.to_owned(), source: Box::new(source) };
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(redb::Error::Io(error)))?;
    // Some file systems can't; then a full disk delays what is kept, and the copy in the run folder has to do.
    if let Err(error) = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, RESERVED) {
        tracing::debug!(%error, "no room could be reserved for the journal");
    }
    let empty = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
    drop(file);
    builder().create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { file: path.to_owned() },
        other => {
            // Half of a header is in the way of the next try.
            if empty {
                let _ = fs::remove_file(path);
            }
            failed(other.into())
        }
    })
}

/// All incidents of a database, in order of time.
fn all(database: &impl ReadableDatabase) -> Result<Vec<Incident>, StoreError> {
    let reading = database.begin_read().map_err(used)?;
    let table = match reading.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(used(error)),
    };
    let mut incidents = Vec::new();
    for entry in table.iter().map_err(used)? {
        let (id, value) = entry.map_err(used)?;
        match serde_json::from_slice(value.value()) {
            Ok(incident) => incidents.push(incident),
            Err(error) => tracing::warn!(%error, id = id.value(), "an incident in the journal can't be read"),
        }
    }
    incidents.sort_by(|a: &Incident, b| (a.decided_at, &a.id).cmp(&(b.decided_at, &b.id)));
    Ok(incidents)
}

/// What the store in `folder` holds, while no memguard uses it. The folder and what is in it stay as they are.
///
/// Waits for the disk for as long as that takes.
pub fn read_only(folder: &Path) -> Result<Vec<Incident>, StoreError> {
    let file = folder.join(NAME);
    match fs::metadata(&file) {
        // Nothing was ever kept; or the disk was full when memguard made the file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => return Ok(Vec::new()),
        Err(source) => return Err(StoreError::Folder { folder: folder.to_owned(), source }),
        Ok(_) => {}
    }
    match Database::builder().set_cache_size(CACHE).open_read_only(&file) {
        Ok(database) => all(&database),
        Err(DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::InUse { file }),
        // Whoever wrote to it was killed. It is made good when memguard next starts, and here in a copy.
        Err(DatabaseError::RepairAborted) => all(&in_memory(&file)?),
        Err(error) => Err(StoreError::Open { file, source: Box::new(error.into()) }),
    }
}

/// The store as it would be made good, in memory.
fn in_memory(path: &Path) -> Result<Database, StoreError> {
    let unreadable = |what: String| StoreError::Unreadable { file: path.to_owned(), what };
    let io = |error: io::Error| unreadable(error.to_string());
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    if bytes > LARGEST {
        return Err(unreadable(format!("it has {} MiB, and a journal has {} at most", bytes >> 20, LARGEST >> 20)));
    }
    let mut content = Vec::new();
    file.take(LARGEST).read_to_end(&mut content).map_err(io)?;
    let copy = InMemoryBackend::new();
    copy.set_len(content.len() as u64)
        .and_then(|()| copy.write(0, &content))
        .map_err(|error| unreadable(error.to_string()))?;
    drop(content);
    builder()
        .create_with_backend(copy)
        .map_err(|error| StoreError::Open { file: path.to_owned(), source: Box::new(error.into()) })
}
