//! Samples that tests of several rooms, and the benchmarks, begin with.

use std::time::Duration;

use super::sample::{Cpu, FaultTime, Memory, Pressure, ReclaimSample, Sample, Stall, StallSample, TracerSample};

pub const MIB: u64 = 1 << 20;

/// The lab's permanent hang: 512 MiB, 480 of them anonymous, 140 faults/s on text, every freed page back at once.
#[must_use]
pub fn hang(second: u64) -> Sample {
    Sample {
        at: Duration::from_secs(1000 + second),
        memory: Memory {
            current: 511 * MIB,
            max: Some(512 * MIB),
            anon: 480 * MIB,
            file: 24 * MIB,
            scans: 9000 * second,
            steals: 3300 * second,
            refaults: 3290 * second,
            major_faults: 140 * second,
            max_events: 69 * second,
            ..Memory::default()
        },
        pressure: Pressure {
            memory: Some(Stall {
                some: Duration::from_millis(750 * second),
                full: Duration::from_millis(510 * second),
            }),
            io: Some(Stall { some: Duration::from_millis(180 * second), full: Duration::ZERO }),
            cpu: Some(Stall { some: Duration::from_millis(300 * second), full: Duration::ZERO }),
        },
        cpu: Some(Cpu {
            user: Duration::from_millis(20 * second),
            system: Duration::from_millis(1640 * second),
            ..Cpu::default()
        }),
        tracer: Some(TracerSample {
            reclaim: Some(ReclaimSample { cycles: 69 * second, ..ReclaimSample::default() }),
            text_faults: Some(138 * second),
            text_returns: Some([5 * second, 100 * second, 20 * second, 5 * second]),
            fault_time: Some(FaultTime {
                in_ns: 2_500_000_000 * second,
                between_ns: 100_000_000 * second,
                wall_ns: Some(800_000_000 * second),
            }),
            stall: Some(StallSample { task_ns: 2_000_000_000 * second, wall_ns: 750_000_000 * second }),
            ..TracerSample::default()
        }),
        hung_below: false,
    }
}
