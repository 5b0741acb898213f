//! A little colour: green for what is well, yellow for what deserves a look, red for what is wrong. There is always a word
//! that says the same.
//!
//! Commands paint whatever they write as text, and [`print`] takes the colours away again where standard output is no
//! terminal, `TERM` is `dumb` or `NO_COLOR` is set (`CLICOLOR_FORCE` keeps them).

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;

/// What a piece of text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Look,
    Bad,
    /// A heading, or a name to look for.
    Strong,
    /// What is there to be complete.
    Quiet,
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Look => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Strong => Style::new().bold(),
            Self::Quiet => Style::new().dimmed(),
        }
    }

    /// The text in this tone.
    pub(super) fn paint(self, text: impl std::fmt::Display) -> String {
        let style = self.style();
        format!("{style}{text}{style:#}")
    }
}

/// Writes to standard output, in colour if that shows it. A reader that has seen enough (`| head`) is no failure.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match anstream::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("can't write the answer"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tone_ends_where_it_ends_and_the_text_is_left() {
        for tone in [Tone::Good, Tone::Look, Tone::Bad, Tone::Strong, Tone::Quiet] {
            let painted = tone.paint("x");
            assert!(painted.starts_with("\x1b[") && painted.ends_with("\x1b[0m"), "{painted:?}");
            assert_eq!(anstream::adapter::strip_str(&painted).to_string(), "x");
        }
    }
}
