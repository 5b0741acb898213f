//! What the keys do and what the columns mean, over everything else.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::Line,
    widgets::{Block, Clear, Widget as _},
};

use super::{BOLD, Link, Scene, scrolled, text::wrapped};

const WIDTH: u16 = 76;
/// Columns of a key.
const KEY: usize = 11;

/// Key, what it does.
const KEYS: [(&str, &str); 10] = [
    ("q, Ctrl-C", "quit (Ctrl-Z stops, Ctrl-L draws anew)"),
    ("up, down", "select a cgroup, or scroll (also j, k, page keys, g, G)"),
    ("Enter", "open it: every term of the rule against its thresholds"),
    ("Esc", "back; in the table: no filter"),
    ("s, r", "order by another column; the other way round"),
    ("/", "only cgroups with this in name, path, state or repository"),
    ("c", "hide calm ones"),
    ("space", "freeze the picture; memguard goes on"),
    ("i", "incidents: what was decided, done and remains to be done"),
    ("?", "this"),
];

const REPLAY: [(&str, &str); 5] = [
    ("space", "pause"),
    ("+, -", "faster, slower"),
    ("left, right", "5 s back, on (, and . 1 s; < and > a minute)"),
    ("n", "on to where a state changes"),
    ("0", "from the beginning"),
];

/// Word, meaning.
const MEANINGS: [(&str, &str); 9] = [
    ("calm", "below its limit"),
    ("pressed", "at its limit and reclaiming, as busy ones may"),
    ("suspect", "every term of the rule holds: evidence is gathered"),
    ("livelock", "enough evidence: ended, or in observe mode only told"),
    ("refaults", "file pages per second that came back after they were dropped"),
    ("1 min", "the same over a minute; one scale for all, from 1 to 100 000/s"),
    ("anon+sh", "what can't be reclaimed, of the limit"),
    ("lost", "of the time its tasks would work, what goes to waiting and kernel"),
    ("evidence", "seconds for which all held, the unclear ones counted for less"),
];

pub(super) fn render(scene: &Scene<'_>, area: Rect, buffer: &mut Buffer) -> usize {
    let width = WIDTH.min(area.width);
    let room = usize::from(width).saturating_sub(2 + KEY + 1);
    let entry = |(key, does): &(&str, &str)| {
        let parts = wrapped(does, room).into_iter().enumerate();
        let key = (*key).to_owned();
        parts
            .map(move |(part, text)| Line::raw(format!("{:<KEY$} {text}", if part == 0 { &key } else { "" })))
            .collect::<Vec<_>>()
    };
    let replay = matches!(scene.link, Link::Replay(_));
    let mut lines: Vec<Line<'_>> = KEYS.iter().filter(|(key, _)| !replay || *key != "space").flat_map(entry).collect();
    if replay {
        lines.extend(REPLAY.iter().flat_map(entry));
    }
    lines.push(Line::raw(""));
    lines.extend(MEANINGS.iter().flat_map(entry));
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let outer = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(outer, buffer);
    let block = Block::bordered().title(Line::styled(" memguard top ", BOLD));
    let inner = block.inner(outer);
    block.render(outer, buffer);
    scrolled(lines, scene.ui.scroll, inner, buffer)
}
