//! Runs made up second by second, to see that the judge passes what is right and fails what is wrong.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::paths;

const AT_LIMIT: u64 = 33;
const CONTAINER: &str = "runner/runner";
const CGROUP: &str = "kubepods.slice/pod1.slice/runner.scope";

/// What happens in a made-up run of the scenario `livelock`.
#[derive(Clone, Copy)]
struct Made {
    mode: MemguardMode,
    until: u64,
    /// Progress per second of the listener when it is hung.
    hung_rate: u64,
    /// The listener works again from here on.
    recovers_at: Option<u64>,
    oom_kill_at: Option<u64>,
    verdict_at: Option<u64>,
    dead_at: Option<u64>,
    neighbour_dies: bool,
    /// memory.max stays lowered from the verdict on.
    stays_lowered: bool,
    /// What the tracer counts of all that the kernel counts.
    tracer_percent: u64,
    lost: u64,
    /// Its journal lacks the last incident.
    forgets: bool,
}

const HANG: Made = Made {
    mode: MemguardMode::Off,
    until: 170,
    hung_rate: 10,
    recovers_at: None,
    oom_kill_at: None,
    verdict_at: None,
    dead_at: None,
    neighbour_dies: false,
    stays_lowered: false,
    tracer_percent: 100,
    lost: 0,
    forgets: false,
};

const ENDED: Made = Made { mode: MemguardMode::Enforce, until: 80, verdict_at: Some(54), dead_at: Some(55), ..HANG };

const SEEN: Made = Made { mode: MemguardMode::Observe, verdict_at: Some(74), ..HANG };

const RELIEVED: Made = Made {
    mode: MemguardMode::Relieve,
    until: 100,
    verdict_at: Some(54),
    oom_kill_at: Some(55),
    recovers_at: Some(58),
    ..HANG
};

fn log(entry: &serde_json::Value) -> Record {
    Record::Log { line: entry.to_string() }
}

