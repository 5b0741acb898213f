//! The table of cgroups. Columns come and go with the width: state, name and refault rate are there always.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Paragraph, Widget as _, Wrap},
};

use super::{
    BOLD, SELECTED, Scene, about,
    text::{bytes, cut_middle, duration, left, number, percent, right, sparkline, width},
};
use crate::{
    engine::State,
    status::{HISTORY, Snapshot, UnitStatus, why},
};

/// Columns that the reason needs for most of its sentences.
const REASON: usize = 33;
const LEAST_NAME: usize = 12;

#[derive(Clone, Copy, PartialEq)]
enum Column {
    State,
    Name,
    Since,
    Refaults,
    Trend,
    Used,
    Limit,
    Pinned,
    Lost,
    Reason,
}

/// Columns in the order in which they stand, each with its width and from how wide a terminal on it is shown. Name and
/// reason share what is left.
const COLUMNS: [(Column, usize, u16); 10] = [
    (Column::State, 8, 0),
    (Column::Name, 0, 0),
    (Column::Since, 5, 96),
    (Column::Refaults, 8, 0),
    (Column::Trend, 8, 72),
    (Column::Used, 5, 112),
    (Column::Limit, 6, 122),
    (Column::Pinned, 7, 136),
    (Column::Lost, 5, 146),
    (Column::Reason, 0, 60),
];

impl Column {
    const fn head(self) -> &'static str {
        match self {
            Self::State => "STATE",
            Self::Name => "CGROUP",
            Self::Since => "FOR",
            Self::Refaults => "REFLTS/S",
            Self::Trend => "1 MIN",
            Self::Used => "USED",
            Self::Limit => "LIMIT",
            Self::Pinned => "ANON+SH",
            Self::Lost => "LOST",
            Self::Reason => "WHY NOT (YET) A LIVELOCK",
        }
    }

    const fn to_the_right(self) -> bool {
        matches!(self, Self::Since | Self::Refaults | Self::Used | Self::Limit | Self::Pinned | Self::Lost)
    }

    fn cell(self, unit: &UnitStatus, snapshot: &Snapshot, columns: usize) -> String {
        let memory = &unit.memory;
        let share = |bytes| memory.share(bytes).map_or_else(|| "-".to_owned(), percent);
        match self {
            Self::State => match unit.state {
                State::Livelock => "LIVELOCK".to_owned(),
                state => state.to_string(),
            },
            Self::Name => name(unit, columns),
            Self::Since => duration(unit.state_for_s),
            Self::Refaults => number(unit.refaults_per_s()),
            Self::Trend => sparkline(&unit.refaults, columns, HISTORY),
            Self::Used => share(memory.current),
            Self::Limit => memory.limit.map_or_else(|| "-".to_owned(), bytes),
            Self::Pinned => share(memory.anon_shmem),
            Self::Lost => {
                unit.signals.as_ref().and_then(|signals| signals.lost).map_or_else(|| "-".to_owned(), percent)
            }
            Self::Reason => why(unit, &snapshot.engine),
        }
    }
}

/// As much of it as fits: without the namespace first, and then without its middle.
fn name(unit: &UnitStatus, columns: usize) -> String {
    let full = unit.shown_name();
    let without_namespace = unit.workload.as_ref().map_or(full.as_str(), |workload| {
        full.strip_prefix(&workload.namespace).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&full)
    });
    if width(&full) <= columns { full } else { cut_middle(without_namespace, columns) }
}

/// Which columns there are, and how wide.
fn layout(columns: u16, longest_name: usize) -> Vec<(Column, usize)> {
    let shown: Vec<(Column, usize)> =
        COLUMNS.iter().filter(|(_, _, from)| columns >= *from).map(|(column, width, _)| (*column, *width)).collect();
    let fixed: usize = shown.iter().map(|(_, width)| width).sum::<usize>() + shown.len() - 1;
    let free = usize::from(columns).saturating_sub(fixed);
    let reason = shown.iter().any(|(column, _)| *column == Column::Reason);
    let name = if reason { free.saturating_sub(REASON).clamp(LEAST_NAME, longest_name.max(LEAST_NAME)) } else { free };
    shown
        .into_iter()
        .map(|(column, width)| match column {
            Column::Name => (column, name.min(free)),
            Column::Reason => (column, free.saturating_sub(name)),
            _ => (column, width),
        })
        .collect()
}

