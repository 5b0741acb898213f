//! A report as one HTML page that needs nothing else: for a browser on a phone or a desk, light or dark, or on paper.
//!
//! No script and no network: its policy forbids both. Everything that others named is escaped twice, by the project's rule
//! for what people read and for HTML.

use std::fmt::Write as _;

use super::{Look, Point, Record, story};
use crate::{
    engine::Ramp,
    journal::Incident,
    telemetry,
    trace::plot::svg::{self, Line, Panel, Picture, Shape},
};

const CSS: &str = include_str!("page.css");
/// Rows of a table.
const MOST_ROWS: usize = 16;

/// For text and attributes in double quotes.
fn h(text: &str) -> String {
    svg::escaped(&telemetry::escaped(text))
}

/// All of it as a page.
#[must_use]
pub fn html(record: &Record, incident: Option<&Incident>) -> String {
    let mut out = String::with_capacity(64 * 1024);
    // Writing to a string does not fail.
    let _ = page(&mut out, record, incident);
    out
}

fn page(out: &mut String, record: &Record, incident: Option<&Incident>) -> std::fmt::Result {
    let status = story::status(record, incident);
    let headline = story::headline(record, incident);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{id}: {title}</title>\n<style>\n{}\n{CSS}</style>\n</head>\n<body>\n<main>\n<header>\n\
         <p class=\"kicker\">memguard incident report</p>\n<h1>{title}</h1>\n\
         <p class=\"meta\"><span class=\"chip {}\">{}</span><span>{}</span><span>node {}</span><span>{id}</span></p>\n\
         </header>\n",
        svg::STYLE,
        status.tone,
        status.word,
        story::time(record.decided_at),
        h(&record.machine.node),
        id = h(&record.incident),
        title = h(&headline),
    )?;
    out.push_str("<div class=\"two\">\n");
    section(out, "What happened", |out| {
        story::happened(incident).iter().try_for_each(|text| writeln!(out, "<p>{}</p>", h(text)))
    })?;
    section(out, "What to do", |out| list(out, &story::advice(record, incident)))?;
    out.push_str("</div>\n");
    section(out, "How sure it was", |out| terms(out, record))?;
    if record.timeline.len() >= 3 {
        let seconds = -record.timeline.first().map_or(0.0, |point| point.at_s);
        section(out, &format!("The last {seconds:.0} seconds"), |out| plots(out, record))?;
    }
    if let Some(look) = &record.look {
        tasks(out, record, look)?;
        files(out, look)?;
        waits(out, look)?;
    }
    if let Some(incident) = incident.filter(|incident| !incident.follow_ups.is_empty()) {
        let done: Vec<_> = incident.follow_ups.iter().map(crate::remote::FollowUp::outcome).collect();
        section(out, "What else was done", |out| list(out, &done))?;
    }
    section(out, "Where", |out| place(out, record))?;
    if !record.gaps.is_empty() {
        section(out, "What is missing here", |out| list(out, &record.gaps))?;
    }
    write!(
        out,
        "<footer>Made by <code>memguard report {} --output html</code> from what node {} has kept. Nothing was loaded from \
         elsewhere.</footer>\n</main>\n</body>\n</html>\n",
        h(&record.incident),
        h(&record.machine.node)
    )
}

fn section(out: &mut String, title: &str, content: impl FnOnce(&mut String) -> std::fmt::Result) -> std::fmt::Result {
    write!(out, "<section>\n<h2>{}</h2>\n", h(title))?;
    content(out)?;
    out.write_str("</section>\n")
}

fn list(out: &mut String, items: &[String]) -> std::fmt::Result {
    out.write_str("<ul>\n")?;
    items.iter().try_for_each(|item| writeln!(out, "<li>{}</li>", h(item)))?;
    out.write_str("</ul>\n")
}

fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

fn terms(out: &mut String, record: &Record) -> std::fmt::Result {
    writeln!(out, "<p>{}</p>\n<ul class=\"terms\">", h(&story::certainty(record)))?;
    for bar in story::bars(record) {
        write!(out, "<li><div class=\"head\"><span>{}</span><b>{}</b></div>", h(&bar.label), h(&bar.value))?;
        if let Some(part) = bar.part {
            write!(out, "<div class=\"bar\" aria-hidden=\"true\"><i style=\"width:{}\"></i>", percent(part))?;
            for (mark, class) in [(&bar.from, "from"), (&bar.sure, "sure")] {
                if let Some((_, part)) = mark {
                    write!(out, "<u class=\"{class}\" style=\"left:{}\"></u>", percent(*part))?;
                }
            }
            out.push_str("</div>");
        }
        let asked = match (&bar.from, &bar.sure) {
            (Some((from, _)), Some((sure, _))) => format!("holds from {from}, no doubt from {sure}: "),
            (Some((from, _)), None) => format!("holds from {from}: "),
            _ => String::new(),
        };
        let not = if bar.met { "" } else { "NOT MET: " };
        writeln!(out, "<div class=\"why\">{}</div></li>", h(&format!("{not}{asked}{}", bar.why)))?;
    }
    out.write_str("</ul>\n<p class=\"small\">The long mark in a bar is where a condition begins to hold, the short one where it leaves no doubt.</p>\n")
}

