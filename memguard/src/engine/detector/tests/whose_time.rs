//! Whose time is lost, and to what: those who sleep, wait for a slow disk, read files, or are denied a CPU.

use super::*;
use crate::engine::{FaultTime, Stall};

#[test]
fn who_sleeps_most_of_the_time_is_not_hung() {
    // Reads its text in whenever it wakes up, which takes a tenth of the time.
    let (_, observations) = run((0..60).map(|second| {
        let mut sample = hang(second);
        sample.cpu = Some(Cpu {
            user: Duration::from_millis(5 * second),
            system: Duration::from_millis(40 * second),
            ..Cpu::default()
        });
        let stall = Some(Stall { some: Duration::from_millis(100 * second), full: Duration::ZERO });
        sample.pressure = Pressure { memory: stall, io: stall, cpu: None };
        if let Some(tracer) = &mut sample.tracer {
            tracer.stall = Some(StallSample { task_ns: 100_000_000 * second, wall_ns: 100_000_000 * second });
        }
        sample
    }));
    assert_eq!(first(&observations, State::Suspect), None);
    let terms = observations.last().unwrap().terms.as_ref().unwrap();
    assert_eq!(terms.missing().map(|term| term.name).collect::<Vec<_>>(), ["lost"]);
}

/// Four tasks that spend so many percent of their time in faults.
fn in_faults(percent: Option<u64>, second: u64) -> Option<FaultTime> {
    let ns = |percent: u64| 4 * 10_000_000 * percent * second;
    percent.map(|percent| FaultTime { in_ns: ns(percent), between_ns: ns(100 - percent), wall_ns: None })
}

/// A hang on a disk that takes all of its time, with so many ms of each second that a task waits for memory, for the disk,
/// and for a CPU, and so many pages of 24 MiB of cache replaced.
fn on_a_slow_disk(memory: u64, io: u64, queued: Option<u64>, steals: u64) -> Option<usize> {
    let stall = |ms: u64, second| Some(Stall { some: Duration::from_millis(ms * second), full: Duration::ZERO });
    let (_, observations) = run((0..60).map(|second| {
        let cpu = queued.and_then(|ms| stall(ms, second));
        let pressure = Pressure { memory: stall(memory, second), io: stall(io, second), cpu };
        Sample { pressure, ..hang_on_a_slow_disk(second, steals) }
    }));
    first(&observations, State::Livelock)
}

/// It is not known how much of their time tasks spend in faults.
fn hang_on_a_slow_disk(second: u64, steals: u64) -> Sample {
    let mut sample = hang(second);
    (sample.memory.steals, sample.memory.refaults) = (steals * second, steals * second);
    sample.cpu = Some(Cpu {
        user: Duration::from_millis(5 * second),
        system: Duration::from_millis(60 * second),
        ..Cpu::default()
    });
    let stall = |ms: u64| Some(Stall { some: Duration::from_millis(ms * second), full: Duration::ZERO });
    sample.pressure = Pressure { memory: stall(1000), io: stall(1000), cpu: stall(20) };
    if let Some(tracer) = &mut sample.tracer {
        (tracer.stall, tracer.fault_time) = (None, None);
    }
    sample
}

/// A stream waits for the disk all of the time, and is in the kernel for the rest of it. Beside it somebody needs text again and
/// again, and spends so many percent of his time on that. All that the stream reads in comes back, or none of it does.
fn beside_a_stream(faulting: Option<u64>, comes_back: bool) -> Option<usize> {
    let (_, observations) = run((0..60).map(|second| {
        let mut sample = hang(second);
        let stall = |ms: u64| Some(Stall { some: Duration::from_millis(ms * second), full: Duration::ZERO });
        sample.memory.refaults = if comes_back { sample.memory.steals } else { 80 * second };
        sample.cpu = Some(Cpu {
            user: Duration::from_millis(10 * second),
            system: Duration::from_millis(390 * second),
            ..Cpu::default()
        });
        sample.pressure = Pressure { memory: stall(600), io: stall(700), cpu: stall(50) };
        if let Some(tracer) = &mut sample.tracer {
            tracer.stall = None;
            (tracer.refaults, tracer.text_refaults) = (Some(sample.memory.refaults), Some(80 * second));
            tracer.fault_time = in_faults(faulting, second);
        }
        sample
    }));
    first(&observations, State::Livelock)
}

#[test]
fn what_a_stream_waits_for_is_not_lost_to_those_beside_it() {
    assert_eq!(beside_a_stream(Some(10), true), None, "they work, or sleep, for nine tenths of it");
    assert_eq!(beside_a_stream(Some(55), true), None, "nearly half of it is work");
    assert_eq!(beside_a_stream(Some(95), true), Some(12), "they do nothing else");
    assert_eq!(beside_a_stream(Some(95), false), Some(12), "and what the stream reads has nothing to do with it");
    assert_eq!(beside_a_stream(None, false), None, "nobody knows");
}

