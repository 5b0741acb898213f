//! A record as a hang leaves it, for tests.

use std::time::Duration;

use super::{HotFile, Look, Machine, Point, Record, Task, TermRecord, VERSION, Waiting};
use crate::{
    engine::{Engine, Memory, Settings, State, UnitId, fixture::hang},
    respond::Mode,
};

/// What the engine makes of a hang, with tasks and files as they look in one.
pub(crate) fn record(id: &str) -> Record {
    let settings = Settings::default();
    let mut engine = Engine::new(settings.clone());
    let mut timeline = super::Timeline::default();
    let mut verdict = None;
    let mut memory = Memory::default();
    let mut end = Duration::ZERO;
    for second in 0..60 {
        let sample = hang(second);
        (memory, end) = (sample.memory, sample.at);
        let observation = engine.observe(UnitId(7), sample);
        timeline.push(end, observation.state, &memory, observation.signals.as_ref());
        if observation.verdict.is_some() {
            verdict = observation.verdict;
            break;
        }
    }
    let verdict = verdict.unwrap();
    let mib = 1 << 20;
    let task = |pid: u32, comm: &str, anon: u64| Task {
        pid,
        comm: comm.to_owned(),
        state: "D".to_owned(),
        threads: 4,
        anon: anon * mib,
        file: 3 * mib,
        exe: Some(format!("/usr/bin/{comm}")),
        ..Task::default()
    };
    let file = |inode: u64, returns: u64, path: Option<&str>| HotFile {
        device: "259:1".to_owned(),
        inode,
        returns,
        per_s: Some(returns as f64 / 9.0),
        path: path.map(str::to_owned),
        by_inode: path.is_some_and(|path| path.starts_with("/usr/lib")),
    };
    Record {
        version: VERSION,
        incident: id.to_owned(),
        decided_at: 1_764_000_000,
        mode: Mode::Enforce,
        unit: 7,
        cgroup: "kubepods.slice/runner.scope".to_owned(),
        victim: Some("kubepods.slice/runner.scope".to_owned()),
        workload: None,
        machine: Machine {
            node: "node-1".to_owned(),
            kernel: "6.12.73".to_owned(),
            architecture: "x86_64".to_owned(),
            mglru: Some(true),
            level: "full".to_owned(),
            signals: vec![("refaults".to_owned(), "refault_fentry".to_owned())],
            memguard: "0.1.0".to_owned(),
        },
        suspect_for_s: verdict.at.saturating_sub(verdict.suspect_since).as_secs_f64(),
        confidence: verdict.terms.confidence(),
        terms: TermRecord::all(&verdict.terms),
        settings,
        memory,
        timeline: timeline.points(end),
        look: Some(Look {
            before_verdict_s: 1.5,
            took_ms: 12,
            processes: 3,
            threads: 10,
            tasks: vec![task(4711, "python3", 400), task(4712, "Runner.Worker", 60), task(4713, "node", 20)],
            waiting: vec![Waiting {
                tid: 4711,
                comm: "python3".to_owned(),
                state: "D".to_owned(),
                wchan: Some("folio_wait_bit_common".to_owned()),
                reclaims_for_ms: Some(1.25),
            }],
            in_reclaim: 1,
            blocked: 5,
            files: Some(vec![
                file(131, 4000, Some("/usr/bin/python3.11")),
                file(132, 900, Some("/usr/lib/x86_64-linux-gnu/libc.so.6")),
                file(133, 40, None),
            ]),
            memory_stat: "anon 1\nfile 2\n".to_owned(),
            memory_events: "max 900\noom 0\n".to_owned(),
            cut: None,
        }),
        gaps: Vec::new(),
    }
}

/// Two minutes, with every list full and every name as bad as it gets.
pub(crate) fn hostile(id: &str) -> Record {
    let mut record = record(id);
    let bad =
        super::record::shown(&format!("<script>alert(1)</script>]]>\u{202e}\0\"'&{}", "\u{202e}\0<".repeat(4000)), 64);
    let path = super::record::shown(&format!("/x/{}", "\u{202e}\0<".repeat(4000)), 256);
    let look = record.look.as_mut().unwrap();
    look.tasks = vec![Task { comm: bad.clone(), exe: Some(path.clone()), ..look.tasks[0].clone() }; 48];
    look.waiting = vec![Waiting { comm: bad.clone(), wchan: Some(bad.clone()), ..look.waiting[0].clone() }; 48];
    look.files = Some(vec![HotFile { path: Some(path.clone()), ..HotFile::default() }; 32]);
    look.memory_stat = "x 1\n".repeat(2048);
    record.cgroup = super::record::shown(&"\u{202e}<b>".repeat(4000), 1024);
    record.timeline = (0..121_u8)
        .map(|second| Point {
            at_s: f32::from(second) - 120.0,
            state: if second < 60 { State::Pressed } else { State::Suspect },
            current: u64::MAX,
            lost: Some(0.123_456_7),
            text_returns_per_s: Some(1234.567),
            ..record.timeline.last().copied().unwrap_or_default()
        })
        .collect();
    record
}

#[test]
fn a_record_of_the_worst_is_bounded_and_read_back() {
    let record = hostile("mg-1764000000-7");
    let json = record.to_json().unwrap();
    assert!(json.len() <= super::LARGEST, "{}", json.len());
    assert_eq!(super::parse(&json).unwrap(), record, "nothing had to be left out");
    let mut larger = record.clone();
    larger.look.as_mut().unwrap().memory_stat = "x".repeat(1 << 20);
    let json = larger.to_json().unwrap();
    assert!(json.len() <= super::LARGEST);
    let parsed = super::parse(&json).unwrap();
    assert!(parsed.gaps.iter().any(|gap| gap.contains("left out")), "{:?}", parsed.gaps);
    assert_eq!(parsed.terms, record.terms);
}
