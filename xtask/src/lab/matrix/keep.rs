//! Recordings as tests: one of each scenario and kernel, with what has to come of it, in tests/recordings.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use serde::Serialize;

use super::{judges::MUST_SEE_S, table::Evaluated};
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

/// The onset is known to a few seconds only, because progress is averaged over some.
const EARLY_S: f64 = 5.0;

fn entry(file: String, run: &Evaluated) -> Entry {
    let tenth = |seconds: f64| (seconds * 10.0).round() / 10.0;
    let hangs = run.victims.iter().flat_map(|victim| &victim.hangs);
    Entry {
        file,
        hung: hangs.clone().map(|hang| [tenth(hang.from - EARLY_S), tenth(hang.to)]).collect(),
        must_see: hangs.clone().any(|hang| hang.length() >= MUST_SEE_S),
    }
}

/// Copies the newest recording of each scenario and kernel, and writes down what has to come of it.
pub(super) fn keep(runs: &[Evaluated]) -> anyhow::Result<()> {
    let folder = paths::root().join("tests/recordings");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    for old in fs::read_dir(&folder)?.flatten() {
        if old.path().extension().is_some_and(|extension| extension == "mgtrace") {
            fs::remove_file(old.path())?;
        }
    }
    // Later runs come later, and replace earlier ones.
    let newest: BTreeMap<String, &Evaluated> =
        runs.iter().map(|run| (name(&run.scenario, &run.release), run)).collect();
    let mut expected = Expected { recording: Vec::new() };
    for (file, run) in newest {
        let to = folder.join(&file);
        copy(&run.recording, &to)?;
        expected.recording.push(entry(file, run));
    }
    let text = toml::to_string(&expected).context("can't write down what is expected")?;
    let head = "# Made by `cargo xtask lab matrix --keep`, read by memguard/tests/recordings.rs.\n\n";
    fs::write(folder.join("expected.toml"), head.to_owned() + &text).context("can't write expected.toml")
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("can't copy {} to {}", from.display(), to.display()))
}

/// `livelock-6.12.73.mgtrace`
fn name(scenario: &str, release: &str) -> String {
    let version = release.split(['+', '-']).next().unwrap_or(release);
    format!("{scenario}-{version}.mgtrace")
}

#[cfg(test)]
mod tests {
    use memguard_lab::scenario::{Half, Kind};

    use super::*;
    use crate::lab::matrix::facts::{Span, Victim};

    fn run(hangs: &[Span]) -> Evaluated {
        Evaluated {
            scenario: "livelock".to_owned(),
            kind: Kind::Livelock,
            half: Half::Tuning,
            release: "6.12.73+deb12-cloud-amd64".to_owned(),
            recording: "x.mgtrace".into(),
            victims: vec![Victim {
                container: "a/b".to_owned(),
                cgroup: "x".to_owned(),
                at_limit: None,
                works_at: 1.0,
                hangs: hangs.to_vec(),
                hung_at: 0.0,
                oom_kill: None,
            }],
            worth: BTreeMap::new(),
        }
    }

    #[test]
    fn what_must_be_seen_is_what_hung_long_enough() {
        let none = entry("f".to_owned(), &run(&[]));
        assert_eq!((none.hung.len(), none.must_see), (0, false));
        let long = entry("f".to_owned(), &run(&[Span { from: 40.04, to: 90.0 }]));
        assert_eq!((long.hung, long.must_see), (vec![[35.0, 90.0]], true));
        assert!(!entry("f".to_owned(), &run(&[Span { from: 40.0, to: 60.0 }])).must_see);
    }

    #[test]
    fn files_are_named_by_scenario_and_version() {
        assert_eq!(name("livelock-io", "6.1.0-56-cloud-amd64"), "livelock-io-6.1.0.mgtrace");
    }
}
