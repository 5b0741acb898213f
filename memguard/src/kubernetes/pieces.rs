//! Answers taken apart while they come in: one object in memory at a time, whatever a list holds.
//!
//! A list of pods from the API server's cache has no pages (`limit` is ignored beside `resourceVersion=0`), and a list with
//! pages is read from etcd, pods of all other nodes with it. So what bounds memory is not the request but how its answer is
//! read.

/// Bytes of an object. etcd takes 1.5 MiB unless told otherwise, and in JSON a byte of a string becomes six at worst
/// (`\u003c`).
pub(super) const LONGEST: usize = 12 * 1024 * 1024;
/// By how much a buffer grows: doubled it would take up to twice what it holds, all of it locked.
const STEP: usize = 64 * 1024;
/// What a buffer keeps between two objects.
const KEPT: usize = 256 * 1024;
/// Of a list without its items: a version and little else.
const LONGEST_REST: usize = 64 * 1024;
/// The member of a list that has its items.
const ITEMS: &[u8] = b"items";

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Whole(&'a [u8]),
    /// It has more than [`LONGEST`] bytes, and was dropped.
    TooLong,
}

/// Collects a piece.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Buffer {
    fn add(&mut self, bytes: &[u8]) {
        if self.too_long || self.bytes.len() + bytes.len() > LONGEST {
            (self.too_long, self.bytes) = (true, Vec::new());
            return;
        }
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            self.bytes.reserve_exact(bytes.len().max(STEP));
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn piece(&self) -> Piece<'_> {
        if self.too_long { Piece::TooLong } else { Piece::Whole(&self.bytes) }
    }

    fn clear(&mut self) {
        self.too_long = false;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
    }
}

/// The items of a list, one by one.
#[derive(Debug, Default)]
pub(super) struct Items {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The latest string of the outermost object: the name of what comes next.
    name: Vec<u8>,
    within: bool,
    item: Buffer,
    /// The list without its items.
    rest: Vec<u8>,
}

/// An answer that is no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoList;

