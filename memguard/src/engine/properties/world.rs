//! Cgroups as the properties see them: what one does over time, and the samples that this gives.

use std::time::Duration;

use proptest::prelude::*;

use crate::engine::{
    Cpu, Engine, FaultTime, LocalEvents, Memory, Observation, Pressure, Profile, ReclaimSample, Sample, Settings,
    Stall, StallSample, TracerSample, UnitId, fixture::MIB,
};

pub(super) const UNIT: UnitId = UnitId(7);
pub(super) const SECOND: u64 = 1_000_000_000;

/// What a cgroup is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// The lab's permanent hang.
    Hang,
    /// All the same but for one thing: it gets to work.
    Busy,
    /// Reads fresh data through; hardly any anonymous memory, and nothing comes back.
    Stream,
    Nothing,
}

const ALL: [Doing; 4] = [Doing::Hang, Doing::Busy, Doing::Stream, Doing::Nothing];

/// Time that was spent at each, in ns: all counters follow from it, so a sample more or less changes no other one.
#[derive(Clone, Debug, Default)]
struct Spent([u64; 4]);

impl Spent {
    /// A counter that rises by so much a second while at each.
    fn count(&self, per_second: [u64; 4]) -> u64 {
        let sum: u128 = self.0.iter().zip(per_second).map(|(ns, rate)| u128::from(*ns) * u128::from(rate)).sum();
        u64::try_from(sum / u128::from(SECOND)).unwrap()
    }

    /// Time that passes at so many percent of the clock.
    fn time(&self, percent: [u64; 4]) -> Duration {
        Duration::from_nanos(self.count(percent.map(|share| share * (SECOND / 100))))
    }

    fn sample(&self, at: Duration, doing: Doing) -> Sample {
        let anon = if matches!(doing, Doing::Hang | Doing::Busy) { 480 } else { 20 };
        let current = if doing == Doing::Nothing { 300 } else { 511 };
        Sample {
            at,
            memory: Memory {
                current: current * MIB,
                max: Some(512 * MIB),
                anon: anon * MIB,
                file: (current - anon - 5) * MIB,
                scans: self.count([9000, 9000, 30_000, 0]),
                steals: self.count([3300, 3300, 30_000, 0]),
                refaults: self.count([3290, 3290, 0, 0]),
                major_faults: self.count([140, 140, 3, 0]),
                max_events: self.count([69, 69, 900, 0]),
                ..Memory::default()
            },
            pressure: Pressure {
                memory: Some(Stall { some: self.time([75, 20, 5, 0]), full: self.time([51, 5, 1, 0]) }),
                io: Some(Stall { some: self.time([18, 18, 30, 0]), full: self.time([10, 2, 9, 0]) }),
                cpu: Some(Stall { some: self.time([30, 60, 10, 0]), full: self.time([4, 9, 1, 0]) }),
            },
            cpu: Some(Cpu { user: self.time([2, 180, 40, 0]), system: self.time([164, 20, 60, 0]), ..Cpu::default() }),
            tracer: Some(TracerSample {
                reclaim: Some(ReclaimSample { cycles: self.count([69, 69, 900, 0]), ..ReclaimSample::default() }),
                text_faults: Some(self.count([138, 138, 1, 0])),
                text_returns: Some([
                    self.count([5, 5, 0, 0]),
                    self.count([100, 100, 0, 0]),
                    self.count([20, 20, 0, 0]),
                    self.count([5, 5, 0, 0]),
                ]),
                fault_time: Some(FaultTime {
                    in_ns: self.count([2 * SECOND, SECOND / 5, SECOND / 50, 0]),
                    between_ns: self.count([SECOND / 9, SECOND, SECOND / 50, 0]),
                    wall_ns: Some(self.count([SECOND / 5 * 4, SECOND / 5, SECOND / 50, 0])),
                }),
                stall: Some(StallSample {
                    task_ns: self.count([2 * SECOND, SECOND / 5, 0, 0]),
                    wall_ns: self.count([SECOND / 4 * 3, SECOND / 5, 0, 0]),
                }),
                ..TracerSample::default()
            }),
            hung_below: false,
        }
    }
}

/// One tick: how long after the last, and what it is at meanwhile.
pub(super) type Tick = (u64, Doing);

