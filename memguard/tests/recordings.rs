//! Recordings of the lab, judged by today's engine with its defaults: every hang is seen while it lasts, and nothing
//! else is ever called one. What happened in each is told by the progress of its work, see `cargo xtask lab matrix`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use memguard::{
    engine::{Engine, Sample, Settings, UnitId},
    trace::{self, Entry, Judge},
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    recording: Vec<Recording>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    file: String,
    /// From when to when a verdict is right, in `CLOCK_MONOTONIC` seconds.
    hung: Vec<[f64; 2]>,
    must_see: bool,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings")
}

fn expected() -> Vec<Recording> {
    let text = fs::read_to_string(folder().join("expected.toml")).unwrap();
    toml::from_str::<Expected>(&text).unwrap().recording
}

fn entries(file: &str) -> Vec<Entry> {
    let recording = trace::read(&folder().join(file)).unwrap();
    assert_eq!(recording.damage, None, "{file}");
    recording.entries
}

/// Times of the verdicts.
fn verdicts(entries: &[Entry]) -> Vec<f64> {
    let replay = trace::replay(entries, &[Judge::Engine(Box::default())], &[]);
    assert_eq!(replay.lost, 0);
    replay.rules[0].verdicts().map(|(_, moment)| moment.monotonic_s).collect()
}

#[test]
fn every_hang_is_seen_and_nothing_else() {
    let mut wrong = Vec::new();
    for Recording { file, hung, must_see } in expected() {
        let verdicts = verdicts(&entries(&file));
        let right = |at: &f64| hung.iter().any(|[from, to]| (from..=to).contains(&at));
        if let Some(at) = verdicts.iter().find(|at| !right(at)) {
            wrong.push(format!("{file}: a verdict at {at:.1} s, when nothing hung"));
        }
        if must_see && verdicts.is_empty() {
            wrong.push(format!("{file}: no verdict on a hang {hung:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_recording_is_expected_and_every_expected_one_is_there() {
    let expected: BTreeSet<String> = expected().into_iter().map(|recording| recording.file).collect();
    let found: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".mgtrace"))
        .collect();
    assert_eq!(found, expected);
    assert!(expected.len() >= 120, "{} recordings", expected.len());
}

/// The first verdict does not depend on what is done about it.
#[test]
fn enforcing_and_observing_agree_up_to_the_verdict() {
    let mut compared = 0;
    for Recording { file, .. } in expected().into_iter().filter(|recording| recording.must_see) {
        let observed = entries(&file);
        let Some(first) = verdicts(&observed).first().copied() else { continue };
        // An action right after each sample from the verdict on: after it nothing is decided for a while.
        let mut enforced = Vec::new();
        for entry in observed {
            let acted = match &entry {
                Entry::Sample { unit, sample, .. } if sample.at.as_secs_f64() >= first => {
                    Some(Entry::Acted { unit: *unit, at: sample.at })
                }
                _ => None,
            };
            enforced.push(entry);
            enforced.extend(acted);
        }
        let again = verdicts(&enforced);
        assert!(
            again.first().is_some_and(|again| again.to_bits() == first.to_bits()),
            "{file}: {again:?}, not {first}"
        );
        compared += 1;
    }
    assert!(compared >= 50, "only {compared} recordings have a verdict");
}

/// The pod of a container that hangs: an idle neighbour in it has a GiB, and its own limit is hit now and then.
fn pod_of(sample: &Sample) -> Sample {
    const MIB: u64 = 1 << 20;
    let mut pod = sample.clone();
    let memory = &mut pod.memory;
    memory.current += 1024 * MIB;
    (memory.max, memory.high) = (memory.limit().map(|(limit, _)| limit + 1024 * MIB), None);
    (memory.anon, memory.file) = (memory.anon + 1004 * MIB, memory.file + 20 * MIB);
    pod
}

#[test]
fn a_hang_is_not_that_of_the_pod_as_well() {
    let (mut of_pods, mut unexplained, mut seen) = (Vec::new(), 0, 0);
    for Recording { file, .. } in expected().into_iter().filter(|recording| recording.must_see) {
        let (mut engine, mut before) = (Engine::new(Settings::default()), Engine::new(Settings::default()));
        for entry in entries(&file) {
            let Entry::Sample { unit, sample, .. } = entry else { continue };
            let (at, above) = (sample.at, UnitId(unit.0 | 1 << 63));
            let mut pod = pod_of(&sample);
            seen += usize::from(engine.observe(unit, *sample).verdict.is_some());
            unexplained += usize::from(before.observe(above, pod.clone()).verdict.is_some());
            pod.hung_below = engine.looks_hung(unit, at);
            if engine.observe(above, pod).verdict.is_some() {
                of_pods.push(format!("{file}: a verdict on the pod at {:.1} s", at.as_secs_f64()));
            }
        }
    }
    assert!(of_pods.is_empty(), "{of_pods:#?}, of {unexplained} without, and {seen} on containers");
    assert!(unexplained >= 10, "this would not tell: {unexplained}");
}
