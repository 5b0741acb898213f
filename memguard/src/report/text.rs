//! A report for a terminal of 80 columns.

use std::fmt::Write as _;

use super::{Point, Record, story};
use crate::{engine::State, journal::Incident, telemetry::escaped};

const WIDTH: usize = 80;
/// Columns of a line of the timeline.
const COURSE: usize = 44;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// All of it as text.
#[must_use]
pub fn text(record: &Record, incident: Option<&Incident>) -> String {
    let mut out = String::new();
    let status = story::status(record, incident).word.to_uppercase();
    let title = format!("memguard report {}", escaped(&record.incident));
    let _ = writeln!(out, "{title}{status:>width$}", width = WIDTH.saturating_sub(title.chars().count()));
    let _ = writeln!(out, "{} on {}\n", story::time(record.decided_at), escaped(&record.machine.node));
    wrap(&mut out, "", &story::headline(record, incident));
    for sentence in story::happened(incident) {
        wrap(&mut out, "", &sentence);
    }
    heading(&mut out, "WHAT TO DO");
    for advice in story::advice(record, incident) {
        wrap(&mut out, "- ", &advice);
    }
    seen(&mut out, record);
    course(&mut out, record);
    tasks(&mut out, record);
    if let Some(incident) = incident.filter(|incident| !incident.follow_ups.is_empty()) {
        heading(&mut out, "WHAT ELSE WAS DONE");
        for follow_up in &incident.follow_ups {
            wrap(&mut out, "- ", &escaped(&follow_up.outcome()));
        }
    }
    heading(&mut out, "WHERE");
    for (name, value) in story::facts(record) {
        wrap(&mut out, &format!("{name:<11} "), &value);
    }
    if !record.gaps.is_empty() {
        heading(&mut out, "WHAT IS MISSING");
        for gap in &record.gaps {
            wrap(&mut out, "- ", &escaped(gap));
        }
    }
    out
}

fn heading(out: &mut String, name: &str) {
    let _ = writeln!(out, "\n{name}");
}

/// Lines of at most [`WIDTH`] columns, the first one after a prefix, the others below its end. A word that is longer than a
/// line is cut.
fn wrap(out: &mut String, prefix: &str, text: &str) {
    let indent = prefix.chars().count();
    let room = WIDTH.saturating_sub(indent).max(20);
    let mut line = String::new();
    let mut first = true;
    let mut flush = |line: &mut String| {
        let _ = writeln!(out, "{}{}", if first { prefix.to_owned() } else { " ".repeat(indent) }, line.trim_end());
        first = false;
        line.clear();
    };
    for word in text.split_whitespace() {
        let mut letters: Vec<char> = word.chars().collect();
        if !line.is_empty() && line.chars().count() + letters.len() > room {
            flush(&mut line);
        }
        while letters.len() > room {
            line.extend(letters.drain(..room));
            flush(&mut line);
        }
        line.extend(letters);
        line.push(' ');
    }
    if !line.is_empty() {
        flush(&mut line);
    }
}

