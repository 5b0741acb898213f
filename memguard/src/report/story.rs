//! What a report says, before it is laid out as text or as a page.

use std::path::Path;

use super::{Look, Record, TermRecord};
use crate::{
    engine::Limit,
    journal::{Incident, Stage},
    respond::{Ended, Mode},
    telemetry::escaped,
    workload::Place,
};

/// How it ended, in one or two words, and how that is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) word: &'static str,
    /// Name of a class of the page: `bad`, `warn`, `good` or `plain`.
    pub(super) tone: &'static str,
}

/// A term of the rule as a bar. Parts are of 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: String,
    pub(super) part: Option<f64>,
    /// Where it begins to hold and where it leaves no doubt, as text and as part.
    pub(super) from: Option<(String, f64)>,
    pub(super) sure: Option<(String, f64)>,
    pub(super) why: String,
    pub(super) met: bool,
}

/// Waiting threads that are alike.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waits {
    pub(super) count: usize,
    pub(super) comm: String,
    pub(super) state: String,
    pub(super) wchan: String,
    pub(super) longest_ms: Option<f64>,
}

pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes == 0 {
        return "0".to_owned();
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value >= 100.0 || (value - value.round()).abs() < 0.05 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

pub(super) fn time(seconds: u64) -> String {
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(|| seconds.to_string(), |timestamp| timestamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// `Container runner of ci/runner-1`, or the cgroup.
pub(super) fn who(record: &Record) -> String {
    if let Some(workload) = &record.workload {
        let pod = format!("{}/{}", workload.namespace, workload.pod);
        return escaped(&match &workload.container {
            Some(container) => format!("Container {container} of {pod}"),
            None => format!("A container of {pod}"),
        });
    }
    let path = record.victim.as_deref().unwrap_or(&record.cgroup);
    if let Some(place) = Place::of(Path::new(path)) {
        return format!("Cgroup {}", escaped(&place.short()));
    }
    // The last part of a path tells most; all of it stands further down.
    let last = path.rsplit('/').next().unwrap_or(path);
    format!("Cgroup {}", escaped(if last.is_empty() { "(root)" } else { last }))
}

pub(super) fn status(record: &Record, incident: Option<&Incident>) -> Status {
    let of = |word, tone| Status { word, tone };
    match (record.mode, incident.map(|incident| &incident.stage)) {
        (_, Some(Stage::Suppressed { .. })) => of("not ended", "warn"),
        (_, Some(Stage::Failed { .. })) => of("could not be ended", "bad"),
        (_, Some(Stage::Done { ended: Ended::DryRun })) | (Mode::Off | Mode::Observe, _) => {
            of("observed only", "plain")
        }
        (
            _,
            Some(Stage::Done { ended: Ended::OomKilled { .. } } | Stage::Out { so_far: Ended::OomKilled { .. }, .. }),
        ) => of("ended by the OOM killer", "bad"),
        (_, Some(Stage::Done { ended: Ended::NobodyDied { .. } })) => of("nobody died", "warn"),
        (_, Some(Stage::Done { .. } | Stage::Out { .. })) => of("killed", "bad"),
        (_, Some(Stage::Planned)) => of("about to be killed", "bad"),
        (_, Some(Stage::Interrupted { .. })) => of("interrupted", "warn"),
        (Mode::Enforce, None) => of("outcome unknown", "plain"),
    }
}

/// What happened, in one sentence.
pub(super) fn headline(record: &Record, incident: Option<&Incident>) -> String {
    let limit = record.memory.limit().map_or_else(String::new, |(limit, by)| match by {
        Limit::Max => format!(" of {}", bytes(limit)),
        Limit::High => format!(" of {} (memory.high)", bytes(limit)),
    });
    let deed = match status(record, incident).word {
        "killed" => "and memguard killed it",
        "ended by the OOM killer" => "and memguard had the kernel's OOM killer end it",
        "observed only" => "and memguard, which only observes here, did nothing",
        "not ended" => "and was left alone",
        "could not be ended" => "and memguard could not end it",
        "about to be killed" => "and memguard is about to kill it",
        "nobody died" => "and lowering its limit did not end that",
        _ => "and memguard decided to end it",
    };
    format!("{} hung at its memory limit{limit}, {deed}.", who(record))
}

/// What a hang of this kind is, and what came of it.
pub(super) fn happened(incident: Option<&Incident>) -> Vec<String> {
    let mut text = vec![
        "The kernel made room by throwing out the very program text that was running, and read it back at once, over and \
         over. Each round freed something, so its OOM killer was never asked, and hardly any work got done."
            .to_owned(),
    ];
    text.push(match incident {
        Some(incident) => format!("What came of it: {}.", escaped(&incident.outcome())),
        None => "What came of it is not in the journal any more.".to_owned(),
    });
    text
}

/// What to do about it.
pub(super) fn advice(record: &Record, incident: Option<&Incident>) -> Vec<String> {
    let mut advice = Vec::new();
    let limit = record.memory.limit().map(|(limit, _)| limit);
    if let (Some(limit), Some(task)) = (limit, record.look.as_ref().and_then(|look| look.tasks.first())) {
        let held = task.anon.saturating_add(task.shmem);
        let share = held as f64 / limit.max(1) as f64;
        if share >= 0.2 {
            advice.push(format!(
                "Look at {} (PID {}) first: it held {}, {:.0} % of the limit. Fewer parallel processes, a smaller heap, or \
                 less at once.",
                escaped(&task.comm),
                task.pid,
                bytes(held),
                share * 100.0
            ));
        }
    }
    let knob = if record.workload.is_some() { "limits.memory of the container" } else { "memory.max of the cgroup" };
    advice.push(format!(
        "If the job needs this much, raise {knob}: {} could not be reclaimed, and what was left did not hold the program \
         text that was in use.",
        bytes(record.memory.unreclaimable())
    ));
    match (record.mode, incident.map(|incident| &incident.stage)) {
        (_, Some(Stage::Suppressed { why })) => advice.push(format!("It was left alone because: {}.", escaped(why))),
        (Mode::Observe, _) => {
            advice.push("memguard only observes on this node; `--mode enforce` would have ended it.".to_owned());
        }
        (_, Some(Stage::Failed { error })) => advice.push(format!("It could not be ended: {}.", escaped(error))),
        _ => {}
    }
    advice
}

/// How sure the verdict was.
pub(super) fn certainty(record: &Record) -> String {
    let held = format!(
        "All {} conditions held for {:.0} s before the verdict (evidence of {:.0} s is asked for).",
        record.terms.len(),
        record.suspect_for_s,
        record.settings.hold.as_secs_f64()
    );
    let least =
        record.terms.iter().filter(|term| term.sure.is_some()).min_by(|a, b| a.confidence.total_cmp(&b.confidence));
    match least {
        Some(least) if least.confidence < 1.0 => format!(
            "{held} At the verdict the least certain of them was \u{201c}{}\u{201d}, at {:.0} % of certainty.",
            label(&least.name).0,
            least.confidence * 100.0
        ),
        _ => format!("{held} At the verdict each of them was beyond the point where it leaves no doubt."),
    }
}

/// The name of a term for people, and whether its value is a share.
fn label(name: &str) -> (&str, Kind) {
    match name {
        "at_limit" => ("Memory in use, of the limit", Kind::Share),
        "limit_hit" => ("The limit was hit", Kind::Rate),
        "no_oom" => ("Asked the OOM killer", Kind::Count),
        "unreclaimable" => ("Can't be reclaimed", Kind::Share),
        "refault_share" => ("Freed pages that came back", Kind::Share),
        "text_returns" => ("Program text read again", Kind::Rate),
        "text_return_share" => ("\u{2026} of all text that was read", Kind::Share),
        "text_faults" => ("Faults on program text", Kind::Rate),
        "faulting" => ("Time of tasks in faults", Kind::Share),
        "turnover" => ("Page cache replaced", Kind::Rate),
        "lost" => ("Time lost", Kind::Share),
        other => (other, Kind::Count),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Share,
    Rate,
    Count,
}

fn told(kind: Kind, value: f64) -> String {
    match kind {
        Kind::Share => format!("{:.0} %", value * 100.0),
        Kind::Rate if value >= 10.0 => format!("{value:.0}/s"),
        Kind::Rate => format!("{}/s", (value * 100.0).round() / 100.0),
        Kind::Count => format!("{value:.0} times"),
    }
}

pub(super) fn bars(record: &Record) -> Vec<Bar> {
    record.terms.iter().map(bar).collect()
}

fn bar(term: &TermRecord) -> Bar {
    let (label, kind) = label(&term.name);
    let value = term.value.filter(|value| value.is_finite() && *value >= 0.0);
    // A rate far beyond its threshold fills the bar, with the threshold still to be seen.
    let sure = term.sure.filter(|sure| *sure > 0.0);
    let scale = match (kind, sure) {
        (Kind::Share, _) => Some(1.0),
        (Kind::Rate, Some(sure)) => Some(value.unwrap_or(0.0).clamp(sure * 1.5, sure * 4.0)),
        _ => None,
    };
    let part = |value: f64| scale.map(|scale| (value / scale).clamp(0.0, 1.0));
    let mark = |at: f64| Some((told(kind, at), part(at)?));
    Bar {
        label: escaped(label),
        value: value.map_or_else(|| "unknown".to_owned(), |value| told(kind, value)),
        part: value.and_then(part),
        from: sure.and_then(|_| mark(term.threshold)),
        sure: sure.filter(|sure| *sure > term.threshold).and_then(mark),
        why: escaped(&term.why),
        met: term.met,
    }
}

/// Threads in the same function, together: the most first.
pub(super) fn waits(look: &Look) -> Vec<Waits> {
    let mut groups: Vec<Waits> = Vec::new();
    for one in &look.waiting {
        let wchan = one.wchan.clone().unwrap_or_default();
        let same = |group: &&mut Waits| group.comm == one.comm && group.state == one.state && group.wchan == wchan;
        match groups.iter_mut().find(same) {
            Some(group) => {
                group.count += 1;
                group.longest_ms = [group.longest_ms, one.reclaims_for_ms].into_iter().flatten().reduce(f64::max);
            }
            None => groups.push(Waits {
                count: 1,
                comm: one.comm.clone(),
                state: one.state.clone(),
                wchan,
                longest_ms: one.reclaims_for_ms,
            }),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

/// Name and value of what identifies it.
pub(super) fn facts(record: &Record) -> Vec<(&'static str, String)> {
    let mut facts = vec![("cgroup", record.cgroup.clone())];
    if let Some(victim) = record.victim.as_ref().filter(|victim| **victim != record.cgroup) {
        facts.push(("ended", victim.clone()));
    }
    if let Some(workload) = &record.workload {
        facts.push(("pod", workload.name()));
        if let Some(job) = workload.facts.as_ref().and_then(|facts| facts.job.as_ref()) {
            facts.push(("run", format!("{} of {}", job.run_id, job.repository)));
        }
    }
    let machine = &record.machine;
    facts.push(("node", machine.node.clone()));
    let lru = match machine.mglru {
        Some(true) => ", multi-gen LRU",
        Some(false) => ", multi-gen LRU off",
        None => "",
    };
    facts.push(("kernel", format!("{} {}{lru}", machine.kernel, machine.architecture)));
    facts.push(("memguard", format!("{}, signals: {}", machine.memguard, machine.level)));
    if let Some(look) = &record.look {
        facts
            .push(("tasks seen", format!("{:.1} s before the verdict, in {} ms", look.before_verdict_s, look.took_ms)));
    }
    facts.into_iter().map(|(name, value)| (name, escaped(&value))).collect()
}

/// Words for a file whose path is not known, or not for certain.
pub(super) fn file(file: &super::HotFile) -> String {
    match &file.path {
        Some(path) if file.by_inode => format!("{} (by its inode number)", escaped(path)),
        Some(path) => escaped(path),
        None => format!("device {} inode {}", escaped(&file.device), file.inode),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::record, *};

    #[test]
    fn sizes_and_rates_are_told_with_the_digits_that_matter() {
        for (value, text) in
            [(0, "0"), (100, "0.1 KiB"), (512 << 20, "512 MiB"), (1536 << 20, "1.5 GiB"), (u64::MAX, "16777216 TiB")]
        {
            assert_eq!(bytes(value), text);
        }
        assert_eq!((told(Kind::Rate, 0.054), told(Kind::Rate, 1024.4)), ("0.05/s".to_owned(), "1024/s".to_owned()));
        assert_eq!(time(1_764_000_000), "2025-11-24 16:00:00 UTC");
        assert_eq!(time(u64::MAX), u64::MAX.to_string());
    }

    #[test]
    fn bars_stay_in_their_place_whatever_the_value_is() {
        for value in [None, Some(0.0), Some(1e300), Some(f64::NAN), Some(-1.0), Some(f64::INFINITY)] {
            let mut record = record("mg-1-1");
            for term in &mut record.terms {
                term.value = value;
            }
            for bar in bars(&record) {
                let parts = [bar.part, bar.from.map(|(_, part)| part), bar.sure.map(|(_, part)| part)];
                assert!(parts.into_iter().flatten().all(|part| (0.0..=1.0).contains(&part)), "{value:?}");
            }
        }
        let bars = bars(&record("mg-1-1"));
        let of = |label: &str| bars.iter().find(|bar| bar.label == label).unwrap().clone();
        let lost = of("Time lost");
        assert_eq!((lost.from.unwrap().0.as_str(), lost.sure.unwrap().0.as_str()), ("85 %", "95 %"));
    }

    #[test]
    fn it_is_told_what_was_done_and_what_to_do() {
        use crate::journal::Stage;
        let record = record("mg-1764000000-7");
        let incident = |stage| {
            Incident {
            stage,
            ..serde_json::from_str(
                r#"{"id":"mg-1764000000-7","decided_at":1,"boot_id":"","mode":"enforce","unit":7,"cgroup":"x","evidence":"","stage":{"stage":"planned"}}"#,
            )
            .unwrap()
        }
        };
        let killed = incident(Stage::Done { ended: Ended::Dead { write_us: 9, empty_after_ms: 12 } });
        let head = headline(&record, Some(&killed));
        assert!(head.starts_with("Cgroup runner.scope hung at its memory limit of "), "{head}");
        assert!(head.ends_with("and memguard killed it."), "{head}");
        assert!(happened(Some(&killed))[1].contains("empty after 12 ms"));
        assert!(advice(&record, Some(&killed))[0].contains("python3 (PID 4711)"));
        let spared = incident(Stage::Suppressed { why: "budget".to_owned() });
        assert_eq!(status(&record, Some(&spared)).word, "not ended");
        assert!(advice(&record, Some(&spared)).last().unwrap().contains("budget"));
        assert_eq!(status(&record, None).word, "outcome unknown");
        let observed = Record { mode: Mode::Observe, ..record };
        assert!(advice(&observed, None).last().unwrap().contains("--mode enforce"));
    }
}