impl Made {
    fn hung(&self, second: u64) -> bool {
        second > AT_LIMIT && self.recovers_at.is_none_or(|at| second < at)
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut say = |t: u64, record: Record| lines.push(Line { seq: 0, t: t as f64, record });
        let (mut listener, mut neighbour, mut figures) = (0, 0, Figures::default());
        let on = self.mode != MemguardMode::Off;
        let cgroup = format!("/sys/fs/cgroup/{CGROUP}");
        say(0, Record::Started { workload: "listener".to_owned(), pid: 7, cgroup });
        if on {
            say(0, log(&json!({"kind": "started", "plan": {"level": "full"}})));
        }
        for second in 1..=self.until {
            let alive = self.dead_at.is_none_or(|at| second <= at);
            match second {
                30 => say(second, Record::Trouble),
                AT_LIMIT => say(second, Record::AtLimit { container: CONTAINER.to_owned() }),
                _ => {}
            }
            if alive {
                listener += if self.hung(second) { self.hung_rate } else { 1400 };
                if self.hung(second) {
                    figures.max_events += 500;
                    figures.refaults += 30_000;
                    figures.steals += 30_000;
                    figures.major_faults += 900;
                }
            }
            neighbour += if self.neighbour_dies && second > 80 { 0 } else { 90 };
            let lowered = self.stays_lowered && self.verdict_at.is_some_and(|at| second >= at);
            figures.limit = Some(if lowered { 256 << 20 } else { 512 << 20 });
            if self.oom_kill_at == Some(second) {
                (figures.oom, figures.oom_kill) = (1, 1);
            }
            if self.verdict_at == Some(second) {
                say(second, log(&json!({"kind": "verdict", "message": "LIVELOCK", "cgroup": CGROUP})));
                let outcome = match self.mode {
                    MemguardMode::Enforce => "dead",
                    MemguardMode::Relieve => "oom_killed",
                    MemguardMode::Off | MemguardMode::Observe => "dry_run",
                };
                say(second, log(&json!({"kind": "action", "outcome": outcome})));
            }
            if self.dead_at == Some(second) {
                say(second, Record::Exited { workload: "listener".to_owned(), code: None, signal: Some(9) });
                say(second, Record::Dead { container: CONTAINER.to_owned() });
            }
            if self.neighbour_dies && second == 80 {
                say(second, Record::Exited { workload: "neighbour".to_owned(), code: None, signal: Some(9) });
            }
            if on && second > AT_LIMIT && second.is_multiple_of(10) {
                let tracer = |count: u64| count * self.tracer_percent / 100;
                say(
                    second,
                    log(&json!({
                        "kind": "refaults", "id": 7, "at_s": second,
                        "kernel": {
                            "refaults": figures.refaults, "max_events": figures.max_events,
                            "major_faults": figures.major_faults, "steals": figures.steals,
                        },
                        "tracer": {
                            "refaults": tracer(figures.refaults), "major_faults": tracer(figures.major_faults),
                            "reclaim": {"cycles": tracer(figures.max_events), "pages": tracer(figures.steals)},
                        },
                    })),
                );
            }
            let progress = BTreeMap::from([
                ("listener".to_owned(), listener),
                ("neighbour".to_owned(), neighbour),
                ("sidecar".to_owned(), 90 * second),
            ]);
            say(
                second,
                Record::Sample(Box::new(Sample {
                    containers: BTreeMap::from([(CONTAINER.to_owned(), figures)]),
                    progress,
                    memguard_cpu_s: on.then_some(0.01 * second as f64),
                    memguard_resident_kib: on.then_some(6000),
                })),
            );
        }
        if on {
            let tracer = json!({
                "ring_full": self.lost, "cgroups_left_out": 0, "cycles_untimed": 0, "stalls_untimed": 0, "undecodable": 0,
                "ends_lost": 0,
            });
            say(self.until, log(&json!({"kind": "cost", "tracer": tracer})));
            say(self.until, Record::Ended { code: Some(0), signal: None });
            let said: Vec<_> = memguard::log(&lines).map(|(_, entry)| entry).collect();
            let of = |kind: &'static str| said.iter().filter(move |entry| entry["kind"] == kind);
            let mut kept: Vec<_> = of("action")
                .map(|action| json!({"stage": {"stage": "done", "ended": {"outcome": action["outcome"]}}}))
                .collect();
            kept.resize(of("verdict").count(), json!({"stage": {"stage": "suppressed"}}));
            if self.forgets {
                kept.pop();
            }
            if !kept.is_empty() {
                let report = json!({"report": {"look": {"tasks": [{"comm": "hog"}], "files": []}}});
                lines.push(Line { seq: 0, t: self.until as f64, record: Record::Report { report } });
            }
            let list = serde_json::Value::from(kept).to_string();
            lines.push(Line { seq: 0, t: self.until as f64, record: Record::Incidents { list } });
        }
        lines
    }

    fn judged(&self) -> Judgement {
        let scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
        judge(&scenario, self.mode, &[], &self.lines())
    }

    fn passes(&self) {
        let judgement = self.judged();
        assert!(judgement.failures.is_empty(), "{judgement:#?}");
    }

    /// It fails, and says this.
    fn fails(&self, wanted: &str) {
        let judgement = self.judged();
        assert!(judgement.failures.iter().any(|failure| failure.contains(wanted)), "no {wanted:?} in {judgement:#?}");
    }
}

#[test]
fn a_hang_of_two_minutes_is_one() {
    HANG.passes();
    Made { until: 120, ..HANG }.fails("not 120 s");
}

#[test]
fn a_listener_that_works_is_not_hung() {
    Made { hung_rate: 700, ..HANG }.fails("never fell under a fifth");
    Made { recovers_at: Some(100), ..HANG }.fails("above a fifth");
}

#[test]
fn a_hang_that_the_kernel_ends_is_none() {
    Made { oom_kill_at: Some(90), ..HANG }.fails("the kernel acted");
}

#[test]
fn a_livelock_that_is_ended_in_time_passes() {
    ENDED.passes();
    Made { verdict_at: Some(100), dead_at: Some(100), until: 120, ..ENDED }.fails("not within 45 s");
    Made { verdict_at: None, dead_at: None, ..ENDED }.fails("gave no verdict");
    Made { dead_at: None, ..ENDED }.fails("was not ended");
}

