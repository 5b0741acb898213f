//! A snapshot and a state become a screen. Pure: the same two give the same cells, whatever their size.

mod detail;
mod help;
mod incidents;
mod table;
mod text;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, Widget as _, Wrap},
};

use self::text::{cut, cut_middle, to_ascii, width};
use super::{
    source::{Link, Transport},
    state::{Screen, Ui},
};
use crate::{
    engine::State,
    status::{PodsStatus, Snapshot, UnitStatus, why},
};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// 16 colours. Whatever a colour says, a word says too.
    pub color: bool,
    pub ascii: bool,
}

impl Look {
    const fn paint(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    fn state(self, state: State) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        match state {
            State::Calm => Style::new(),
            State::Pressed => self.paint(Color::Cyan),
            State::Suspect => self.paint(Color::Yellow).patch(bold),
            State::Livelock if self.color => Style::new().fg(Color::White).bg(Color::Red).patch(bold),
            State::Livelock => bold.add_modifier(Modifier::REVERSED),
        }
    }

    fn warning(self) -> Style {
        self.paint(Color::Yellow).add_modifier(Modifier::BOLD)
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Everything there is to draw.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub ui: &'a Ui,
    /// `None` as long as nothing has arrived.
    pub snapshot: Option<&'a Snapshot>,
    pub link: &'a Link,
    pub look: Look,
}

/// Draws it. Returns how many lines the text on the screen can be scrolled at the most.
pub fn render(scene: &Scene<'_>, area: Rect, buffer: &mut Buffer) -> usize {
    let area = area.intersection(buffer.area);
    if area.is_empty() {
        return 0;
    }
    let footer = Rect { y: area.bottom() - 1, height: 1, ..area };
    let above = Rect { height: area.height - 1, ..area };
    let mut most = 0;
    match scene.snapshot {
        None => nothing_yet(scene, above, buffer),
        Some(snapshot) => {
            let lines = header(scene, snapshot, area.width);
            // A terminal of a few lines has to show some rows too.
            let height = match above.height {
                0..6 => 0,
                6..10 => 1,
                10..18 => 2,
                _ => 3,
            };
            for (line, y) in lines.into_iter().take(height).zip(above.y..) {
                line.render(Rect { y, height: 1, ..above }, buffer);
            }
            let used = u16::try_from(height).unwrap_or(0);
            let body = Rect { y: above.y + used, height: above.height - used, ..above };
            most = match scene.ui.screen {
                Screen::Table => {
                    table::render(scene, snapshot, body, buffer);
                    0
                }
                Screen::Unit(id) => detail::render(scene, snapshot, id, body, buffer),
                Screen::Incidents => incidents::render(scene, snapshot, body, buffer),
            };
        }
    }
    keys(scene, footer, buffer);
    if scene.ui.help {
        most = help::render(scene, above, buffer);
    }
    if scene.look.ascii {
        to_ascii(buffer, area);
    }
    most
}

/// Lines scrolled by the person, as far as there is something.
fn scrolled(lines: Vec<Line<'_>>, scroll: usize, area: Rect, buffer: &mut Buffer) -> usize {
    let most = lines.len().saturating_sub(usize::from(area.height));
    for (line, y) in lines.into_iter().skip(scroll.min(most)).zip(area.y..area.bottom()) {
        line.render(Rect { y, height: 1, ..area }, buffer);
    }
    if scroll < most {
        let mark = Line::styled(" more below ", SELECTED);
        let columns = u16::try_from(mark.width()).unwrap_or(0).min(area.width);
        mark.render(
            Rect { x: area.right() - columns, y: area.bottom().saturating_sub(1), width: columns, height: 1 },
            buffer,
        );
    }
    most
}

/// Text at both ends of a line; the right one gives way, so nothing that warns stands there.
fn both_ends<'a>(left: Vec<Span<'a>>, right: Vec<Span<'a>>, columns: u16) -> Line<'a> {
    let (left, right) = (Line::from(left), Line::from(right));
    let room = usize::from(columns).saturating_sub(left.width() + right.width());
    if room < 2 {
        return left;
    }
    let mut line = left;
    line.push_span(Span::raw(" ".repeat(room)));
    line.spans.extend(right.spans);
    line
}

fn counted(snapshot: &Snapshot, state: State) -> usize {
    snapshot.units.iter().filter(|unit| unit.state == state).count()
}

/// Who it is and in which mode; what it sees; what it costs.
fn header<'a>(scene: &Scene<'a>, snapshot: &'a Snapshot, columns: u16) -> Vec<Line<'a>> {
    let look = scene.look;
    let mut first = Vec::new();
    if let Link::Waiting(_) = scene.link {
        first.push(Span::styled("NO CONNECTION, this is old  ", look.warning()));
    } else if scene.ui.frozen.is_some() {
        first.push(Span::styled("FROZEN  ", look.warning()));
    }
    first.push(Span::styled(format!("memguard {}", snapshot.version), BOLD));
    let right = match scene.link {
        Link::Replay(transport) => {
            first.push(Span::raw("  replay of "));
            first.push(Span::raw(cut_middle(&transport.file, usize::from(columns).saturating_sub(55).max(12))));
            position(transport, look)
        }
        Link::Live | Link::Waiting(_) => {
            first.push(Span::raw("  "));
            first.push(Span::styled(snapshot.mode.to_string(), BOLD));
            let style = if snapshot.signals_from == "full" { Style::new() } else { look.warning() };
            first.push(Span::styled(format!("  signals {}", snapshot.signals_from), style));
            vec![Span::raw(text::clock(snapshot.unix_ms / 1000))]
        }
    };
    let mut second = vec![Span::raw(format!("under reclaim {}", snapshot.units.len()))];
    for (state, separator) in [(State::Livelock, ": "), (State::Suspect, ", "), (State::Pressed, ", ")] {
        let count = counted(snapshot, state);
        second.push(Span::raw(separator));
        let style = if count > 0 { look.state(state) } else { Style::new() };
        second.push(Span::styled(format!("{count} {state}"), style));
    }
    let totals = &snapshot.totals;
    let so_far = format!("so far: verdicts {}, ended {}", totals.verdicts, totals.killed + totals.relieved);
    let third = both_ends(cost(scene, snapshot), order(scene), columns);
    vec![both_ends(first, right, columns), both_ends(second, vec![Span::raw(so_far)], columns), third]
}

fn position<'a>(transport: &Transport, look: Look) -> Vec<Span<'a>> {
    let Transport { position_s, length_s, speed, paused, .. } = transport;
    let at = format!("{} of {}  ", text::minutes(*position_s), text::minutes(*length_s));
    let state = match (transport.ended(), paused) {
        (true, _) => Span::styled("END", look.warning()),
        (false, true) => Span::styled("PAUSED", look.warning()),
        (false, false) => Span::raw(format!("speed {speed}x")),
    };
    vec![Span::raw(at), state]
}

fn cost<'a>(scene: &Scene<'_>, snapshot: &Snapshot) -> Vec<Span<'a>> {
    let look = scene.look;
    if let Link::Replay(transport) = scene.link {
        return vec![Span::raw(transport.about.clone())];
    }
    let cost = &snapshot.cost;
    let cpu = cost.cpu_lately.map_or_else(String::new, |share| format!("{:.1} % CPU, ", share * 100.0));
    let mut spans = vec![Span::raw(format!("costs {cpu}{:.0} MiB", cost.resident_kib as f64 / 1024.0))];
    match cost.events_lost {
        Some(lost) if lost > 0 => spans.push(Span::styled(format!(", {lost} events LOST"), look.warning())),
        _ => {}
    }
    match snapshot.pods {
        Some(PodsStatus { known, stale_since: None }) => spans.push(Span::raw(format!("  pods {known}"))),
        Some(PodsStatus { known, .. }) => {
            spans.push(Span::styled(format!("  pods {known}, STALE"), look.warning()));
        }
        None => {}
    }
    spans
}

