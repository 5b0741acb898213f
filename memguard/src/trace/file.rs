//! The file: a magic, then blocks, each with its length and checksum, of compressed JSON lines.
//!
//! ```text
//! "MGTRACE" version(1)
//! block: payload length(4) | plain length(4) | CRC-32 of the payload(4) | payload: deflate of JSON lines
//! ```
//!
//! Numbers are little-endian. A block stands for itself, so a file that was cut (a full disk, a lost node) or damaged
//! is read up to there, and appending goes on after the last good block.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};

use super::entry::Entry;

pub(crate) const MAGIC: [u8; 7] = *b"MGTRACE";
/// Counts up when an entry changes in a way that older readers would misread.
pub(crate) const VERSION: u8 = 1;
pub(crate) const BLOCK_HEADER: usize = 12;
/// Neither a damaged length nor a hostile file may have a reader take more memory than this for a block.
const LONGEST_PAYLOAD: u32 = 16 << 20;
const LONGEST_PLAIN: u32 = 64 << 20;
/// A block is closed when it has grown to this.
const FULL_BLOCK: usize = 256 << 10;

/// Why a recording can't be written or read at all.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("can't {verb} the recording {}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no recording of memguard's", path.display())]
    NotOne { path: PathBuf },
    #[error("{} is a recording of version {version}, and this memguard reads version {VERSION}", path.display())]
    Version { path: PathBuf, version: u8 },
}

/// Where a recording stops making sense. What comes before is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Bytes from the beginning of the file.
    pub at: u64,
    pub why: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "damaged at byte {}: {}", self.at, self.why)
    }
}

/// A recording in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    pub entries: Vec<Entry>,
    pub damage: Option<Damage>,
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Recording, TraceError> {
    let file = File::open(path).map_err(|source| TraceError::Io { verb: "open", path: path.to_owned(), source })?;
    let mut reader = Reader::new(path, BufReader::new(file))?;
    let mut recording = Recording::default();
    loop {
        match reader.block() {
            Ok(Some(entries)) => recording.entries.extend(entries),
            Ok(None) => return Ok(recording),
            Err(damage) => {
                recording.damage = Some(damage);
                return Ok(recording);
            }
        }
    }
}

/// Reads block by block.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    at: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the magic. `path` is for messages.
    pub fn new(path: &Path, mut from: R) -> Result<Self, TraceError> {
        let mut magic = [0; MAGIC.len() + 1];
        let count = fill(&mut from, &mut magic).map_err(|source| TraceError::Io {
            verb: "read",
            path: path.to_owned(),
            source,
        })?;
        let (name, version) = magic.split_at(MAGIC.len());
        if count < magic.len() || name != MAGIC {
            return Err(TraceError::NotOne { path: path.to_owned() });
        }
        if version[0] != VERSION {
            return Err(TraceError::Version { path: path.to_owned(), version: version[0] });
        }
        Ok(Self { from, at: magic.len() as u64 })
    }

    /// Where the next block begins.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// The entries of the next block; `None` at the end. After damage nothing more can be read.
    pub fn block(&mut self) -> Result<Option<Vec<Entry>>, Damage> {
        let at = self.at;
        let damage = |why: &str| Damage { at, why: why.to_owned() };
        let mut header = [0; BLOCK_HEADER];
        match fill(&mut self.from, &mut header).map_err(|error| damage(&error.to_string()))? {
            0 => return Ok(None),
            BLOCK_HEADER => {}
            _ => return Err(damage("it ends within the header of a block")),
        }
        let word = |index: usize| {
            let bytes = [header[index * 4], header[index * 4 + 1], header[index * 4 + 2], header[index * 4 + 3]];
            u32::from_le_bytes(bytes)
        };
        let (payload_length, plain_length, checksum) = (word(0), word(1), word(2));
        if payload_length > LONGEST_PAYLOAD || plain_length > LONGEST_PLAIN {
            return Err(damage("a block says to be longer than any is"));
        }
        // Read as far as there is something, and not allocated by what the header says.
        let mut payload = Vec::new();
        let taken = self.from.by_ref().take(u64::from(payload_length)).read_to_end(&mut payload);
        taken.map_err(|error| damage(&error.to_string()))?;
        if payload.len() as u64 != u64::from(payload_length) {
            return Err(damage("it ends within a block"));
        }
        if crc32fast::hash(&payload) != checksum {
            return Err(damage("a checksum does not fit"));
        }
        let mut plain = Vec::new();
        DeflateDecoder::new(payload.as_slice())
            .take(u64::from(plain_length) + 1)
            .read_to_end(&mut plain)
            .map_err(|error| damage(&format!("a block can't be decompressed: {error}")))?;
        if plain.len() as u64 != u64::from(plain_length) {
            return Err(damage("a block is not as long as it says"));
        }
        let entries = plain
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).map_err(|error| damage(&format!("an entry is none: {error}"))))
            .collect::<Result<Vec<Entry>, Damage>>()?;
        self.at += (BLOCK_HEADER + payload.len()) as u64;
        Ok(Some(entries))
    }
}

