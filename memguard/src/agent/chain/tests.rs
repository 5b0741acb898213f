//! A made-up pod of two containers, second by second, by the agent itself: `a` has most of the memory and idles, `b` is the
//! lab's hang.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    agent::{Config, now},
    cgroup::{CgroupHandle, CgroupRoot, fake_cgroup},
    engine::{Cpu, LocalEvents, Memory, Sample, Stall, State, fixture::MIB, fixture::hang},
    journal::Journal,
    kernel::{Coverage, Facts, Level, plan},
    respond::{ActionError, Ended, Method, Mode, Out, Policy},
};

/// Who was ended.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<PathBuf>>>);

impl Actions for Told {
    fn end(
        &self,
        victim: CgroupHandle,
        _: Method,
        _: Duration,
        _: Out,
    ) -> impl Future<Output = Result<Ended, ActionError>> + Send + 'static {
        self.0.lock().unwrap().push(victim.path().to_owned());
        std::future::ready(Ok(Ended::Dead { write_us: 1, empty_after_ms: 2 }))
    }
}

/// Writes what a sample says to the files that it comes from.
fn write(path: &Path, sample: &Sample) {
    let Memory { current, max, anon, file, steals, refaults, major_faults, max_events, oom_kills, local, .. } =
        sample.memory;
    let cpu = sample.cpu.unwrap();
    let mut events = vec![("memory.events", format!("max {max_events}\noom 0\noom_kill {oom_kills}\n"))];
    if let Some(LocalEvents { max, oom, .. }) = local {
        events.push(("memory.events.local", format!("high 0\nmax {max}\noom {oom}\noom_kill 0\n")));
    }
    let pressure = |stall: Option<Stall>| {
        let Stall { some, full } = stall.unwrap();
        format!("some total={}\nfull total={}\n", some.as_micros(), full.as_micros())
    };
    let stat = format!(
        "anon {anon}\nfile {file}\nshmem 0\npgsteal {steals}\nworkingset_refault_file {refaults}\npgmajfault {major_faults}\n"
    );
    let files = [
        ("memory.current", format!("{current}\n")),
        ("memory.max", max.map_or_else(|| "max\n".to_owned(), |max| format!("{max}\n"))),
        ("memory.stat", stat),
        ("memory.pressure", pressure(sample.pressure.memory)),
        ("io.pressure", pressure(sample.pressure.io)),
        ("cpu.pressure", pressure(sample.pressure.cpu)),
        ("cpu.stat", format!("user_usec {}\nsystem_usec {}\n", cpu.user.as_micros(), cpu.system.as_micros())),
    ];
    for (name, text) in files.into_iter().chain(events) {
        fs::write(path.join(name), text).unwrap();
    }
}

/// So many hits of its own limit.
fn local(max: u64) -> LocalEvents {
    LocalEvents { max, ..LocalEvents::default() }
}

/// Full, and at rest.
fn idle() -> Sample {
    let memory =
        Memory { current: 1023 * MIB, max: Some(1024 * MIB), anon: 1000 * MIB, file: 20 * MIB, ..Memory::default() };
    let cpu = Some(Cpu { user: Duration::from_secs(9), system: Duration::from_secs(1), ..Cpu::default() });
    Sample { memory: Memory { local: Some(local(7)), ..memory }, cpu, ..hang(0) }
}

/// The hang, with so many hits a second of its own limit, of 69.
fn hung(second: u64, own: u64) -> Sample {
    let sample = hang(second);
    Sample { memory: Memory { local: Some(local(own * second)), ..sample.memory }, ..sample }
}

/// The sum of both, with so many hits of the pod's own limit beside those of `b`.
fn of_both(second: u64, own: u64, below: u64) -> Sample {
    let sample = hang(second);
    let memory = Memory {
        current: 1535 * MIB,
        max: Some(1536 * MIB),
        anon: 1480 * MIB,
        file: 44 * MIB,
        max_events: (own + below) * second,
        local: Some(local(own * second)),
        ..sample.memory
    };
    Sample { memory, ..sample }
}

