//! One cgroup: its signals against the thresholds, term by term, and whatever else is known of it.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Style},
    text::{Line, Span},
};

use super::{
    BOLD, Look, Scene, scrolled,
    text::{bytes, cut, cut_middle, duration, left, number, percent, right, sparkline, width},
};
use crate::{
    engine::{Signals, State},
    status::{HISTORY, MemoryStatus, Snapshot, TermStatus, UnitStatus, shown_term, why},
};

/// Columns of a bar.
const BAR: usize = 16;
/// From how wide a terminal on the terms have all their columns, and the engine's own sentences behind them.
const ALL_COLUMNS: u16 = 76;
const SENTENCES: u16 = 130;

pub(super) fn render(scene: &Scene<'_>, snapshot: &Snapshot, id: u64, area: Rect, buffer: &mut Buffer) -> usize {
    let lines = match snapshot.units.iter().find(|unit| unit.name.id == id) {
        Some(unit) => lines(scene.look, unit, snapshot, area.width),
        None => vec![
            Line::raw(""),
            Line::raw(format!("cgroup {id} is gone, or at rest again.")),
            Line::raw("Esc goes back; i has the incidents."),
        ],
    };
    scrolled(lines, scene.ui.scroll, area, buffer)
}

fn lines<'a>(look: Look, unit: &UnitStatus, snapshot: &Snapshot, columns: u16) -> Vec<Line<'a>> {
    let wide = usize::from(columns);
    let mut lines = Vec::new();
    let state = match unit.state {
        State::Livelock => "LIVELOCK".to_owned(),
        state => state.to_string(),
    };
    let for_s = format!(" for {}", duration(unit.state_for_s));
    let room = wide.saturating_sub(width(&state) + width(&for_s) + 2);
    lines.push(Line::from(vec![
        Span::styled(left(&cut_middle(&unit.shown_name(), room), room), BOLD),
        Span::raw("  "),
        Span::styled(state, look.state(unit.state)),
        Span::raw(for_s),
    ]));
    for (key, value) in names(unit) {
        lines.push(Line::raw(format!("{key:<9} {}", cut_middle(&value, wide.saturating_sub(10)))));
    }
    lines.push(Line::raw(cut(&format!("memory    {}", memory(&unit.memory)), wide)));
    let each = HISTORY.div_ceil(wide.saturating_sub(36).max(1));
    let highest = unit.refaults.iter().copied().fold(0.0, f64::max);
    lines.push(Line::raw(cut(
        &format!(
            "refaults  {} {}/s, highest {}/s",
            sparkline(&unit.refaults, HISTORY.div_ceil(each), HISTORY),
            number(unit.refaults_per_s()),
            number(highest)
        ),
        wide,
    )));
    lines.push(evidence(look, unit, snapshot, wide));
    lines.push(Line::raw(""));
    terms(&mut lines, look, unit, columns);
    lines.push(Line::raw(""));
    match &unit.signals {
        Some(signals) => lines.extend(signals_in_words(signals).into_iter().map(|line| Line::raw(cut(&line, wide)))),
        None => lines.push(Line::raw(cut("no signals yet: a whole window is needed", wide))),
    }
    if unit.memory.oom_kills > 0 {
        lines.push(Line::raw(format!("the OOM killer ended {} of its processes so far", unit.memory.oom_kills)));
    }
    if !unit.files.is_empty() {
        lines.push(Line::raw(""));
        lines.push(Line::styled("FILES THAT COME BACK MOST", BOLD));
        for file in &unit.files {
            let rate = format!("{:>7}/s ", number(file.faults_per_s));
            lines.push(Line::raw(format!("{rate}{}", cut_middle(&file.path, wide.saturating_sub(10)))));
        }
    }
    lines
}

fn names(unit: &UnitStatus) -> Vec<(&'static str, String)> {
    let mut names = vec![("cgroup", unit.name.cgroup.clone())];
    if let Some(place) = unit.name.place.as_ref().filter(|_| unit.workload.is_none()) {
        names.push(("pod uid", crate::telemetry::escaped(&place.pod_uid)));
    }
    if let Some(workload) = &unit.workload
        && let (Some(repository), Some(run)) = (&workload.repository, workload.run_id)
    {
        names.push(("run", format!("{repository} {run}")));
    }
    names
}

fn memory(memory: &MemoryStatus) -> String {
    let limit = memory
        .limit
        .map_or_else(|| " without a limit".to_owned(), |limit| format!(" of {} ({})", bytes(limit), memory.limited_by));
    format!("{}{limit}: anon+shmem {}, files {}", bytes(memory.current), bytes(memory.anon_shmem), bytes(memory.file))
}

/// How much there is, and how fast it grows.
fn evidence<'a>(look: Look, unit: &UnitStatus, snapshot: &Snapshot, wide: usize) -> Line<'a> {
    let enough = snapshot.engine.hold_s;
    let (Some(held), Some(since)) = (unit.held_s, unit.suspect_for_s) else {
        let words = format!("evidence  none: {}", why(unit, &snapshot.engine));
        return Line::raw(cut(&words, wide));
    };
    let all_hold = unit.terms.iter().all(|term| term.met);
    let confidence = unit.terms.iter().map(|term| term.confidence).fold(1.0, f64::min);
    let trend = if all_hold { format!("+{confidence:.1} s a second") } else { "shrinks".to_owned() };
    let words = if held < enough {
        format!(" {held:.1} of {enough:.0} s, {trend}, suspect for {}", duration(since))
    } else {
        format!(" {held:.1} s, and {enough:.0} make a livelock; suspect for {}", duration(since))
    };
    Line::from(vec![
        Span::raw("evidence  "),
        Span::styled(bar(held, None, enough), look.paint(Color::Yellow)),
        Span::raw(cut(&words, wide.saturating_sub(10 + BAR))),
    ])
}

