//! Runs of earlier days and other machines, whose records are gone. docs/detection.json tells what their work did, and
//! tests/recordings holds what memguard saw of it: they are judged by today's rules like all others, and so runs add up.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Context as _;
use memguard_lab::Scenario;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Evaluation,
    evaluate::{Class, Evaluated},
    keep,
};
use crate::lab::records;

/// docs/detection.json
#[derive(Debug, Default, Deserialize)]
pub(super) struct Results {
    /// By name, as they were when the runs were made.
    #[serde(default)]
    pub(super) scenarios: BTreeMap<String, Value>,
    pub(super) runs: Vec<Evaluated>,
}

impl Results {
    /// None at all if there is no such file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
        };
        serde_json::from_str(&text).with_context(|| {
            format!("{} is not what `lab matrix` writes: take it from git again, or away", path.display())
        })
    }

    /// One run a line, so that a difference can be read.
    pub(super) fn text(runs: &[Evaluated], scenarios: &[Scenario]) -> anyhow::Result<String> {
        let ran: BTreeSet<&str> = runs.iter().map(|run| run.scenario.as_str()).collect();
        let scenarios = scenarios.iter().filter(|scenario| ran.contains(scenario.name.as_str()));
        let scenarios = scenarios
            .map(|scenario| Ok(format!("{}:{}", Value::from(scenario.name.as_str()), serde_json::to_string(scenario)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let runs = runs.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        Ok(format!("{{\"scenarios\":{{\n{}\n}},\"runs\":[\n{}\n]}}\n", scenarios.join(",\n"), runs.join(",\n")))
    }

    /// Those that still tell something and are not among `here`, the names of recordings that are judged from their
    /// records. What does not is added to what is left out.
    pub(super) fn of_use(
        self,
        scenarios: &[Scenario],
        here: &BTreeSet<String>,
        recordings: &Path,
        evaluation: &mut Evaluation,
    ) -> Vec<Evaluated> {
        let mut of_use = Vec::new();
        for mut run in self.runs.into_iter().filter(|run| !here.contains(&run.file)) {
            // Whoever takes a scenario out does not want to hear of it.
            let Some(now) = scenarios.iter().find(|scenario| scenario.name == run.scenario) else { continue };
            if self.scenarios.get(&run.scenario).is_some_and(|then| !records::is_same(then.clone(), now)) {
                evaluation.left_out.push(format!("{}: {}", run.file, records::CHANGED));
                continue;
            }
            run.kind = now.kind;
            run.half = now.half;
            run.recording = recordings.join(keep::name(&run));
            if run.class == Class::Unproven {
                // In no column, whatever a rule would say.
                evaluation.runs.push(run);
            } else if run.recording.is_file() {
                of_use.push(run);
            } else {
                evaluation.left_out.push(format!("{}: its recording was not kept", run.file));
            }
        }
        of_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lab::{judge::course::Course, matrix::evaluate},
        paths,
    };

    fn some() -> (Vec<Scenario>, Vec<Evaluated>) {
        let scenarios = ["livelock", "stream", "mmap-db"]
            .map(|name| Scenario::read(&paths::scenarios().join(format!("{name}.toml"))).unwrap());
        let runs = scenarios.iter().enumerate().map(|(number, scenario)| Evaluated {
            scenario: scenario.name.clone(),
            kernel: "6.12".to_owned(),
            release: "6.12.73+deb12".to_owned(),
            kind: scenario.kind,
            half: scenario.half,
            class: Class::Works,
            file: format!("{}@6.12.73+deb12@observe@{number}.mgtrace", scenario.name),
            build: (number == 0).then(|| "0123456789ab".to_owned()),
            courses: vec![Course { slow: vec![[1.5, 2.0]], share: Some(0.9), ..Course::default() }],
            rules: BTreeMap::from([(
                "oomd-workload".to_owned(),
                evaluate::Judged {
                    outcome: evaluate::Outcome::FalseAlarm,
                    suspect_s: None,
                    verdict_s: Some(-1.5),
                    cgroup: None,
                },
            )]),
            recording: std::path::PathBuf::new(),
        });
        (scenarios.to_vec(), runs.collect())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("detection.json");
        assert!(Results::read(&path).unwrap().runs.is_empty(), "no file yet");
        let (scenarios, runs) = some();
        fs::write(&path, Results::text(&runs, &scenarios).unwrap()).unwrap();
        let read = Results::read(&path).unwrap();
        assert_eq!(read.runs, runs);
        assert!(scenarios.iter().all(|scenario| records::is_same(read.scenarios[&scenario.name].clone(), scenario)));
        fs::write(&path, Results::text(&[], &scenarios).unwrap()).unwrap();
        assert!(Results::read(&path).unwrap().scenarios.is_empty());
        let older = Results::text(&runs, &scenarios).unwrap().replace("false-alarm", "too-short");
        fs::write(&path, older.replace(",\"build\":\"0123456789ab\"", "")).unwrap();
        let read = Results::read(&path).unwrap();
        assert_eq!(read.runs[0].outcome("oomd-workload"), evaluate::Outcome::Missed, "a word of an earlier list");
        assert_eq!(read.runs[0].build, None);
        fs::write(&path, "[]").unwrap();
        Results::read(&path).unwrap_err();
    }

    #[test]
    fn a_run_stays_while_its_scenario_and_its_recording_do() {
        let dir = tempfile::tempdir().unwrap();
        let (mut scenarios, mut runs) = some();
        for run in &runs {
            fs::write(dir.path().join(keep::name(run)), "").unwrap();
        }
        let sum = |runs: &[Evaluated], scenarios: &[Scenario], here: &[&str]| {
            let before: Results = serde_json::from_str(&Results::text(runs, &some().0).unwrap()).unwrap();
            let here = here.iter().map(|name| (*name).to_owned()).collect();
            let mut evaluation = Evaluation::default();
            let left = before.of_use(scenarios, &here, dir.path(), &mut evaluation);
            let names: Vec<_> = left.into_iter().map(|run| run.scenario).collect();
            (names.join(" "), evaluation)
        };
        assert_eq!(sum(&runs, &scenarios, &[]).0, "livelock stream mmap-db");
        assert_eq!(sum(&runs, &scenarios, &["stream@6.12.73+deb12@observe@1.mgtrace"]).0, "livelock mmap-db");
        assert_eq!(sum(&runs, &scenarios[1..], &[]).0, "stream mmap-db");
        "Said better".clone_into(&mut scenarios[0].summary);
        scenarios[1].vm.cpus += 1;
        let (left, evaluation) = sum(&runs, &scenarios, &[]);
        assert_eq!((left.as_str(), evaluation.left_out.len()), ("livelock mmap-db", 1), "what was run is not what is");
        fs::remove_file(dir.path().join(keep::name(&runs[2]))).unwrap();
        let (left, evaluation) = sum(&runs, &some().0, &[]);
        assert_eq!((left.as_str(), evaluation.left_out.len()), ("livelock stream", 1), "there is nothing to judge");
        runs[2].class = Class::Unproven;
        let (left, evaluation) = sum(&runs, &some().0, &[]);
        assert_eq!((left.as_str(), evaluation.runs.len()), ("livelock stream", 1), "and nothing to be judged");
    }
}
