//! Pairs, and the tracer that makes the difference in them.

use anyhow::{Context as _, bail};
use memguard::{
    cgroup::CgroupRoot,
    kernel::{Facts, Plan},
    tracer::{self, Limits, Ring, Tracer, TracerCost, embedded_object},
};
use serde::Serialize;

/// One measurement: the same work so many times in either way.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// Programs that were attached.
    pub(crate) programs: Vec<String>,
    /// Without and with, pair by pair.
    pub(crate) pairs: Vec<(f64, f64)>,
    /// Mean time that each program itself took, by the kernel's own statistics, in ns.
    pub(crate) program_ns: Vec<(String, f64)>,
}

impl Measurement {
    pub(crate) fn tell(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// What a side says when it can't be measured here.
pub(crate) fn skip(name: &str, why: &str) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(&serde_json::json!({ "name": name, "skipped": why }))?);
    Ok(())
}

/// A tracer that can be switched on and off.
pub(crate) struct Attached {
    tracer: Tracer,
    ring: Ring,
}

impl Attached {
    /// Attaches by the plan that is left when `without` are refused; `Err` in the result says what keeps it.
    pub(crate) fn start(without: &[&str], stats: bool) -> anyhow::Result<(Self, Plan)> {
        if embedded_object().is_none() {
            bail!("this was built without the eBPF object: use `cargo xtask bench hooks`");
        }
        let (mut facts, btf) = Facts::gather(&CgroupRoot::new("/sys/fs/cgroup"), true);
        for program in without {
            facts.refuse(program, "left out for the benchmark".to_owned());
        }
        let (plan, tracer) = tracer::start(&mut facts, btf, Limits::default(), stats)?;
        let why = plan.no_tracer.clone().unwrap_or_default();
        let (tracer, ring) = tracer.with_context(|| format!("no tracer here: {why}"))?;
        Ok((Self { tracer, ring }, plan))
    }

    pub(crate) fn from_parts(tracer: Tracer, ring: Ring) -> Self {
        Self { tracer, ring }
    }

    fn cost(&self) -> TracerCost {
        self.tracer.cost(&self.ring)
    }

    fn switch(&mut self, on: bool) -> anyhow::Result<()> {
        if on {
            self.tracer.resume()?;
        } else {
            self.tracer.pause()?;
        }
        Ok(())
    }
}

/// Measures in pairs, which are short and follow each other closely: a machine that is shared changes its pace within
/// a second. Which side of a pair comes first changes from pair to pair.
pub(crate) fn measure(
    name: impl Into<String>,
    unit: &'static str,
    count: u32,
    start: impl Fn(bool) -> anyhow::Result<Attached>,
    mut work: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Measurement> {
    let mut attached = start(false)?;
    let programs = attached.cost().programs.into_iter().map(|cost| cost.program).collect();
    work()?;
    let mut pairs = Vec::new();
    for number in 0..count {
        let mut side = |on| -> anyhow::Result<f64> {
            attached.switch(on)?;
            work()
        };
        pairs.push(if number % 2 == 0 {
            let with = side(true)?;
            (side(false)?, with)
        } else {
            (side(false)?, side(true)?)
        });
    }
    drop(attached);
    // Run time statistics cost some time themselves, so they have a round of their own.
    let attached = start(true)?;
    work()?;
    let cost = attached.cost().programs;
    let program_ns = cost.iter().filter_map(|cost| Some((cost.program.clone(), cost.mean_ns()?))).collect();
    Ok(Measurement { name: name.into(), unit, programs, pairs, program_ns })
}