struct Node {
    _dir: tempfile::TempDir,
    agent: Agent<Told>,
    told: Told,
    began: Duration,
    second: u64,
    pod: PathBuf,
    a: PathBuf,
    b: PathBuf,
}

impl Node {
    fn new(policy: Policy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("kubepods.slice/kubepods-pod7fb47c9c_45d8_4a2c_8f1e_0123456789ab.slice");
        let [a, b] = ["a", "b"].map(|id| pod.join(format!("cri-containerd-{}.scope", id.repeat(64))));
        for path in [&pod, &a, &b] {
            fake_cgroup(path);
            write(path, &idle());
        }
        let root = CgroupRoot::new(dir.path());
        let (facts, _) = Facts::gather(&root, false);
        let told = Told::default();
        // Of the clock on the wall, which stands still here.
        let policy = Policy { mode: Mode::Enforce, pod_delay: Duration::ZERO, ..policy };
        let config = Config { policy, ..Config::default() };
        let agent = Agent::new(config, told.clone(), Journal::none(), &root, None, &plan(&facts), None);
        Self { _dir: dir, agent, told, began: now(), second: 0, pod, a, b }
    }

    fn watch(&mut self, path: &Path) -> UnitId {
        let id = UnitId(fs::metadata(path).unwrap().ino());
        self.agent.watch(id, path, self.began);
        id
    }

    /// One second more, by what the pod and `b` do in it.
    async fn second(&mut self, pod: impl Fn(u64) -> Sample, b: impl Fn(u64) -> Sample) {
        self.second += 1;
        write(&self.pod, &pod(self.second));
        write(&self.b, &b(self.second));
        self.agent.look(self.began + Duration::from_secs(self.second), true);
        while let Some(outcome) = self.agent.actions_under_way.join_next().await {
            self.agent.finished(outcome.unwrap());
        }
    }