#[test]
fn a_hang_that_the_kernel_was_asked_to_end_passes_if_the_rest_goes_on() {
    RELIEVED.passes();
    Made { oom_kill_at: None, recovers_at: None, ..RELIEVED }.fails("did not act");
    Made { oom_kill_at: Some(70), ..RELIEVED }.fails("after the verdict");
    Made { recovers_at: None, ..RELIEVED }.fails("of its work");
    Made { stays_lowered: true, ..RELIEVED }.fails("memory.max was");
    Made { dead_at: Some(56), ..RELIEVED }.fails("died");
    Made { verdict_at: None, ..RELIEVED }.fails("no verdict");
}

#[test]
fn a_neighbour_that_dies_with_it_is_a_failure() {
    Made { neighbour_dies: true, ..ENDED }.fails("neighbour was ended");
    Made { neighbour_dies: true, ..SEEN }.fails("neighbour was ended");
}

#[test]
fn lost_records_are_a_failure() {
    Made { lost: 3, ..ENDED }.fails("lost Some(3)");
}

/// One of several thousand may be lost, whichever limit they were for.
#[test]
fn cycles_whose_end_was_not_seen_are_a_failure_if_they_are_many() {
    let scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
    let judged = |lost: u64, change: fn(&mut Figures)| {
        let mut lines = SEEN.lines();
        for line in &mut lines {
            match &mut line.record {
                Record::Log { line } => *line = line.replace("\"ends_lost\":0", &format!("\"ends_lost\":{lost}")),
                Record::Sample(sample) => sample.containers.values_mut().for_each(change),
                _ => {}
            }
        }
        let judgement = judge(&scenario, SEEN.mode, &[], &lines);
        judgement.failures.iter().any(|failure| failure.contains("were not seen"))
    };
    assert!(!judged(1, |_| {}) && judged(1_000_000, |_| {}));
    assert!(!judged(1, |figures| figures.high_events = std::mem::take(&mut figures.max_events)));
}

#[test]
fn an_incident_that_was_not_kept_is_a_failure() {
    Made { forgets: true, ..ENDED }.fails("the journal holds Some([])");
}

#[test]
fn observing_means_that_nobody_dies() {
    SEEN.passes();
    Made { dead_at: Some(75), ..SEEN }.fails("died");
    Made { verdict_at: None, ..SEEN }.fails("gave no verdict");
}

#[test]
fn counts_that_are_apart_are_a_failure() {
    Made { tracer_percent: 90, ..SEEN }.fails("refaults");
}

#[test]
fn a_verdict_on_healthy_work_is_a_false_alarm() {
    let mut scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
    scenario.kind = Kind::Healthy;
    let lines = Made { verdict_at: Some(74), ..SEEN }.lines();
    let judgement = judge(&scenario, MemguardMode::Observe, &[], &lines);
    assert!(judgement.failures.iter().any(|failure| failure.starts_with("FALSE ALARM")), "{judgement:#?}");
    let lines = Made { verdict_at: None, ..SEEN }.lines();
    let judgement = judge(&scenario, MemguardMode::Observe, &[], &lines);
    assert!(!judgement.failures.iter().any(|failure| failure.starts_with("FALSE ALARM")), "{judgement:#?}");
}

#[test]
fn a_verdict_in_a_hang_that_the_kernel_ends_is_right() {
    let mut scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
    scenario.kind = Kind::Oom;
    let is_false = |made: &Made| {
        let judgement = judge(&scenario, made.mode, &[], &made.lines());
        judgement.failures.iter().any(|failure| failure.starts_with("FALSE ALARM"))
    };
    let stalled = Made { oom_kill_at: Some(50), recovers_at: Some(51), verdict_at: Some(45), ..SEEN };
    assert!(!is_false(&stalled));
    assert!(is_false(&Made { verdict_at: Some(60), ..stalled }), "it was over");
    assert!(is_false(&Made { hung_rate: 1200, ..stalled }), "it worked");
}

#[test]
fn a_run_that_broke_off_proves_nothing() {
    let scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
    let lines = Made { until: 20, ..HANG }.lines();
    assert!(judge(&scenario, MemguardMode::Off, &[], &lines).failures[0].contains("before the trouble"));
}

/// How the listener's work went.
fn course(made: &Made) -> course::Course {
    let scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
    let lines = made.lines();
    Run::of(&scenario, made.mode, &lines).unwrap().course(CONTAINER)
}

