//! Scenarios by chance. Pure: the same seed and number give the same scenario, as long as what is drawn from stays as it is.
//!
//! What is drawn is what decides between work and a hang: how much memory is left for how much text, who runs how often
//! through it, how fast the disk and the processor are, and what else goes on in the container.

use anyhow::Context as _;
use fastrand::Rng;
use memguard_lab::{
    Scenario,
    scenario::{
        Access, Container, Cpus, Disk, Expect, Half, HogMemory, KernelSwitches, Kind, Limits, Pod, Program, Size,
        Start, Time, Turns, Vm, Workload,
    },
};

use super::PREFIX;

/// Seconds from the limit to the end: enough for a hang that has to be seen, and for the default profile.
const RUN_S: u32 = 100;
/// Real programs: in which scenario each is, how many MiB of its files it comes back to, and how much it takes besides.
const REAL: &[(&str, u32, u32)] = &[
    ("livelock-node", 40, 25),
    ("python-work", 8, 12),
    ("sqlite", 96, 6),
    ("ripgrep", 32, 8),
    ("compile", 32, 60),
    ("restarts-python", 16, 12),
];

/// What to draw from.
pub(super) struct Draw {
    real: Vec<Victim>,
}

/// What works in the container from the beginning on.
#[derive(Clone)]
struct Victim {
    told: String,
    program: Program,
    /// MiB of files that it comes back to.
    files: u32,
    /// MiB of anything else that it takes.
    besides: u32,
}

fn one_of<T: Clone>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())].clone()
}

/// True in so many of a hundred cases.
fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(..100) < percent
}

fn mib(count: u32) -> Size {
    Size(Some(u64::from(count) << 20))
}

fn workload(name: &str, at: Start, run: Program) -> Workload {
    Workload { name: name.to_owned(), nested: None, at, limits: Limits::default(), fails: false, run }
}

impl Draw {
    /// From the scenarios of the lab, whose real programs it takes.
    pub(super) fn new(scenarios: &[Scenario]) -> anyhow::Result<Self> {
        let real = REAL.iter().map(|(name, files, besides)| {
            let scenario = scenarios.iter().find(|scenario| scenario.name == *name);
            let mut programs = scenario.iter().flat_map(|scenario| scenario.workloads());
            let program = programs.find_map(|(.., workload)| match &workload.run {
                // It goes on for as long as the run does.
                Program::Repeat { argv, progress, .. } if workload.is_victim() => {
                    Some(Program::Repeat { argv: argv.clone(), seconds: None, progress: *progress })
                }
                _ => None,
            });
            let program = program.with_context(|| format!("no real program works in the scenario {name}"))?;
            Ok(Victim { told: format!("what {name} runs"), program, files: *files, besides: *besides })
        });
        Ok(Self { real: real.collect::<anyhow::Result<_>>()? })
    }

