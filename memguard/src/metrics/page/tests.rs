use std::collections::BTreeSet;

use super::*;
use crate::{
    engine::{Memory, Signals, State, Terms, UnitId, Verdict},
    journal::Kept,
    metrics::{
        Totals,
        fixture::{Family as Described, families, present, text, whole},
    },
    remote::{FollowUp, Progress},
    respond::{Ended, Method, Mode, Suppressed},
    telemetry::{Action, CgroupName, Event, FollowUpEvent, StateChange, SuppressedAction, VerdictEvent},
};

fn unit(number: u64) -> CgroupName {
    let cgroup = format!("kubepods.slice/pod-SECRET-{number}/SECRET\"}}\n{number}");
    CgroupName { id: number, cgroup, place: None, pod: None }
}

/// All that can happen to a cgroup, in the words of somebody who wants to be seen on the page.
fn events(number: u64) -> Vec<Event> {
    let incident = format!("mg-SECRET-{number}");
    let verdict = Verdict {
        unit: UnitId(number),
        held: Duration::ZERO,
        at: Duration::ZERO,
        suspect_since: Duration::ZERO,
        signals: Signals::default(),
        terms: Terms(Vec::new()),
    };
    let action = |method, ended, error| {
        Event::Action(Box::new(Action {
            incident: incident.clone(),
            victim: unit(number),
            on_behalf_of: unit(number),
            method,
            rule: "SECRET".to_owned(),
            because: "SECRET".to_owned(),
            verdict_to_action_ms: 3.0,
            ended,
            error,
        }))
    };
    let progress = [
        Progress::Done { at: 0, what: "SECRET".to_owned() },
        Progress::GaveUp { at: 0, why: "SECRET".to_owned() },
        Progress::NotNeeded { why: "SECRET".to_owned() },
        FollowUp::new(Kind::Cancel).progress,
    ];
    let mut events = vec![
        Event::State(Box::new(StateChange {
            unit: unit(number),
            from: State::Calm,
            to: State::Suspect,
            why: "SECRET".to_owned(),
            signals: None,
        })),
        Event::Verdict(Box::new(VerdictEvent {
            incident: incident.clone(),
            mode: Mode::Enforce,
            rule: "SECRET".to_owned(),
            because: "SECRET".to_owned(),
            unit: unit(number),
            suspect_for_s: 9.0,
            verdict,
            memory: Memory::default(),
            tracer: None,
            signals_from: Level::Full,
        })),
        action(Method::Kill, Some(Ended::Dead { write_us: 5, empty_after_ms: 40 }), None),
        action(Method::Oom, Some(Ended::DryRun), None),
        action(Method::OomThenKill, None, Some("SECRET".to_owned())),
    ];
    let not_selected = Suppressed::NotSelected { victim: format!("SECRET-{number}") };
    for reason in [Suppressed::Changed { why: format!("SECRET-{number}") }, not_selected, Suppressed::NoVictim] {
        let suppressed =
            SuppressedAction { incident: incident.clone(), rule: "SECRET".to_owned(), unit: unit(number), reason };
        events.push(Event::Suppressed(Box::new(suppressed)));
    }
    events.extend(progress.into_iter().map(|progress| {
        Event::FollowUp(Box::new(FollowUpEvent {
            incident: incident.clone(),
            workload: format!("SECRET/SECRET-{number}"),
            follow_up: FollowUp { progress, ..FollowUp::new(Kind::Cancel) },
        }))
    }));
    events
}

#[tokio::test]
async fn ten_thousand_cgroups_make_no_series_more_and_none_of_their_names_is_told() {
    let metrics = Metrics::default();
    let before = families(&text(&metrics, Some(&whole()), Format::OpenMetrics));
    for number in 0..10_000 {
        for event in events(number) {
            metrics.observe(&event);
        }
        metrics.looked(&Signals { refaults_per_s: number as f64 * 100.0, ..Signals::default() });
    }
    let present = Present { states: [10_000; STATES.len()], ..whole() };
    let page = text(&metrics, Some(&present), Format::OpenMetrics);
    assert_eq!(families(&page), before);
    assert!(before.values().map(|family| family.series).sum::<usize>() < 300);
    for page in [page, text(&metrics, Some(&present), Format::Text)] {
        assert!(!page.contains("SECRET") && !page.contains("pod-") && page.len() < 48 * 1024, "{page}");
    }
}

