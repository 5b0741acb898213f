//! The tables of a report's page: who held the memory, what came back, who waited.

use std::fmt::Write as _;

use super::{h, percent, section};
use crate::report::{Look, Record, story};

/// Rows of a table.
const MOST_ROWS: usize = 16;

pub(super) fn tasks(out: &mut String, record: &Record, look: &Look) -> std::fmt::Result {
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

pub(super) fn files(out: &mut String, look: &Look) -> std::fmt::Result {
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

pub(super) fn waits(out: &mut String, look: &Look) -> std::fmt::Result {
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
