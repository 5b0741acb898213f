//! Applying the plan: loading the object, attaching its programs, and making a new plan when the kernel refuses one.

use std::{borrow::Cow, collections::BTreeMap, io, os::fd::OwnedFd};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader, Endianness, VerifierLogLevel,
    maps::{Array, HashMap, MapData, MapError, RingBuf},
    programs::ProgramError,
    sys::{Stats, enable_stats},
};
use memguard_common::{
    Losses,
    counters::{CgroupEntry, CycleStart, ReturnedFile},
    globals as g,
    maps::{
        CGROUPS, CYCLE_STARTS, DEFAULT_CYCLE_STARTS, DEFAULT_RING_BYTES, DEFAULT_SLOTS, LOSSES, PROBES, RETURNED_FILES,
        RING, STALL_STARTS,
    },
};

use super::{
    cost::{ProgramCost, TracerCost},
    debug_log::{DebugLog, Wanted},
    details::Details,
    link::{Link, link, load, unlink, why},
    ring::Ring,
    table::{Occupancy, Table},
};
use crate::kernel::{Facts, Hook, Layout, Plan, btf, hook, plan};

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
    /// Slots of the table of cgroups: a power of two, best twice as many as there are cgroups.
    pub slots: u32,
    /// Tasks in reclaim, or otherwise stalled, at once whose time is taken.
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
            slots: DEFAULT_SLOTS,
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
    #[error("can't attach or detach a program: {0}")]
    Attach(#[from] ProgramError),
    #[error("the kernel refuses {program}: {why}")]
    Refused { program: &'static str, why: String },
}

/// The attached programs and their maps. Dropping it detaches everything.
pub struct Tracer {
    ebpf: Ebpf,
    losses: Array<MapData, Pod<Losses>>,
    cgroups: Array<MapData, Pod<CgroupEntry>>,
    /// Names of the programs in use and their links; `None` while paused.
    attached: Vec<(&'static Hook, Option<Link>)>,
    /// [`Losses::cgroups_left_out`] at the last sweep.
    left_out: u64,
    occupancy: Occupancy,
    /// What the hooks say for debugging, if somebody asked for it.
    debug_log: Option<DebugLog>,
    _stats: Option<OwnedFd>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let programs: Vec<_> = self.attached.iter().map(|(hook, _)| hook.program).collect();
        f.debug_struct("Tracer").field("attached", &programs).finish_non_exhaustive()
    }
}

/// The wire types as aya wants them.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Pod<T>(pub(super) T);

// SAFETY: the wire types are repr(C), hold integers only and have no padding (asserted in memguard-common).
unsafe impl aya::Pod for Pod<Losses> {}
// SAFETY: as above.
unsafe impl aya::Pod for Pod<CgroupEntry> {}
// SAFETY: as above.
unsafe impl aya::Pod for Pod<CycleStart> {}
// SAFETY: as above.
unsafe impl aya::Pod for Pod<ReturnedFile> {}

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
        tracing::info!(program, why, "the kernel refused a program");
        facts.refuse(program, why);
        current = plan(facts);
    }
    if current.no_tracer.is_some() {
        return Ok((current, None));
    }
    Ok((current, Some((tracer, ring))))
}

/// Attaches programs elsewhere than where they belong, by hooks of the caller's making, in a state like after [`start`].
///
/// For benchmarks: what an event costs that can't be provoked on a machine is measured at one that can.
pub fn start_at(
    btf: btf::Btf,
    layout: &Layout,
    hooks: &'static [Hook],
    stats: bool,
) -> Result<(Tracer, Ring), TracerError> {
    let object = embedded_object().ok_or(TracerError::Incomplete("programs: this build embeds no eBPF object"))?;
    let targets: Vec<&str> = hooks.iter().map(|hook| hook.target).collect();
    let blob = btf.attach_targets(&targets);
    drop(btf);
    let targets = Btf::parse(&blob, Endianness::default())?;
    let mut tracer = Tracer::load(object, layout, Limits::default(), stats)?;
    let ring = tracer.take_ring()?;
    for hook in hooks {
        tracer.attach(hook, &targets).map_err(|why| TracerError::Refused { program: hook.program, why })?;
    }
    Ok((tracer, ring))
}