/// Sixteen tasks of which one at a time has a fault, for so many percent of the time; or four at once, each for a quarter of that.
fn one_of_sixteen(percent: u64, at_once: bool, second: u64) -> FaultTime {
    let in_ns = 10_000_000 * percent * second;
    let wall_ns = Some(if at_once { in_ns / 4 } else { in_ns });
    FaultTime { in_ns, between_ns: 16_000_000_000 * second - in_ns, wall_ns }
}

#[test]
fn one_that_has_faults_while_others_wait_for_it_is_hung_where_all_text_is_replaced_at_every_moment() {
    let hung = |steals: u64, time: &dyn Fn(u64) -> Option<FaultTime>| {
        let (_, observations) = run((0..60).map(|second| {
            let mut sample = hang(second);
            (sample.memory.steals, sample.memory.refaults) = (steals * second, steals * second);
            if let Some(tracer) = &mut sample.tracer {
                tracer.fault_time = time(second);
            }
            sample
        }));
        first(&observations, State::Livelock)
    };
    // A page lives for two seconds, or for less than half of one.
    let (long, brief) = (3300, 16_000);
    assert_eq!(hung(long, &|second| in_faults(Some(95), second)), Some(12));
    assert_eq!(hung(brief, &|second| Some(one_of_sixteen(95, false, second))), Some(12), "fifteen wait for it");
    assert_eq!(
        hung(long, &|second| Some(one_of_sixteen(95, false, second))),
        None,
        "or they sleep, and queue for a lock"
    );
    assert_eq!(hung(brief, &|second| Some(one_of_sixteen(50, false, second))), None, "half of the time one is at work");
    assert_eq!(
        hung(brief, &|second| Some(one_of_sixteen(300, true, second))),
        None,
        "each is at rest most of the time"
    );
    assert_eq!(hung(long, &|second| in_faults(Some(65), second)), None, "a third of his time is left to each");
    assert!(hung(brief, &|second| in_faults(Some(65), second)).is_some(), "and no work is done in that");
}

#[test]
fn who_queues_for_a_lock_on_a_slow_disk_may_be_at_work() {
    let hung = |steals: u64, time: &dyn Fn(u64) -> FaultTime| {
        let (_, observations) = run((0..60).map(|second| {
            let mut sample = hang_on_a_slow_disk(second, steals);
            if let Some(tracer) = &mut sample.tracer {
                tracer.fault_time = Some(time(second));
            }
            sample
        }));
        first(&observations, State::Livelock).is_some()
    };
    assert!(hung(2000, &|second| in_faults(Some(98), second).unwrap()));
    assert!(!hung(2000, &|second| one_of_sixteen(98, false, second)), "sixteen that sleep between two requests");
    assert!(hung(16_000, &|second| one_of_sixteen(98, false, second)), "no page lives from one request to the next");
}

#[test]
fn who_is_at_leisure_half_of_the_time_is_not_hung() {
    assert!(on_a_slow_disk(500, 500, Some(20), 3300).is_none());
    assert!(on_a_slow_disk(500, 500, Some(450), 3300).is_some(), "the others wait for a CPU");
    assert!(on_a_slow_disk(500, 500, None, 3300).is_some(), "nobody knows what they do");
    assert!(on_a_slow_disk(300, 980, Some(20), 3300).is_some());
}

#[test]
fn where_the_disk_is_waited_for_all_the_time_pages_that_live_long_speak_against_a_hang() {
    // 6144 pages, replaced once in 40 s.
    assert!(on_a_slow_disk(1000, 700, Some(20), 150).is_some(), "reclaim takes the time");
    assert!(on_a_slow_disk(1000, 1000, Some(20), 150).is_none());
    assert!(on_a_slow_disk(1000, 1000, Some(20), 2000).is_some());
}

#[test]
fn where_the_disk_is_waited_for_all_the_time_it_counts_who_does() {
    let (hung, at_work) = (95, 50);
    for (percent, steals, expected) in
        [(hung, 150, true), (hung, 2000, true), (at_work, 150, false), (at_work, 2000, false)]
    {
        let (_, observations) = run((0..60).map(|second| {
            let mut sample = hang_on_a_slow_disk(second, steals);
            if let Some(tracer) = &mut sample.tracer {
                tracer.fault_time = in_faults(Some(percent), second);
            }
            sample
        }));
        assert_eq!(first(&observations, State::Livelock).is_some(), expected, "{percent} %, {steals} pages/s");
    }
}