#[test]
fn the_onset_is_the_first_second_of_work_undone() {
    let course = course(&SEEN);
    let hang = *course.hung().unwrap();
    assert!((32.0..=34.0).contains(&hang.onset), "{hang:?}");
    assert!(hang.lasts && hang.share < 0.02 && hang.seconds() > 130.0, "{hang:?}");
    let facts = SEEN.judged().facts.join("\n");
    assert!(facts.contains("onset to verdict 41.0 s") && facts.contains("limit to verdict 41.0 s"), "{facts}");
}

#[test]
fn work_that_recovers_soon_was_stalled_and_not_hung() {
    let stalled = course(&Made { recovers_at: Some(50), ..SEEN });
    assert_eq!(stalled.hung(), None);
    assert!((14.0..20.0).contains(&stalled.hang().unwrap().seconds()), "{stalled:?}");
    assert!(stalled.told().starts_with("works at 8"), "{}", stalled.told());
    let hung = course(&Made { recovers_at: Some(90), ..SEEN });
    assert!(!hung.hung().unwrap().lasts);
    assert!(hung.told().contains("then it recovered"), "{}", hung.told());
    let killed = course(&Made { recovers_at: Some(90), oom_kill_at: Some(89), ..SEEN });
    assert_eq!(killed.ended_by_kernel(killed.hung().unwrap()), Some(89.0));
    assert!(killed.told().contains("then the kernel killed"), "{}", killed.told());
}

#[test]
fn a_verdict_on_work_that_goes_on_is_told_apart() {
    Made { hung_rate: 1200, ..SEEN }.fails("did not hang");
    Made { hung_rate: 1200, ..SEEN }.fails("a verdict on work that is not hung: it was at 86 %");
    Made { verdict_at: Some(31), ..SEEN }.fails("before it reached its limit");
}

#[test]
fn slow_is_told_moment_by_moment() {
    let recovered = course(&Made { recovers_at: Some(90), ..SEEN });
    assert!(!recovered.is_slow(20.0) && recovered.is_slow(60.0) && !recovered.is_slow(120.0), "{:?}", recovered.slow);
    assert!(course(&Made { hung_rate: 1200, ..SEEN }).slow.is_empty());
}

#[test]
fn work_that_had_hardly_begun_can_not_be_compared() {
    let begun = course(&Made { hung_rate: 6000, ..SEEN });
    assert_eq!(begun.untold, None, "{}", begun.told());
    let hardly = course(&Made { hung_rate: 9000, ..SEEN });
    assert!(hardly.untold.is_some_and(|why| why.contains("hardly begun")));
}

#[test]
fn healthy_work_that_hangs_is_not_healthy() {
    let mut scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
    scenario.kind = Kind::Healthy;
    let judged = |made: &Made| judge(&scenario, made.mode, &[], &made.lines());
    let hung = judged(&Made { verdict_at: None, ..SEEN });
    assert!(hung.failures.iter().any(|failure| failure.contains("is not healthy")), "{hung:#?}");
    let slow = judged(&Made { verdict_at: None, hung_rate: 700, ..SEEN });
    assert!(!slow.failures.iter().any(|failure| failure.contains("is not healthy")), "{slow:#?}");
}

#[test]
fn verdicts_elsewhere_are_not_about_it() {
    let scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
    let lines = SEEN.lines();
    let run = Run::of(&scenario, SEEN.mode, &lines).unwrap();
    for cgroup in [CGROUP, "kubepods.slice/pod1.slice", "kubepods.slice/pod1.slice/runner.scope/docker/x", ""] {
        assert!(run.is_about(cgroup, CONTAINER), "{cgroup}");
    }
    for cgroup in ["kubepods.slice/pod2.slice", "kubepods.slice/pod1.slice/runner.scope2", "kubepods.slice/pod"] {
        assert!(!run.is_about(cgroup, CONTAINER), "{cgroup}");
    }
}

#[test]
fn a_run_without_the_tracer_is_judged_as_one() {
    let scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
    let judgement = judge(&scenario, SEEN.mode, &["--no-tracer".to_owned()], &SEEN.lines());
    assert!(judgement.failures.iter().any(|failure| failure.contains("signals came from")), "{judgement:#?}");
}