impl Tracer {
    fn load(object: &[u8], layout: &Layout, limits: Limits, stats: bool) -> Result<Self, TracerError> {
        let mut globals: BTreeMap<&'static str, Cow<'_, [u8]>> = BTreeMap::new();
        for (name, value) in layout.iter() {
            globals.insert(name, Cow::Owned(value.to_ne_bytes().to_vec()));
        }
        let slots = limits.slots.max(PROBES).next_power_of_two();
        // Not in BTF.
        let page_shift = rustix::param::page_size().trailing_zeros();
        globals.insert(g::PAGE_SHIFT, Cow::Owned(page_shift.to_ne_bytes().to_vec()));
        globals.insert(g::SLOT_MASK, Cow::Owned((slots - 1).to_ne_bytes().to_vec()));
        globals.insert(g::SNAPSHOT_INTERVAL_NS, Cow::Owned(limits.snapshot_interval_ns.to_ne_bytes().to_vec()));
        globals.insert(g::WAKE_INTERVAL_NS, Cow::Owned(limits.wake_interval_ns.to_ne_bytes().to_vec()));
        let wanted = Wanted::now();
        let mut loader = loader_without_kernel_btf();
        wanted.tell(&mut loader);
        for (name, value) in &globals {
            loader.override_global(name, &value[..], true);
        }
        let mut ebpf = loader
            .map_max_entries(CGROUPS, slots)
            .map_max_entries(CYCLE_STARTS, limits.tasks_in_reclaim)
            .map_max_entries(STALL_STARTS, limits.tasks_in_reclaim)
            .map_max_entries(RING, limits.ring_bytes)
            .verifier_log_level(VerifierLogLevel::STATS)
            .load(object)?;
        let debug_log = wanted.open(&mut ebpf);
        let losses = Array::try_from(ebpf.take_map(LOSSES).ok_or(TracerError::Incomplete("map LOSSES"))?)?;
        let cgroups = Array::try_from(ebpf.take_map(CGROUPS).ok_or(TracerError::Incomplete("map CGROUPS"))?)?;
        let stats = stats.then(|| enable_stats(Stats::RunTime)).and_then(|result| match result {
            Ok(fd) => Some(fd),
            Err(error) => {
                tracing::warn!(%error, "run time statistics of eBPF programs can't be switched on");
                None
            }
        });
        Ok(Self {
            ebpf,
            losses,
            cgroups,
            attached: Vec::new(),
            left_out: 0,
            occupancy: Occupancy::default(),
            debug_log,
            _stats: stats,
        })
    }

    fn take_ring(&mut self) -> Result<Ring, TracerError> {
        let map = self.ebpf.take_map(RING).ok_or(TracerError::Incomplete("map RING"))?;
        Ring::new(RingBuf::try_from(map)?).map_err(TracerError::Ring)
    }

    /// What is read of single tasks and files, once.
    pub fn take_details(&mut self) -> Result<Details, TracerError> {
        let cycles = self.ebpf.take_map(CYCLE_STARTS).ok_or(TracerError::Incomplete("map CYCLE_STARTS"))?;
        let files = self.ebpf.take_map(RETURNED_FILES).ok_or(TracerError::Incomplete("map RETURNED_FILES"))?;
        // Only this one of the fault hooks tells which text came back.
        let told = self.attached.iter().any(|(hook, _)| hook.program == "fault_fexit");
        let files = Array::try_from(files)?;
        Ok(Details { cycles: HashMap::try_from(cycles)?, files: told.then_some(files) })
    }

