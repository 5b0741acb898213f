//! Cases with real containers: containerd and runc run a job that hangs, and memguard from its own image, as the pods that a
//! kubelet would have them run.

mod logs;
mod node;
mod pods;
mod probe;
mod terminal;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use memguard_lab::{
    Record,
    chain::{self, World},
    containers::{CASE, Case, Ending, MEMGUARD, NEIGHBOUR, NODE, Plan, SIDECAR, TROUBLE, VICTIM},
    place,
    scenario::{KernelSwitches, Vm},
};
use serde_json::{Value, json};

use self::{
    logs::Log,
    node::{Container, Node},
    probe::Probe,
    terminal::Terminal,
};
use super::{STEP, chain::Stubs};
use crate::guest::{
    cgroups::{Place, Tree},
    children, machine,
    port::Port,
    witness,
};

/// How long memguard's container may take until it says that it is ready.
const READY: Duration = Duration::from_mins(2);
/// A hang that was not ended so long after the trouble began is given up, and the case judged as it is.
const PATIENCE: Duration = Duration::from_mins(2);
/// The job works for so long before the trouble.
const WARM_UP: Duration = Duration::from_secs(8);
/// After memguard has acted: whatever else it does is done by then, and so are the runtime's events.
const AFTERMATH: Duration = Duration::from_secs(6);
/// So long after the container has reached its limit memguard is asked what it sees.
const LOOK_AFTER: Duration = Duration::from_secs(6);
/// And so long after it somebody opens `top`: sees the table, opens the container, scrolls to its end, goes back, and asks for the
/// incidents when all is over. A picture that grows leaves its end behind, so they scroll twice.
const TOP_AFTER: Duration = Duration::from_secs(1);
const TOP_KEYS: [(f64, &str); 6] = [(8.5, "\r"), (10.0, "G"), (10.6, "G"), (11.0, "\x1b"), (19.0, "i"), (21.0, "q")];

const API_PORT: u16 = 6443;
const GITHUB_PORT: u16 = 8080;
/// Of the chart.
const METRICS_PORT: u16 = 9619;

pub(in crate::guest) fn containers(port: &Port, plan: &Plan) -> anyhow::Result<()> {
    machine::prepare(&Vm::default(), &KernelSwitches::default())?;
    // containerd offers terminals there.
    machine::loopback()?;
    let mut node = Node::start(port, plan)?;
    for case in &plan.cases {
        port.send(Record::Case { case: *case });
        if let Err(error) = play(port, &mut node, plan, *case) {
            port.send(Record::Output { workload: CASE.to_owned(), line: format!("{error:#}") });
        }
        // The next one begins with nothing of this one.
        node.clear()?;
        node.pass_on_events(port);
        let _ = fs::remove_file(TROUBLE);
    }
    Ok(())
}

/// A case under way.
struct Round<'a> {
    port: &'a Port,
    node: &'a mut Node,
    memguard: Container,
    jobs: BTreeMap<&'static str, Container>,
    tree: Tree,
    progress: BTreeMap<String, PathBuf>,
    log: Log,
    probe: Probe,
    next_sample: Instant,
    acted: Option<Instant>,
    top: Option<Terminal>,
}