fn order<'a>(scene: &Scene<'_>) -> Vec<Span<'a>> {
    let ui = scene.ui;
    let mut words = format!("by {}{}", ui.sort.name(), if ui.reversed { ", reversed" } else { "" });
    if ui.hide_calm {
        words.push_str(", calm ones hidden");
    }
    vec![Span::raw(words)]
}

/// Before the first snapshot: what is waited for, and what to do.
fn nothing_yet(scene: &Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let text = match scene.link {
        Link::Waiting(why) => format!("{why}\n\nTrying again every second. q ends this."),
        Link::Live | Link::Replay(_) => "Connected, waiting for memguard to answer.".to_owned(),
    };
    let inner = Rect {
        x: area.x + 1.min(area.width),
        y: area.y + area.height / 4,
        width: area.width.saturating_sub(2),
        height: area.height - area.height / 4,
    };
    Paragraph::new(text).wrap(Wrap { trim: true }).render(inner, buffer);
}

/// The last line: a filter that is being typed, or what the keys do, as many as there is room for.
fn keys(scene: &Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let ui = scene.ui;
    if ui.typing {
        let line = format!("filter: {}_   Enter keeps it, Esc takes it back", text::cut_start(&ui.filter, 30));
        Line::styled(line, BOLD).render(area, buffer);
        return;
    }
    let replay = matches!(scene.link, Link::Replay(_));
    let mut known: Vec<(&str, &str)> = match (ui.help, ui.screen) {
        (true, _) => vec![("?", "close"), ("up/down", "scroll"), ("q", "quit")],
        (false, Screen::Table) => vec![("q", "quit"), ("?", "help"), ("Enter", "open"), ("s", "sort"), ("/", "filter")],
        (false, Screen::Unit(_) | Screen::Incidents) => {
            vec![("q", "quit"), ("?", "help"), ("Esc", "back"), ("up/down", "scroll")]
        }
    };
    if !ui.help {
        known.push(("space", if replay { "pause" } else { "freeze" }));
        if replay {
            known.extend([("+/-", "speed"), ("left/right", "5 s"), ("n", "next change")]);
        }
        known.extend([("i", "incidents"), ("c", "hide calm")]);
    }
    let mut line = Line::default();
    if !ui.filter.is_empty() && ui.screen == Screen::Table {
        line.push_span(Span::styled(format!("only \"{}\"", cut(&ui.filter, 20)), scene.look.warning()));
    }
    for (key, does) in known {
        let gap = if line.spans.is_empty() { "" } else { "  " };
        if line.width() + gap.len() + width(key) + 1 + width(does) > usize::from(area.width) {
            break;
        }
        line.push_span(Span::raw(gap));
        line.push_span(Span::styled(key.to_owned(), BOLD));
        line.push_span(Span::raw(format!(" {does}")));
    }
    line.render(area, buffer);
}

/// All about the selected row that the table has no room for.
fn about(unit: &UnitStatus, snapshot: &Snapshot, columns: u16) -> [String; 2] {
    let columns = usize::from(columns);
    let failing: Vec<&str> = unit.terms.iter().filter(|term| !term.met).map(|term| term.why.as_str()).collect();
    let first = match &unit.workload {
        Some(workload) => format!("{workload}  ({})", unit.name.short()),
        None => unit.name.cgroup.clone(),
    };
    let second = if failing.is_empty() {
        why(unit, &snapshot.engine)
    } else {
        format!("{} of {} terms fail: {}", failing.len(), unit.terms.len(), failing.join("; "))
    };
    [cut_middle(&first, columns), cut(&second, columns)]
}
