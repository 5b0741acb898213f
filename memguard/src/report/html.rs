//! A report as one HTML page that needs nothing else: for a browser on a phone or a desk, light or dark, or on paper.
//!
//! No script and no network: its policy forbids both. Everything that others named is escaped twice, by the project's rule
//! for what people read and for HTML.

use std::fmt::Write as _;

use self::{
    plots::plots,
    tables::{files, tasks, waits},
};
use super::{Record, story};
use crate::{journal::Incident, telemetry, trace::plot::svg};

mod plots;
mod tables;

const CSS: &str = include_str!("page.css");
/// For text and attributes in double quotes.
fn h(text: &str) -> String {
    svg::escaped(&telemetry::escaped(text))
}

/// The same for sentences: what stands between backticks is code.
fn prose(text: &str) -> String {
    let parts: Vec<String> = text.split('`').map(h).collect();
    if parts.len().is_multiple_of(2) {
        return h(text);
    }
    let part = |(at, part): (usize, &String)| if at % 2 == 1 { format!("<code>{part}</code>") } else { part.clone() };
    parts.iter().enumerate().map(part).collect()
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
        story::happened(incident).iter().try_for_each(|text| writeln!(out, "<p>{}</p>", prose(text)))
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
    items.iter().try_for_each(|item| writeln!(out, "<li>{}</li>", prose(item)))?;
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
    fn backticks_are_code_where_they_come_in_pairs() {
        assert_eq!(prose("`--mode <x>` would do"), "<code>--mode &lt;x&gt;</code> would do");
        assert_eq!(prose("a ` b"), "a ` b");
        assert_eq!(prose("`a` and `"), "`a` and `");
        assert_eq!(prose(""), "");
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
