//! What a container writes, from the file in which the runtime keeps it: lines of a time, a stream, a tag, and the text
//! (kubernetes/design-proposals, kubelet-cri-logging.md). A long line comes in pieces.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use super::node::Sandbox;

pub(super) struct Log {
    path: PathBuf,
    read: u64,
    /// A line of the file, and one of the container, that are not whole yet.
    rest: Vec<u8>,
    pieces: String,
}

impl Log {
    pub(super) fn open(sandbox: &Sandbox, container: &str) -> Self {
        let path = sandbox.logs.join(container).join("0.log");
        Self { path, read: 0, rest: Vec::new(), pieces: String::new() }
    }

    /// Lines that have come since the last look.
    pub(super) fn new_lines(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_end(&mut bytes)
        });
        self.read += read.unwrap_or_default() as u64;
        self.take(&bytes)
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let mut parts = line.trim_end_matches('\n').splitn(4, ' ');
            let (Some(_), Some(_), Some(tag), Some(text)) = (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            self.pieces.push_str(text);
            if tag == "F" {
                lines.push(std::mem::take(&mut self.pieces));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together() {
        let mut log = Log { path: PathBuf::new(), read: 0, rest: Vec::new(), pieces: String::new() };
        assert_eq!(log.take(b"2026-11-25T07:00:00Z stderr F {\"a\": 1}\n2026-11-25T07:00:01Z std"), ["{\"a\": 1}"]);
        assert!(log.take(b"out P one \n").is_empty());
        assert_eq!(log.take(b"2026-11-25T07:00:02Z stdout F two\nx\n"), ["one two"]);
    }
}