/// A fifth of a CPU, used up in each period, with so many ms of each second in user mode. Tasks that had it taken away in
/// the midst of a fault wait for memory most of the time. That they are denied a CPU is told by PSI or by cpu.stat. A page of
/// the cache lives for so many s, and tasks are in faults for so many percent of their time.
fn out_of_cpu_time(
    user: u64,
    memory: u64,
    denied: Option<u64>,
    throttled: u64,
    lives: (u64, Option<u64>),
) -> Option<usize> {
    let (lives, faulting) = lives;
    let (_, observations) = run((0..60).map(|second| {
        let stall = |some: u64, full: u64| Stall {
            some: Duration::from_millis(some * second),
            full: Duration::from_millis(full * second),
        };
        let mut sample = hang(second);
        // 24 MiB of cache.
        (sample.memory.steals, sample.memory.refaults) = (6144 * second / lives, 6144 * second / lives);
        sample.cpu = Some(Cpu {
            user: Duration::from_millis(user * second),
            system: Duration::from_millis((200 - user) * second),
            throttled: Duration::from_millis(throttled * second),
        });
        sample.pressure = Pressure {
            memory: Some(stall(memory, memory / 2)),
            io: Some(stall(10, 0)),
            cpu: denied.map(|denied| stall(950, denied)),
        };
        if let Some(tracer) = &mut sample.tracer {
            let ns = memory * 1_000_000 * second;
            tracer.stall = Some(StallSample { task_ns: ns, wall_ns: ns });
            tracer.fault_time = in_faults(faulting, second);
        }
        sample
    }));
    first(&observations, State::Livelock)
}

#[test]
fn who_is_denied_a_cpu_is_judged_by_the_rest_of_the_time() {
    assert_eq!(out_of_cpu_time(3, 990, Some(800), 0, (2, None)), Some(12), "all that is left of the time is lost");
    assert_eq!(out_of_cpu_time(110, 900, Some(800), 0, (2, None)), None, "half of it is work");
    assert_eq!(
        out_of_cpu_time(110, 900, None, 800, (2, None)),
        None,
        "half of it is work, and cpu.max alone is to blame"
    );
    assert_eq!(out_of_cpu_time(3, 990, None, 800, (2, None)), Some(12));
    assert_eq!(out_of_cpu_time(3, 990, None, 0, (2, None)), Some(12), "nobody knows");
    assert_eq!(
        out_of_cpu_time(3, 300, Some(1000), 0, (2, None)),
        Some(12),
        "PSI's clock and that of cpu.stat are not the same"
    );
    assert_eq!(out_of_cpu_time(3, 990, None, 16_000, (2, None)), Some(12), "on 16 CPUs");
}

#[test]
fn who_is_denied_a_cpu_most_of_the_time_is_hung_only_if_its_pages_live_shorter() {
    // Nine tenths of a tenth of a CPU are spent in the kernel, and it is work.
    assert_eq!(out_of_cpu_time(20, 900, Some(900), 0, (16, None)), None);
    assert!(out_of_cpu_time(20, 900, Some(900), 0, (5, None)).is_some());
    assert!(
        out_of_cpu_time(20, 990, Some(500), 0, (16, None)).is_some(),
        "half of the time is enough to be seen at rest"
    );
    assert_eq!(
        out_of_cpu_time(20, 900, Some(900), 0, (16, Some(60))),
        None,
        "tasks are in faults for three fifths of it"
    );
    assert!(out_of_cpu_time(20, 900, Some(900), 0, (16, Some(90))).is_some());
    assert_eq!(out_of_cpu_time(20, 900, Some(900), 0, (40, Some(90))), None, "pages that live for long are no thrash");
}

#[test]
fn who_is_denied_a_cpu_between_two_faults_spends_less_of_his_time_in_them() {
    let hung = |denied, percent| out_of_cpu_time(10, 990, Some(denied), 0, (2, Some(percent))).is_some();
    assert!(hung(500, 46), "all of the rest");
    assert!(!hung(0, 46), "half of it is his own");
    assert!(!hung(500, 30), "and so it is here");
    assert!(hung(0, 85) && !hung(0, 60));
}

#[test]
fn without_psi_the_time_in_faults_tells_who_waits_for_a_slow_disk() {
    for (percent, expected) in [(Some(97), true), (Some(45), false), (None, false)] {
        let (_, observations) = run((0..60).map(|second| {
            let mut sample = hang_on_a_slow_disk(second, 2000);
            sample.pressure = Pressure::default();
            if let Some(tracer) = &mut sample.tracer {
                tracer.fault_time = in_faults(percent, second);
            }
            sample
        }));
        assert_eq!(first(&observations, State::Livelock).is_some(), expected, "{percent:?}");
    }
}