    /// Loads and attaches one program, unless it is already, or says why the kernel does not take it.
    fn attach(&mut self, hook: &'static Hook, targets: &Btf) -> Result<(), String> {
        if self.attached.iter().any(|(attached, _)| *attached == hook) {
            return Ok(());
        }
        let program = self.ebpf.program_mut(hook.program).ok_or("the object has no such program")?;
        let link = load(program, hook, targets).and_then(|()| link(program, hook)).map_err(|error| why(&error))?;
        self.attached.push((hook, Some(link)));
        Ok(())
    }

    /// Unloads what the plan does not ask for any more: one of a pair whose other one was refused.
    fn detach_all_but(&mut self, plan: &Plan) {
        let (keep, drop) = std::mem::take(&mut self.attached)
            .into_iter()
            .partition(|(hook, _)| plan.programs().any(|p| p == hook.program));
        self.attached = keep;
        let drop: Vec<(&Hook, Option<Link>)> = drop;
        for (hook, link) in drop {
            let program = self.ebpf.program_mut(hook.program);
            if let (Some(program), Some(link)) = (program, link)
                && let Err(error) = unlink(program, link)
            {
                tracing::debug!(program = hook.program, %error, "a program can't be detached");
            }
        }
    }

    /// Detaches all programs and keeps them loaded, for benchmarks that compare both states in quick turn. What was attached
    /// last goes first, so that there is never a begin without its end.
    pub fn pause(&mut self) -> Result<(), TracerError> {
        for (hook, link) in self.attached.iter_mut().rev() {
            if let (Some(program), Some(link)) = (self.ebpf.program_mut(hook.program), link.take()) {
                unlink(program, link)?;
            }
        }
        Ok(())
    }

    /// Attaches all programs again.
    pub fn resume(&mut self) -> Result<(), TracerError> {
        for (hook, held) in self.attached.iter_mut().filter(|(_, held)| held.is_none()) {
            if let Some(program) = self.ebpf.program_mut(hook.program) {
                *held = Some(link(program, hook)?);
            }
        }
        Ok(())
    }

    /// What the programs cost so far and what was lost.
    #[must_use]
    pub fn cost(&self, ring: &Ring) -> TracerCost {
        let programs = self
            .attached
            .iter()
            .filter_map(|(hook, _)| Some(ProgramCost::of(hook.program, &self.ebpf.program(hook.program)?.info().ok()?)))
            .collect();
        TracerCost::new(programs, self.losses(), ring.undecodable())
    }

    /// Whether the hooks say something for debugging, which has to be fetched now and then.
    #[must_use]
    pub const fn speaks(&self) -> bool {
        self.debug_log.is_some()
    }

    /// Puts what they have said into the log.
    pub fn listen(&mut self) {
        if let Some(log) = &mut self.debug_log {
            log.flush();
        }
    }

    /// How full the table of cgroups is.
    pub fn table(&mut self) -> Table {
        let cgroups = &self.cgroups;
        let taken = |slot| cgroups.get(&slot, 0).is_ok_and(|Pod(entry)| entry.cgroup_id != 0);
        self.occupancy.look(cgroups.len(), taken)
    }

    /// If a cgroup found no place in the map since the last call, removes the entries of those that are gone, whose
    /// removal was not seen.
    pub fn sweep_if_crowded(&mut self, exists: impl Fn(u64) -> bool) {
        let left_out = self.losses().cgroups_left_out;
        if left_out == self.left_out {
            return;
        }
        self.left_out = left_out;
        let mut removed = 0;
        for index in 0..self.cgroups.len() {
            if let Ok(Pod(entry)) = self.cgroups.get(&index, 0)
                && entry.cgroup_id != 0
                && !exists(entry.cgroup_id)
                && self.cgroups.set(index, Pod(CgroupEntry::default()), 0).is_ok()
            {
                removed += 1;
            }
        }
        tracing::warn!(left_out, removed, "the table of cgroups is crowded: not all are counted (--max-cgroups)");
    }

    fn losses(&self) -> Losses {
        self.losses.get(&0, 0).map(|Pod(losses)| losses).unwrap_or_default()
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