/// The samples of a life, one at the end of each tick.
pub(super) fn samples(ticks: &[Tick]) -> Vec<Sample> {
    let mut spent = Spent::default();
    let mut at = Duration::from_secs(1000);
    ticks
        .iter()
        .map(|(ns, doing)| {
            let place = ALL.iter().position(|known| known == doing).unwrap();
            spent.0[place] += ns;
            at += Duration::from_nanos(*ns);
            spent.sample(at, *doing)
        })
        .collect()
}

/// A tick of the agent, which comes a little early or late.
pub(super) fn tick() -> impl Strategy<Value = u64> {
    (SECOND - SECOND / 50)..(SECOND + SECOND / 20)
}

/// Ticks at one thing.
pub(super) fn stretch(doing: Doing, ticks: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Tick>> {
    prop::collection::vec(tick().prop_map(move |ns| (ns, doing)), ticks)
}

/// A life of several stretches.
pub(super) fn life(doings: &'static [Doing]) -> impl Strategy<Value = Vec<Tick>> {
    let stretches = prop::sample::select(doings).prop_flat_map(|doing| stretch(doing, 1..40));
    prop::collection::vec(stretches, 1..6).prop_map(|stretches| stretches.concat())
}

pub(super) fn any_life() -> impl Strategy<Value = Vec<Tick>> {
    life(&ALL)
}

pub(super) fn healthy_life() -> impl Strategy<Value = Vec<Tick>> {
    life(&ALL[1..])
}

/// The profiles, and whatever else an operator may set.
pub(super) fn settings() -> impl Strategy<Value = Settings> {
    let profile = prop::sample::select(&[Profile::Fast, Profile::Default, Profile::Careful][..]);
    // More than a window of evidence, as is asked of everybody.
    let own = (2..30_u64, 2..30_u64, 1..10_u32).prop_map(|(window, more, grace_ticks)| Settings {
        window: Duration::from_secs(window),
        hold: Duration::from_secs(window + more),
        grace_ticks,
        ..Settings::default()
    });
    prop_oneof![3 => profile.prop_map(Settings::profile), 1 => own]
}

/// A value as counters have them, and as they never should.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(1 << 63),
        0..2000_u64,
        (0..2048_u64).prop_map(|mib| mib * MIB),
        any::<u64>()
    ]
}

fn local() -> impl Strategy<Value = Option<LocalEvents>> {
    let counts = (value(), value(), value(), value());
    prop::option::of(counts.prop_map(|(max, high, oom, oom_kills)| LocalEvents { max, high, oom, oom_kills }))
}

prop_compose! {
    fn memory()(v in prop::collection::vec(value(), 24), max in prop::option::weighted(0.9, value()), high in prop::option::of(value()), local in local()) -> Memory {
        Memory {
            current: v[0], max, high, anon: v[1], file: v[2], shmem: v[3], active_file: v[4], inactive_file: v[5],
            unevictable: v[6], file_mapped: v[7], file_dirty: v[8], file_writeback: v[9], slab_reclaimable: v[10],
            slab_unreclaimable: v[11], scans: v[12], steals: v[13], activates: v[14], restores: v[15], refaults: v[16],
            major_faults: v[17], max_events: v[18], high_events: v[19], oom_events: v[20], oom_kills: v[21], local,
        }
    }
}

prop_compose! {
    fn tracer()(v in prop::collection::vec(prop::option::weighted(0.9, value()), 11), w in prop::collection::vec(value(), 11)) -> TracerSample {
        TracerSample {
            reclaim: v[0].map(|cycles| ReclaimSample { cycles, empty_cycles: w[0], pages: w[1], task_ns: w[2], wall_ns: w[3] }),
            faults: v[1],
            text_faults: v[2],
            major_faults: v[3],
            text_returns: v[4].map(|first| [first, w[4], w[5], w[6]]),
            stall: v[5].map(|task_ns| StallSample { task_ns, wall_ns: w[7] }),
            refaults: v[6],
            oom_victims: v[7],
            text_refaults: v[8],
            fault_time: v[9].map(|in_ns| FaultTime { in_ns, between_ns: w[8], wall_ns: v[10] }),
        }
    }
}

fn stall() -> impl Strategy<Value = Option<Stall>> {
    let times = (value(), value());
    prop::option::weighted(
        0.9,
        times.prop_map(|(some, full)| Stall { some: Duration::from_nanos(some), full: Duration::from_micros(full) }),
    )
}