/// Reads until the buffer is full or there is no more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Lines as a block.
pub(crate) fn block(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut block = vec![0; BLOCK_HEADER];
    let mut encoder = DeflateEncoder::new(&mut block, Compression::default());
    encoder.write_all(plain)?;
    encoder.finish()?;
    let (header, payload) = block.split_at_mut(BLOCK_HEADER);
    let length = |bytes: usize| u32::try_from(bytes).map_err(|_| io::Error::other("a block of 4 GiB"));
    header[..4].copy_from_slice(&length(payload.len())?.to_le_bytes());
    header[4..8].copy_from_slice(&length(plain.len())?.to_le_bytes());
    header[8..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    Ok(block)
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
    plain: Vec<u8>,
}

impl Writer<File> {
    /// A new file, or one that is there and a recording: then it goes on after its last good block.
    pub fn append(path: &Path) -> Result<(Self, Option<Damage>), TraceError> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        Self::append_to(path, file.map_err(|source| TraceError::Io { verb: "open", path: path.to_owned(), source })?)
    }

    /// The same with a file that is open for reading and writing. `path` is for messages.
    pub(crate) fn append_to(path: &Path, mut file: File) -> Result<(Self, Option<Damage>), TraceError> {
        let wrong = |verb| move |source| TraceError::Io { verb, path: path.to_owned(), source };
        let length = file.metadata().map_err(wrong("look at"))?.len();
        let mut damage = None;
        if length == 0 {
            return Ok((Self::new(file).map_err(wrong("write"))?, None));
        }
        let mut reader = Reader::new(path, BufReader::new(&file))?;
        loop {
            match reader.block() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(found) => {
                    damage = Some(found);
                    break;
                }
            }
        }
        let end = reader.at();
        file.set_len(end).map_err(wrong("cut the damaged end off"))?;
        file.seek(SeekFrom::Start(end)).map_err(wrong("write"))?;
        Ok((Self { to: file, plain: Vec::new() }, damage))
    }
}

impl<W: Write> Writer<W> {
    /// Begins with the magic.
    pub fn new(mut to: W) -> io::Result<Self> {
        to.write_all(&MAGIC)?;
        to.write_all(&[VERSION])?;
        Ok(Self { to, plain: Vec::new() })
    }

    /// Takes an entry. It is on its way to the disk once its block is full, or [`flush`](Self::flush) is called.
    pub fn write(&mut self, entry: &Entry) -> io::Result<()> {
        serde_json::to_writer(&mut self.plain, entry)?;
        self.plain.push(b'\n');
        if self.plain.len() >= FULL_BLOCK { self.flush() } else { Ok(()) }
    }

    /// Closes the block.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let block = block(&self.plain)?;
        // In one piece, so that a crash leaves at most one torn block.
        self.to.write_all(&block)?;
        self.to.flush()?;
        self.plain.clear();
        Ok(())
    }

    /// Closes the last block and gives the file back.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::UnitId;

    fn entries(count: u64) -> Vec<Entry> {
        (0..count).map(|id| Entry::Watch { unit: UnitId(id), cgroup: format!("a.slice/{id}.scope") }).collect()
    }

    /// Two blocks.
    fn written() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        for (index, entry) in entries(6).iter().enumerate() {
            writer.write(entry).unwrap();
            if index == 2 {
                writer.flush().unwrap();
            }
        }
        writer.finish().unwrap()
    }

    fn read_back(bytes: &[u8]) -> Recording {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.mgtrace");
        std::fs::write(&path, bytes).unwrap();
        read(&path).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let recording = read_back(&written());
        assert_eq!(recording.entries, entries(6));
        assert_eq!(recording.damage, None);
    }

    #[test]
    fn a_threshold_is_read_back_to_the_last_bit() {
        // Needs serde_json's `float_roundtrip`: without it one in seven of these comes back as its neighbour.
        for threshold in (1..2000).map(|index| 1.0 / f64::from(index) + 1e-3) {
            let mut settings = crate::engine::Settings::default();
            settings.thresholds.lost.from = threshold;
            let json = serde_json::to_string(&settings).unwrap();
            assert_eq!(serde_json::from_str::<crate::engine::Settings>(&json).unwrap(), settings);
        }
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_read_up_to_there() {
        let whole = written();
        let ends: Vec<usize> = {
            let mut reader = Reader::new(Path::new("x"), whole.as_slice()).unwrap();
            let mut ends = vec![8];
            while reader.block().unwrap().is_some() {
                ends.push(usize::try_from(reader.at()).unwrap());
            }
            ends
        };
        assert_eq!(ends.len(), 3);
        for length in 8..=whole.len() {
            let recording = read_back(&whole[..length]);
            let blocks = ends.iter().filter(|end| **end <= length).count() - 1;
            assert_eq!(recording.entries.len(), blocks * 3, "{length}");
            assert_eq!(recording.damage.is_none(), ends.contains(&length), "{length}");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let whole = written();
        for position in 8..whole.len() {
            let mut bytes = whole.clone();
            bytes[position] ^= 0x10;
            let recording = read_back(&bytes);
            assert!(recording.damage.is_some(), "byte {position}");
            assert!(recording.entries.len() < 6, "byte {position}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for bytes in [&b""[..], b"MGTRAC", b"hello, world", b"MGTRACE\x02"] {
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn appending_goes_on_after_the_last_good_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.mgtrace");
        let whole = written();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let (mut writer, damage) = Writer::append(&path).unwrap();
        assert!(damage.is_some());
        writer.write(&Entry::Lost { entries: 3 }).unwrap();
        writer.finish().unwrap();
        let recording = read(&path).unwrap();
        assert_eq!(recording.damage, None);
        assert_eq!(recording.entries.len(), 4);

        let fresh = dir.path().join("new.mgtrace");
        let (mut writer, damage) = Writer::append(&fresh).unwrap();
        assert_eq!(damage, None);
        writer.write(&Entry::Lost { entries: 1 }).unwrap();
        drop(writer.finish().unwrap());
        assert_eq!(read(&fresh).unwrap().entries.len(), 1);
        std::fs::write(&fresh, "something else").unwrap();
        Writer::append(&fresh).unwrap_err();
        assert_eq!(std::fs::read_to_string(&fresh).unwrap(), "something else", "not ours, so left alone");
    }
}