    pub(super) fn scenario(&self, seed: u32, number: u32) -> Scenario {
        let rng = &mut Rng::with_seed((u64::from(seed) << 32) | u64::from(number));
        let (vm, mut told) = vm(rng);
        let kernel = KernelSwitches { mglru: one_of(rng, &[None, None, Some(true), Some(false)]) };
        told.extend(kernel.mglru.map(|on| format!("MGLRU {}", if on { "on" } else { "off" })));
        let cpu_max = if chance(rng, 20) { Cpus::try_from(one_of(rng, &[0.2, 0.3, 0.4, 0.6, 0.9])).ok() } else { None };
        told.extend(cpu_max.map(|cpus| format!("limit of {} CPUs", f64::from(cpus))));
        let slow = vm.disk.iops <= 500 || cpu_max.is_some();

        let victim = self.victim(rng);
        told.push(victim.told.clone());
        let (limit, hog) = hog(rng, &victim, &mut told);
        let mut workload =
            vec![workload("victim", Start::Beginning, victim.program), workload("hog", Start::Trouble, hog)];
        if chance(rng, 40) {
            workload.push(companion(rng, &mut told));
        }
        if chance(rng, 10) {
            told.push("nested".to_owned());
            for workload in &mut workload {
                workload.nested = Some("docker/inner".to_owned());
            }
        }

        let mut container = container("job", limit, workload);
        container.oom_group = rng.bool();
        let mut pod = pod("job");
        if chance(rng, 15) {
            told.push("limits of the pod".to_owned());
            (pod.memory_max, container.memory_max, pod.cpu_max) = (container.memory_max, None, cpu_max);
        } else {
            container.cpu_max = cpu_max;
            if chance(rng, 15) {
                told.push("at memory.high".to_owned());
                (container.memory_high, container.memory_max) = (container.memory_max, Some(mib(limit + 256)));
            }
        }
        pod.container.push(container);
        let mut pods = vec![pod];
        if chance(rng, 15) {
            told.push("a neighbour streams".to_owned());
            pods.push(neighbour());
        }
        Scenario {
            name: format!("{PREFIX}{seed}-{number}"),
            summary: told.join("; "),
            kind: Kind::Open,
            half: Half::HeldOut,
            family: None,
            vm,
            kernel,
            come_and_go: 0,
            time: Time { warm_up_s: if slow { 70 } else { 45 }, run_s: RUN_S },
            pod: pods,
            expect: Expect { container: Some("job/job".to_owned()), ..Expect::default() },
        }
    }

    fn victim(&self, rng: &mut Rng) -> Victim {
        if chance(rng, 30) {
            return one_of(rng, &self.real);
        }
        if chance(rng, 15) {
            let (mib, hot_mib) = (one_of(rng, &[64, 256, 640]), one_of(rng, &[8, 16, 64]));
            let access = one_of(rng, &[Access::Mmap, Access::Mmap, Access::Pread]);
            // It outlasts the run.
            let program = Program::Database { seconds: 600, access, mib, hot_mib };
            return Victim {
                told: format!("a database of {mib} MiB, {access:?}"),
                program,
                files: hot_mib,
                besides: 2,
            };
        }
        let threads = one_of(rng, &[1, 2, 4, 8, 16, 32, 64]);
        let hot_mib = one_of(rng, &[8, 12, 16, 24, 32, 48, 64, 96, 128]);
        let calls = one_of(rng, &[10, 20, 50, 100, 200]);
        let pause_ms = one_of(rng, &[1, 2, 5, 10, 20, 50, 100, 250]);
        let cold_per_mille = one_of(rng, &[0, 1, 3, 10, 50, 100]);
        let turns = one_of(rng, &[Turns::None, Turns::None, Turns::None, Turns::None, Turns::Requests, Turns::Calls]);
        let in_turns = if turns == Turns::None { String::new() } else { format!(", taking turns at {turns:?}") };
        Victim {
            told: format!(
                "{threads} threads, {hot_mib} MiB hot, {calls} calls every {pause_ms} ms, {cold_per_mille} of 1000 cold\
                 {in_turns}"
            ),
            program: Program::Listener { threads, hot_mib, calls, pause_ms, cold_per_mille, mlockall: false, turns },
            files: hot_mib + cold_per_mille,
            besides: 4 + threads / 8,
        }
    }
}

/// What takes the memory, and the limit that it comes to, in MiB.
fn hog(rng: &mut Rng, victim: &Victim, told: &mut Vec<String>) -> (u32, Program) {
    // From far too little to more than is needed. A mapped database may hang too, but memguard looks for program text alone: one
    // that scans a file as fast as the disk gives it looks the same.
    let percent: &[u32] = match victim.program {
        Program::Database { .. } => &[60, 80, 100, 150],
        _ => &[10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 100, 125, 150],
    };
    let percent = one_of(rng, percent);
    let room = victim.besides + 4 + victim.files * percent / 100;
    // Without the hog there is room for all: what thrashes before the trouble can't be compared with itself.
    let least = (victim.files + victim.besides + 32).max(room + 16);
    let limit = one_of(rng, &[64, 128, 256, 384, 512, 768, 1024]).max(least);
    let takes = limit - room;
    let memory = one_of(rng, &[HogMemory::Anon, HogMemory::Anon, HogMemory::Shmem]);
    // As fast as it can, in seconds, or in half a minute.
    let mib_per_s = one_of(rng, &[400, 100, 100, 20, takes / 30 + 1]);
    let bounded = chance(rng, 93);
    told.push(format!(
        "of {limit} MiB {takes}{} are taken at {mib_per_s} MiB/s ({memory:?}), room for {percent} % of the files",
        if bounded { "" } else { " and more" }
    ));
    (limit, Program::Hog { memory, stop: bounded.then_some(mib(takes)), mib_per_s })
}