impl Items {
    /// Takes what came in, and gives each item that is whole by now.
    pub(super) fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(Piece<'_>)) -> Result<(), NoList> {
        let mut from = 0;
        for (at, &byte) in chunk.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ if self.depth == 1 && self.name.len() <= ITEMS.len() => self.name.push(byte),
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => {
                    self.in_string = true;
                    if self.depth == 1 {
                        self.name.clear();
                    }
                }
                b'{' | b'[' => {
                    if self.within && self.depth == 2 {
                        from = at;
                    }
                    self.depth += 1;
                    if self.depth == 2 && byte == b'[' && self.name == ITEMS {
                        self.within = true;
                        self.keep(chunk.get(from..=at).unwrap_or_default())?;
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.checked_sub(1).ok_or(NoList)?;
                    if self.within && self.depth == 2 {
                        self.item.add(chunk.get(from..=at).unwrap_or_default());
                        each(self.item.piece());
                        self.item.clear();
                    } else if self.within && self.depth == 1 {
                        (self.within, from) = (false, at);
                    }
                }
                _ => {}
            }
        }
        let left = chunk.get(from..).unwrap_or_default();
        match (self.within, self.depth) {
            (false, _) => self.keep(left)?,
            // Between two items there is nothing but commas.
            (true, 2) => {}
            (true, _) => self.item.add(left),
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), NoList> {
        if self.rest.len() + bytes.len() > LONGEST_REST {
            return Err(NoList);
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    /// The list without its items, once all has come in.
    pub(super) fn finish(self) -> Result<Vec<u8>, NoList> {
        if self.depth == 0 && !self.rest.is_empty() { Ok(self.rest) } else { Err(NoList) }
    }
}

/// The lines of a watch: an object each.
#[derive(Debug, Default)]
pub(super) struct Lines(Buffer);

impl Lines {
    /// Takes what came in, up to the end of a line: how much of it that is, and whether the line is whole.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> (usize, bool) {
        if let Some(at) = chunk.iter().position(|byte| *byte == b'\n') {
            self.0.add(chunk.get(..at).unwrap_or_default());
            (at + 1, true)
        } else {
            self.0.add(chunk);
            (chunk.len(), false)
        }
    }

    pub(super) fn line(&self) -> Piece<'_> {
        self.0.piece()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The items and the rest of a list that comes in so many bytes at a time.
    fn taken(list: &[u8], at_a_time: usize) -> Result<(Vec<Value>, Value), NoList> {
        let (mut items, mut taken) = (Items::default(), Vec::new());
        for chunk in list.chunks(at_a_time) {
            items.feed(chunk, |piece| match piece {
                Piece::Whole(bytes) => taken.push(serde_json::from_slice(bytes).unwrap()),
                Piece::TooLong => taken.push(Value::Null),
            })?;
        }
        Ok((taken, serde_json::from_slice(&items.finish()?).map_err(|_| NoList)?))
    }

    #[test]
    fn a_list_comes_apart_wherever_it_is_cut() {
        let odd = json!({"a": "} ] \" \\ [ {", "items": [{"items": [[1], {}]}], "b": {"c": [1, "items"]}, "\"": {}});
        let list = json!({
            "apiVersion": "v1", "first": [{"items": [1]}], "items": [odd, {}, odd], "kind": "items",
            "metadata": {"resourceVersion": "7", "items": [2]},
        });
        let mut rest = list.clone();
        rest["items"] = json!([]);
        for text in [list.to_string(), serde_json::to_string_pretty(&list).unwrap()] {
            for at_a_time in [1, 2, 3, 7, 64, 100_000] {
                let expected = (vec![odd.clone(), json!({}), odd.clone()], rest.clone());
                assert_eq!(taken(text.as_bytes(), at_a_time).unwrap(), expected, "{at_a_time} of {text}");
            }
        }
        for empty in [r#"{"items":[],"metadata":{}}"#, r#"{"items":null,"metadata":{}}"#, r#"{"metadata":{}}"#] {
            assert_eq!(taken(empty.as_bytes(), 1).unwrap().0, Vec::<Value>::new());
        }
    }

    #[test]
    fn what_is_no_list_is_refused_and_nothing_panics() {
        for text in ["", "}", "{\"items\":", "{\"items\":[{}", "{\"items\":[{}]", "<html>", "[]]", "{\"a\":\"", "\\"] {
            assert_eq!(taken(text.as_bytes(), 3), Err(NoList), "{text}");
        }
        let endless = format!("{{\"metadata\":\"{}", "x".repeat(2 * LONGEST_REST));
        assert_eq!(taken(endless.as_bytes(), 4096), Err(NoList));
    }

    #[test]
    fn an_object_that_no_server_has_is_dropped_and_the_others_are_not() {
        let mut items = Items::default();
        let mut sizes = Vec::new();
        let mut feed = |items: &mut Items, bytes: &[u8]| {
            let mut size = |piece: Piece<'_>| {
                sizes.push(match piece {
                    Piece::Whole(bytes) => Some(bytes.len()),
                    Piece::TooLong => None,
                });
            };
            items.feed(bytes, &mut size).unwrap();
            assert!(items.item.bytes.capacity() <= LONGEST + STEP, "{}", items.item.bytes.capacity());
        };
        feed(&mut items, b"{\"items\":[{\"a\":\"");
        for _ in 0..=LONGEST / STEP {
            feed(&mut items, &vec![b'x'; STEP]);
        }
        feed(&mut items, b"\"},{\"a\":\"");
        feed(&mut items, &vec![b'x'; 8 * 1024 * 1024]);
        feed(&mut items, b"\"},{}");
        assert!(items.item.bytes.capacity() <= KEPT, "what a large one took is given back");
        feed(&mut items, b"]}");
        assert_eq!(sizes, [None, Some(8 * 1024 * 1024 + 8), Some(2)]);
        assert_eq!(items.finish().unwrap(), b"{\"items\":[]}");
    }

    #[test]
    fn lines_are_put_together_and_one_that_is_too_long_is_told() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(b"ab"), (2, false));
        assert_eq!(lines.feed(b"c\ndef"), (2, true));
        assert_eq!(lines.line(), Piece::Whole(b"abc"));
        lines.clear();
        for _ in 0..=LONGEST / STEP {
            lines.feed(&vec![b'x'; STEP]);
        }
        assert_eq!(lines.feed(b"\n"), (1, true));
        assert_eq!(lines.line(), Piece::TooLong);
        lines.clear();
        assert_eq!((lines.feed(b"\n"), lines.line()), ((1, true), Piece::Whole(b"")));
    }
}
