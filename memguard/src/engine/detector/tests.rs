//! Made-up cgroups, second by second.

mod whose_time;

use super::*;
use crate::engine::{
    Cpu, Pressure, StallSample,
    fixture::{MIB, hang},
};

const UNIT: UnitId = UnitId(7);

fn run(samples: impl Iterator<Item = Sample>) -> (Engine, Vec<Observation>) {
    let mut engine = Engine::new(Settings::default());
    let observations = samples.map(|sample| engine.observe(UNIT, sample)).collect();
    (engine, observations)
}

fn first(observations: &[Observation], state: State) -> Option<usize> {
    observations.iter().position(|observation| observation.state == state)
}

#[test]
fn a_clear_hang_is_suspect_after_one_window_and_a_livelock_after_the_hold() {
    let (_, observations) = run((0..60).map(hang));
    assert_eq!(first(&observations, State::Suspect), Some(5));
    assert_eq!(first(&observations, State::Livelock), Some(12));
    let verdicts: Vec<_> = observations.iter().filter_map(|o| o.verdict.as_ref()).collect();
    assert_eq!(verdicts.len(), 1, "one verdict for one livelock");
    assert_eq!(verdicts[0].held, Duration::from_secs(7));
    assert!(verdicts[0].terms.hold());
}

#[test]
fn what_is_less_clear_takes_longer() {
    // Only just beyond the first threshold of one term.
    let unclear = |second| {
        let mut sample = hang(second);
        sample.memory.anon = 512 * MIB * 26 / 100;
        sample
    };
    let (_, observations) = run((0..60).map(unclear));
    assert_eq!(first(&observations, State::Suspect), Some(5));
    let livelock = first(&observations, State::Livelock).unwrap();
    assert!((22..=28).contains(&livelock), "three times as long, and not {livelock} s");
}

/// A stall whose end was missed counts in wall time for ever, and never in the sum over tasks.
#[test]
fn a_stall_that_never_ended_is_no_waiting() {
    let stuck = |task_ns: u64| {
        let observations = run((0..20).map(|second| {
            let mut sample = hang(second);
            (sample.pressure, sample.cpu) = (
                Pressure::default(),
                Some(Cpu { user: Duration::from_secs(second), system: Duration::ZERO, ..Cpu::default() }),
            );
            if let Some(tracer) = &mut sample.tracer {
                tracer.fault_time = None;
                tracer.stall = Some(StallSample { task_ns: task_ns * second, wall_ns: 1_000_000_000 * second });
            }
            sample
        }))
        .1;
        observations.last().and_then(|last| last.signals.clone()).and_then(|signals| signals.waiting).unwrap()
    };
    assert!((stuck(10_000_000) - 0.01).abs() < 1e-9);
    assert!((stuck(3_000_000_000) - 1.0).abs() < 1e-9, "three tasks that wait all the time");
}

/// Time in user mode counts as work, but not where text comes and goes within a tenth of a second.
#[test]
fn in_frantic_thrashing_less_has_to_be_lost() {
    let busy = |turnovers: u64, anon_mib: u64| {
        let (_, observations) = run((0..60).map(|second| {
            let mut sample = hang(second);
            sample.memory.anon = anon_mib * MIB;
            // 24 MiB of page cache, replaced so often.
            (sample.memory.steals, sample.memory.refaults) = (turnovers * 6144 * second, turnovers * 6144 * second);
            sample.cpu = Some(Cpu {
                user: Duration::from_millis(360 * second),
                system: Duration::from_millis(300 * second),
                ..Cpu::default()
            });
            if let Some(tracer) = &mut sample.tracer {
                tracer.text_faults = Some(600 * second);
                tracer.text_returns = Some([590 * second, 0, 0, 0]);
            }
            sample
        }));
        let lost = observations.last().and_then(|last| last.signals.as_ref()?.lost).unwrap();
        assert!((0.70..0.80).contains(&lost), "{lost}");
        first(&observations, State::Livelock)
    };
    assert!(busy(20, 480).is_some_and(|second| second < 30));
    assert_eq!(busy(2, 480), None, "pages live for half a second");
    assert_eq!(busy(20, 300), None, "other files may be what comes back");
}