/// One picture for each group of signals.
fn plots(out: &mut String, record: &Record) -> std::fmt::Result {
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

fn tasks(out: &mut String, record: &Record, look: &Look) -> std::fmt::Result {
    if look.tasks.is_empty() {
        return Ok(());
    }
    let most = record.memory.limit().map_or(0, |(limit, _)| limit).max(1) as f64;
    section(out, "Who held the memory", |out| {
        write!(
            out,
            "<table><caption>{} processes, {:.1} s before the verdict. Memory that can't be reclaimed comes first.</caption>\n\
             <thead><tr><th scope=\"col\">Process</th><th scope=\"col\" class=\"n wide\">PID</th>\
             <th scope=\"col\" class=\"n\">Anon</th><th scope=\"col\" class=\"n\">Shmem</th>\
             <th scope=\"col\" class=\"n wide\">File</th><th scope=\"col\" class=\"n wide\">Threads</th>\
             <th scope=\"col\" class=\"wide\">State</th></tr></thead>\n<tbody>\n",
            look.processes, look.before_verdict_s
        )?;
        for task in look.tasks.iter().take(MOST_ROWS) {
            let exe =
                task.exe.as_ref().map_or_else(String::new, |exe| format!("<span class=\"small\">{}</span>", h(exe)));
            let part = (task.anon.saturating_add(task.shmem) as f64 / most).clamp(0.0, 1.0);
            writeln!(
                out,
                "<tr><td><code><bdi>{}</bdi></code>{exe}<span class=\"share\" aria-hidden=\"true\"><i style=\"width:{}\"></i></span></td>\
                 <td class=\"n wide\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n wide\">{}</td>\
                 <td class=\"n wide\">{}</td><td class=\"wide\">{}</td></tr>",
                h(&task.comm),
                percent(part),
                task.pid,
                story::bytes(task.anon),
                story::bytes(task.shmem),
                story::bytes(task.file),
                task.threads,
                h(&task.state)
            )?;
        }
        out.write_str("</tbody></table>\n")?;
        let more = look.processes.saturating_sub(look.tasks.len().min(MOST_ROWS));
        if more > 0 { writeln!(out, "<p class=\"small\">And {more} smaller ones.</p>") } else { Ok(()) }
    })
}

fn files(out: &mut String, look: &Look) -> std::fmt::Result {
    let Some(files) = look.files.as_ref().filter(|files| !files.is_empty()) else { return Ok(()) };
    let most = files.iter().map(|file| file.returns).max().unwrap_or(1).max(1) as f64;
    section(out, "Text that came back most often", |out| {
        out.write_str(
            "<table><caption>Files whose program text was read from the disk again though it had been there a moment before.</caption>\n\
             <thead><tr><th scope=\"col\">File</th><th scope=\"col\" class=\"n\">Times</th><th scope=\"col\" class=\"n\">Per s</th></tr></thead>\n<tbody>\n",
        )?;
        for file in files.iter().take(MOST_ROWS) {
            writeln!(
                out,
                "<tr><td><code><bdi>{}</bdi></code><span class=\"share\" aria-hidden=\"true\"><i style=\"width:{}\"></i></span></td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                h(&story::file(file)),
                percent(file.returns as f64 / most),
                file.returns,
                file.per_s.map_or_else(|| "\u{2013}".to_owned(), |rate| format!("{rate:.0}"))
            )?;
        }
        out.write_str("</tbody></table>\n")
    })
}

fn waits(out: &mut String, look: &Look) -> std::fmt::Result {
    let groups = story::waits(look);
    if groups.is_empty() {
        return Ok(());
    }
    section(out, "Tasks that waited", |out| {
        write!(
            out,
            "<table><caption>Of {} threads {} were in reclaim and {} in uninterruptible sleep.</caption>\n<thead><tr>\
             <th scope=\"col\" class=\"n\">Threads</th><th scope=\"col\">Name</th><th scope=\"col\">Waits in</th>\
             <th scope=\"col\" class=\"n\">Reclaims for</th></tr></thead>\n<tbody>\n",
            look.threads, look.in_reclaim, look.blocked
        )?;
        for group in groups.iter().take(MOST_ROWS) {
            let place = if group.wchan.is_empty() { "(running)" } else { &group.wchan };
            writeln!(
                out,
                "<tr><td class=\"n\">{}</td><td><code><bdi>{}</bdi></code> {}</td><td><code>{}</code></td><td class=\"n\">{}</td></tr>",
                group.count,
                h(&group.comm),
                h(&group.state),
                h(place),
                group.longest_ms.map_or_else(|| "\u{2013}".to_owned(), |ms| format!("{ms:.1} ms"))
            )?;
        }
        out.write_str("</tbody></table>\n")
    })
}

fn place(out: &mut String, record: &Record) -> std::fmt::Result {
    out.write_str("<dl>\n")?;
    for (name, value) in story::facts(record) {
        writeln!(out, "<dt>{name}</dt><dd>{}</dd>", h(&value))?;
    }
    out.write_str("</dl>\n<details><summary>Where each signal came from</summary><dl>\n")?;
    for (signal, source) in &record.machine.signals {
        writeln!(out, "<dt>{}</dt><dd>{}</dd>", h(signal), h(source))?;
    }
    out.write_str("</dl></details>\n<details><summary>Thresholds in force</summary><pre>")?;
    let settings = serde_json::to_string_pretty(&record.settings).unwrap_or_default();
    writeln!(out, "{}</pre></details>", lines(&settings))?;
    if let Some(look) = &record.look {
        for (name, copy) in [("memory.events", &look.memory_events), ("memory.stat", &look.memory_stat)] {
            if !copy.is_empty() {
                writeln!(out, "<details><summary>{name}</summary><pre>{}</pre></details>", lines(copy))?;
            }
        }
    }
    Ok(())
}

/// Text of several lines.
fn lines(text: &str) -> String {
    text.lines().map(h).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{hostile, record},
        *,
    };

    /// Tags that are opened and closed in order; every `<` that is none would show.
    fn well_formed(html: &str) {
        const VOID: [&str; 1] = ["meta"];
        let mut open: Vec<&str> = Vec::new();
        let body = html.strip_prefix("<!doctype html>").unwrap();
        let (before, after) = (body.split_once("<style>").unwrap(), body.split_once("</style>").unwrap());
        for tag in format!("{}{}", before.0, after.1).leak().split('<').skip(1) {
            let (tag, _) = tag.split_once('>').unwrap();
            let name = tag.split_whitespace().next().unwrap_or("");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') && !VOID.contains(&name) {
                assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{tag}");
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn a_page_is_whole_and_needs_nothing_else() {
        let html = html(&record("mg-1764000000-7"), None);
        well_formed(&html);
        for part in [
            "<html lang=\"en\">",
            "<title>mg-1764000000-7: Cgroup runner.scope hung at its memory limit",
            "default-src &#39;none&#39;".replace("&#39;", "'").as_str(),
            "prefers-color-scheme:dark",
            "width=device-width",
            "python3",
            "/usr/bin/python3.11",
            "folio_wait_bit_common",
            "role=\"img\"",
            "<title>Time: lost from ",
        ] {
            assert!(html.contains(part), "{part}");
        }
        for outside in ["<script", "<link", "<img", "<iframe", "@import", "url(", "src=", "href="] {
            assert!(!html.contains(outside), "{outside}");
        }
        let addresses: Vec<_> = html
            .match_indices("http")
            .filter(|(at, _)| {
                let rest = &html[*at..];
                !rest.starts_with("http-equiv") && !rest.starts_with("http://www.w3.org/2000/svg\"")
            })
            .collect();
        assert_eq!(addresses, []);
        assert!(!html.contains("NaN") && !html.contains("inf,"));
    }

    #[test]
    fn names_cannot_break_out_of_it() {
        let html = html(&hostile("mg-1764000000-7"), None);
        well_formed(&html);
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
        assert!(!html.contains(['\u{202e}', '\0']));
        assert!(html.len() < 400 * 1024, "{}", html.len());
    }

    #[test]
    fn little_known_is_still_a_page() {
        let bare = Record {
            look: None,
            timeline: Vec::new(),
            terms: Vec::new(),
            gaps: vec!["x < y".to_owned()],
            ..record("mg-1-1")
        };
        let html = html(&bare, None);
        well_formed(&html);
        assert!(html.contains("x &lt; y") && !html.contains("Who held the memory"));
    }
}
