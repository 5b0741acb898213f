//! What there is to do, and when.

use super::*;

#[test]
fn what_there_is_to_do_follows_from_the_pod_the_mode_and_what_is_within_reach() {
    let kinds = |mode, workload: &Workload, reach| {
        follow_ups(mode, Some(workload), reach).iter().map(|f| f.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(Mode::Enforce, &workload(), ALL), Kind::ALL);
    assert_eq!(kinds(Mode::Observe, &workload(), ALL), [Kind::PodEvent]);
    let plain = Workload { runner: None, ..workload() };
    assert_eq!(kinds(Mode::Enforce, &plain, ALL), [Kind::PodEvent]);
    let no_github = Reach { github: false, ..ALL };
    assert_eq!(
        kinds(Mode::Enforce, &workload(), no_github),
        [Kind::Identify, Kind::PodEvent, Kind::RunnerEvent, Kind::DeleteRunner]
    );
    assert_eq!(follow_ups(Mode::Enforce, None, ALL), []);
}

#[test]
fn nothing_is_done_about_what_was_not_ended() {
    for stage in [
        Stage::Failed { error: String::new() },
        Stage::Suppressed { why: String::new() },
        Stage::Interrupted { found: Found::Alive },
        Stage::Done { ended: Ended::NobodyDied { waited_ms: 1 } },
    ] {
        let mut incident = Incident { stage, ..incident() };
        assert!(!adapt(&mut incident), "{:?}", incident.stage);
    }
    for stage in [DEAD, Stage::Interrupted { found: Found::Gone }] {
        let mut incident = Incident { stage, ..incident() };
        assert!(adapt(&mut incident));
        assert_eq!(open_kinds(&incident), Kind::ALL);
    }
}

#[test]
fn a_runner_that_lives_is_neither_cancelled_nor_deleted() {
    let relieved = Stage::Done { ended: Ended::OomKilled { processes: 1, after_ms: 2, alive: true } };
    let mut incident = Incident { stage: relieved, ..incident() };
    assert!(adapt(&mut incident));
    assert_eq!(open_kinds(&incident), [Kind::Identify, Kind::PodEvent, Kind::RunnerEvent, Kind::CheckRun]);
    let wishes = Wishes { cancel_after_oom: true, ..Wishes::default() };
    let mut incident = Incident { follow_ups: super::incident().follow_ups, wishes, ..incident };
    adapt(&mut incident);
    assert!(open_kinds(&incident).contains(&Kind::Cancel));
}

/// With the cancellation wanted and not, what is left to do.
fn left(change: impl Fn(&mut Incident)) -> [Vec<Kind>; 2] {
    [false, true].map(|cancel_after_oom| {
        let mut incident = Incident { wishes: Wishes { cancel_after_oom, ..Wishes::default() }, ..incident() };
        change(&mut incident);
        adapt(&mut incident);
        open_kinds(&incident)
    })
}

#[test]
fn neither_is_one_whose_sidecar_or_jobs_own_pod_or_part_was_ended() {
    use Kind::{Cancel, CheckRun, DeleteRunner, Identify, PodEvent, RunnerEvent};
    let lives =
        [vec![Identify, PodEvent, RunnerEvent, CheckRun], vec![Identify, PodEvent, Cancel, RunnerEvent, CheckRun]];
    let of = |change: &dyn Fn(&mut Workload)| left(|incident| change(incident.workload.as_mut().unwrap()));
    let dind = |workload: &mut Workload| {
        (workload.container, workload.is_runner) = (Some("dind".to_owned()), false);
    };
    assert_eq!(of(&dind), lives);
    assert_eq!(of(&|workload| workload.nested = true), lives, "a cgroup within the runner's container");
    assert_eq!(
        of(&|workload| {
            dind(workload);
            workload.nested = true;
        }),
        lives
    );
    // All of a nested one died, asked for by the OOM killer: its neighbours in the container live.
    let relieved = left(|incident| {
        incident.workload.as_mut().unwrap().nested = true;
        incident.stage = Stage::Done { ended: Ended::OomKilled { processes: 3, after_ms: 2, alive: false } };
    });
    assert_eq!(relieved, lives);
    // Before the API has heard of the container nothing is deleted on a guess.
    let unknown = of(&|workload| (workload.container, workload.is_runner) = (None, false));
    assert!(unknown.iter().all(|kinds| kinds.contains(&Cancel) && !kinds.contains(&DeleteRunner)), "{unknown:?}");
    assert_eq!(of(&|_| {}), [Kind::ALL.to_vec(), Kind::ALL.to_vec()]);
}

/// Long after the verdict.
fn late(incident: &Incident) -> u64 {
    incident.decided_at * 1000 + 3_600_000
}

#[test]
fn each_waits_for_what_it_needs() {
    let mut incident = incident();
    let verdict = incident.decided_at * 1000;
    assert_eq!(due(&incident, late(&incident)), [Kind::Identify, Kind::PodEvent]);
    incident.workload.as_mut().unwrap().facts = Some(facts());
    set(&mut incident, Kind::Identify, Progress::Done { at: 0, what: String::new() });
    set(&mut incident, Kind::PodEvent, Progress::Done { at: 0, what: String::new() });
    assert_eq!(due(&incident, verdict), [Kind::Cancel]);
    let then = [Kind::RunnerEvent, Kind::DeleteRunner, Kind::CheckRun];
    let watched = Open { not_before: verdict + 9, ..Open::default() };
    let refused = Some(Refused { since: 1, forced: false, why: String::new() });
    for open in [Open { asked: Some(1), ..watched.clone() }, Open { refused, ..watched }] {
        set(&mut incident, Kind::Cancel, Progress::Open(open));
        assert_eq!(due(&incident, verdict + 8), then, "GitHub has answered");
    }
    set(&mut incident, Kind::Cancel, Progress::GaveUp { at: 0, why: String::new() });
    assert_eq!(due(&incident, verdict), then);
}

#[test]
fn a_github_that_refuses_the_token_does_not_keep_a_dead_runners_object() {
    let mut incident = identified();
    set(&mut incident, Kind::PodEvent, Progress::Done { at: 0, what: String::new() });
    let verdict = incident.decided_at * 1000;
    let failing =
        Open { failures: 9, not_before: verdict + 3_000_000, last: Some("401".to_owned()), ..Open::default() };
    set(&mut incident, Kind::Cancel, Progress::Open(failing));
    assert_eq!((due(&incident, verdict + 29_999), next_due(&incident, verdict)), (vec![], Some(verdict + 30_000)));
    assert_eq!(due(&incident, verdict + 899_999), [Kind::RunnerEvent]);
    assert_eq!(due(&incident, verdict + 900_000), [Kind::RunnerEvent, Kind::DeleteRunner]);
}

#[test]
fn a_job_that_was_looked_up_early_is_cancelled_while_the_api_is_away() {
    let mut incident = incident();
    incident.workload.as_mut().unwrap().facts = Some(facts());
    set(&mut incident, Kind::Identify, Progress::Open(Open { not_before: u64::MAX / 2, ..Open::default() }));
    assert!(due(&incident, u64::MAX / 2 - 1).contains(&Kind::Cancel));
    // What the older ARC says of a job is looked at anew: its runners have many, and they write it themselves.
    incident.workload.as_mut().unwrap().facts.as_mut().unwrap().api = Generation::Summerwind;
    assert!(!due(&incident, u64::MAX / 2 - 1).contains(&Kind::Cancel));
}

#[test]
fn a_job_that_arc_does_not_name_any_more_stays_known() {
    let mut workload = workload();
    workload.learn(facts());
    workload.learn(RunnerFacts { job: None, phase: Some("Failed".to_owned()), ..facts() });
    let known = workload.facts.clone().unwrap();
    assert_eq!((known.job, known.phase.as_deref()), (facts().job, Some("Failed")));
    workload.learn(RunnerFacts { job: None, uid: "u-2".to_owned(), ..facts() });
    assert_eq!(workload.facts.clone().unwrap().job, None, "another runner");
    let older = RunnerFacts { api: Generation::Summerwind, ..facts() };
    workload.learn(older.clone());
    workload.learn(RunnerFacts { job: None, ..older });
    assert_eq!(workload.facts.unwrap().job, None, "it has many jobs, one after the other");
}

#[test]
fn a_clock_that_was_set_back_puts_nothing_off() {
    let mut incident = incident();
    let now = incident.decided_at * 1000 - 36_000_000;
    set(&mut incident, Kind::PodEvent, Progress::Open(Open { not_before: now + 36_000_000, ..Open::default() }));
    assert!(due(&incident, now).contains(&Kind::PodEvent));
    set(&mut incident, Kind::PodEvent, Progress::Open(Open { not_before: now + 3_600_000, ..Open::default() }));
    assert!(!due(&incident, now).contains(&Kind::PodEvent), "as long as a server may wish");
    let mut stuck = identified();
    set(&mut stuck, Kind::Cancel, Progress::Open(Open { not_before: now + 1, ..Open::default() }));
    assert!(due(&stuck, now).contains(&Kind::DeleteRunner));
}

#[test]
fn without_a_runner_or_a_job_the_rest_is_settled_too() {
    let mut incident = incident();
    set(&mut incident, Kind::Identify, Progress::GaveUp { at: 0, why: "404".to_owned() });
    settle_dependents(&mut incident);
    assert_eq!(open_kinds(&incident), [Kind::PodEvent]);
    let mut idle = identified();
    idle.workload.as_mut().unwrap().facts.as_mut().unwrap().job = None;
    settle_dependents(&mut idle);
    assert_eq!(open_kinds(&idle), [Kind::PodEvent, Kind::RunnerEvent, Kind::DeleteRunner]);
}
