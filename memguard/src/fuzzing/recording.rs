//! Recordings: files as they may be found, and lines as another version may have written them.

#![expect(clippy::expect_used, clippy::panic, reason = "to panic is how a target tells")]

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::sound;
use crate::{
    engine::{Engine, Settings, baselines::Baseline},
    trace::{
        Entry, Judge, Reader, Recording, TraceError, Without, Writer,
        file::{BLOCK_HEADER, MAGIC, VERSION, block},
        replay,
    },
};

/// The name in messages.
const NAME: &str = "fuzzed.mgtrace";

/// A file that may be cut, damaged or hostile: what can be read of it is read, and appending goes on right behind that.
///
/// The first byte says whether the input goes without the magic and the checksums, which no fuzzer guesses.
pub fn recording_file(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let mut bytes = Vec::new();
    if how & 1 == 0 {
        bytes.extend(MAGIC);
        bytes.push(VERSION);
    }
    bytes.extend(data);
    if how & 2 == 0 {
        mend_checksums(&mut bytes);
    }

    let found = read(&bytes);
    let appended = append(&bytes, &Entry::Lost { entries: 7 });
    match (found, appended) {
        (Ok((found, end)), Ok(whole)) => {
            assert!(end <= bytes.len());
            assert_eq!(whole[..end], bytes[..end], "what was sound is left as it was");
            let (after, _) = read(&whole).unwrap_or_default();
            assert_eq!(after.damage, None);
            assert_eq!(after.entries.len(), found.entries.len() + 1);
            assert_eq!(after.entries.last(), Some(&Entry::Lost { entries: 7 }));
        }
        // A new file.
        (Err(TraceError::NotOne { .. }), Ok(whole)) => assert!(bytes.is_empty() && whole.starts_with(&MAGIC)),
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        (found, appended) => panic!("read {found:?}, appended {appended:?}"),
    }
}

/// Entries as JSON lines, in a file that is sound otherwise: all that is read is written alike, and is judged.
pub fn recording_lines(data: &[u8]) {
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    bytes.extend(block(data).unwrap_or_default());
    let (recording, _) = read(&bytes).unwrap_or_default();
    let mut writer = Writer::new(Vec::new()).expect("memory can be written");
    for entry in &recording.entries {
        writer.write(entry).expect("every entry can be written");
    }
    let (again, _) = read(&writer.finish().expect("memory can be written")).expect("it is a recording");
    assert_eq!(again.entries, recording.entries);

    let mut judges = vec![Judge::Recorded, Judge::Engine(Box::default())];
    judges.extend(Baseline::ALL.map(Judge::Baseline));
    let replayed = replay(&recording.entries, &judges, &[]);
    assert_eq!(replayed.rules.len(), judges.len());
    let without = [Without::Tracer, Without::Trampolines, Without::Psi, Without::Cpu];
    assert_eq!(replay(&recording.entries, &judges, &without).samples, replayed.samples);
    let mut engine = Engine::new(Settings::default());
    for entry in &recording.entries {
        if let Entry::Sample { unit, sample, .. } = entry {
            sound(&engine.observe(*unit, (**sample).clone()));
        }
    }
}

/// What is in a file, and where that ends.
fn read(bytes: &[u8]) -> Result<(Recording, usize), TraceError> {
    let mut reader = Reader::new(Path::new(NAME), bytes)?;
    let mut recording = Recording::default();
    loop {
        let before = reader.at();
        match reader.block() {
            Ok(Some(entries)) => {
                assert!(reader.at() > before, "it makes no headway");
                recording.entries.extend(entries);
            }
            Ok(None) => break,
            Err(damage) => {
                assert_eq!((damage.at, reader.at()), (before, before));
                recording.damage = Some(damage);
                break;
            }
        }
    }
    Ok((recording, usize::try_from(reader.at()).unwrap_or(usize::MAX)))
}

/// Appends to a file that holds these bytes; what it holds then.
fn append(bytes: &[u8], entry: &Entry) -> Result<Vec<u8>, TraceError> {
    let file = rustix::fs::memfd_create(NAME, rustix::fs::MemfdFlags::CLOEXEC);
    let file = File::from(file.expect("a file in memory can be made"));
    file.write_all_at(bytes, 0).expect("it can be written");
    let (mut writer, _) = Writer::append_to(Path::new(NAME), file)?;
    writer.write(entry).expect("it can be written");
    let mut file = writer.finish().expect("it can be written");
    let mut whole = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut whole)).expect("it can be read");
    Ok(whole)
}

/// Has the checksum of each block fit, as far as the lengths lead from one to the next.
fn mend_checksums(bytes: &mut [u8]) {
    let mut at = MAGIC.len() + 1;
    while let Some(header) = bytes.get(at..at + BLOCK_HEADER) {
        let length = header[..4].iter().rev().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
        let Some(payload) = bytes.get(at + BLOCK_HEADER..at + BLOCK_HEADER + length) else { return };
        let checksum = crc32fast::hash(payload).to_le_bytes();
        bytes[at + 8..at + BLOCK_HEADER].copy_from_slice(&checksum);
        at += BLOCK_HEADER + length;
    }
}