fn seen(out: &mut String, record: &Record) {
    const BAR: usize = 18;
    heading(out, "WHAT WAS SEEN");
    let _ = writeln!(out, "{:<31}{:>9}{:>9}{:>9}", "", "value", "at least", "no doubt");
    for bar in story::bars(record) {
        let mark = |mark: Option<&(String, f64)>| mark.map_or_else(String::new, |(text, _)| text.clone());
        let drawn = bar.part.map_or_else(String::new, |part| {
            let at = |part: f64| column(part, BAR);
            let (full, from) = (at(part) + usize::from(part >= 0.99), bar.from.as_ref().map(|(_, part)| at(*part)));
            let cell = |place: usize| match (place < full, Some(place) == from) {
                (_, true) => '┃',
                (true, false) => '█',
                (false, false) => '·',
            };
            (0..BAR).map(cell).collect()
        });
        let line = format!(
            "{:<31}{:>9}{:>9}{:>9}  {drawn}",
            bar.label,
            bar.value,
            mark(bar.from.as_ref()),
            mark(bar.sure.as_ref().or(bar.from.as_ref()))
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    wrap(out, "", &story::certainty(record));
}

/// A line of the timeline: its name, how its highest value is told, and the value of a point.
type Course = (&'static str, fn(f32) -> String, fn(&Point) -> Option<f32>);

/// Which of so many columns a part of 1 falls into.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn column(part: f64, columns: usize) -> usize {
    ((part * columns as f64).round() as usize).min(columns.saturating_sub(1))
}

/// One letter for a state.
const fn letter(state: State) -> char {
    match state {
        State::Calm => ' ',
        State::Pressed => '.',
        State::Suspect => 's',
        State::Livelock => 'L',
    }
}

fn course(out: &mut String, record: &Record) {
    let points = &record.timeline;
    let (Some(first), true) = (points.first(), points.len() >= 3) else { return };
    heading(out, &format!("THE LAST {:.0} SECONDS  (. pressed, s suspect, L livelock)", -first.at_s));
    let columns = points.len().min(COURSE);
    let of_column = |place: usize| {
        let (from, to) = (place * points.len() / columns, (place + 1) * points.len() / columns);
        &points[from..to.max(from + 1)]
    };
    let worst = |points: &[Point]| points.iter().map(|point| point.state).max().unwrap_or_default();
    let states: String = (0..columns).map(|place| letter(worst(of_column(place)))).collect();
    let _ = writeln!(out, "{:<16}{}", "state", states.trim_end());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
    let size = |most: f32| story::bytes(most as u64);
    let rate = |most: f32| format!("{most:.0}/s");
    let share = |most: f32| format!("{:.0} %", most * 100.0);
    let lines: [Course; 6] = [
        ("in use", size, |p| Some(p.current as f32)),
        ("anon + shmem", size, |p| Some(p.anon.saturating_add(p.shmem) as f32)),
        ("refaults", rate, |p| Some(p.refaults_per_s)),
        ("text read again", rate, |p| p.text_returns_per_s),
        ("time lost", share, |p| p.lost),
        ("tasks wait", share, |p| p.waiting),
    ];
    for (name, told, value) in lines {
        let means: Vec<Option<f32>> = (0..columns)
            .map(|place| {
                let values: Vec<f32> =
                    of_column(place).iter().filter_map(value).filter(|value| value.is_finite()).collect();
                (!values.is_empty()).then(|| values.iter().sum::<f32>() / values.len() as f32)
            })
            .collect();
        let Some(most) = means.iter().flatten().copied().reduce(f32::max) else { continue };
        let cell = |mean: &Option<f32>| {
            mean.map_or(' ', |mean| {
                LEVELS[column(if most > 0.0 { f64::from(mean / most) * 7.0 / 8.0 } else { 0.0 }, LEVELS.len())]
            })
        };
        let drawn: String = means.iter().map(cell).collect();
        let _ = writeln!(out, "{name:<16}{drawn}  up to {}", told(most));
    }
}

fn tasks(out: &mut String, record: &Record) {
    let Some(look) = &record.look else { return };
    if !look.tasks.is_empty() {
        heading(out, "WHO HELD THE MEMORY");
        let _ = writeln!(out, "{:>8} {:>10} {:>10} {:>10} {:>4} S  name", "PID", "anon", "shmem", "file", "thr");
        for task in look.tasks.iter().take(12) {
            let name: String = escaped(&task.comm).chars().take(28).collect();
            let _ = writeln!(
                out,
                "{:>8} {:>10} {:>10} {:>10} {:>4} {:<1}  {name}",
                task.pid,
                story::bytes(task.anon),
                story::bytes(task.shmem),
                story::bytes(task.file),
                task.threads,
                escaped(&task.state)
            );
        }
        let more = look.processes.saturating_sub(look.tasks.len().min(12));
        if more > 0 {
            let _ = writeln!(out, "         and {more} smaller ones");
        }
    }
    if let Some(files) = look.files.as_ref().filter(|files| !files.is_empty()) {
        heading(out, "TEXT THAT CAME BACK MOST OFTEN");
        for file in files.iter().take(12) {
            let rate = file.per_s.map_or_else(String::new, |rate| format!("{rate:.0}/s"));
            wrap(out, &format!("{:>9} {rate:>8}  ", file.returns), &story::file(file));
        }
    }
    let waits = story::waits(look);
    if !waits.is_empty() {
        heading(
            out,
            &format!("TASKS THAT WAITED ({} in reclaim, {} in uninterruptible sleep)", look.in_reclaim, look.blocked),
        );
        for group in waits.iter().take(12) {
            let long = group.longest_ms.map_or_else(String::new, |ms| format!(", in reclaim for {ms:.1} ms"));
            let place = if group.wchan.is_empty() { String::new() } else { format!(" in {}", escaped(&group.wchan)) };
            wrap(
                out,
                &format!("{:>5} x ", group.count),
                &format!("{} ({}){place}{long}", escaped(&group.comm), escaped(&group.state)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{hostile, record},
        *,
    };

    #[test]
    fn eighty_columns_hold_it_whatever_the_names_are() {
        for record in [record("mg-1764000000-7"), hostile("mg-1764000000-7")] {
            let text = text(&record, None);
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{} columns: {line}", line.chars().count());
            }
            assert!(!text.contains(['\u{1b}', '\0', '\u{202e}']));
        }
    }

    #[test]
    fn a_person_finds_what_they_need() {
        let text = text(&record("mg-1764000000-7"), None);
        for part in [
            "memguard report mg-1764000000-7",
            "2025-11-24 16:00:00 UTC on node-1",
            "WHAT TO DO",
            "Look at python3 (PID 4711) first",
            "Time lost",
            "85 %",
            "no doubt",
            "state           ",
            "4711    400 MiB",
            "/usr/bin/python3.11",
            "libc.so.6 (by its inode number)",
            "device 259:1 inode 133",
            "python3 (D) in folio_wait_bit_common",
            "kernel      6.12.73 x86_64, multi-gen LRU",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_word_longer_than_a_line_is_cut() {
        let mut out = String::new();
        wrap(&mut out, "- ", &format!("a {} b", "x".repeat(200)));
        assert_eq!(out.lines().count(), 4, "{out}");
        assert!(out.lines().all(|line| line.chars().count() <= WIDTH));
    }
}