prop_compose! {
    /// A sample that makes no sense.
    pub(super) fn nonsense()(
        at in prop_oneof![(0..100_u64).prop_map(Duration::from_secs), value().prop_map(Duration::from_nanos), Just(Duration::MAX)],
        memory in memory(),
        memory_stall in stall(),
        io in stall(),
        queued in stall(),
        cpu in prop::option::weighted(0.9, (value(), value())),
        tracer in prop::option::weighted(0.9, tracer()),
        hung_below in prop::bool::weighted(0.1),
    ) -> Sample {
        let cpu = cpu.map(|(user, system)| Cpu {
            user: Duration::from_micros(user),
            system: Duration::from_nanos(system),
            throttled: Duration::from_nanos(user),
        });
        Sample { at, memory, pressure: Pressure { memory: memory_stall, io, cpu: queued }, cpu, tracer, hung_below }
    }
}

/// A counter of the kernel's or the tracer's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counter {
    Scans,
    Steals,
    Refaults,
    MajorFaults,
    MaxEvents,
    HighEvents,
    OomEvents,
    OomKills,
    MemorySome,
    IoSome,
    CpuSome,
    CpuFull,
    User,
    System,
    TextFaults,
    TextReturns,
    StallWall,
    InFaults,
    BetweenFaults,
    FaultWall,
    Cycles,
}

impl Counter {
    pub(super) const ALL: [Self; 21] = [
        Self::Scans,
        Self::Steals,
        Self::Refaults,
        Self::MajorFaults,
        Self::MaxEvents,
        Self::HighEvents,
        Self::OomEvents,
        Self::OomKills,
        Self::MemorySome,
        Self::IoSome,
        Self::CpuSome,
        Self::CpuFull,
        Self::User,
        Self::System,
        Self::TextFaults,
        Self::TextReturns,
        Self::StallWall,
        Self::InFaults,
        Self::BetweenFaults,
        Self::FaultWall,
        Self::Cycles,
    ];

    /// Changes it in a sample that has everything.
    pub(super) fn change(self, sample: &mut Sample, change: impl Fn(u64) -> u64) {
        let time = |time: &mut Duration| {
            *time = Duration::from_nanos(change(u64::try_from(time.as_nanos()).unwrap()));
        };
        let (memory, pressure, tracer) = (&mut sample.memory, &mut sample.pressure, sample.tracer.as_mut().unwrap());
        let count = match self {
            Self::Scans => &mut memory.scans,
            Self::Steals => &mut memory.steals,
            Self::Refaults => &mut memory.refaults,
            Self::MajorFaults => &mut memory.major_faults,
            Self::MaxEvents => &mut memory.max_events,
            Self::HighEvents => &mut memory.high_events,
            Self::OomEvents => &mut memory.oom_events,
            Self::OomKills => &mut memory.oom_kills,
            Self::MemorySome => return time(&mut pressure.memory.as_mut().unwrap().some),
            Self::IoSome => return time(&mut pressure.io.as_mut().unwrap().some),
            Self::CpuSome => return time(&mut pressure.cpu.as_mut().unwrap().some),
            Self::CpuFull => return time(&mut pressure.cpu.as_mut().unwrap().full),
            Self::User => return time(&mut sample.cpu.as_mut().unwrap().user),
            Self::System => return time(&mut sample.cpu.as_mut().unwrap().system),
            Self::TextFaults => tracer.text_faults.as_mut().unwrap(),
            Self::TextReturns => &mut tracer.text_returns.as_mut().unwrap()[1],
            Self::StallWall => &mut tracer.stall.as_mut().unwrap().wall_ns,
            Self::InFaults => &mut tracer.fault_time.as_mut().unwrap().in_ns,
            Self::BetweenFaults => &mut tracer.fault_time.as_mut().unwrap().between_ns,
            Self::FaultWall => tracer.fault_time.as_mut().unwrap().wall_ns.as_mut().unwrap(),
            Self::Cycles => &mut tracer.reclaim.as_mut().unwrap().cycles,
        };
        *count = change(*count);
    }
}

pub(super) fn counter() -> impl Strategy<Value = Counter> {
    prop::sample::select(&Counter::ALL[..])
}

/// What an engine makes of samples.
pub(super) fn run(settings: &Settings, samples: &[Sample]) -> Vec<Observation> {
    let mut engine = Engine::new(settings.clone());
    samples.iter().map(|sample| engine.observe(UNIT, sample.clone())).collect()
}

/// When the first verdict was given.
pub(super) fn first_verdict(observations: &[Observation]) -> Option<Duration> {
    observations.iter().find_map(|observation| observation.verdict.as_ref()).map(|verdict| verdict.at)
}
