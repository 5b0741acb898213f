//! What runs leave behind: target/lab/records, for each run its records as JSON lines and memguard's recording; of one that
//! broke off, why.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use memguard_lab::{Line, MemguardMode, Record, Scenario, recording};
use serde::{Deserialize, Serialize};
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
    /// Which memguard it was, see `programs::short_hash`; `None` for runs from before that was noted.
    pub(crate) build: Option<String>,
}

/// A run that was not played to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) scenario: String,
    pub(crate) release: String,
    pub(crate) mode: MemguardMode,
    /// Where it says why, to be deleted by who has seen to it.
    file: PathBuf,
    why: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "{file}: {}", self.why.trim_end())
    }
}

/// The extension of a scenario as it was run. It is there first, and so the name is taken.
const SCENARIO: &str = "scenario.json";
/// Of what else there is to say of a run.
const ABOUT: &str = "about.json";
/// Of why a run broke off.
const BROKEN: &str = "broken.txt";

/// What else there is to say of a run. Whatever is not known is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
struct About {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memguard: Option<String>,
}

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

/// The files of one run.
struct Files {
    folder: PathBuf,
    name: String,
}

impl Files {
    /// Takes a name that no other run has: scenario, kernel, mode and the second of its end, or the next one if another of
    /// the same ended in that.
    fn take(folder: &Path, run: &Planned, release: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        let mut ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        loop {
            let name = format!("{}@{release}@{}@{ended}", run.scenario.name, run.mode);
            let files = Self { folder: folder.to_owned(), name };
            let path = files.path(SCENARIO);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    file.write_all(&serde_json::to_vec(&run.scenario)?)
                        .with_context(|| format!("can't write {}", path.display()))?;
                    return Ok(files);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => ended += 1,
                Err(error) => return Err(error).with_context(|| format!("can't make {}", path.display())),
            }
        }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.name))
    }

    /// Whole or not at all: who looks for recordings must not find half of one.
    fn write(&self, extension: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let (path, part) = (self.path(extension), self.path(&format!("{extension}.part")));
        fs::write(&part, bytes)
            .and_then(|()| fs::rename(&part, &path))
            .with_context(|| format!("can't write {}", path.display()))
    }
}

/// Leaves the records of a run where they can be looked at, and gives them back without the pieces of the recording,
/// which becomes a file of its own. `build` is memguard's, see `Kept`.
pub(super) fn keep(run: &Planned, kernel: &Kernel, build: &str, mut lines: Vec<Line>) -> anyhow::Result<Vec<Line>> {
    let recording =
        recording::assemble(lines.iter().map(|line| &line.record)).transpose().map_err(anyhow::Error::msg)?;
    lines.retain(|line| !matches!(line.record, Record::Recording { .. }));
    let mut text = String::new();
    for line in &lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    let files = Files::take(&folder_of(kernel.arch), run, &kernel.release)?;
    if run.mode != MemguardMode::Off {
        files.write(ABOUT, &serde_json::to_vec(&About { memguard: Some(build.to_owned()) })?)?;
    }
    match recording {
        Some(bytes) => files.write("mgtrace", &bytes)?,
        None if run.mode != MemguardMode::Off => ui::say(format!("{}: memguard left no recording", files.name)),
        None => {}
    }
    // The last one: with it the run is there.
    files.write("jsonl", text.as_bytes())?;
    Ok(lines)
}

/// Notes that a run broke off, so that it is not as if it had never been.
pub(super) fn note_broken(run: &Planned, kernel: &Kernel, why: &str) -> anyhow::Result<()> {
    Files::take(&folder_of(kernel.arch), run, &kernel.release)?.write(BROKEN, why.as_bytes())
}

