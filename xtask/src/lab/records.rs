//! What runs leave behind: target/lab/records, for each run its records as JSON lines and memguard's recording.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use memguard_lab::{Line, MemguardMode, Record, Scenario, recording};
use serde_json::Value;

use super::{kernels::Kernel, run::Planned};
use crate::{arch::Arch, paths, ui};

/// A run that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) scenario: String,
    /// `uname -r`
    pub(crate) release: String,
    pub(crate) mode: MemguardMode,
    /// Seconds since 1970 of its end.
    pub(crate) ended: u64,
    pub(crate) lines: PathBuf,
    /// The scenario as it was then, JSON.
    pub(crate) scenario_then: PathBuf,
    /// memguard's recording; `None` when it ran without memguard, or ended badly.
    pub(crate) recording: Option<PathBuf>,
}

/// The extension of a scenario as it was run.
const SCENARIO: &str = "scenario.json";

pub(crate) fn folder() -> PathBuf {
    paths::lab().join("records")
}

/// Runs of other architectures are kept apart: they prove nothing about those that the documents tell of.
fn folder_of(arch: Arch) -> PathBuf {
    match arch {
        Arch::Amd64 => folder(),
        Arch::Arm64 => folder().join(arch.debian()),
    }
}

/// Leaves the records of a run where they can be looked at, and gives them back without the pieces of the recording,
/// which becomes a file of its own.
pub(super) fn keep(run: &Planned, kernel: &Kernel, mut lines: Vec<Line>) -> anyhow::Result<Vec<Line>> {
    let folder = folder_of(kernel.arch);
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let recording = recording::assemble(lines.iter().map(|line| &line.record));
    lines.retain(|line| !matches!(line.record, Record::Recording { .. }));
    let mut text = String::new();
    for line in &lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = format!("{}@{}@{}@{ended}", run.scenario.name, kernel.release, run.mode);
    let write = |extension: &str, bytes: &[u8]| {
        // Whole or not at all: who looks for recordings must not find half of one.
        let (path, part) =
            (folder.join(format!("{name}.{extension}")), folder.join(format!("{name}.{extension}.part")));
        fs::write(&part, bytes)
            .and_then(|()| fs::rename(&part, &path))
            .with_context(|| format!("can't write {}", path.display()))
    };
    write("jsonl", text.as_bytes())?;
    write(SCENARIO, &serde_json::to_vec(&run.scenario)?)?;
    match recording {
        Some(Ok(bytes)) => write("mgtrace", &bytes)?,
        Some(Err(why)) => anyhow::bail!(why),
        None if run.mode != MemguardMode::Off => ui::say(format!("{name}: memguard left no recording")),
        None => {}
    }
    Ok(lines)
}

/// All runs that were kept in a folder, the oldest first.
pub(crate) fn kept(folder: &Path) -> anyhow::Result<Vec<Kept>> {
    let mut all = Vec::new();
    if !folder.is_dir() {
        return Ok(all);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))? {
        let lines = entry?.path();
        if lines.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let recording = lines.with_extension("mgtrace");
        let stem = lines.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let parts: Vec<&str> = stem.split('@').collect();
        let [scenario, release, mode, ended] = parts[..] else { continue };
        let mode = serde_json::from_value(Value::String(mode.to_owned()));
        let (Ok(mode), Ok(ended)) = (mode, ended.parse()) else { continue };
        all.push(Kept {
            scenario: scenario.to_owned(),
            release: release.to_owned(),
            mode,
            ended,
            recording: recording.is_file().then_some(recording),
            scenario_then: lines.with_extension(SCENARIO),
            lines,
        });
    }
    all.sort_by(|a, b| (a.ended, &a.scenario).cmp(&(b.ended, &b.scenario)));
    Ok(all)
}

/// Why a run tells nothing about its scenario as it is now.
pub(crate) fn is_outdated(run: &Kept, now: &Scenario) -> Option<String> {
    // Runs of the lab as it was before it kept them.
    let text = fs::read(&run.scenario_then).ok()?;
    let same = serde_json::from_slice(&text).is_ok_and(|then| is_same(then, now));
    (!same).then(|| CHANGED.to_owned())
}

pub(crate) const CHANGED: &str = "the scenario has changed since";

/// Whether what was run is what would be run now. What is expected of it may have changed.
pub(crate) fn is_same(mut then: Value, now: &Scenario) -> bool {
    let Ok(as_value) = serde_json::to_value(now) else { return false };
    let Some(fields) = then.as_object_mut() else { return false };
    for field in ["summary", "kind", "half", "family", "expect"] {
        fields.insert(field.to_owned(), as_value[field].clone());
    }
    serde_json::from_value::<Scenario>(then).is_ok_and(|then| then == *now)
}

/// The records of a run.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("{}: line {} is no record", path.display(), number + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "livelock-io@6.12.73+deb12-cloud-amd64@observe@17.jsonl",
            "livelock-io@6.12.73+deb12-cloud-amd64@observe@17.mgtrace",
            "stream@6.1.0-56-cloud-amd64@off@5.jsonl",
            "notes.txt",
            "a@b@sometimes@3.jsonl",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = kept(dir.path()).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].scenario.as_str(), found[0].mode), ("stream", MemguardMode::Off));
        assert_eq!(found[0].recording, None);
        assert_eq!((found[1].ended, found[1].release.as_str()), (17, "6.12.73+deb12-cloud-amd64"));
        assert!(found[1].recording.is_some());
        assert!(kept(&dir.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn a_run_is_outdated_once_its_scenario_runs_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("livelock@6.12.73@observe@17.jsonl");
        fs::write(&file, "").unwrap();
        let run = kept(dir.path()).unwrap().remove(0);
        let mut scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
        assert_eq!(is_outdated(&run, &scenario), None, "from before it was kept");
        fs::write(&run.scenario_then, serde_json::to_vec(&scenario).unwrap()).unwrap();
        assert_eq!(is_outdated(&run, &scenario), None);
        scenario.summary = "Said better".to_owned();
        scenario.expect.hang_s = Some(30);
        assert_eq!(is_outdated(&run, &scenario), None, "the same was run");
        scenario.vm.cpus += 1;
        assert!(is_outdated(&run, &scenario).is_some());
        fs::write(&run.scenario_then, "{}").unwrap();
        assert!(is_outdated(&run, &scenario).is_some());
    }
}