#[tokio::test]
async fn what_happens_is_counted_once_and_where_it_belongs() {
    let metrics = Metrics::default();
    for number in 0..3 {
        for event in events(number) {
            metrics.observe(&event);
        }
    }
    metrics.kept(Kept::InRunFolder);
    metrics.reloaded(false);
    let page = text(&metrics, Some(&whole()), Format::OpenMetrics);
    let value = |series: &str| {
        let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {series} in {page}")).rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    for (series, expected) in [
        (r#"memguard_verdicts_total{mode="enforce"}"#, 3.0),
        (r#"memguard_verdicts_total{mode="observe"}"#, 0.0),
        (r#"memguard_actions_total{method="kill",outcome="dead"}"#, 3.0),
        (r#"memguard_actions_total{method="oom",outcome="dry_run"}"#, 3.0),
        (r#"memguard_actions_total{method="oom-then-kill",outcome="failed"}"#, 3.0),
        (r#"memguard_actions_suppressed_total{reason="changed"}"#, 3.0),
        (r#"memguard_actions_suppressed_total{reason="budget_spent"}"#, 0.0),
        (r#"memguard_follow_ups_total{kind="cancel",outcome="gave_up"}"#, 3.0),
        (r#"memguard_journal_kept_total{where="run_folder"}"#, 1.0),
        (r#"memguard_config_reloads_total{outcome="failure"}"#, 1.0),
        ("memguard_config_last_reload_successful", 0.0),
        // The real kills alone: not what was only tried, nor a dry run.
        ("memguard_verdict_to_kill_seconds_count", 3.0),
        (r#"memguard_verdict_to_kill_seconds_bucket{le="0.002"}"#, 0.0),
        (r#"memguard_verdict_to_kill_seconds_bucket{le="0.005"}"#, 3.0),
        (r#"memguard_kill_to_empty_seconds_bucket{le="0.05"}"#, 3.0),
        (r#"memguard_suspect_to_verdict_seconds_bucket{le="10.0"}"#, 3.0),
        (r#"memguard_cgroups{state="livelock"}"#, 1.0),
        ("memguard_reclaim_seconds_total", 1.5),
        (r#"memguard_tracer_lost_total{what="cgroups_left_out"}"#, 2.0),
        (r#"memguard_mode{mode="observe"}"#, 1.0),
        (r#"memguard_mode{mode="enforce"}"#, 0.0),
        (r#"memguard_plan_info{level="full"}"#, 1.0),
        ("memguard_loop_responds", 1.0),
        ("process_resident_memory_bytes", 9.0 * 1024.0 * 1024.0),
    ] {
        assert!((value(series) - expected).abs() < 1e-9, "{series} is {}", value(series));
    }
}

#[tokio::test]
async fn a_time_that_no_clock_has_is_no_age() {
    let mut present = whole();
    let absurd = crate::journal::Incident {
        follow_ups: vec![FollowUp::new(Kind::Cancel)],
        ..crate::journal::example("mg-1-1", u64::MAX)
    };
    present.outside.as_mut().unwrap().waiting = crate::remote::Waiting::new(std::iter::once(&absurd));
    let page = text(&Metrics::default(), Some(&present), Format::Text);
    assert!(page.contains(r#"memguard_follow_ups_oldest_open_age_seconds{kind="cancel"} 0"#), "{page}");
}

#[tokio::test]
async fn ages_are_of_the_moment_of_the_scrape() {
    let mut present = whole();
    let minute_ago = SystemTime::now() - Duration::from_mins(1);
    let decided_at = minute_ago.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let incident = crate::journal::Incident {
        follow_ups: vec![FollowUp::new(Kind::Cancel)],
        ..crate::journal::example("mg-1-1", decided_at)
    };
    if let Some(outside) = &mut present.outside {
        outside.stale_since = Some(minute_ago);
        outside.waiting = crate::remote::Waiting::new(std::iter::once(&incident));
    }
    let page = text(&Metrics::default(), Some(&present), Format::Text);
    for series in
        ["memguard_kubernetes_watch_stale_seconds", r#"memguard_follow_ups_oldest_open_age_seconds{kind="cancel"}"#]
    {
        let line = page.lines().find_map(|line| line.strip_prefix(series)).unwrap();
        let age: f64 = line.trim().parse().unwrap();
        assert!((60.0..70.0).contains(&age), "{series} {age}");
    }
    assert!(page.contains("memguard_follow_ups_open{kind=\"cancel\"} 1\n"));
    assert!(page.contains("memguard_follow_ups_oldest_open_age_seconds{kind=\"identify\"} 0"));
}

#[test]
fn what_is_not_known_is_left_out_and_not_zero() {
    let metrics = Metrics::default();
    let silent = text(&metrics, None, Format::Text);
    assert!(silent.contains("memguard_loop_responds 0\n") && silent.contains("memguard_verdicts_total{"));
    assert!(!silent.contains("memguard_cgroups{"), "{silent}");
    let files = Present { totals: Totals::default(), tracer: None, table: None, ..present() };
    let page = text(&metrics, Some(&files), Format::Text);
    assert!(page.contains("memguard_refaulted_pages_total 0\n"));
    for unknown in ["memguard_reclaim_cycles_total", "memguard_tracer_lost_total", "memguard_kubernetes_pods"] {
        assert!(!page.contains(unknown), "{unknown}");
    }
}

#[tokio::test]
async fn both_formats_tell_the_same_and_keep_to_the_conventions() {
    let metrics = Metrics::default();
    let open = text(&metrics, Some(&whole()), Format::OpenMetrics);
    let plain = text(&metrics, Some(&whole()), Format::Text);
    assert!(open.ends_with("\n# EOF\n") && !plain.contains("# EOF") && !plain.contains("# UNIT"));
    let names = |page: &str| -> BTreeSet<String> {
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&open), names(&plain));
    for (name, Described { kind, unit, help, series, .. }) in families(&open) {
        assert!(name.starts_with("memguard_") || name.starts_with("process_"), "{name}");
        assert!(help.ends_with('.') && !help.ends_with("..") && series > 0, "{name}: {help}");
        assert!(unit.is_empty() || name.ends_with(&unit), "{name} {unit}");
        assert!(["counter", "gauge", "histogram", "info"].contains(&kind.as_str()), "{name} {kind}");
    }
}

/// The list in docs/metrics.md, between the two marks.
fn list() -> String {
    use std::fmt::Write as _;
    let mut list = "| metric | type | labels | what it tells |\n|---|---|---|---|\n".to_owned();
    let page = text(&Metrics::default(), Some(&whole()), Format::OpenMetrics);
    for (name, family) in families(&page) {
        let sample = match family.kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name,
        };
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let help = family.help.trim_end_matches('.');
        writeln!(list, "| `{sample}` | {} | {} | {help} |", family.kind, labels.join(", ")).unwrap();
    }
    list
}

/// `MEMGUARD_BLESS=1` writes it anew.
#[tokio::test]
async fn the_list_in_the_documentation_is_what_is_served() {
    const BEGIN: &str = "<!-- list: made by a test, MEMGUARD_BLESS=1 cargo test -p memguard --lib metrics:: -->\n";
    const END: &str = "<!-- end of list -->\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (there, after) = rest.split_once(END).unwrap();
    let list = list();
    if std::env::var_os("MEMGUARD_BLESS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{list}{END}{after}")).unwrap();
    } else {
        assert_eq!(there, list, "MEMGUARD_BLESS=1 writes it anew");
    }
}