/// Scenario, release, mode and second, of a file of a run's.
fn parts(path: &Path, extension: &str) -> Option<(String, String, MemguardMode, u64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(extension)?.strip_suffix('.')?;
    let parts: Vec<&str> = name.split('@').collect();
    let [scenario, release, mode, ended] = parts[..] else { return None };
    let mode = serde_json::from_value(Value::String(mode.to_owned())).ok()?;
    Some((scenario.to_owned(), release.to_owned(), mode, ended.parse().ok()?))
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// All runs that were kept in a folder, the oldest first.
pub(crate) fn kept(folder: &Path) -> anyhow::Result<Vec<Kept>> {
    let mut all = Vec::new();
    for lines in files(folder)? {
        let Some((scenario, release, mode, ended)) = parts(&lines, "jsonl") else { continue };
        let recording = lines.with_extension("mgtrace");
        let about = match fs::read(lines.with_extension(ABOUT)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged", lines.with_extension(ABOUT).display()))?,
            Err(_) => About::default(),
        };
        all.push(Kept {
            scenario,
            release,
            mode,
            ended,
            recording: recording.is_file().then_some(recording),
            scenario_then: lines.with_extension(SCENARIO),
            build: about.memguard,
            lines,
        });
    }
    all.sort_by(|a, b| (a.ended, &a.scenario).cmp(&(b.ended, &b.scenario)));
    Ok(all)
}

/// All runs in some folders. One that is in two of them counts once; two that only have the same name are an error.
pub(crate) fn all_in(folders: &[PathBuf]) -> anyhow::Result<Vec<Kept>> {
    let mut named: BTreeMap<String, Kept> = BTreeMap::new();
    for run in folders.iter().map(|folder| kept(folder)).collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten() {
        let name = run.lines.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(known) = named.get(&name) else {
            named.insert(name, run);
            continue;
        };
        let text = |run: &Kept| fs::read(&run.lines).with_context(|| format!("can't read {}", run.lines.display()));
        if text(known)? != text(&run)? {
            anyhow::bail!("{} and {} are two runs of one name: rename one", known.lines.display(), run.lines.display());
        }
    }
    let mut all: Vec<Kept> = named.into_values().collect();
    all.sort_by(|a, b| (a.ended, &a.scenario).cmp(&(b.ended, &b.scenario)));
    Ok(all)
}

/// All runs in some folders that broke off, each once.
pub(crate) fn broken_in(folders: &[PathBuf]) -> anyhow::Result<Vec<Broken>> {
    let mut named: BTreeMap<String, Broken> = BTreeMap::new();
    for file in folders.iter().map(|folder| files(folder)).collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten() {
        let Some((scenario, release, mode, _)) = parts(&file, BROKEN) else { continue };
        let why = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        named.entry(name).or_insert(Broken { scenario, release, mode, file, why });
    }
    Ok(named.into_values().collect())
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

    fn planned() -> Planned {
        let scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
        Planned { scenario, line: crate::lab::kernels::line("6.12").unwrap(), mode: MemguardMode::Observe }
    }

    #[test]
    fn runs_that_end_in_the_same_second_have_names_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let take = || Files::take(dir.path(), &planned(), "6.12.73").unwrap();
        let (one, two) = (take(), take());
        assert_ne!(one.name, two.name);
        assert!(kept(dir.path()).unwrap().is_empty(), "until its records are there a run is not");
        one.write("jsonl", b"").unwrap();
        two.write(ABOUT, br#"{"memguard":"0123456789ab","later":1}"#).unwrap();
        two.write("jsonl", b"").unwrap();
        let runs = kept(dir.path()).unwrap();
        let builds: Vec<_> = runs.iter().map(|run| run.build.as_deref()).collect();
        assert_eq!(builds, [None, Some("0123456789ab")]);
        assert!(runs.iter().all(|run| is_outdated(run, &planned().scenario).is_none()));
    }

    #[test]
    fn a_run_that_broke_off_is_found_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::take(dir.path(), &planned(), "6.12.73").unwrap();
        files.write(BROKEN, b"the guest has been silent for 120 s").unwrap();
        let folders = [dir.path().to_owned(), dir.path().to_owned()];
        let broken = broken_in(&folders).unwrap();
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert_eq!((broken[0].scenario.as_str(), broken[0].mode), ("livelock", MemguardMode::Observe));
        let told = broken[0].to_string();
        assert!(told.starts_with("livelock@6.12.73@observe@") && told.contains("silent"), "{told}");
        assert!(all_in(&folders).unwrap().is_empty());
    }

    #[test]
    fn a_run_in_two_folders_counts_once_and_two_of_one_name_are_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [one.path().to_owned(), two.path().to_owned()];
        for folder in &folders {
            fs::write(folder.join("livelock@6.12.73@observe@17.jsonl"), "same").unwrap();
        }
        fs::write(two.path().join("livelock@6.12.73@observe@18.jsonl"), "").unwrap();
        assert_eq!(all_in(&folders).unwrap().len(), 2);
        fs::write(two.path().join("livelock@6.12.73@observe@17.jsonl"), "another").unwrap();
        assert!(all_in(&folders).unwrap_err().to_string().contains("two runs of one name"));
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