fn play(port: &Port, node: &mut Node, plan: &Plan, case: Case) -> anyhow::Result<()> {
    let template = plan.templates.iter().find(|(variant, _)| *variant == case.variant);
    let (_, template) = template.with_context(|| format!("there is no template for {:?}", case.variant))?;
    let uid = place::uid(&format!("{MEMGUARD} {case}"));
    let pod = pods::memguard(template, &uid)?;
    // The pod's network has to be there for the API server in it, and the job's containers for what that tells of them.
    let sandbox = node.sandbox(MEMGUARD, &pod)?;
    let progress: BTreeMap<String, PathBuf> = ["listener", "hog", "sidecar", "neighbour"]
        .map(|name| (name.to_owned(), Path::new(machine::PROGRESS).join(name)))
        .into();
    // Made here, so that no container is charged for them.
    progress.values().try_for_each(|path| fs::write(path, 0_u64.to_ne_bytes()))?;
    // What the runtime unpacked is charged to the runtime while it stays in memory, and what an earlier container read to
    // that one. A job that begins a while later pays for its own text.
    machine::drop_caches()?;
    let single = case.ending == Ending::OomSingle;
    let mut jobs = BTreeMap::new();
    let mut containers = BTreeMap::new();
    let mut world = Vec::new();
    for (name, pod) in pods::jobs(&plan.image, case) {
        let sandbox = node.sandbox(name, &pod)?;
        containers.insert(format!("{name}/pause"), at(&sandbox.cgroup));
        let mut ids = Vec::new();
        for full_name in [VICTIM, SIDECAR, NEIGHBOUR].into_iter().filter(|full| full.starts_with(&format!("{name}/"))) {
            let container = full_name.split_once('/').map_or("", |(_, container)| container);
            let started = node.container(&sandbox, container, single)?;
            seen(port, full_name, "started", &started.told);
            ids.push((container.to_owned(), started.id.clone()));
            containers.insert(full_name.to_owned(), at(&started.cgroup));
            jobs.insert(full_name, started);
        }
        world.push(chain::Pod {
            name: name.to_owned(),
            uid: place::uid(name),
            runner_uid: (name == chain::RUNNER).then(|| place::uid(&format!("{name}-runner"))),
            containers: ids,
        });
    }
    let warm = Instant::now() + WARM_UP;
    let probe = Probe::of(sandbox.pid)?;
    let stubs = Stubs::start_in(&self::world(world), Some(probe.namespace()?))?;
    node.write_config(&uid, case.ending.action(), API_PORT)?;
    let began = Instant::now();
    let memguard = node.container(&sandbox, MEMGUARD, false)?;
    seen(port, MEMGUARD, "started", &memguard.told);
    containers.insert(format!("{MEMGUARD}/pause"), at(&sandbox.cgroup));
    containers.insert(format!("{MEMGUARD}/{MEMGUARD}"), at(&memguard.cgroup));
    let log = Log::open(&sandbox, MEMGUARD);
    let mut round = Round {
        port,
        node,
        memguard,
        jobs,
        tree: Tree { containers },
        progress,
        log,
        probe,
        next_sample: Instant::now(),
        acted: None,
        top: None,
    };
    let outcome = round.until_ready(began).and_then(|()| round.hang(warm)).and_then(|()| round.afterwards());
    let stopped = round.stop();
    let told = stubs.end(port);
    outcome.and(stopped).and(told)
}

fn seen(port: &Port, of: &str, what: &str, told: &Value) {
    port.send(Record::Seen { of: of.to_owned(), what: what.to_owned(), told: told.clone() });
}

fn at(cgroup: &Path) -> Place {
    Place { path: cgroup.to_owned(), limited_at: cgroup.to_owned() }
}

fn world(pods: Vec<chain::Pod>) -> World {
    World {
        kubernetes_port: API_PORT,
        github_port: GITHUB_PORT,
        token: chain::TOKEN.to_owned(),
        node: NODE.to_owned(),
        namespace: chain::NAMESPACE.to_owned(),
        pods,
        repository: chain::REPOSITORY.to_owned(),
        run_id: chain::RUN_ID,
        stubborn: false,
    }
}

