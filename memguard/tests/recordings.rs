//! Recordings of the lab, judged by today's engine with its defaults: every hang is seen while it lasts, but for those that
//! missed.toml names, and nothing else is ever called one. What happened in each is told by the progress of its work, see
//! `cargo xtask lab matrix`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

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
    /// What it is about. A verdict on anything else is wrong.
    container: Vec<Container>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Container {
    /// Below the root of cgroup v2.
    cgroup: String,
    /// From when to when a verdict is right, in `CLOCK_MONOTONIC` seconds.
    hung: Vec<[f64; 2]>,
    must_see: bool,
}

impl Container {
    /// Whether a verdict on a cgroup is one on this container: on its own, one in it, or one around it.
    fn is_meant_by(&self, cgroup: &str) -> bool {
        let cgroup = cgroup.trim_start_matches('/');
        Path::new(&self.cgroup).starts_with(cgroup) || Path::new(cgroup).starts_with(&self.cgroup)
    }
}

/// A verdict, and what on.
#[derive(Clone, Debug)]
struct Verdict {
    at: f64,
    cgroup: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Missed {
    recording: Vec<MissedOne>,
}

/// A hang that is known to be missed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MissedOne {
    file: String,
    why: String,
}

/// What is wrong with the verdicts on a recording.
fn wrong(containers: &[Container], verdicts: &[Verdict]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Verdict { at, cgroup } in verdicts {
        let meant: Vec<&Container> = containers.iter().filter(|container| container.is_meant_by(cgroup)).collect();
        let in_a_hang = |container: &&Container| container.hung.iter().any(|[from, to]| (from..=to).contains(&at));
        if meant.is_empty() {
            wrong.push(format!("a verdict at {at:.1} s on {cgroup}, where nothing hung at all"));
        } else if !meant.iter().any(in_a_hang) {
            wrong.push(format!("a verdict at {at:.1} s on {cgroup}, when that did not hang"));
        }
    }
    let is_seen = |container: &Container| verdicts.iter().any(|verdict| container.is_meant_by(&verdict.cgroup));
    for Container { cgroup, hung, .. } in containers.iter().filter(|it| it.must_see && !is_seen(it)) {
        wrong.push(format!("no verdict on {cgroup}, which hung {hung:?}"));
    }
    wrong
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings")
}

fn expected() -> Vec<Recording> {
    let text = fs::read_to_string(folder().join("expected.toml")).unwrap();
    toml::from_str::<Expected>(&text).unwrap().recording
}

/// By file: why.
fn missed() -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder().join("missed.toml")).unwrap();
    let missed = toml::from_str::<Missed>(&text).unwrap().recording;
    missed.into_iter().map(|MissedOne { file, why }| (file, why)).collect()
}

fn entries(file: &str) -> Vec<Entry> {
    let recording = trace::read(&folder().join(file)).unwrap();
    assert_eq!(recording.damage, None, "{file}");
    recording.entries
}

/// In the order of time.
fn verdicts(entries: &[Entry]) -> Vec<Verdict> {
    let replay = trace::replay(entries, &[Judge::Engine(Box::default())], &[]);
    assert_eq!(replay.lost, 0);
    let verdict = |(unit, moment): (&trace::UnitReplay, &trace::Moment)| Verdict {
        at: moment.monotonic_s,
        cgroup: unit.cgroup.clone(),
    };
    let mut verdicts: Vec<Verdict> = replay.rules[0].verdicts().map(verdict).collect();
    verdicts.sort_by(|a, b| a.at.total_cmp(&b.at));
    verdicts
}

#[test]
fn every_hang_is_seen_and_nothing_else() {
    let (mut all, mut missed) = (Vec::new(), missed());
    for Recording { file, container } in expected() {
        let verdicts = verdicts(&entries(&file));
        match missed.remove(&file) {
            Some(_) if verdicts.is_empty() && container.iter().any(|container| container.must_see) => {}
            Some(why) => all.push(format!("{file} is on the list of missed hangs ({why}), and is none")),
            None => all.extend(wrong(&container, &verdicts).into_iter().map(|what| format!("{file}: {what}"))),
        }
    }
    assert!(all.is_empty(), "{all:#?}");
    assert!(missed.is_empty(), "no recordings, but on the list of missed hangs: {missed:?}");
}

/// So that the test above fails for each of several that hang together, and for a healthy one beside.
#[test]
fn each_container_is_judged_by_itself() {
    let container = |cgroup: &str| Container { cgroup: cgroup.to_owned(), hung: vec![[30.0, 90.0]], must_see: true };
    let two = [container("a.slice/b.scope"), container("a.slice/c.scope")];
    let on = |cgroup: &str, at| Verdict { at, cgroup: cgroup.to_owned() };
    let (b, c) = (on("/a.slice/b.scope", 45.0), on("/a.slice/c.scope/nested", 50.0));
    assert!(wrong(&two, &[b.clone(), c.clone()]).is_empty());
    assert!(wrong(&two, &[on("/a.slice", 45.0)]).is_empty(), "the slice around both");
    for (verdicts, why) in [
        (vec![b.clone()], "no verdict on a.slice/c.scope"),
        (vec![b.clone(), on("/a.slice/c.scope", 20.0)], "did not hang"),
        (vec![b.clone(), c.clone(), on("/a.slice/d.scope", 45.0)], "nothing hung at all"),
        (vec![b, c, on("/a.slice/b.scopes", 45.0)], "nothing hung at all"),
    ] {
        let wrong = wrong(&two, &verdicts);
        assert!(wrong.len() == 1 && wrong[0].contains(why), "{why}: {wrong:?}");
    }
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

/// The first verdict on each container does not depend on what is done about it.
#[test]
fn enforcing_and_observing_agree_up_to_the_verdict() {
    let mut compared = 0;
    for Recording { file, container } in expected() {
        for container in container.iter().filter(|container| container.must_see) {
            let about = |verdict: &Verdict| container.is_meant_by(&verdict.cgroup);
            let observed = entries(&file);
            let Some(first) = verdicts(&observed).into_iter().find(about).map(|verdict| verdict.at) else { continue };
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
            let again = verdicts(&enforced).into_iter().find(about);
            assert!(
                again.as_ref().is_some_and(|again| again.at.to_bits() == first.to_bits()),
                "{file}: {again:?}, not {first}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 50, "only {compared} containers have a verdict");
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
    let of_a_hang = |recording: &Recording| recording.container.iter().any(|container| container.must_see);
    for Recording { file, .. } in expected().into_iter().filter(of_a_hang) {
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
