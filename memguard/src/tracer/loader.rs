//! Applying the plan: loading the object, attaching its programs, and making a new plan when the kernel refuses one.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader, Endianness, VerifierLogLevel,
    maps::{Array, HashMap, MapData, MapError, RingBuf},
    programs::{BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError},
    sys::{Stats, enable_stats},
};
use memguard_common::{
    Losses,
    counters::CgroupEntry,
    globals as g,
    maps::{CGROUPS, CYCLE_STARTS, DEFAULT_CGROUPS, DEFAULT_CYCLE_STARTS, DEFAULT_RING_BYTES, LOSSES, RING},
};

use super::{
    cost::{ProgramCost, TracerCost},
    ring::Ring,
};
use crate::kernel::{Attach, Facts, Hook, Layout, Plan, btf, hook, plan};

/// The object that was built into this binary; empty without one.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memguard.bpf.o"));

/// The embedded eBPF object, if this build has one.
#[must_use]
pub fn embedded_object() -> Option<&'static [u8]> {
    (!OBJECT.is_empty()).then_some(OBJECT)
}

/// Sizes and paces, set before anything is created in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Cgroups that can be counted at once.
    pub cgroups: u32,
    /// Tasks in reclaim at once whose cycles are timed.
    pub tasks_in_reclaim: u32,
    /// Bytes of the ring: a power of two, and at least a page.
    pub ring_bytes: u32,
    /// Shortest time between two snapshots of one cgroup, ns.
    pub snapshot_interval_ns: u64,
    /// Shortest time between two wake-ups of user space, ns.
    pub wake_interval_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cgroups: DEFAULT_CGROUPS,
            tasks_in_reclaim: DEFAULT_CYCLE_STARTS,
            ring_bytes: DEFAULT_RING_BYTES,
            snapshot_interval_ns: 100_000_000,
            wake_interval_ns: 100_000_000,
        }
    }
}

