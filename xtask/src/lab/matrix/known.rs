//! Hangs that are known to be missed: tests/recordings/missed.toml, kept by hand, with why. Tables count them like any other;
//! the command only fails for one that nobody has looked at.

use std::{collections::BTreeSet, fs, io::ErrorKind, path::Path};

use anyhow::Context as _;
use serde::Deserialize;

use super::{
    evaluate::{Class, Evaluated, Outcome},
    keep,
    replay::DEFAULT,
};

/// The names that their recordings have in tests/recordings.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeSet<String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    recording: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    file: String,
    /// For people.
    #[serde(rename = "why")]
    _why: String,
}

impl Known {
    /// Reads the list in a folder of recordings. None there is an empty one.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("missed.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
        };
        let list: List = toml::from_str(&text).with_context(|| format!("{} is no list of hangs", path.display()))?;
        Ok(Self(list.recording.into_iter().map(|entry| entry.file).collect()))
    }

    /// Whether it is known that memguard misses what hung in this run.
    pub(super) fn has(&self, run: &Evaluated) -> bool {
        run.class == Class::Hung && run.outcome(DEFAULT) == Outcome::Missed && self.0.contains(&keep::name(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_a_broken_one_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Known::read(dir.path()).unwrap().0.is_empty());
        fs::write(dir.path().join("missed.toml"), "[[recording]]\nfile = \"a.mgtrace\"\nwhy = \"x\"\n").unwrap();
        assert!(Known::read(dir.path()).unwrap().0.contains("a.mgtrace"));
        fs::write(dir.path().join("missed.toml"), "[[recording]]\nfile = \"a.mgtrace\"\n").unwrap();
        let why = format!("{:#}", Known::read(dir.path()).unwrap_err());
        assert!(why.contains("missed.toml") && why.contains("why"), "{why}");
    }
}
