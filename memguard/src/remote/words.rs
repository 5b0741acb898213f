//! What people are told: whoever looks at the pod with `kubectl`, and the developer whose job it was.

use std::fmt::Write as _;

use super::{follow_up::Kind, workload::Workload};
use crate::{
    journal::{Incident, Stage},
    respond::{Ended, Mode},
    telemetry::escaped,
};

/// What was done, in a few words.
fn deed(incident: &Incident) -> &'static str {
    match (incident.mode, incident.ended()) {
        (Mode::Enforce, Some(Ended::OomKilled { alive: true, .. })) => {
            "memguard had the kernel's OOM killer end its hungriest process; the others live"
        }
        (Mode::Enforce, Some(Ended::OomKilled { .. })) => "memguard had the kernel's OOM killer end it",
        (Mode::Enforce, _) if matches!(incident.stage, Stage::Interrupted { .. }) => {
            "memguard was about to kill it when it was ended itself, and found nothing left of it at its next start"
        }
        (Mode::Enforce, _) => "memguard killed it",
        _ => "memguard only observes, and did nothing",
    }
}

/// What hung.
fn container(workload: &Workload) -> String {
    match (&workload.container, workload.nested) {
        (Some(name), true) => format!("A cgroup with a limit of its own in container {}", escaped(name)),
        (Some(name), false) => format!("Container {}", escaped(name)),
        (None, _) => "A container".to_owned(),
    }
}

/// The container's limit, where that is the one that was reached.
fn at_limit(workload: &Workload) -> String {
    let limit = workload.memory_limit.as_ref().filter(|_| !workload.nested);
    limit.map_or_else(String::new, |limit| format!(" of {}", escaped(limit)))
}

/// What it means for the run, of which each job ends with it: GitHub cancels no single job.
fn of_the_run(incident: &Incident, workload: &Workload) -> Option<String> {
    let job = workload.facts.as_ref()?.job.as_ref()?;
    let run = format!("run {} of {}", job.run_id, escaped(&job.repository));
    let cancel = incident.follow_ups.iter().find(|follow_up| follow_up.kind == Kind::Cancel)?;
    if cancel.taken().is_some() {
        Some(format!("memguard cancelled {run}; other jobs of it ended because of that"))
    } else {
        cancel.is_open().then(|| format!("memguard is cancelling {run}, and its other jobs end with it"))
    }
}

/// For an Event: what happened, the evidence, what to do. The API cuts it after 1024 bytes, so the evidence comes last.
pub(super) fn note(incident: &Incident, workload: &Workload) -> String {
    format!(
        "{} hung at its memory limit{}: the kernel threw out program text and read it back all the time, and never ran \
         out of memory, so its OOM killer was not asked. {}. {}Raise {}, or find the step that needs so much. \
         All of it: memguard report {} on node {}. {}",
        container(workload),
        at_limit(workload),
        deed(incident),
        of_the_run(incident, workload).map_or_else(String::new, |sentence| sentence + ". "),
        if workload.nested { "its limit" } else { "limits.memory" },
        incident.id,
        escaped(&workload.node),
        incident.evidence
    )
}

pub(super) fn title(incident: &Incident, workload: &Workload) -> String {
    match incident.ended() {
        Some(Ended::OomKilled { alive: true, .. }) => "A process of this job hung at the memory limit, and was ended",
        _ if workload.nested => "A part of this job hung at a memory limit of its own, and was ended",
        _ => "This job hung at its memory limit, and was ended",
    }
    .to_owned()
}

/// For a check run: Markdown, for somebody who never heard of memguard.
pub(super) fn summary(incident: &Incident, workload: &Workload) -> String {
    let mut text = format!(
        "**This job did not fail by itself.** {} of its runner pod used up its memory limit{}. Instead of running out of \
         memory it hung: the kernel made room by throwing out the very program text that the job was running, and read it \
         back at once, over and over. Such a job makes no progress, and would have waited for its timeout. {}.\n\n{}\
         ### What to do\n\n\
         - If the job needs this much, give it more: {}.\n\
         - Otherwise look at the step that was running when the log stops: fewer parallel processes, a smaller heap, or less \
         at once.\n\n\
         ### What was seen\n\n\
         | |\n|---|\n",
        container(workload),
        at_limit(workload),
        deed(incident),
        of_the_run(incident, workload)
            .map_or_else(String::new, |sentence| format!("{}. GitHub can't cancel a single job.\n\n", cell(&sentence))),
        if workload.nested {
            "it has a limit of its own, within the runner's pod (`docker run --memory`, say)"
        } else {
            "`limits.memory` of the runner's pod template"
        },
    );
    for term in incident.evidence.split("; ") {
        let _ = writeln!(text, "| {} |", cell(term));
    }
    let facts = [
        ("pod", Some(format!("{}/{}", workload.namespace, workload.pod))),
        ("node", Some(workload.node.clone())),
        ("runner", workload.facts.as_ref().map(|facts| facts.name.clone())),
        ("scale set", workload.facts.as_ref().and_then(|facts| facts.scale_set.clone())),
        ("incident", Some(incident.id.clone())),
    ];
    text.push_str("\n### Where\n\n| | |\n|---|---|\n");
    for (name, value) in facts {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = writeln!(text, "| {name} | {} |", cell(&value));
        }
    }
    let _ = write!(
        text,
        "\n`memguard report {}` on node {} tells all that is known, with `--output html` as a page with plots.\n",
        cell(&incident.id),
        cell(&workload.node)
    );
    text
}

/// A text that can't break out of its cell or become a link, a mention or HTML.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escaped(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            // A mention needs its @ right before a name.
            '@' => out.push_str("@\u{200b}"),
            '|' | '`' | '[' | ']' | '\\' | '*' | '_' | '!' | '#' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}