    fn ended(&self) -> Vec<PathBuf> {
        self.told.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_container_that_hangs_at_its_own_limit_is_the_only_one_that_is_ended_for_it() {
    // Of 69 hits a second at the container's limit: the pod's is hit now and then, or more often than that.
    for own in [1, 200] {
        let mut node = Node::new(Policy::default());
        let (a, pod, b) = (node.a.clone(), node.pod.clone(), node.b.clone());
        node.watch(&a);
        let (pod, _) = (node.watch(&pod), node.watch(&b));
        let mut most = 0;
        for _ in 0..100 {
            node.second(|second| of_both(second, own, 69), |second| hung(second, 69)).await;
            assert!(node.agent.engine.state(pod) < State::Suspect, "{own} at {} s", node.second);
            most = most.max(node.agent.suspects.count(now(), Duration::from_hours(1)));
        }
        assert_eq!(most, 1, "it is one hang");
        assert_eq!(
            (node.agent.units.len(), node.agent.under_reclaim()),
            (2, 1),
            "a is at rest, and the pod is not one more"
        );
        let ended = node.ended();
        assert!(ended.len() >= 2 && ended.iter().all(|victim| *victim == node.b), "{own}: {ended:?}");
    }
}

#[tokio::test]
async fn nor_is_another_ended_for_one_that_is_spared() {
    let protect = vec![glob::Pattern::new("**/cri-containerd-bb*").unwrap()];
    let mut node = Node::new(Policy { protect: [Policy::default().protect, protect].concat(), ..Policy::default() });
    let (pod, b) = (node.pod.clone(), node.b.clone());
    let (pod, b) = (node.watch(&pod), node.watch(&b));
    for _ in 0..100 {
        node.second(|second| of_both(second, 200, 69), |second| hung(second, 69)).await;
    }
    assert!(
        node.agent.summary.suppressed > 0 && node.agent.engine.looks_hung(b, node.began + Duration::from_secs(100))
    );
    assert_eq!((node.ended(), node.agent.engine.state(pod)), (Vec::new(), State::Pressed));
}

/// Whether its containers have no limits, or none that is hit, a hang at the pod's is seen as if there were no others.
#[tokio::test]
async fn a_hang_at_the_limit_of_the_pod_is_seen_as_soon_as_ever() {
    let mut engine = crate::engine::Engine::new(crate::engine::Settings::default());
    let alone = (1..60)
        .find(|second| engine.observe(UnitId(1), Sample { tracer: None, ..of_both(*second, 69, 0) }).verdict.is_some());
    for limit in [None, Some(514 * MIB)] {
        let mut node = Node::new(Policy::default());
        let (pod, b) = (node.pod.clone(), node.b.clone());
        for path in [&pod, &b] {
            node.watch(path);
        }
        let mut first = None;
        for _ in 1..60 {
            let b = |second| {
                let sample = hung(second, 0);
                Sample { memory: Memory { max: limit, max_events: 0, ..sample.memory }, ..sample }
            };
            node.second(|second| of_both(second, 69, 0), b).await;
            first = first.or_else(|| (!node.ended().is_empty()).then_some(node.second));
        }
        assert_eq!((first, alone.is_some()), (alone, true), "{limit:?}");
        assert_eq!(node.ended()[0], node.a, "the one with the most");
    }
}

/// Docker in a container: what it starts has a limit of its own, and is ended at it and started again.
#[tokio::test]
async fn an_oom_kill_at_a_smaller_limit_below_does_not_hide_a_hang() {
    let restarts = |oom: u64| {
        move |second: u64| {
            let sample = hung(second, 69);
            let local = Some(LocalEvents { max: 69 * second, oom: oom * second, oom_kills: 0, high: 0 });
            Sample { memory: Memory { oom_kills: second / 4, local, ..sample.memory }, ..sample }
        }
    };
    for (oom, ended) in [(0, true), (1, false)] {
        let mut node = Node::new(Policy::default());
        let b = node.b.clone();
        node.watch(&b);
        for _ in 0..20 {
            node.second(|_| idle(), restarts(oom)).await;
        }
        assert_eq!(!node.ended().is_empty(), ended, "asked {oom} times a second for this very limit");
    }
}

#[tokio::test]
async fn without_its_ring_it_goes_on_from_files() {
    let mut node = Node::new(Policy::default());
    (node.agent.coverage, node.agent.level) = (Some(Coverage::ALL), Level::Full);
    let b = node.b.clone();
    node.watch(&b);
    for _ in 0..30 {
        node.second(|_| idle(), |second| hung(second, 69)).await;
    }
    assert!(node.ended().is_empty(), "counters that stand still speak against it");
    node.agent.without_ring(&std::io::Error::other("it broke"));
    assert_eq!(node.agent.level, Level::Files);
    assert!(node.agent.plan.no_tracer.as_ref().is_some_and(|why| why.contains("it broke")));
    for _ in 0..20 {
        node.second(|_| idle(), |second| hung(second, 69)).await;
    }
    assert_eq!(node.ended(), [node.b.clone()]);
}

#[test]
fn those_further_down_come_first_and_a_chain_counts_once() {
    let paths = ["/r/p", "/r/p/a", "/r/p/b", "/r/p/b/docker", "/r/q", "/r/pp"].map(Path::new);
    let units = (0..).map(UnitId).zip(paths);
    let order: Vec<u64> = deepest_first(units).into_iter().map(|id| id.0).collect();
    assert_eq!(order, [3, 1, 2, 0, 4, 5]);
    assert_eq!(chains(paths.into_iter()), 4, "a, docker, q, pp");
    let mut hanging = Hanging::default();
    hanging.add(paths[3]);
    let below: Vec<bool> = paths.iter().map(|path| hanging.is_below(path)).collect();
    assert_eq!(below, [true, false, true, false, false, false]);
}