/// Each term on its own keeps a hang from being one.
#[test]
fn every_term_is_necessary() {
    type Change = fn(&mut Sample, u64);
    let changes: [(&str, Change); 8] = [
        ("at_limit", |s, _| s.memory.current = 400 * MIB),
        ("limit_hit", |s, _| s.memory.max_events = 5),
        ("no_oom", |s, second| s.memory.oom_kills = second / 5),
        ("unreclaimable", |s, _| s.memory.anon = 100 * MIB),
        ("refault_share", |s, second| s.memory.refaults = 500 * second),
        ("text_returns", |s, second| {
            if let Some(tracer) = &mut s.tracer {
                (tracer.text_faults, tracer.text_returns) = (Some(2 * second), Some([0, 2 * second, 0, 0]));
            }
        }),
        ("text_return_share", |s, second| {
            s.memory.anon = 400 * MIB;
            if let Some(tracer) = &mut s.tracer {
                tracer.text_returns = Some([0, 20 * second, 0, 0]);
            }
        }),
        ("lost", |s, second| {
            if let Some(cpu) = &mut s.cpu {
                cpu.user = Duration::from_secs(2 * second);
            }
        }),
    ];
    for (name, change) in changes {
        let (_, observations) = run((0..60).map(|second| {
            let mut sample = hang(second);
            change(&mut sample, second);
            sample
        }));
        assert_eq!(first(&observations, State::Suspect), None, "{name}");
        let terms = observations.last().unwrap().terms.as_ref().unwrap();
        let missing: Vec<_> = terms.missing().map(|term| term.name).collect();
        assert_eq!(missing, [name], "{}", terms.sentence());
        assert!(terms.confidence() <= 0.0);
    }
}

#[test]
fn a_crowded_container_need_not_wait_until_text_has_come_back_once() {
    let fresh = |anon| {
        move |second| {
            let mut sample = hang(second);
            sample.memory.anon = anon;
            if let Some(tracer) = &mut sample.tracer {
                tracer.text_returns = Some([0; 4]);
            }
            sample
        }
    };
    let (_, observations) = run((0..60).map(fresh(480 * MIB)));
    assert_eq!(first(&observations, State::Livelock), Some(12));
    let (_, observations) = run((0..60).map(fresh(400 * MIB)));
    assert_eq!(first(&observations, State::Suspect), None, "other files may be what comes back");
}

#[test]
fn refaults_that_the_kernel_leaves_out_are_the_tracers_to_tell() {
    // Four containers of one image: three of four pages that come back were thrown out by another of them.
    let shared = |traced: Option<u64>| {
        move |second| {
            let mut sample = hang(second);
            sample.memory.refaults = 820 * second;
            if let Some(tracer) = &mut sample.tracer {
                tracer.refaults = traced.map(|pages_per_s| pages_per_s * second);
            }
            sample
        }
    };
    let (_, observations) = run((0..60).map(shared(None)));
    assert_eq!(first(&observations, State::Suspect), None);
    let (_, observations) = run((0..60).map(shared(Some(3290))));
    assert_eq!(first(&observations, State::Livelock), Some(12));
}

#[test]
fn what_a_hog_takes_says_nothing_about_what_comes_back() {
    // Of 3300 pages/s that are freed, half go to somebody who takes memory; of the others, half had been thrown out.
    let taken = |pages_per_s: u64| {
        move |second| {
            let mut sample = hang(second);
            sample.memory.refaults = 900 * second;
            sample.memory.file = 200 * MIB - pages_per_s * 4096 * second;
            sample
        }
    };
    let (_, observations) = run((0..25).map(taken(1500)));
    assert_eq!(first(&observations, State::Suspect), Some(5));
    let (_, observations) = run((0..25).map(taken(0)));
    assert_eq!(first(&observations, State::Suspect), None, "the page cache does not shrink, so all of it is read in");
}

