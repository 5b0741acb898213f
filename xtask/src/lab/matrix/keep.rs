//! Recordings as tests: one of each scenario and kernel, with what has to come of it, in tests/recordings.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    evaluate::{Class, Evaluated, Outcome, is_due, right},
    replay::DEFAULT,
};
use crate::{paths, ui};

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
        must_see: run.courses.iter().any(is_due),
    }
}

/// How much a run is worth as a test: it did what its name says; then the hardest: the latest verdict, or the healthy
/// work that had it worst.
fn worth(run: &Evaluated) -> (bool, f64) {
    let as_named = matches!(run.class, Class::Hung | Class::HungBriefly | Class::Works)
        && (run.kind == memguard_lab::scenario::Kind::Livelock) == (run.class != Class::Works);
    let delay = run.rules.get(DEFAULT).filter(|judged| judged.outcome == Outcome::Caught).and_then(|j| j.verdict_s);
    let hardest = match run.class {
        Class::Works => run.courses.iter().filter_map(|course| course.worst).map(|worst| -worst).reduce(f64::max),
        _ => delay,
    };
    (as_named, hardest.unwrap_or(f64::MIN))
}

/// Copies a recording of each scenario and kernel, and writes down what has to come of it.
pub(super) fn keep(runs: &[Evaluated]) -> anyhow::Result<()> {
    let mut best: BTreeMap<String, &Evaluated> = BTreeMap::new();
    for run in runs {
        let file = name(&run.scenario, &run.release);
        // A cgroup that was never under reclaim leaves no sample, and there is nothing to replay.
        if run.samples == 0 || run.class == Class::Contrary || run.class == Class::Unproven {
            continue;
        }
        let better = best.get(&file).is_none_or(|other| {
            let (new, old) = (worth(run), worth(other));
            new.0.cmp(&old.0).then(new.1.total_cmp(&old.1)).is_gt()
        });
        if better {
            best.insert(file, run);
        }
    }
    let missing: std::collections::BTreeSet<String> =
        runs.iter().map(|run| name(&run.scenario, &run.release)).filter(|name| !best.contains_key(name)).collect();
    for name in missing {
        ui::say(format!("no run is fit to be kept as {name}: see the tables"));
    }
    let folder = paths::root().join("tests/recordings");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    for old in fs::read_dir(&folder)?.flatten() {
        if old.path().extension().is_some_and(|extension| extension == "mgtrace") {
            fs::remove_file(old.path())?;
        }
    }
    let mut expected = Expected { recording: Vec::new() };
    for (file, run) in best {
        copy(&run.recording, &folder.join(&file))?;
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
            rules: BTreeMap::new(),
            recording: "x.mgtrace".into(),
            samples: 9,
        }
    }

    #[test]
    fn what_must_be_seen_is_what_hung_long_enough() {
        let none = entry("f".to_owned(), &run(Kind::Healthy, Class::Works, None));
        assert_eq!((none.hung.len(), none.must_see), (0, false));
        let long = entry("f".to_owned(), &run(Kind::Livelock, Class::Hung, Some((40.04, 90.0))));
        assert_eq!((long.hung, long.must_see), (vec![[30.0, 91.0]], true));
        assert!(!entry("f".to_owned(), &run(Kind::Livelock, Class::HungBriefly, Some((40.0, 60.0)))).must_see);
    }

    #[test]
    fn runs_that_did_what_their_name_says_are_kept_first() {
        let hung = run(Kind::Livelock, Class::Hung, Some((40.0, 90.0)));
        let works = run(Kind::Livelock, Class::Works, None);
        assert!(worth(&hung).0 && !worth(&works).0);
        let healthy = run(Kind::Healthy, Class::Works, None);
        let mut easy = healthy.clone();
        easy.courses[0].worst = Some(0.9);
        assert!(worth(&healthy).1 > worth(&easy).1, "the harder one");
    }

    #[test]
    fn files_are_named_by_scenario_and_version() {
        assert_eq!(name("livelock-io", "6.1.0-56-cloud-amd64"), "livelock-io-6.1.0.mgtrace");
    }
}