fn vm(rng: &mut Rng) -> (Vm, Vec<String>) {
    let (iops, mib_per_s) = one_of(rng, &[(3000, 125), (3000, 125), (3000, 125), (500, 30), (150, 8), (16000, 500)]);
    let readahead = one_of(rng, &[128, 128, 128, 16, 2048]);
    let cpus = if chance(rng, 10) { 2 } else { 1 };
    let told = vec![format!("{cpus} processors"), format!("disk of {iops} IOPS, readahead of {readahead} KiB")];
    (Vm { cpus, memory_mib: 2048, disk: Disk { iops, mib_per_s, readahead_kib: Some(readahead) } }, told)
}

/// What comes into the container with the trouble. It has one thread: more would take the processor from what works there,
/// and that is no business of memguard's.
fn companion(rng: &mut Rng, told: &mut Vec<String>) -> Workload {
    let seconds = RUN_S - 10;
    let (what, program) = match rng.u32(..7) {
        0 | 1 => ("a stream".to_owned(), Program::Stream { seconds }),
        2 => {
            let mib = one_of(rng, &[32, 128, 512]);
            (format!("{mib} MiB read again and again"), Program::Reread { seconds, mib })
        }
        3 => ("a scan".to_owned(), Program::MmapScan { seconds }),
        4 => {
            let (size, keep_ms) = (one_of(rng, &[4, 16, 48]), one_of(rng, &[200, 2000]));
            (format!("bursts of {size} MiB"), Program::Burst { seconds, size: mib(size), keep_ms })
        }
        5 => {
            let access = one_of(rng, &[Access::Mmap, Access::Pread]);
            (format!("a database, {access:?}"), Program::Database { seconds, access, mib: 256, hot_mib: 16 })
        }
        _ => ("files in a tmpfs".to_owned(), Program::TmpfsFiles { seconds, keep: mib(12), file_mib: 2 }),
    };
    told.push(format!("beside {what}"));
    workload("companion", Start::Trouble, program)
}

/// A pod that reads from the same disk all along.
fn neighbour() -> Pod {
    let stream = workload("neighbour", Start::Beginning, Program::Stream { seconds: 600 });
    Pod { container: vec![container("app", 96, vec![stream])], ..pod("neighbour") }
}

fn pod(name: &str) -> Pod {
    Pod { name: name.to_owned(), memory_max: None, cpu_max: None, container: Vec::new() }
}

fn container(name: &str, limit: u32, workload: Vec<Workload>) -> Container {
    Container {
        name: name.to_owned(),
        memory_max: Some(mib(limit)),
        memory_high: None,
        cpu_max: None,
        oom_group: false,
        workload,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::paths;

    #[test]
    fn all_that_is_drawn_can_be_written_read_and_drawn_again() {
        let draw = Draw::new(&Scenario::read_all(&paths::scenarios()).unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut seen = BTreeSet::new();
        for number in 1..=300 {
            let scenario = draw.scenario(7, number);
            assert_eq!(scenario, draw.scenario(7, number));
            let path = dir.path().join(format!("{}.toml", scenario.name));
            std::fs::write(&path, toml::to_string(&scenario).unwrap()).unwrap();
            assert_eq!(Scenario::read(&path).unwrap(), scenario);
            seen.insert(scenario.summary);
        }
        assert_eq!(seen.len(), 300);
        assert_ne!(draw.scenario(8, 1), draw.scenario(7, 1));
        let missing = Draw::new(&[]).err().unwrap().to_string();
        assert!(missing.contains("livelock-node"), "{missing}");
    }
}