#[test]
fn what_comes_back_is_text_only_if_the_tracer_says_so() {
    // No text has come back yet that the tracer had seen before; of the 3290 pages/s that do come back, so many are text.
    let with = |text_refaults| {
        move |second| {
            let mut sample = hang(second);
            if let Some(tracer) = &mut sample.tracer {
                (tracer.text_returns, tracer.text_refaults) = (Some([0; 4]), Some(text_refaults * second));
            }
            sample
        }
    };
    let (_, observations) = run((0..60).map(with(3200)));
    assert_eq!(first(&observations, State::Livelock), Some(12));
    let (_, observations) = run((0..60).map(with(300)));
    assert_eq!(first(&observations, State::Suspect), None, "it is another file that somebody reads again and again");
}

#[test]
fn each_missing_signal_has_a_stand_in() {
    type Change = fn(&mut Sample);
    let changes: [(&str, Change); 4] = [
        ("no PSI", |s| s.pressure = Pressure::default()),
        ("no tracer", |s| s.tracer = None),
        ("which text came back is not known", |s| {
            if let Some(tracer) = &mut s.tracer {
                tracer.text_returns = None;
            }
        }),
        ("no stalls from the tracer", |s| {
            if let Some(tracer) = &mut s.tracer {
                tracer.stall = None;
            }
        }),
    ];
    for (name, change) in changes {
        let (_, observations) = run((0..60).map(|second| {
            let mut sample = hang(second);
            change(&mut sample);
            sample
        }));
        assert!(first(&observations, State::Livelock).is_some_and(|at| at <= 35), "{name}");
    }
}

#[test]
fn with_nothing_that_tells_whether_it_works_there_is_no_verdict() {
    let (_, observations) = run((0..60).map(|second| Sample { cpu: None, ..hang(second) }));
    assert_eq!(first(&observations, State::Suspect), None);
    let terms = observations.last().unwrap().terms.as_ref().unwrap();
    assert_eq!(terms.missing().map(|term| term.name).collect::<Vec<_>>(), ["lost"]);
    assert!(terms.sentence().contains("no cpu.stat"), "{}", terms.sentence());
}

#[test]
fn a_hang_at_memory_high_is_one() {
    let (_, observations) = run((0..60).map(|second| {
        let mut sample = hang(second);
        (sample.memory.high, sample.memory.max) = (sample.memory.max, Some(1024 * MIB));
        (sample.memory.high_events, sample.memory.max_events) = (sample.memory.max_events, 0);
        sample
    }));
    assert_eq!(first(&observations, State::Livelock), Some(12));
    let verdict = observations.iter().find_map(|o| o.verdict.as_ref()).unwrap();
    assert!(verdict.terms.sentence().contains("memory.high"), "{}", verdict.terms.sentence());
}

#[test]
fn a_cgroup_without_a_limit_is_never_judged() {
    let (_, observations) = run((0..60).map(|second| {
        let mut sample = hang(second);
        sample.memory.max = None;
        sample
    }));
    assert!(observations.iter().all(|o| o.state == State::Calm && o.terms.is_none()));
}

#[test]
fn a_lapse_delays_a_verdict_and_a_long_one_ends_the_suspicion() {
    let oom_at = |from: u64| {
        move |second: u64| {
            let mut sample = hang(second);
            sample.memory.oom_events = u64::from(second >= from);
            sample
        }
    };
    // One oom event stays in five windows, more than the grace.
    let (_, observations) = run((0..60).map(oom_at(10)));
    assert_eq!(first(&observations, State::Livelock), Some(22), "begins again when the window has passed it");
    assert!(observations[13].state < State::Suspect);
}

#[test]
fn what_flaps_never_gets_there() {
    // Works every other five seconds: what was gathered is lost again.
    let (_, observations) = run((0..300).map(|second| {
        let mut sample = hang(second);
        let (rounds, rest) = (second / 10, second % 10);
        let returns = rounds * 500 + rest.min(5) * 100;
        if let Some(tracer) = &mut sample.tracer {
            tracer.text_returns = Some([0, returns, 0, 0]);
        }
        sample.cpu = Some(Cpu {
            user: Duration::from_secs(10 * rounds + 2 * rest.saturating_sub(5)),
            system: Duration::from_secs(second),
            ..Cpu::default()
        });
        sample
    }));
    assert_eq!(first(&observations, State::Livelock), None);
}