/// Why there is no tracer.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    #[error("can't load the eBPF object: {0}")]
    Load(#[from] EbpfError),
    #[error("the eBPF object has no {0}: memguard and its object were built from different sources")]
    Incomplete(&'static str),
    #[error("can't use an eBPF map: {0}")]
    Map(#[from] MapError),
    #[error("can't read the kernel's BTF for the attach targets: {0}")]
    Btf(#[from] aya::BtfError),
    #[error("can't wait for the ring buffer: {0}")]
    Ring(io::Error),
}

/// The attached programs and their maps. Dropping it detaches everything.
pub struct Tracer {
    ebpf: Ebpf,
    losses: Array<MapData, Pod<Losses>>,
    cgroups: HashMap<MapData, u64, Pod<CgroupEntry>>,
    attached: Vec<&'static str>,
    /// [`Losses::cgroups_left_out`] at the last sweep.
    left_out: u64,
    _stats: Option<OwnedFd>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("attached", &self.attached).finish_non_exhaustive()
    }
}

/// The wire types as aya wants them.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Pod<T>(T);

// SAFETY: the wire types are repr(C), hold integers only and have no padding (asserted in memguard-common).
unsafe impl aya::Pod for Pod<Losses> {}
// SAFETY: as above.
unsafe impl aya::Pod for Pod<CgroupEntry> {}

/// Makes the plan and applies it. A program that the kernel refuses becomes a fact, and the plan is made again without
/// it; so this ends with what works, at the latest with nothing attached and `None`.
///
/// `btf` is the kernel's, and is dropped before the programs are verified.
pub fn start(
    facts: &mut Facts,
    btf: Option<btf::Btf>,
    limits: Limits,
    stats: bool,
) -> Result<(Plan, Option<(Tracer, Ring)>), TracerError> {
    let mut current = plan(facts);
    let (Some(btf), Some(object), None) = (btf, embedded_object(), &current.no_tracer) else {
        return Ok((current, None));
    };
    let targets = {
        let names: Vec<&str> = facts.hooks.iter().map(|fact| fact.hook.target).collect();
        let blob = btf.attach_targets(&names);
        drop(btf);
        Btf::parse(&blob, Endianness::default())?
    };
    let mut tracer = Tracer::load(object, &facts.layout, limits, stats)?;
    let ring = tracer.take_ring()?;
    loop {
        tracer.detach_all_but(&current);
        let refused = current.programs().filter_map(hook).find_map(|hook| {
            let why = tracer.attach(hook, &targets).err()?;
            Some((hook.program, why))
        });
        let Some((program, why)) = refused else { break };
        tracing::debug!(program, why, "the kernel refused a program");
        facts.refuse(program, why);
        current = plan(facts);
    }
    if current.no_tracer.is_some() {
        return Ok((current, None));
    }
    Ok((current, Some((tracer, ring))))
}

impl Tracer {
    fn load(object: &[u8], layout: &Layout, limits: Limits, stats: bool) -> Result<Self, TracerError> {
        let mut globals: BTreeMap<&'static str, Cow<'_, [u8]>> = BTreeMap::new();
        for (name, value) in layout.iter() {
            globals.insert(name, Cow::Owned(value.to_ne_bytes().to_vec()));
        }
        globals.insert(g::SNAPSHOT_INTERVAL_NS, Cow::Owned(limits.snapshot_interval_ns.to_ne_bytes().to_vec()));
        globals.insert(g::WAKE_INTERVAL_NS, Cow::Owned(limits.wake_interval_ns.to_ne_bytes().to_vec()));
        let mut loader = loader_without_kernel_btf();
        for (name, value) in &globals {
            loader.override_global(name, &value[..], true);
        }
        let mut ebpf = loader
            .map_max_entries(CGROUPS, limits.cgroups)
            .map_max_entries(CYCLE_STARTS, limits.tasks_in_reclaim)
            .map_max_entries(RING, limits.ring_bytes)
            .verifier_log_level(VerifierLogLevel::STATS)
            .load(object)?;
        let losses = Array::try_from(ebpf.take_map(LOSSES).ok_or(TracerError::Incomplete("map LOSSES"))?)?;
        let cgroups = HashMap::try_from(ebpf.take_map(CGROUPS).ok_or(TracerError::Incomplete("map CGROUPS"))?)?;
        let stats = stats.then(|| enable_stats(Stats::RunTime)).and_then(|result| match result {
            Ok(fd) => Some(fd),
            Err(error) => {
                tracing::warn!(%error, "run time statistics of eBPF programs can't be switched on");
                None
            }
        });
        Ok(Self { ebpf, losses, cgroups, attached: Vec::new(), left_out: 0, _stats: stats })
    }

    fn take_ring(&mut self) -> Result<Ring, TracerError> {
        let map = self.ebpf.take_map(RING).ok_or(TracerError::Incomplete("map RING"))?;
        Ring::new(RingBuf::try_from(map)?).map_err(TracerError::Ring)
    }

    /// Loads and attaches one program, unless it is already, or says why the kernel does not take it.
    fn attach(&mut self, hook: &'static Hook, targets: &Btf) -> Result<(), String> {
        if self.attached.contains(&hook.program) {
            return Ok(());
        }
        let program = self.ebpf.program_mut(hook.program).ok_or("the object has no such program")?;
        load_and_attach(program, hook, targets).map_err(|error| why(&error))?;
        self.attached.push(hook.program);
        Ok(())
    }

    /// Unloads what the plan does not ask for any more: one of a pair whose other one was refused.
    fn detach_all_but(&mut self, plan: &Plan) {
        let keep: Vec<&str> = plan.programs().collect();
        let (keep, drop): (Vec<_>, Vec<_>) = self.attached.iter().partition(|program| keep.contains(*program));
        for name in drop {
            let unloaded = match self.ebpf.program_mut(name) {
                Some(Program::BtfTracePoint(program)) => program.unload(),
                Some(Program::FEntry(program)) => program.unload(),
                Some(Program::FExit(program)) => program.unload(),
                Some(Program::KProbe(program)) => program.unload(),
                _ => Ok(()),
            };
            if let Err(error) = unloaded {
                tracing::debug!(program = name, %error, "a program can't be unloaded");
            }
        }
        self.attached = keep;
    }

    /// What the programs cost so far and what was lost.
    #[must_use]
    pub fn cost(&self, ring: &Ring) -> TracerCost {
        let programs = self
            .attached
            .iter()
            .filter_map(|name| Some(ProgramCost::of(name, &self.ebpf.program(name)?.info().ok()?)))
            .collect();
        TracerCost::new(programs, self.losses(), ring.undecodable())
    }

    /// If a cgroup found no place in the map since the last call, removes the entries of those that are gone, whose
    /// removal was not seen.
    pub fn sweep_if_crowded(&mut self, exists: impl Fn(u64) -> bool) {
        let left_out = self.losses().cgroups_left_out;
        if left_out == self.left_out {
            return;
        }
        self.left_out = left_out;
        let gone: Vec<u64> = self.cgroups.keys().flatten().filter(|id| !exists(*id)).collect();
        let removed = gone.iter().filter(|id| self.cgroups.remove(id).is_ok()).count();
        tracing::warn!(left_out, removed, "the map of cgroups is full: not all are counted (--max-cgroups)");
    }

    fn losses(&self) -> Losses {
        self.losses.get(&0, 0).map(|Pod(losses)| losses).unwrap_or_default()
    }
}

fn load_and_attach(program: &mut Program, hook: &Hook, targets: &Btf) -> Result<(), ProgramError> {
    match hook.attach {
        Attach::Tracepoint => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(hook.target, targets)?;
            program.attach()?;
        }
        Attach::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            program.load(hook.target, targets)?;
            program.attach()?;
        }
        Attach::Fexit => {
            let program: &mut FExit = program.try_into()?;
            program.load(hook.target, targets)?;
            program.attach()?;
        }
        Attach::Kprobe => {
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            program.attach(hook.target, 0)?;
        }
    }
    Ok(())
}

/// The last and telling line of what the kernel or aya said.
fn why(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let said = log.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with("processed "));
            match said {
                Some(line) => format!("{io_error}; the verifier says: {}", line.trim()),
                None => io_error.to_string(),
            }
        }
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}

/// An aya loader that has not read the kernel's BTF.
///
/// `EbpfLoader::new()` of aya 0.14 parses all of /sys/kernel/btf/vmlinux at once, 39 MB at the peak, for relocations
/// that an object from Rust does not have; `.btf(None)` comes too late. It takes a failure to read the file for "no
/// BTF", so for the time of that one call no file can be opened. The only other thread there may be is the log's, which
/// opens none.
fn loader_without_kernel_btf<'a>() -> EbpfLoader<'a> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), maximum: before.maximum };
    let lowered = setrlimit(Resource::Nofile, none).is_ok();
    let loader = EbpfLoader::new();
    if lowered && let Err(error) = setrlimit(Resource::Nofile, before) {
        tracing::error!(%error, "the limit on open files can't be restored");
    }
    let mut loader = loader;
    loader.btf(None);
    loader
}