/// A value on its way to `full`, and where the threshold is.
fn bar(value: f64, tick: Option<f64>, full: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the width")]
    let at = |value: f64| {
        let share = if full > 0.0 { (value / full).clamp(0.0, 1.0) } else { 1.0 };
        if share.is_nan() { 0 } else { (share * BAR as f64).round() as usize }
    };
    let (filled, tick) = (at(value), tick.map(|tick| at(tick).min(BAR - 1)));
    (0..BAR)
        .map(|place| match place {
            place if Some(place) == tick => '│',
            place if place < filled => '█',
            _ => '·',
        })
        .collect()
}

fn terms(lines: &mut Vec<Line<'_>>, look: Look, unit: &UnitStatus, columns: u16) {
    if unit.terms.is_empty() {
        return;
    }
    let all = columns >= ALL_COLUMNS;
    let wide = usize::from(columns);
    let label = if all { 22 } else { wide.saturating_sub(20).clamp(8, 22) };
    let head = if all {
        format!("{} {:>8} {:>9} {:>9}  {}", left("TERM", label), "VALUE", "FROM", "NO DOUBT", left("", BAR))
    } else {
        format!("{} {:>8} ", left("TERM", label), "VALUE")
    };
    lines.push(Line::styled(head, BOLD));
    for term in &unit.terms {
        let shown = shown_term(term);
        let (word, style) = holds(term, look);
        let mut line = Line::from(vec![Span::raw(format!("{} {}", left(&shown.label, label), right(&shown.value, 8)))]);
        if all {
            line.push_span(Span::raw(format!(" {} {}  ", right(&shown.from, 9), right(&shown.sure, 9))));
            line.push_span(Span::styled(term_bar(term), style));
        }
        line.push_span(Span::raw(" "));
        line.push_span(Span::styled(word, style));
        if columns >= SENTENCES {
            let used = line.width() + 10 - width(word);
            line.push_span(Span::raw(" ".repeat(10_usize.saturating_sub(width(word)))));
            line.push_span(Span::raw(cut(&term.why, wide.saturating_sub(used))));
        }
        lines.push(line);
    }
    if columns < SENTENCES {
        let failing = unit.terms.iter().find(|term| !term.met);
        if let Some(term) = failing {
            lines.push(Line::raw(cut(&format!("first that fails: {}", term.why), wide)));
        }
    }
}

/// Terms that are met or not have no way to go, but for memory at its limit.
fn term_bar(term: &TermStatus) -> String {
    match (term.name.as_str(), term.value) {
        ("limit_hit" | "no_oom" | "hung_below", _) | (_, None) => " ".repeat(BAR),
        (_, Some(value)) => bar(value, (term.sure > term.from).then_some(term.from), term.sure),
    }
}

fn holds(term: &TermStatus, look: Look) -> (&'static str, Style) {
    match (term.met, term.value) {
        (true, _) if term.confidence >= 1.0 => ("no doubt", look.paint(Color::Red)),
        (true, _) => ("holds", look.paint(Color::Yellow)),
        (false, None) => ("unknown", look.paint(Color::Green)),
        (false, Some(_)) => ("FAILS", look.paint(Color::Green)),
    }
}

/// What the terms are made of.
fn signals_in_words(signals: &Signals) -> Vec<String> {
    let share = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), percent);
    let rate = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    let cpus = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    vec![
        format!(
            "reclaim   {}/s cycles ({} freed nothing), {} of the time, {} pages/s freed",
            rate(signals.cycles_per_s),
            signals.empty_cycles.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            share(signals.reclaim_wall),
            number(signals.steals_per_s)
        ),
        format!(
            "faults    {}/s major, {}/s on text, {}/s on text that was there a moment ago",
            number(signals.major_faults_per_s),
            rate(signals.text_faults_per_s),
            rate(signals.text_returns_per_s)
        ),
        format!(
            "CPUs      {} compute, {} in the kernel; tasks wait {} of the time, all are denied a CPU {}",
            cpus(signals.user_cpus),
            cpus(signals.system_cpus),
            share(signals.waiting),
            share(signals.denied)
        ),
        format!(
            "pressure  memory some {}, full {}; io some {}   (over {:.0} s)",
            share(signals.memory_some),
            share(signals.memory_full),
            share(signals.io_some),
            signals.window_s
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_it_says_and_always_as_wide() {
        assert_eq!(bar(0.0, Some(0.5), 1.0), "········│·······");
        assert_eq!(bar(1.0, Some(0.25), 1.0), "████│███████████");
        assert_eq!(bar(2.0, None, 1.0), "█".repeat(BAR));
        for value in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300] {
            for full in [f64::NAN, 0.0, -1.0, 1.0] {
                assert_eq!(bar(value, Some(value), full).chars().count(), BAR);
            }
        }
    }
}
