//! The plots of a report's page.

use std::fmt::Write as _;

use crate::{
    engine::Ramp,
    report::{Point, Record},
    trace::plot::svg::{Line, Panel, Picture, Shape},
};

/// One picture for each group of signals.
pub(super) fn plots(out: &mut String, record: &Record) -> std::fmt::Result {
    let points = &record.timeline;
    let first = points.first().map_or(0.0, |point| f64::from(point.at_s));
    let line = |name: &'static str, color: usize, value: fn(&Point) -> Option<f64>| Line {
        name,
        color,
        points: points
            .iter()
            .filter_map(|point| Some((f64::from(point.at_s) - first, value(point).filter(|value| value.is_finite())?)))
            .collect(),
    };
    let t = &record.settings.thresholds;
    let panel = |name, unit, scale, most, lines, ramps: &[Ramp]| Panel {
        name,
        unit,
        scale,
        most,
        lines,
        ramps: ramps.to_vec(),
    };
    let panels = [
        panel(
            "Memory",
            " MiB",
            1.0,
            record.memory.limit().map(|(limit, _)| limit as f64 / 1_048_576.0),
            vec![
                line("in use", 0, |p| Some(p.current as f64 / 1_048_576.0)),
                line("anon + shmem", 1, |p| Some(p.anon.saturating_add(p.shmem) as f64 / 1_048_576.0)),
                line("file pages", 2, |p| Some(p.file.saturating_sub(p.shmem) as f64 / 1_048_576.0)),
            ],
            &[],
        ),
        panel(
            "Time",
            "%",
            100.0,
            Some(1.0),
            vec![
                line("lost", 1, |p| p.lost.map(f64::from)),
                line("a task waits", 0, |p| p.waiting.map(f64::from)),
                line("computing, of a CPU", 2, |p| p.user_cpus.map(f64::from)),
            ],
            &[t.lost],
        ),
        panel(
            "Pages that came back (refaults)",
            "/s",
            1.0,
            None,
            vec![line("refaults", 0, |p| Some(f64::from(p.refaults_per_s)))],
            &[],
        ),
        panel(
            "Program text that was read again",
            "/s",
            1.0,
            None,
            vec![line("text", 1, |p| p.text_returns_per_s.map(f64::from))],
            &[],
        ),
        panel(
            "How often the page cache was replaced",
            "/s",
            1.0,
            None,
            vec![line("turnover", 1, |p| Some(f64::from(p.turnover_per_s)))],
            &[],
        ),
        panel(
            "Pressure (PSI)",
            "%",
            100.0,
            Some(1.0),
            vec![
                line("memory some", 0, |p| p.memory_some.map(f64::from)),
                line("memory full", 1, |p| p.memory_full.map(f64::from)),
                line("io some", 2, |p| p.io_some.map(f64::from)),
            ],
            &[],
        ),
    ];
    let states: Vec<_> = points.iter().map(|point| (f64::from(point.at_s) - first, point.state)).collect();
    out.write_str("<div class=\"plots\">\n")?;
    for panel in panels {
        if panel.lines.iter().all(|line| line.points.len() < 2) {
            continue;
        }
        let picture = Picture {
            shape: Shape::card(-first),
            title: in_words(&panel),
            subtitle: String::new(),
            states: states.clone(),
            verdicts: vec![-first],
            others: Vec::new(),
            panels: vec![panel],
        };
        out.push_str(&picture.draw());
    }
    out.write_str("</div>\n<p class=\"small\">The band above each plot is the state: pressed (at its limit), suspect (all conditions hold), livelock.</p>\n")
}

/// What a plot shows, for who does not see it.
fn in_words(panel: &Panel) -> String {
    let mut words = format!("{}:", panel.name);
    for line in &panel.lines {
        let values = || line.points.iter().map(|(_, value)| value * panel.scale);
        if let Some(last) = values().next_back() {
            let (least, most) =
                values().fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
            let _ = write!(
                words,
                " {} from {least:.0} to {most:.0}{unit}, {last:.0}{unit} at the verdict;",
                line.name,
                unit = panel.unit
            );
        }
    }
    words.trim_end_matches(';').to_owned()
}
