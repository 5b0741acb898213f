//! What a program drew on a terminal, as somebody in front of it sees it.

use std::num::NonZeroU16;

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

/// What `lab-kubelet terminal` tells.
#[derive(Debug, Deserialize)]
struct Told {
    columns: NonZeroU16,
    rows: NonZeroU16,
    parts: Vec<String>,
    status: Value,
}

/// A session's screens, and what it left behind.
#[derive(Debug, PartialEq)]
pub(super) struct Screens {
    /// As it was before each key, and at the end: lines without blanks at their ends.
    pub(super) seen: Vec<String>,
    /// Whether the program ended well.
    pub(super) succeeded: bool,
    /// Whether who comes next has the first screen, and a cursor.
    pub(super) given_back: bool,
    /// Lines that were too long for it, in the end.
    pub(super) wrapped: usize,
}

impl Screens {
    /// With `rows`, on a terminal so tall: what a program writes that does not draw is seen by scrolling back.
    pub(super) fn of(told: &Value, rows: Option<NonZeroU16>) -> anyhow::Result<Self> {
        let told: Told = serde_json::from_value(told.clone()).context("no session of a terminal")?;
        let rows = rows.unwrap_or(told.rows);
        let mut terminal = vt100::Parser::new(rows, told.columns, 0);
        let mut seen = Vec::new();
        for part in &told.parts {
            terminal.process(&STANDARD.decode(part).context("a session of a terminal is no Base64")?);
            let lines: Vec<String> =
                terminal.screen().rows(0, told.columns.get()).map(|line| line.trim_end().to_owned()).collect();
            seen.push(lines.join("\n").trim_end().to_owned());
        }
        let screen = terminal.screen();
        Ok(Self {
            seen,
            succeeded: told.status["status"] == "Success",
            given_back: !screen.alternate_screen() && !screen.hide_cursor(),
            wrapped: (0..rows.get()).filter(|row| screen.row_wrapped(*row)).count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(parts: &[&str]) -> Value {
        let parts: Vec<String> = parts.iter().map(|part| STANDARD.encode(part)).collect();
        json!({"columns": 10, "rows": 3, "parts": parts, "status": {"status": "Success"}})
    }

    #[test]
    fn a_screen_before_each_key_and_the_first_one_in_the_end() {
        let drawn =
            session(&["\x1b[?1049h\x1b[?25l\x1b[1;1Hone", "\x1b[2;3H\x1b[31mtwo\x1b[0m", "\x1b[?25h\x1b[?1049l"]);
        let screens = Screens::of(&drawn, None).expect("a session");
        assert_eq!(screens.seen, ["one", "one\n  two", ""]);
        assert!(screens.succeeded && screens.given_back);
        let left = Screens::of(&session(&["\x1b[?1049h\x1b[?25lone"]), None).expect("a session");
        assert!(!left.given_back);
    }

    #[test]
    fn what_is_too_long_is_counted_and_what_has_scrolled_off_is_there() {
        let long = session(&["0123456789\r\n0123456789A\r\n\r\n\r\nend"]);
        let tall = Screens::of(&long, NonZeroU16::new(50)).expect("a session");
        assert_eq!((tall.wrapped, tall.seen[0].as_str()), (1, "0123456789\n0123456789\nA\n\n\nend"));
        assert!(Screens::of(&json!({"columns": 0}), None).is_err());
    }
}
