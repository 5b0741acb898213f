//! Recordings as tests: of all runs that tell something, with what has to come of each, in tests/recordings. Later
//! evaluations judge them again.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use memguard_lab::place;
use serde::Serialize;

use super::evaluate::{Class, Evaluated, is_due};
use crate::{lab::judge::course::Course, paths};

/// tests/recordings/expected.toml
#[derive(Serialize)]
struct Expected {
    recording: Vec<Entry>,
}

/// What has to come of a recording. A verdict on anything but these containers is wrong.
#[derive(Debug, PartialEq, Serialize)]
struct Entry {
    file: String,
    container: Vec<Container>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Container {
    /// Below the root of cgroup v2.
    cgroup: String,
    /// From when to when a verdict is right, in the guest's `CLOCK_MONOTONIC` seconds; none at all if empty.
    hung: Vec<[f64; 2]>,
    /// Whether there must be one. A short hang may end before it is clear.
    must_see: bool,
}

fn entry(file: String, run: &Evaluated) -> anyhow::Result<Entry> {
    let tenth = |seconds: f64| (seconds * 10.0).round() / 10.0;
    let container = |course: &Course| {
        let cgroup = place::of(&course.container)
            .with_context(|| format!("{file}: {:?} is no name of a container", course.container))?;
        Ok(Container {
            cgroup: cgroup.display().to_string(),
            hung: course.right(run.kind).map(|(from, to)| [tenth(from), tenth(to)]).collect(),
            // Starved work that no rule is held to is left to it.
            must_see: run.class == Class::Hung && is_due(course),
        })
    };
    let container = run.courses.iter().map(container).collect::<anyhow::Result<_>>()?;
    Ok(Entry { file, container })
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
        if !named.insert(path) {
            bail!("two runs would be kept as {file}: remove the records of one of them");
        }
        expected.recording.push(entry(file, run)?);
    }
    expected.recording.sort_by(|a, b| a.file.cmp(&b.file));
    let text = toml::to_string(&expected).context("can't write down what is expected")?;
    let head = "# Made by `cargo xtask lab matrix --keep`, read by memguard/tests/recordings.rs.\n\n";
    fs::write(folder.join("expected.toml"), head.to_owned() + &text).context("can't write expected.toml")?;
    for old in fs::read_dir(&folder)?.flatten().map(|entry| entry.path()) {
        if old.extension().is_some_and(|extension| extension == "mgtrace") && !named.contains(&old) {
            fs::remove_file(&old).with_context(|| format!("can't delete {}", old.display()))?;
        }
    }
    Ok(())
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
    use crate::lab::judge::course::Hang;

    fn run(kind: Kind, class: Class, hang: Option<(f64, f64)>) -> Evaluated {
        let hangs = hang.map(|(onset, end)| Hang { onset, end, share: 0.0, lasts: true }).into_iter().collect();
        let container = "runner/runner".to_owned();
        let course = Course { container, hangs, at_limit: Some(30.0), worst: Some(0.5), ..Course::default() };
        Evaluated {
            scenario: "livelock".to_owned(),
            kernel: "6.12".to_owned(),
            release: "6.12.73+deb12-cloud-amd64".to_owned(),
            kind,
            half: Half::Tuning,
            class,
            file: String::new(),
            build: None,
            courses: vec![course],
            rules: std::collections::BTreeMap::new(),
            recording: "x.mgtrace".into(),
        }
    }

    fn only(run: &Evaluated) -> (Vec<[f64; 2]>, bool) {
        let mut container = entry("f".to_owned(), run).unwrap().container;
        assert_eq!(container.len(), 1);
        let Container { hung, must_see, .. } = container.remove(0);
        (hung, must_see)
    }

    #[test]
    fn what_must_be_seen_is_what_hung_long_enough() {
        assert_eq!(only(&run(Kind::Healthy, Class::Works, None)), (Vec::new(), false));
        let long = only(&run(Kind::Livelock, Class::Hung, Some((40.04, 90.0))));
        assert_eq!(long, (vec![[30.0, 120.0]], true));
        assert!(!only(&run(Kind::Livelock, Class::HungBriefly, Some((40.0, 60.0)))).1);
        let starved = only(&run(Kind::Healthy, Class::Contrary, Some((40.0, 90.0))));
        assert_eq!(starved, (vec![[30.0, 120.0]], false));
    }

    #[test]
    fn each_container_has_its_own() {
        let mut two = run(Kind::Livelock, Class::Hung, Some((40.0, 90.0)));
        two.courses.push(Course {
            container: "runner-2/runner".to_owned(),
            hangs: Vec::new(),
            ..two.courses[0].clone()
        });
        let [first, second] = &entry("f".to_owned(), &two).unwrap().container[..] else { panic!() };
        assert_eq!((first.must_see, second.must_see), (true, false));
        assert_eq!((first.hung.len(), second.hung.len()), (1, 0));
        assert!(first.cgroup.starts_with("kubepods.slice/") && first.cgroup != second.cgroup, "{}", first.cgroup);
        two.courses[1].container = "no name".to_owned();
        entry("f".to_owned(), &two).unwrap_err();
    }

    #[test]
    fn files_are_named_by_scenario_version_and_time() {
        let mut some = run(Kind::Livelock, Class::Works, None);
        some.file = "livelock@6.12.73+deb12-cloud-amd64@observe@1795512732.mgtrace".to_owned();
        assert_eq!(name(&some), "livelock-6.12.73-1795512732.mgtrace");
    }
}
