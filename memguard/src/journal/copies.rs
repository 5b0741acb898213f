//! Copies of incidents in the run folder: one small JSON file each, readable while memguard runs.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::incident::Incident;

/// As many are left lying there; the store has more.
const MOST: usize = 512;
/// A file that is larger is none of ours.
const LARGEST: u64 = 64 * 1024;
const SUFFIX: &str = ".json";

/// The folder of copies.
#[derive(Clone, Debug)]
pub struct Copies {
    folder: PathBuf,
}

impl Copies {
    /// In a folder of its own below `run_dir`, which is made when it is needed.
    #[must_use]
    pub fn below(run_dir: &Path) -> Self {
        Self { folder: run_dir.join("incidents") }
    }

    /// Where they lie. It changes whenever one of them does.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whole or not at all: a reader never sees half of it, and neither does a later start.
    pub fn put(&self, incident: &Incident) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let file = self.folder.join(format!("{}{SUFFIX}", incident.id));
        let part = file.with_extension("part");
        fs::write(&part, serde_json::to_vec(incident)?)?;
        fs::rename(part, file)?;
        self.prune()
    }

    /// Those that can be read, in order of time; what can't be is left out.
    #[must_use]
    pub fn all(&self) -> Vec<Incident> {
        let mut incidents: Vec<Incident> = self.files().into_iter().filter_map(|file| read(&file)).collect();
        incidents.sort_by(|a, b| (a.decided_at, &a.id).cmp(&(b.decided_at, &b.id)));
        incidents
    }

    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_str().is_some_and(|path| path.ends_with(SUFFIX)))
            .collect()
    }

    fn prune(&self) -> io::Result<()> {
        let files = self.files();
        if files.len() <= MOST {
            return Ok(());
        }
        let mut aged: Vec<_> =
            files.into_iter().filter_map(|file| Some((fs::metadata(&file).ok()?.modified().ok()?, file))).collect();
        aged.sort();
        let surplus = aged.len().saturating_sub(MOST);
        // What remains to be done stays: with a disk that hangs this is the only place where it is.
        aged.into_iter()
            .map(|(_, file)| file)
            .filter(|file| read(file).is_none_or(|incident| !incident.is_open()))
            .take(surplus)
            .try_for_each(fs::remove_file)
    }
}

fn read(file: &Path) -> Option<Incident> {
    fs::metadata(file).ok().filter(|metadata| metadata.len() <= LARGEST)?;
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::{
        super::incident::{Stage, example},
        *,
    };

    #[test]
    fn copies_are_replaced_sorted_and_limited() {
        let dir = tempfile::tempdir().unwrap();
        let copies = Copies::below(dir.path());
        assert!(copies.all().is_empty());
        copies.put(&example("mg-9-1", 9)).unwrap();
        copies.put(&example("mg-10-1", 10)).unwrap();
        copies.put(&Incident { evidence: "new".to_owned(), ..example("mg-9-1", 9) }).unwrap();
        let all = copies.all();
        assert_eq!(all.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["mg-9-1", "mg-10-1"]);
        assert_eq!(all[0].evidence, "new");
        for n in 0..MOST as u64 + 5 {
            let stage = Stage::Suppressed { why: String::new() };
            copies.put(&Incident { stage, ..example(&format!("mg-{n}-2"), n) }).unwrap();
        }
        assert_eq!(copies.files().len(), MOST);
        assert!(copies.all().iter().any(|incident| incident.id == "mg-10-1"), "what is open stays");
    }

    #[test]
    fn what_is_damaged_or_not_ours_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let copies = Copies::below(dir.path());
        copies.put(&example("mg-1-1", 1)).unwrap();
        fs::write(copies.folder.join("half.json"), "{\"id\":").unwrap();
        fs::write(copies.folder.join("other"), "x").unwrap();
        fs::create_dir(copies.folder.join("folder.json")).unwrap();
        fs::write(copies.folder.join("huge.json"), vec![b' '; 70_000]).unwrap();
        assert_eq!(copies.all().len(), 1);
    }
}