pub(super) fn render(scene: &Scene<'_>, snapshot: &Snapshot, area: Rect, buffer: &mut Buffer) {
    let ui = scene.ui;
    let rows = ui.rows(snapshot);
    if rows.is_empty() {
        empty(snapshot, area, buffer);
        return;
    }
    let longest = rows.iter().map(|unit| width(&unit.shown_name())).max().unwrap_or(0);
    let columns = layout(area.width, longest.max(width(Column::Name.head())));
    let mut y = area.y;
    if area.height >= 3 {
        let heads = columns.iter().map(|(column, width)| place(column.head(), *column, *width));
        let line = Line::styled(heads.collect::<Vec<_>>().join(" "), BOLD);
        line.render(Rect { y, height: 1, ..area }, buffer);
        y += 1;
    }
    // Two lines about the selected one, behind an empty one.
    let below = if area.height >= 8 { 3 } else { 0 };
    let visible = usize::from(area.bottom() - y - below);
    let selected = ui.position(&rows).unwrap_or(0);
    let first = selected.saturating_sub(visible / 2).min(rows.len().saturating_sub(visible));
    for (index, unit) in rows.iter().enumerate().skip(first).take(visible) {
        let mut line = Line::default();
        for (number, (column, width)) in columns.iter().enumerate() {
            if number > 0 {
                line.push_span(Span::raw(" "));
            }
            let text = place(&column.cell(unit, snapshot, *width), *column, *width);
            let style = if *column == Column::State { scene.look.state(unit.state) } else { Style::new() };
            line.push_span(Span::styled(text, style));
        }
        let row = Rect { y, height: 1, ..area };
        line.render(row, buffer);
        if index == selected {
            buffer.set_style(row, SELECTED);
        }
        y += 1;
    }
    if below > 0 {
        let left_out = rows.len().saturating_sub(first + visible) as u64 + snapshot.units_left_out;
        if left_out > 0 {
            let line = Rect { y: area.bottom() - 3, height: 1, ..area };
            Line::raw(format!("and {left_out} more")).render(line, buffer);
        }
        for (text, y) in about(rows[selected], snapshot, area.width).into_iter().zip(area.bottom() - 2..) {
            Line::raw(text).render(Rect { y, height: 1, ..area }, buffer);
        }
    }
}

fn place(text: &str, column: Column, columns: usize) -> String {
    if column.to_the_right() { right(text, columns) } else { left(text, columns) }
}

/// No rows, and why.
fn empty(snapshot: &Snapshot, area: Rect, buffer: &mut Buffer) {
    let text = if snapshot.units.is_empty() {
        "No cgroup is under reclaim. One shows up here as soon as it is at its memory limit, and stays until it has been \
         at rest for half a minute."
    } else {
        "Nothing matches: Esc takes the filter away, c shows calm cgroups too."
    };
    let inner = Rect { x: area.x + 1.min(area.width), width: area.width.saturating_sub(2), ..area };
    let inner = Rect { y: inner.y + inner.height / 4, height: inner.height - inner.height / 4, ..inner };
    Paragraph::new(text).wrap(Wrap { trim: true }).render(inner, buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fill_the_width_and_the_reason_has_room_from_80_on() {
        for columns in 0..300_u16 {
            let layout = layout(columns, 50);
            let used: usize = layout.iter().map(|(_, width)| width).sum::<usize>() + layout.len() - 1;
            assert!(columns < 30 || used == usize::from(columns), "{used} of {columns}");
            let of = |wanted: Column| layout.iter().find(|(column, _)| *column == wanted).map(|(_, width)| *width);
            assert!(columns < 80 || of(Column::Reason) >= Some(REASON), "{columns}");
            assert!(columns < 40 || of(Column::Name) >= Some(LEAST_NAME), "{columns}");
        }
    }
}
