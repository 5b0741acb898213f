//! The store on the disk: redb, which is one file, keeps what it has confirmed through a power loss, and is all Rust.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition};

use super::incident::Incident;

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("incidents");
const NAME: &str = "journal.redb";
/// As many are kept: years, or the weeks of a very bad time.
const MOST: u64 = 2000;
/// redb would take up to a GiB of memory for its cache, and memguard's is locked.
const CACHE: usize = 256 * 1024;
/// Taken from the disk at once, so that it can fill up later without keeping an incident from being kept.
const RESERVED: u64 = 4 * 1024 * 1024;

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("can't use the folder {}: {source} (--state-dir names another one)", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("{} is in use: another memguard runs on this machine (stop it, or name another folder with --state-dir)", file.display())]
    InUse { file: PathBuf },
    #[error("can't use {}: {source}", file.display())]
    Open { file: PathBuf, source: Box<redb::Error> },
    #[error("{0}")]
    Use(#[from] Box<redb::Error>),
    #[error("it was closed after an error")]
    Closed,
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
        let database = self.database.as_ref().ok_or(StoreError::Closed)?;
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
            Err(StoreError::Open { source, .. }) if matches!(*source, redb::Error::Corrupted(_)) => {
                let aside = file.with_extension("damaged");
                tracing::error!("{} is damaged ({source}); it is now {}", file.display(), aside.display());
                fs::rename(&file, aside).map_err(|source| StoreError::Folder { folder: folder.clone(), source })?;
                open(&file)
            }
            other => other,
        }
    })
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
    drop(file);
    Database::builder().set_cache_size(CACHE).create(path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { file: path.to_owned() },
        other => failed(other.into()),
    })
}

/// What the store in `folder` holds, while no memguard uses it.
pub fn read_only(folder: &Path) -> Result<Vec<Incident>, StoreError> {
    let file = folder.join(NAME);
    if !file.try_exists().map_err(|source| StoreError::Folder { folder: folder.to_owned(), source })? {
        return Ok(Vec::new());
    }
    Store::open(Box::new(move || open(&file)))?.all()
}

#[cfg(test)]
mod tests {
    use super::{
        super::incident::{Stage, example},
        *,
    };

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        assert_eq!(read_only(&folder).unwrap(), []);
        let mut store = Store::open(opener(folder.clone())).unwrap();
        store.put(&[example("mg-5-1", 5), example("mg-4-1", 4)]).unwrap();
        store.put(&[Incident { evidence: "new".to_owned(), ..example("mg-5-1", 5) }]).unwrap();
        drop(store);
        let all = read_only(&folder).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].decided_at, all[1].evidence.as_str()), (4, "new"));
    }

    #[test]
    fn one_at_a_time_and_the_error_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let _store = Store::open(opener(dir.path().to_owned())).unwrap();
        let error = Store::open(opener(dir.path().to_owned())).err().unwrap().to_string();
        assert!(error.contains("another memguard") && error.contains("--state-dir"), "{error}");
        assert!(matches!(read_only(dir.path()), Err(StoreError::InUse { .. })));
    }

    #[test]
    fn a_damaged_one_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), vec![7; 100_000]).unwrap();
        let opened = Store::open(opener(dir.path().to_owned()));
        match opened {
            Ok(mut store) => {
                store.put(&[example("mg-1-1", 1)]).unwrap();
                assert!(dir.path().join("journal.damaged").exists());
            }
            // Whatever else redb makes of it, it is an error that names the file.
            Err(error) => assert!(error.to_string().contains(NAME), "{error}"),
        }
    }

    #[test]
    fn the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(opener(dir.path().to_owned())).unwrap();
        let closed = |n: u64| {
            let stage = Stage::Suppressed { why: String::new() };
            Incident { stage, ..example(&format!("mg-{}-1", 1_700_000_000 + n), 1_700_000_000 + n) }
        };
        let many: Vec<_> = (0..MOST + 10).map(closed).collect();
        store.put(&[example("mg-1-1", 1)]).unwrap();
        store.put(&many).unwrap();
        let all = store.all().unwrap();
        assert_eq!((all.len() as u64, all[0].decided_at), (MOST, 1), "what is open stays");
        assert_eq!(all[1].decided_at, 1_700_000_011);
    }
}