#[test]
fn time_nobody_looked_at_is_not_evidence() {
    let seconds = (0..=5).chain([9, 13, 17]);
    let (_, observations) = run(seconds.map(hang));
    assert!(observations.iter().all(|o| o.state != State::Livelock), "12 s in 3 looks are not 7 s held");
}

#[test]
fn after_an_action_it_begins_again_only_after_the_delay() {
    let (mut engine, _) = run((0..=12).map(hang));
    assert_eq!(engine.state(UNIT), State::Livelock);
    engine.acted(UNIT, hang(12).at);
    let later: Vec<_> = (13..=130).map(|second| engine.observe(UNIT, hang(second))).collect();
    assert!(later[..29].iter().all(|o| o.state <= State::Pressed), "within the delay");
    let verdict = later.iter().position(|o| o.verdict.is_some());
    assert_eq!(verdict, Some(29 + 7), "held once more for as long");
}

#[test]
fn forgetting_starts_from_nothing() {
    let (mut engine, _) = run((0..=11).map(hang));
    engine.forget(UNIT);
    assert_eq!(engine.observe(UNIT, hang(12)).state, State::Calm);
}

#[test]
fn the_same_samples_give_the_same_verdicts() {
    let (_, one) = run((0..60).map(hang));
    let (_, two) = run((0..60).map(hang));
    assert_eq!(one, two);
}

/// With counts of the limit's own, those below it neither hide a hang nor make one.
#[test]
fn what_happens_at_smaller_limits_below_is_told_apart() {
    let with = |own: u64, below: u64, oom: u64| {
        let (_, observations) = run((0..40).map(|second| {
            let mut sample = hang(second);
            (sample.memory.max_events, sample.memory.oom_kills) = ((own + below) * second, second / 4);
            let local = crate::engine::LocalEvents { max: own * second, oom: oom * second, ..Default::default() };
            sample.memory.local = Some(local);
            sample
        }));
        let terms = observations.last().unwrap().terms.clone().unwrap();
        let missing: Vec<_> = terms.missing().map(|term| term.name).collect();
        (first(&observations, State::Livelock), missing)
    };
    assert_eq!(with(69, 0, 0), (Some(12), vec![]), "OOM kills below");
    assert_eq!(with(69, 60, 0), (Some(12), vec![]));
    assert_eq!(with(69, 0, 1), (None, vec!["no_oom"]));
    for (own, below) in [(1, 69), (60, 69), (0, 69)] {
        assert_eq!(with(own, below, 0), (None, vec!["limit_hit"]), "{own} of its own, {below} below");
    }
}

#[test]
fn what_hangs_below_explains_all_and_is_no_evidence() {
    let below = |second: u64| (10..30).contains(&second);
    let (engine, observations) = run((0..45).map(|second| Sample { hung_below: below(second), ..hang(second) }));
    assert_eq!(first(&observations, State::Livelock), Some(37), "seven seconds after it is over");
    assert_eq!(observations[12].state, State::Pressed, "and the suspicion of before has ended");
    let terms = observations[20].terms.as_ref().unwrap();
    assert_eq!(terms.missing().map(|term| term.name).collect::<Vec<_>>(), ["hung_below"]);
    assert!(engine.looks_hung(UNIT, Duration::from_secs(1044)));
}

/// It hangs, whether or not something may be decided about it.
#[test]
fn a_hang_that_was_acted_on_still_looks_like_one() {
    let mut engine = Engine::new(Settings::default());
    for second in 0..60 {
        let observation = engine.observe(UNIT, hang(second));
        let now = observation.verdict.as_ref().map_or(Duration::from_secs(1000 + second), |verdict| verdict.at);
        if observation.verdict.is_some() {
            engine.acted(UNIT, now);
        }
        assert_eq!(engine.looks_hung(UNIT, now), second >= 5, "{second}");
        assert!(!engine.looks_hung(UnitId(8), now));
    }
    let calm = Sample { cpu: hang(59).cpu, ..hang(59) };
    for second in 60..70 {
        engine.observe(UNIT, Sample { at: hang(second).at, ..calm.clone() });
    }
    assert!(!engine.looks_hung(UNIT, Duration::from_secs(1069)));
}
