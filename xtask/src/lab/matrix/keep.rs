//! Recordings as tests: of all runs that tell something, with what has to come of each, in tests/recordings. Later
//! evaluations judge them again.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

use super::evaluate::{Class, Evaluated, right};
use crate::paths;

/// tests/recordings/expected.toml
#[derive(Serialize)]
struct Expected {
    recording: Vec<Entry>,
}

/// What has to come of a recording.
#[derive(Debug, PartialEq, Serialize)]
struct Entry {
    file: String,
    /// From when to when a verdict is right, in the guest's `CLOCK_MONOTONIC` seconds; none at all if empty.
    hung: Vec<[f64; 2]>,
    /// Whether there must be one. A short hang may end before it is clear.
    must_see: bool,
}

fn entry(file: String, run: &Evaluated) -> Entry {
    let tenth = |seconds: f64| (seconds * 10.0).round() / 10.0;
    Entry {
        file,
        hung: run.courses.iter().flat_map(right).map(|(from, to)| [tenth(from), tenth(to)]).collect(),
        // Starved work that no rule is held to is left to it.
        must_see: run.class == Class::Hung,
    }
}

/// Where they are.
pub(super) fn folder() -> PathBuf {
    paths::root().join("tests/recordings")
}

/// Copies the recordings that are not there yet, takes away those of no use, and writes down what has to come of each.
pub(super) fn keep(runs: &[Evaluated]) -> anyhow::Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let mut expected = Expected { recording: Vec::new() };
    let mut named = BTreeSet::new();
    // Nobody can say what has to come of a run that proves nothing.
    for run in runs.iter().filter(|run| run.class != Class::Unproven) {
        let file = name(run);
        let path = folder.join(&file);
        if path != run.recording {
            copy(&run.recording, &path)?;
        }
        named.insert(path);
        expected.recording.push(entry(file, run));
    }
    for old in fs::read_dir(&folder)?.flatten().map(|entry| entry.path()) {
        if old.extension().is_some_and(|extension| extension == "mgtrace") && !named.contains(&old) {
            fs::remove_file(&old).with_context(|| format!("can't delete {}", old.display()))?;
        }
    }
    expected.recording.sort_by(|a, b| a.file.cmp(&b.file));
    let text = toml::to_string(&expected).context("can't write down what is expected")?;
    let head = "# Made by `cargo xtask lab matrix --keep`, read by memguard/tests/recordings.rs.\n\n";
    fs::write(folder.join("expected.toml"), head.to_owned() + &text).context("can't write expected.toml")
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("can't copy {} to {}", from.display(), to.display()))
}

/// `livelock-6.12.73-1795512732.mgtrace`: the scenario, the kernel's version, and when the run ended.
pub(super) fn name(run: &Evaluated) -> String {
    let version = run.release.split(['+', '-']).next().unwrap_or(&run.release);
    let ended = run.file.rsplit('@').next().unwrap_or(&run.file);
    format!("{}-{version}-{}", run.scenario, ended)
}

#[cfg(test)]
mod tests {
    use memguard_lab::scenario::{Half, Kind};

    use super::*;
    use crate::lab::judge::course::{Course, Hang};

    fn run(kind: Kind, class: Class, hang: Option<(f64, f64)>) -> Evaluated {
        let hangs = hang.map(|(onset, end)| Hang { onset, end, share: 0.0, lasts: true }).into_iter().collect();
        let course = Course { hangs, at_limit: Some(30.0), worst: Some(0.5), ..Course::default() };
        Evaluated {
            scenario: "livelock".to_owned(),
            kernel: "6.12".to_owned(),
            release: "6.12.73+deb12-cloud-amd64".to_owned(),
            kind,
            half: Half::Tuning,
            class,
            file: String::new(),
            courses: vec![course],
            rules: std::collections::BTreeMap::new(),
            recording: "x.mgtrace".into(),
        }
    }

    #[test]
    fn what_must_be_seen_is_what_hung_long_enough() {
        let none = entry("f".to_owned(), &run(Kind::Healthy, Class::Works, None));
        assert_eq!((none.hung.len(), none.must_see), (0, false));
        let long = entry("f".to_owned(), &run(Kind::Livelock, Class::Hung, Some((40.04, 90.0))));
        assert_eq!((long.hung, long.must_see), (vec![[30.0, 91.0]], true));
        assert!(!entry("f".to_owned(), &run(Kind::Livelock, Class::HungBriefly, Some((40.0, 60.0)))).must_see);
        let starved = entry("f".to_owned(), &run(Kind::Healthy, Class::Contrary, Some((40.0, 90.0))));
        assert_eq!((starved.hung, starved.must_see), (vec![[30.0, 91.0]], false));
    }

    #[test]
    fn files_are_named_by_scenario_version_and_time() {
        let mut some = run(Kind::Livelock, Class::Works, None);
        some.file = "livelock@6.12.73+deb12-cloud-amd64@observe@1795512732.mgtrace".to_owned();
        assert_eq!(name(&some), "livelock-6.12.73-1795512732.mgtrace");
    }
}
