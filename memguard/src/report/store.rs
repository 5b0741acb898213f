//! Reports as files: one for each, compressed, the oldest go first.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};

use super::record::{FormatError, LARGEST, Record, parse};
use crate::telemetry::escaped;

/// As many are kept.
const MOST: usize = 200;
/// All of them together, in bytes.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// JSON of two minutes becomes a seventh by this.
const SUFFIX: &str = ".json.gz";
/// As somebody may have unpacked one.
const PLAIN: &str = ".json";

/// What can go wrong with a report.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("can't {verb} {}: {source}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Format { path: PathBuf, source: FormatError },
    #[error("{:?} is no incident: they look like mg-1764000000-4711 (`memguard report` lists them)", escaped(id))]
    NoId { id: String },
    #[error("there is no report {id} in {} (`memguard report` lists them; --state-dir names another folder)", folder.display())]
    Unknown { id: String, folder: PathBuf },
}

/// The folder of reports.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    most: usize,
    most_bytes: u64,
}

/// A report that is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// Seconds since 1970, from the id.
    pub decided_at: u64,
    pub id: String,
    pub file: PathBuf,
    pub bytes: u64,
}

/// The time in an incident's id.
fn decided_at(id: &str) -> Option<u64> {
    let (time, unit) = id.strip_prefix("mg-")?.split_once('-')?;
    // A digit each, so that no id leads out of the folder.
    (unit.bytes().all(|byte| byte.is_ascii_digit()) && !unit.is_empty()).then(|| time.parse().ok())?
}

impl Store {
    /// In a folder of its own below `state_dir`, which is made when it is needed.
    #[must_use]
    pub fn below(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("reports"), most: MOST, most_bytes: MOST_BYTES }
    }

    /// Whole or not at all, readable for its owner alone: there are names of a job's files in it.
    pub fn put(&self, record: &Record) -> Result<(), StoreError> {
        let id = &record.incident;
        decided_at(id).ok_or_else(|| StoreError::NoId { id: id.clone() })?;
        let file = self.folder.join(format!("{id}{SUFFIX}"));
        let part = self.folder.join(format!("{id}.part"));
        let failed = |verb| move |source: io::Error| StoreError::Io { verb, path: self.folder.clone(), source };
        let json =
            record.to_json().map_err(|source| StoreError::Format { path: file.clone(), source: source.into() })?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed("make"))?;
        let written =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part).and_then(|out| {
                let mut packed = GzEncoder::new(out, Compression::default());
                packed.write_all(&json)?;
                packed.finish()?;
                fs::rename(&part, &file)
            });
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written.map_err(failed("write to"))?;
        self.prune().map_err(failed("make room in"))
    }

    /// What is there, oldest first. What is not ours is left out.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StoreError::Io { verb: "read", path: self.folder.clone(), source }),
            Ok(entries) => entries,
        };
        let entry = |file: PathBuf, bytes: u64| {
            let name = file.file_name()?.to_str()?;
            let id = name.strip_suffix(SUFFIX).or_else(|| name.strip_suffix(PLAIN))?.to_owned();
            Some(Entry { decided_at: decided_at(&id)?, id, file, bytes })
        };
        let mut all: Vec<_> = entries
            .flatten()
            .filter_map(|found| {
                let metadata = found.metadata().ok().filter(fs::Metadata::is_file)?;
                entry(found.path(), metadata.len())
            })
            .collect();
        all.sort();
        Ok(all)
    }

    /// The report of an incident, or of the `latest` one.
    pub fn get(&self, id: &str) -> Result<Record, StoreError> {
        let entry = if id == "latest" {
            self.list()?.pop()
        } else {
            decided_at(id).ok_or_else(|| StoreError::NoId { id: id.to_owned() })?;
            self.list()?.into_iter().find(|entry| entry.id == id)
        };
        let entry = entry.ok_or_else(|| StoreError::Unknown { id: escaped(id), folder: self.folder.clone() })?;
        read(&entry.file)
    }

    /// Deletes the oldest until both limits are kept, and what a crash left half written.
    fn prune(&self) -> io::Result<()> {
        for found in fs::read_dir(&self.folder)?.flatten() {
            if found.path().extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(found.path())?;
            }
        }
        let all = self.list().map_err(io::Error::other)?;
        let mut bytes: u64 = all.iter().map(|entry| entry.bytes).sum();
        let mut count = all.len();
        // The latest stays, however large.
        for entry in all.iter().take(all.len().saturating_sub(1)) {
            if count <= self.most && bytes <= self.most_bytes {
                break;
            }
            fs::remove_file(&entry.file)?;
            count -= 1;
            bytes = bytes.saturating_sub(entry.bytes);
        }
        Ok(())
    }
}