impl Round<'_> {
    /// Asks as the kubelet's probe does.
    fn until_ready(&mut self, began: Instant) -> anyhow::Result<()> {
        loop {
            self.look();
            let page = self.probe.get(METRICS_PORT, "/readyz");
            if let Ok((200, body)) = &page {
                let after = began.elapsed().as_secs_f64();
                seen(self.port, MEMGUARD, "ready", &json!({"after_s": after, "page": body}));
                break;
            }
            if began.elapsed() >= READY {
                let status = self.memguard.status()?;
                bail!("memguard is not ready after {} s: {page:?}; its container: {status}", READY.as_secs());
            }
            thread::sleep(Duration::from_millis(500));
        }
        self.exec("doctor", &["doctor"])?;
        self.exec("doctor --json", &["doctor", "--json"])
    }

    /// Has a program of the container's image run in it, and tells what came of it.
    fn exec(&self, what: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let told = self.memguard.exec(arguments)?;
        seen(self.port, MEMGUARD, what, &told);
        Ok(())
    }

    /// Passes on what there was to see on a terminal.
    fn see(&mut self, what: &str, terminal: &Terminal) -> anyhow::Result<()> {
        let told = terminal.told(|| self.look())?;
        seen(self.port, MEMGUARD, what, &told);
        Ok(())
    }

    fn look(&mut self) {
        children::reap();
        for line in self.log.new_lines() {
            if line.contains("\"kind\":\"action\"") && self.acted.is_none() {
                self.acted = Some(Instant::now());
            }
            self.port.send(Record::Log { line });
        }
        self.node.pass_on_events(self.port);
        let now = Instant::now();
        if now >= self.next_sample {
            self.next_sample = now + Duration::from_secs(1);
            let sample = witness::sample(&self.tree, children::progress(&self.progress), self.memguard.pid);
            self.port.send(Record::Sample(Box::new(sample)));
        }
    }

    /// From the job's last good moment until memguard has acted.
    fn hang(&mut self, warm: Instant) -> anyhow::Result<()> {
        while Instant::now() < warm {
            self.look();
            thread::sleep(STEP);
        }
        self.port.send(Record::Trouble);
        fs::write(TROUBLE, "").with_context(|| format!("can't write {TROUBLE}"))?;
        let trouble = Instant::now();
        let mut at_limit: Option<Instant> = None;
        let mut asked = false;
        let mut dead = false;
        loop {
            self.look();
            let place = self.tree.containers.get(VICTIM).context("nobody is to hang")?;
            if at_limit.is_none() && witness::limit(place).is_some_and(|max| witness::current(place) * 20 >= max * 19) {
                at_limit = Some(Instant::now());
                self.port.send(Record::AtLimit { container: VICTIM.to_owned() });
            }
            if !dead && !witness::populated(place) {
                dead = true;
                self.port.send(Record::Dead { container: VICTIM.to_owned() });
            }
            if self.top.is_none() && at_limit.is_some_and(|at| at.elapsed() >= TOP_AFTER) {
                self.top = Some(Terminal::open(&self.memguard, "top", &["top"], &TOP_KEYS)?);
            }
            if !asked && at_limit.is_some_and(|at| at.elapsed() >= LOOK_AFTER) {
                asked = true;
                self.exec("status in trouble", &["status", "--output", "json"])?;
            }
            if self.acted.is_some_and(|acted| acted.elapsed() >= AFTERMATH) || trouble.elapsed() >= PATIENCE {
                return Ok(());
            }
            thread::sleep(STEP);
        }
    }

    /// What an operator would ask, and what Kubernetes would see.
    fn afterwards(&mut self) -> anyhow::Result<()> {
        for (name, container) in &self.jobs {
            seen(self.port, name, "ended", &container.status()?);
        }
        seen(self.port, MEMGUARD, "ended", &self.memguard.status()?);
        for (what, arguments) in [
            ("status", &["status", "--output", "json"][..]),
            ("incidents", &["incidents", "--output", "json"]),
            ("report", &["report", "latest"]),
            ("report --output json", &["report", "latest", "--output", "json"]),
        ] {
            self.exec(what, arguments)?;
        }
        if let Some(top) = self.top.take() {
            self.see("top", &top)?;
        }
        let report = Terminal::open(&self.memguard, "report", &["report", "latest"], &[])?;
        self.see("report on a terminal", &report)?;
        for page in ["/metrics", "/healthz", "/readyz"] {
            let (code, body) = self.probe.get(METRICS_PORT, page)?;
            seen(self.port, MEMGUARD, page, &json!({"code": code, "body": body}));
        }
        if let Some(facts) = self.memguard.pid.and_then(|pid| probe::facts(pid, &self.memguard.cgroup)) {
            self.port.send(Record::Facts(Box::new(facts)));
        }
        self.look();
        Ok(())
    }

    /// Ends memguard as the kubelet does, and passes on its last words.
    fn stop(&mut self) -> anyhow::Result<()> {
        let told = self.memguard.stop()?;
        thread::sleep(Duration::from_millis(500));
        self.look();
        seen(self.port, MEMGUARD, "stopped", &told);
        Ok(())
    }
}
