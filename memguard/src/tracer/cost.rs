//! What the tracer costs and what it lost, as figures.

use aya::programs::ProgramInfo;
use memguard_common::Losses;
use serde::Serialize;

/// One attached program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramCost {
    pub program: String,
    /// Instructions that the verifier looked at, over all paths (kernel 5.16 and newer).
    pub verified_instructions: Option<u32>,
    /// Bytes of machine code.
    pub jited_bytes: u32,
    /// Times it ran and ns that it took in all. Counted only while run time statistics are on: `--bpf-stats`, or sysctl
    /// `kernel.bpf_stats_enabled`.
    pub runs: u64,
    pub run_ns: u64,
}

/// All programs together, and the losses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TracerCost {
    pub programs: Vec<ProgramCost>,
    pub ring_full: u64,
    pub cgroups_left_out: u64,
    pub cycles_untimed: u64,
    pub ends_lost: u64,
    pub stalls_untimed: u64,
    pub undecodable: u64,
}

impl ProgramCost {
    pub(super) fn of(program: &str, info: &ProgramInfo) -> Self {
        Self {
            program: program.to_owned(),
            verified_instructions: info.verified_instruction_count(),
            jited_bytes: info.size_jitted(),
            runs: info.run_count(),
            run_ns: u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Mean run time in ns, if it was measured.
    #[must_use]
    pub fn mean_ns(&self) -> Option<f64> {
        (self.runs > 0).then(|| self.run_ns as f64 / self.runs as f64)
    }
}

impl TracerCost {
    pub(super) fn new(programs: Vec<ProgramCost>, losses: Losses, undecodable: u64) -> Self {
        let Losses { ring_full, cgroups_left_out, cycles_untimed, ends_lost, stalls_untimed } = losses;
        Self { programs, ring_full, cgroups_left_out, cycles_untimed, ends_lost, stalls_untimed, undecodable }
    }

    /// Everything that was lost, in one number.
    #[must_use]
    pub fn lost(&self) -> u64 {
        [
            self.ring_full,
            self.cgroups_left_out,
            self.cycles_untimed,
            self.ends_lost,
            self.stalls_untimed,
            self.undecodable,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// Whether anything was lost at all.
    #[must_use]
    pub const fn lossless(&self) -> bool {
        self.ring_full == 0
            && self.cgroups_left_out == 0
            && self.cycles_untimed == 0
            && self.ends_lost == 0
            && self.stalls_untimed == 0
            && self.undecodable == 0
    }
}