/// Reads a report's file, packed or not.
fn read(file: &Path) -> Result<Record, StoreError> {
    let failed = |source| StoreError::Io { verb: "read", path: file.to_owned(), source };
    let opened = fs::File::open(file).map_err(failed)?;
    // A file that unpacks to more is none of ours.
    let most = LARGEST as u64 * 2;
    let mut json = Vec::new();
    if file.extension().is_some_and(|extension| extension == "gz") {
        GzDecoder::new(opened).take(most).read_to_end(&mut json).map_err(failed)?;
    } else {
        opened.take(most).read_to_end(&mut json).map_err(failed)?;
    }
    parse(&json).map_err(|source| StoreError::Format { path: file.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{super::fixture::record, *};

    fn store(dir: &Path) -> Store {
        Store::below(dir)
    }

    #[test]
    fn what_was_put_is_read_back_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("state"));
        assert_eq!(store.list().unwrap(), []);
        let record = record("mg-1764000000-7");
        store.put(&record).unwrap();
        assert_eq!(store.get("mg-1764000000-7").unwrap(), record);
        let entry = store.list().unwrap().pop().unwrap();
        assert_eq!(fs::metadata(&entry.file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&store.folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(entry.bytes * 3 < record.to_json().unwrap().len() as u64, "packing pays: {} bytes", entry.bytes);
    }

    #[test]
    fn the_oldest_go_first_by_number_and_by_size() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store { most: 3, ..store(dir.path()) };
        for time in [30, 10, 20, 40] {
            store.put(&record(&format!("mg-{time}-1"))).unwrap();
        }
        let ids = |store: &Store| store.list().unwrap().into_iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(ids(&store), ["mg-20-1", "mg-30-1", "mg-40-1"]);
        assert_eq!(store.get("latest").unwrap().incident, "mg-40-1");
        let store = Store { most_bytes: 10, ..store };
        store.put(&record("mg-50-1")).unwrap();
        assert_eq!(ids(&store), ["mg-50-1"], "the latest stays however large it is");
    }

    #[test]
    fn no_id_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        for id in ["../../etc/passwd", "mg-1-/../x", "mg--1", "mg-1-", "", "mg-1-2.json", "mg-x-1"] {
            let error = store.get(id).unwrap_err();
            assert!(matches!(error, StoreError::NoId { .. }), "{id}: {error}");
            assert!(store.put(&record(id)).is_err());
        }
        assert!(store.get("mg-1-2").unwrap_err().to_string().contains("--state-dir"));
        assert!(store.get("latest").is_err());
    }

    #[test]
    fn what_is_damaged_newer_or_not_ours_is_told_or_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.put(&record("mg-1-1")).unwrap();
        fs::write(store.folder.join("notes.txt"), "x").unwrap();
        fs::write(store.folder.join("mg-2-1.json"), r#"{"version":99,"what":"else"}"#).unwrap();
        fs::write(store.folder.join("mg-3-1.json.gz"), "no gzip").unwrap();
        fs::write(store.folder.join("mg-4-1.part"), "half").unwrap();
        assert_eq!(store.list().unwrap().len(), 3);
        assert!(store.get("mg-2-1").unwrap_err().to_string().contains("format 99"));
        assert!(store.get("mg-3-1").unwrap_err().to_string().contains("mg-3-1.json.gz"));
        store.put(&record("mg-5-1")).unwrap();
        assert!(!store.folder.join("mg-4-1.part").exists(), "what a crash left is cleared away");
    }
}
