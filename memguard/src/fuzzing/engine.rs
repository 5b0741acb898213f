//! The engine: an input is a small programme of samples, so that a fuzzer gets far beyond the first window.

use std::time::Duration;

use crate::engine::{
    Cpu, Engine, FaultTime, LocalEvents, Memory, Observation, Pressure, ReclaimSample, Sample, Settings, Stall,
    StallSample, State, TracerSample, UnitId,
    baselines::{Baseline, Watch},
};

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;

/// Time from one sample to the next, in ns. Most are ticks.
const STEPS: [i64; 16] = [
    1_000_000_000,
    1_000_000_000,
    1_000_000_000,
    1_000_000_000,
    990_000_000,
    1_010_000_000,
    500_000_000,
    250_000_000,
    1,
    0,
    4_900_000_000,
    5_000_000_000,
    60_000_000_000,
    3_600_000_000_000,
    -1_000_000_000,
    -3_600_000_000_000,
];

/// What a member may be set to.
const VALUES: [u64; 16] = [
    0,
    1,
    2,
    4095,
    4096,
    MIB,
    100 * MIB,
    300 * MIB,
    480 * MIB,
    511 * MIB,
    512 * MIB,
    1 << 32,
    1 << 53,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Runs a programme of samples of up to four cgroups through the engine and the baselines.
///
/// Bytes: what to do and with which cgroup; for a sample then the step of time, and up to seven members that are
/// changed from what they are in a hang, each as member and value. A changed member stays: counters go on from there.
pub fn engine(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut engine = Engine::new(Settings::default());
    let mut baselines = Baseline::ALL.map(Watch::new);
    let mut now = 1000 * SECOND;
    let mut changes: [Vec<(u8, u64)>; 4] = Default::default();
    while let Some(what) = bytes.next() {
        let place = usize::from(what & 3);
        let unit = UnitId(place as u64);
        match what >> 2 & 7 {
            0 => engine.acted(unit, Duration::from_nanos(now)),
            1 => {
                engine.forget(unit);
                for watch in &mut baselines {
                    watch.forget(unit);
                }
                changes[place].clear();
            }
            // Some ordinary ticks at once, which a fuzzer is slow to write out.
            2 => {
                for _ in 0..5 {
                    now = now.saturating_add(SECOND);
                    observe(&mut engine, &mut baselines, unit, now, &changes[place]);
                }
            }
            _ => {
                let step = bytes.next().unwrap_or_default();
                now = now.saturating_add_signed(STEPS[usize::from(step & 15)]);
                for _ in 0..(what >> 5) {
                    let (member, value) = (bytes.next().unwrap_or_default(), bytes.next().unwrap_or_default());
                    if changes[place].len() < 64 {
                        changes[place].push((member, VALUES[usize::from(value & 15)]));
                    }
                }
                observe(&mut engine, &mut baselines, unit, now, &changes[place]);
            }
        }
    }
}

fn observe(engine: &mut Engine, baselines: &mut [Watch], unit: UnitId, now: u64, changes: &[(u8, u64)]) {
    let mut sample = hang(now);
    for (member, value) in changes {
        change(&mut sample, *member, *value);
    }
    for watch in baselines {
        watch.observe(unit, &sample);
    }
    let before = engine.state(unit);
    let observation = engine.observe(unit, sample);
    assert_eq!(observation.before, before);
    assert_eq!(observation.state, engine.state(unit));
    sound(&observation);
}

/// What has to hold for whatever the engine says.
pub fn sound(observation: &Observation) {
    let Observation { before: _, state, signals, terms, verdict } = observation;
    assert_eq!(signals.is_some(), terms.is_some());
    // Numbers as Debug writes them: a name that has these words in it has no blank or bracket before.
    let shown = format!("{signals:?} {terms:?}");
    for odd in [" NaN", "(NaN", " inf", "(inf", "-inf"] {
        assert!(!shown.contains(odd), "{shown}");
    }
    if let Some(verdict) = verdict {
        assert_eq!(*state, State::Livelock);
        assert!(verdict.terms.hold() && verdict.terms.confidence() > 0.0);
        assert_eq!((Some(&verdict.signals), Some(&verdict.terms)), (signals.as_ref(), terms.as_ref()));
        assert!(verdict.suspect_since < verdict.at && verdict.suspect_since + verdict.held <= verdict.at);
    }
}

/// A hang of 512 MiB at a time in ns, with counters that rise with it.
fn hang(now: u64) -> Sample {
    let count = |per_second: u64| u64::try_from(u128::from(now) * u128::from(per_second) / u128::from(SECOND));
    let count = |per_second: u64| count(per_second).unwrap_or(u64::MAX);
    let share = |percent: u64| Duration::from_nanos(count(percent * (SECOND / 100)));
    Sample {
        at: Duration::from_nanos(now),
        memory: Memory {
            current: 511 * MIB,
            max: Some(512 * MIB),
            anon: 480 * MIB,
            file: 24 * MIB,
            scans: count(9000),
            steals: count(3300),
            refaults: count(3290),
            major_faults: count(140),
            max_events: count(69),
            ..Memory::default()
        },
        pressure: Pressure {
            memory: Some(Stall { some: share(75), full: share(51) }),
            io: Some(Stall { some: share(18), full: Duration::ZERO }),
            cpu: Some(Stall { some: share(30), full: Duration::ZERO }),
        },
        cpu: Some(Cpu { user: share(2), system: share(164), ..Cpu::default() }),
        tracer: Some(TracerSample {
            reclaim: Some(ReclaimSample { cycles: count(69), ..ReclaimSample::default() }),
            text_faults: Some(count(138)),
            text_returns: Some([5, 100, 20, 5].map(count)),
            fault_time: Some(FaultTime {
                in_ns: count(2 * SECOND),
                between_ns: count(SECOND / 10),
                wall_ns: Some(count(SECOND / 4 * 3)),
            }),
            stall: Some(StallSample { task_ns: count(2 * SECOND), wall_ns: count(SECOND / 4 * 3) }),
            ..TracerSample::default()
        }),
        hung_below: false,
    }
}

/// Sets a member; for counters, beyond what they have counted.
fn change(sample: &mut Sample, member: u8, value: u64) {
    let memory = &mut sample.memory;
    let time = Duration::from_nanos(value);
    let add = |count: &mut u64| *count = count.saturating_add(value);
    match member {
        0 => memory.current = value,
        1 => memory.max = (value != 1).then_some(value),
        2 => memory.high = (value != 1).then_some(value),
        3 => memory.anon = value,
        4 => memory.file = value,
        5 => memory.shmem = value,
        6 => add(&mut memory.scans),
        7 => add(&mut memory.steals),
        8 => add(&mut memory.refaults),
        9 => add(&mut memory.major_faults),
        10 => add(&mut memory.max_events),
        11 => add(&mut memory.high_events),
        12 => add(&mut memory.oom_events),
        13 => add(&mut memory.oom_kills),
        14 => memory.steals = value,
        15 => memory.refaults = value,
        16 => memory.max_events = value,
        17 => memory.major_faults = value,
        18 => sample.pressure.memory = (value != 1).then_some(Stall { some: time, full: time }),
        19 => sample.pressure.io = (value != 1).then_some(Stall { some: time, full: time }),
        20 => sample.cpu = (value != 1).then_some(Cpu { user: time, system: time, throttled: time }),
        21 => sample.tracer = None,
        28 => {
            let local = LocalEvents { max: value, high: value, oom: value, oom_kills: value };
            memory.local = (value != 1).then_some(local);
        }
        29 => sample.hung_below = value == 1,
        30 => sample.pressure.cpu = (value != 1).then_some(Stall { some: time, full: time }),
        _ => {
            let Some(tracer) = &mut sample.tracer else { return };
            match member {
                22 => tracer.text_faults = (value != 1).then_some(value),
                23 => tracer.text_returns = (value != 1).then_some([value; 4]),
                24 => tracer.stall = (value != 1).then_some(StallSample { task_ns: value, wall_ns: value }),
                25 => tracer.reclaim = None,
                26 => {
                    tracer.reclaim = Some(ReclaimSample {
                        cycles: value,
                        empty_cycles: value,
                        task_ns: value,
                        wall_ns: value,
                        pages: value,
                    });
                }
                27 => tracer.text_refaults = (value != 1).then_some(value),
                31 => {
                    let wall_ns = (value != 2).then_some(value);
                    tracer.fault_time = (value != 1).then_some(FaultTime { in_ns: value, between_ns: value, wall_ns });
                }
                _ => {}
            }
        }
    }
}
