//! memguard's recording on its way out of the guest: in pieces over the serial port, put together on the host.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::record::Record;

/// Bytes in a piece: its line stays short enough not to hold up others on the port.
const PIECE: usize = 3 * 1024;

/// The pieces of a recording, in order.
pub fn pieces(recording: &[u8]) -> impl Iterator<Item = Record> {
    let (length, crc32) = (recording.len() as u64, crc32fast::hash(recording));
    recording.chunks(PIECE).map(move |piece| Record::Recording { length, crc32, piece: BASE64.encode(piece) })
}

/// Puts the pieces together. `None` without any; an error if some are missing or damaged.
pub fn assemble<'a>(records: impl Iterator<Item = &'a Record>) -> Option<Result<Vec<u8>, String>> {
    let mut whole = Vec::new();
    let mut expected = None;
    for record in records {
        let Record::Recording { length, crc32, piece } = record else { continue };
        expected = Some((*length, *crc32));
        match BASE64.decode(piece) {
            Ok(bytes) => whole.extend(bytes),
            Err(error) => return Some(Err(format!("a piece of the recording is damaged: {error}"))),
        }
    }
    let (length, crc32) = expected?;
    if whole.len() as u64 != length {
        return Some(Err(format!("{} of the recording's {length} bytes came out of the guest", whole.len())));
    }
    if crc32fast::hash(&whole) != crc32 {
        return Some(Err("the recording was damaged on its way out of the guest".to_owned()));
    }
    Some(Ok(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Vec<u8> {
        (0..10_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn pieces_make_the_whole() {
        let pieces: Vec<_> = pieces(&recording()).collect();
        assert!(pieces.len() > 3);
        assert_eq!(assemble(pieces.iter()), Some(Ok(recording())));
        assert_eq!(assemble([Record::Trouble].iter()), None);
    }

    #[test]
    fn what_is_lost_or_damaged_is_noticed() {
        let pieces: Vec<_> = pieces(&recording()).collect();
        assert!(assemble(pieces[1..].iter()).unwrap().unwrap_err().contains("bytes came out"));
        let mut swapped = pieces.clone();
        swapped.swap(0, 1);
        assert!(assemble(swapped.iter()).unwrap().unwrap_err().contains("damaged"));
        let mut broken = pieces;
        if let Record::Recording { piece, .. } = &mut broken[0] {
            piece.insert(0, '?');
        }
        assert!(assemble(broken.iter()).unwrap().unwrap_err().contains("damaged"));
    }
}
