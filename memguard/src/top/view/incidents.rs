//! What memguard decided lately, and what became of it.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{
    BOLD, SELECTED, Scene,
    text::{cut, cut_middle, day_and_time},
};
use crate::status::{IncidentStatus, Snapshot};

/// Columns of a time with its day.
const TIME: usize = 16;

pub(super) fn render(scene: &Scene<'_>, snapshot: &Snapshot, area: Rect, buffer: &mut Buffer) -> usize {
    let wide = usize::from(area.width);
    let mut lines = vec![Line::styled("INCIDENTS, the latest first", BOLD)];
    if snapshot.incidents.is_empty() {
        lines.push(Line::raw("none so far"));
    }
    let selected = scene.ui.incident.min(snapshot.incidents.len().saturating_sub(1));
    let mut shown = (0, 0);
    for (index, incident) in snapshot.incidents.iter().enumerate() {
        let begins = lines.len();
        let open = if incident.open > 0 { format!("[{} open] ", incident.open) } else { String::new() };
        let name = incident.workload.as_ref().unwrap_or(&incident.cgroup);
        let room = wide.saturating_sub(TIME + 1);
        let name = cut_middle(name, (room / 2).max(10));
        let rest = cut(&format!("{name}: {open}{}", incident.outcome), room);
        let style = if index == selected { SELECTED } else { Style::new() };
        lines.push(Line::from(vec![
            Span::styled(format!("{} ", day_and_time(incident.decided_at)), style),
            Span::styled(rest, style),
        ]));
        if index == selected {
            lines.extend(more(incident, wide).into_iter().map(Line::raw));
            shown = (begins, lines.len());
        }
    }
    // The selected one stays on the screen, with as much of its evidence as there is room for.
    let height = usize::from(area.height);
    let first = shown.1.saturating_sub(height).min(shown.0);
    for (line, y) in lines.into_iter().skip(first).zip(area.y..area.bottom()) {
        ratatui::widgets::Widget::render(line, Rect { y, height: 1, ..area }, buffer);
    }
    0
}

fn more(incident: &IncidentStatus, wide: usize) -> Vec<String> {
    let mut more = vec![format!("  {} in {} mode", incident.id, incident.mode), format!("  {}", incident.cgroup)];
    more.push(format!("  {}", incident.outcome));
    more.extend(incident.follow_ups.iter().map(|follow_up| format!("  then {follow_up}")));
    more.extend(incident.evidence.split("; ").map(|term| format!("    {term}")));
    more.into_iter().map(|line| cut(&line, wide)).collect()
}
