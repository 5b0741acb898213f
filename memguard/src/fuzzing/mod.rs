//! What the fuzz targets in `fuzz/` do with an input: a door to parsers that are otherwise private, no part of the
//! library's interface.
//!
//! Each function takes any bytes and panics if something does not hold that has to. The test `corpus` runs them over
//! every input that the fuzzer kept.

mod engine;
mod recording;

use std::path::Path;

use memguard_common::Record;

pub use self::{
    engine::{engine, sound},
    recording::{recording_file, recording_lines},
};
use crate::{
    cgroup::{is_grouping, parse},
    config,
    engine::Memory,
    kernel::btf::Btf,
    telemetry, tracer,
};

/// A target by name, which is that of its folder in the corpus too.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("btf", btf),
    ("cgroup_files", cgroup_files),
    ("configuration", configuration),
    ("engine", engine),
    ("recording_file", recording_file),
    ("recording_lines", recording_lines),
    ("ring_record", ring_record),
];

/// A record of the ring buffer: what is taken for one says what its bytes say.
pub fn ring_record(data: &[u8]) {
    let word = |at: usize| data.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    match tracer::decode(data) {
        Ok(Record::Snapshot(snapshot)) => {
            assert_eq!(snapshot.header.size as usize, data.len());
            assert_eq!(Some(snapshot.header.cgroup_id), word(16));
            assert_eq!(Some(snapshot.counters.cycles), word(24));
            assert_eq!(snapshot.counters.cycle_ns_log2.last().copied(), word(data.len() - 24));
            assert_eq!(Some(snapshot.limit_owner), word(data.len() - 16));
            assert_eq!(Some(snapshot.tasks_in_reclaim), word(data.len() - 8));
            let mut sum = snapshot.counters;
            sum.accumulate(&snapshot.counters);
        }
        Ok(Record::OomVictim(header) | Record::CgroupRemoved(header)) => {
            assert_eq!(header.size as usize, data.len());
            assert_eq!((Some(header.at_ns), Some(header.cgroup_id)), (word(8), word(16)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Every file of a cgroup that is read, and what is made of a cgroup's name.
pub fn cgroup_files(data: &[u8]) {
    // As in a read: what is not UTF-8 is refused before it is parsed.
    let Ok(text) = std::str::from_utf8(data) else { return };
    let number = parse::number(text);
    assert_eq!(number.is_ok(), text.trim().parse::<u64>().is_ok());
    match parse::limit(text) {
        Ok(None) => assert_eq!(text.trim(), "max"),
        limit => assert_eq!(limit.ok().flatten(), number.ok()),
    }
    let mut memory = Memory::default();
    parse::memory_events(text, &mut memory);
    if parse::memory_stat(text, &mut memory).is_ok() {
        assert!(text.contains("workingset_refault_file"));
        assert_eq!(parse::unreclaimable(text) > 0, memory.unreclaimable() > 0 || text.matches("anon ").count() > 1);
    }
    assert!(memory.page_cache() <= memory.file && memory.limit().is_none());
    let _ = (memory.limit_hits(), memory.ooms());
    for error in [parse::pressure(text).err(), parse::cpu_stat(text).err(), parse::populated(text).err()] {
        assert_ne!(error.as_deref(), Some(""));
    }
    match parse::local_events(text) {
        Some(local) => {
            assert_eq!((local.max, local.high), (memory.max_events, memory.high_events));
            assert_eq!((local.oom, local.oom_kills), (memory.oom_events, memory.oom_kills));
        }
        None => assert_eq!((memory.max_events, memory.high_events), (0, 0)),
    }
    let _ = parse::descendants(text);
    assert!(!parse::lists_process(text, 4242) || text.contains("4242"));
    if let Some(path) = parse::v2_path(text) {
        assert!(!path.contains('\n'));
    }
    // A job names its cgroups as it likes, and they are written to logs and terminals.
    let _ = is_grouping(Path::new(text));
    for shown in [telemetry::escaped(text), telemetry::shown(Path::new(text))] {
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
    let _ = telemetry::CgroupName::new(Path::new("/sys/fs/cgroup"), 1, Path::new(text)).short();
}

/// A configuration file: what is accepted means the same when it is written and read again.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = |text: &str| text.parse::<toml::Table>().ok().map(|table| config::configuration(&table));
    match read(text) {
        Some(Ok(settings)) => assert_eq!(read(&config::written(&settings)), Some(Ok(settings))),
        Some(Err(problems)) => assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.is_empty())),
        None => {}
    }
}

/// The kernel's type information.
pub fn btf(data: &[u8]) {
    const NAMES: &[&str] = &["s", "t", "f", "g", "E", "btf_trace_f", "btf_trace_t"];
    let Ok(btf) = Btf::parse(data.to_vec(), NAMES) else { return };
    for name in NAMES {
        let _ = (btf.enumerator(name), btf.tracepoint(name));
        if let Some((id, arguments)) = btf.function(name) {
            assert!(id <= btf.count() && arguments <= 0xffff);
        }
        for structure in NAMES {
            let _ = btf.member_offset(structure, name);
        }
    }
    let targets = Btf::parse(btf.attach_targets(NAMES), NAMES);
    assert!(targets.is_ok_and(|targets| targets.count() <= btf.count()));
}
