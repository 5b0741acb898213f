//! What an operator saw at a terminal in memguard's container.

use std::num::NonZeroU16;

use memguard_lab::{chain::RUNNER, containers::MEMGUARD};

use super::{Judged, Seen};
use crate::lab::containers::screen::Screens;

/// More lines than a report has.
const TALL: Option<NonZeroU16> = NonZeroU16::new(1000);

impl Seen<'_> {
    /// What a program drew on a terminal in memguard's container.
    fn drawn(&self, what: &str, rows: Option<NonZeroU16>, judged: &mut Judged) -> Option<Screens> {
        let Some(told) = self.told(MEMGUARD, what) else {
            judged.failures.push(format!("nobody saw {what}"));
            return None;
        };
        match Screens::of(told, rows) {
            Ok(screens) => {
                judged.expect(screens.succeeded, || format!("{what} failed: {}", screens.seen.join("\n")));
                Some(screens)
            }
            Err(error) => {
                judged.failures.push(format!("{what}: {error:#}"));
                None
            }
        }
    }

    pub(super) fn top_shows_it(&self, judged: &mut Judged) {
        let Some(top) = self.drawn("top", None, judged) else { return };
        judged.expect(top.given_back, || "top does not give the terminal back".to_owned());
        let [table, opened, _, files, _, incidents, ..] = top.seen.as_slice() else {
            return judged.failures.push(format!("top drew {} times", top.seen.len()));
        };
        let expected: [(&'static str, &String, &[&str]); 4] = [
            ("while it hangs", table, &[RUNNER, "suspect"]),
            ("opened", opened, &["TERM", "can't be reclaimed", "text comes back", "evidence"]),
            ("opened, its end", files, &["libtext"]),
            ("its incidents", incidents, &[RUNNER]),
        ];
        for (what, screen, words) in expected {
            for word in words {
                judged.expect(screen.contains(word), || format!("top does not show {word:?} {what}:\n{screen}"));
            }
            judged.screens.push((what, screen.clone()));
        }
    }

    pub(super) fn the_report_fits_a_terminal(&self, judged: &mut Judged) {
        let Some(report) = self.drawn("report on a terminal", TALL, judged) else { return };
        judged.expect(report.wrapped == 0, || format!("{} lines of the report are too long", report.wrapped));
        let Some(text) = report.seen.last() else { return };
        let incident = self.action().map(|action| action["incident"].as_str().unwrap_or_default().to_owned());
        judged.expect(incident.is_some_and(|id| text.contains(&id)), || format!("the report says:\n{text}"));
        judged.screens.push(("its report", text.clone()));
    }
}
