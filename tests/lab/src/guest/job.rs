//! Running a job.

mod chain;
mod containers;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use memguard_lab::{
    MemguardMode, Record, Scenario, recording,
    scenario::{KernelSwitches, Limits, Program, Start, Vm},
};
use rustix::process::{Pid, Signal, kill_process};

pub(super) use self::{chain::chain, containers::containers};
use super::{
    cgroups::{self, Tree},
    children::{self, Exit},
    machine,
    port::Port,
    witness,
};

/// How long memguard may take to attach, and to end.
const MEMGUARD_PATIENCE: Duration = Duration::from_secs(90);
/// Where memguard records to: in the guest's memory, not on the throttled disk, and charged to memguard's own cgroup.
const RECORDING: &str = "/run/memguard.mgtrace";
/// After the container in trouble is dead, its neighbours are watched for so long.
const AFTERMATH: Duration = Duration::from_secs(8);
/// Pause between two looks at what has ended.
const STEP: Duration = Duration::from_millis(50);

/// A running memguard.
struct Memguard {
    binary: PathBuf,
    pid: u32,
    lines: Receiver<String>,
}

/// Runs a command and passes its output on.
pub(super) fn command(port: &Port, argv: &[String]) -> anyhow::Result<()> {
    if machine::has(machine::Virtio::Block) {
        machine::prepare(&Vm::default(), &KernelSwitches::default())?;
    }
    let (first, rest) = argv.split_first().context("the command is empty")?;
    let mut child = Command::new(first)
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {first}"))?;
    let (sender, lines) = channel();
    if let Some(out) = child.stdout.take() {
        children::forward(out, sender.clone(), |line| line);
    }
    if let Some(err) = child.stderr.take() {
        children::forward(err, sender, |line| line);
    }
    for line in lines {
        port.send(Record::Log { line });
    }
    let status = child.wait()?;
    port.send(Record::Ended { code: status.code(), signal: std::os::unix::process::ExitStatusExt::signal(&status) });
    Ok(())
}

/// Runs a scenario.
pub(super) fn scenario(
    port: &Port,
    scenario: &Scenario,
    mode: MemguardMode,
    arguments: &[String],
) -> anyhow::Result<()> {
    machine::prepare(&scenario.vm, &scenario.kernel)?;
    let tree = cgroups::make(scenario)?;
    let memguard = match mode {
        MemguardMode::Off => None,
        MemguardMode::Observe | MemguardMode::Enforce | MemguardMode::Relieve => {
            Some(start_memguard(port, mode, arguments)?)
        }
    };
    if scenario.come_and_go > 0 {
        port.send(Record::Step { what: format!("making and removing {} cgroups", scenario.come_and_go) });
        cgroups::come_and_go(scenario.come_and_go)?;
    }
    let mut run = Run::new(port, scenario, &tree, memguard);
    let outcome = run.play();
    run.stop_memguard();
    outcome
}

fn start_memguard(port: &Port, mode: MemguardMode, arguments: &[String]) -> anyhow::Result<Memguard> {
    port.send(Record::Step { what: format!("starting memguard from the root disk, {}", mode.arguments().join(" ")) });
    let binary = machine::install("/memguard", "usr/bin/memguard")?;
    let mut command = Command::new(&binary);
    command
        .args(["run", "--log-format", "json", "--report-interval", "10", "--record", RECORDING])
        .args(mode.arguments())
        .args(arguments);
    Memguard::start(port, binary, command)
}

impl Memguard {
    /// Starts it, and waits until it says so.
    fn start(port: &Port, binary: PathBuf, mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = children::spawn_in(cgroups::MEMGUARD.as_ref(), command)?;
        let (sender, lines) = channel();
        if let Some(err) = child.stderr.take() {
            children::forward(err, sender, |line| line);
        }
        let memguard = Self { binary, pid: child.id(), lines };
        let deadline = Instant::now() + MEMGUARD_PATIENCE;
        loop {
            let line = match memguard.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => bail!("memguard ended before it said that it had started"),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("memguard did not say that it has started within {} s", MEMGUARD_PATIENCE.as_secs())
                }
            };
            let started = line.contains("\"kind\":\"started\"");
            port.send(Record::Log { line });
            if started {
                return Ok(memguard);
            }
        }
    }
}

struct Run<'a> {
    port: &'a Port,
    scenario: &'a Scenario,
    tree: &'a Tree,
    memguard: Option<Memguard>,
    /// Names by PID.
    workloads: BTreeMap<u32, String>,
    progress: BTreeMap<String, PathBuf>,
    running: BTreeSet<String>,
    at_limit: BTreeSet<String>,
    dead: BTreeSet<String>,
    memguard_ended: bool,
    /// What workloads write to standard error.
    outputs: (Sender<Record>, Receiver<Record>),
}

impl<'a> Run<'a> {
    fn new(port: &'a Port, scenario: &'a Scenario, tree: &'a Tree, memguard: Option<Memguard>) -> Self {
        Self {
            port,
            scenario,
            tree,
            memguard,
            workloads: BTreeMap::new(),
            progress: BTreeMap::new(),
            running: BTreeSet::new(),
            at_limit: BTreeSet::new(),
            dead: BTreeSet::new(),
            memguard_ended: false,
            outputs: channel(),
        }
    }

    fn play(&mut self) -> anyhow::Result<()> {
        self.port.send(Record::Step { what: format!("warming up for {} s", self.scenario.time.warm_up_s) });
        self.start_pauses()?;
        self.start(Start::Beginning)?;
        let warm = Instant::now() + Duration::from_secs(u64::from(self.scenario.time.warm_up_s));
        let run_for = Duration::from_secs(u64::from(self.scenario.time.run_s));
        let mut next_sample = Instant::now();
        let mut end = None;
        let mut trouble = false;
        loop {
            let now = Instant::now();
            self.pass_on_logs();
            for exit in children::reap() {
                self.exited(exit);
            }
            self.note_deaths();
            if !trouble && now >= warm {
                trouble = true;
                self.port.send(Record::Trouble);
                self.start(Start::Trouble)?;
                end = Some(now + run_for);
            }
            if trouble && self.note_limits() && self.expected_at_limit() {
                end = Some(now + run_for);
            }
            if now >= next_sample {
                next_sample += Duration::from_secs(1);
                let memguard = self.memguard.as_ref().map(|memguard| memguard.pid);
                let sample = witness::sample(self.tree, children::progress(&self.progress), memguard);
                self.port.send(Record::Sample(Box::new(sample)));
            }
            if trouble && self.is_over() {
                end = end.map(|end| end.min(now + AFTERMATH));
            }
            if end.is_some_and(|end| now >= end) {
                return Ok(());
            }
            thread::sleep(STEP);
        }
    }

    fn start_pauses(&mut self) -> anyhow::Result<()> {
        for pod in &self.scenario.pod {
            let name = format!("{}-pause", pod.name);
            self.spawn(&name, &Program::Pause, Limits::default(), &format!("{}/pause", pod.name), None)?;
        }
        Ok(())
    }

    fn start(&mut self, when: Start) -> anyhow::Result<()> {
        for (pod, container, workload) in self.scenario.workloads().filter(|(.., workload)| workload.at == when) {
            let container = cgroups::full_name(pod, container);
            self.spawn(&workload.name, &workload.run, workload.limits, &container, workload.nested.as_deref())?;
            self.running.insert(workload.name.clone());
        }
        Ok(())
    }

    /// Whether one of the workloads that begin at that moment runs.
    fn is_running(&self, when: Start) -> bool {
        self.scenario.workloads().any(|(.., workload)| workload.at == when && self.running.contains(&workload.name))
    }

    fn spawn(
        &mut self,
        name: &str,
        program: &Program,
        limits: Limits,
        container: &str,
        nested: Option<&str>,
    ) -> anyhow::Result<()> {
        let place = self.tree.containers.get(container).with_context(|| format!("no container {container}"))?;
        let cgroup = nested.map_or_else(|| place.path.clone(), |nested| place.path.join(nested));
        let (command, progress) = children::workload(name, program, limits)?;
        let mut child = children::spawn_in(&cgroup, command)?;
        if let Some(err) = child.stderr.take() {
            let workload = name.to_owned();
            children::forward(err, self.outputs.0.clone(), move |line| Record::Output {
                workload: workload.clone(),
                line,
            });
        }
        self.workloads.insert(child.id(), name.to_owned());
        self.progress.insert(name.to_owned(), progress);
        let cgroup = cgroup.display().to_string();
        self.port.send(Record::Started { workload: name.to_owned(), pid: child.id(), cgroup });
        Ok(())
    }

    fn pass_on_logs(&self) {
        for record in self.outputs.1.try_iter() {
            self.port.send(record);
        }
        for line in self.memguard.iter().flat_map(|memguard| memguard.lines.try_iter()) {
            self.port.send(Record::Log { line });
        }
    }

    fn exited(&mut self, exit: Exit) {
        let Exit { pid, code, signal } = exit;
        if self.memguard.as_ref().is_some_and(|memguard| memguard.pid == pid) {
            self.memguard_ended = true;
            self.port.send(Record::Ended { code, signal });
        } else if let Some(workload) = self.workloads.remove(&pid) {
            self.running.remove(&workload);
            self.port.send(Record::Exited { workload, code, signal });
        }
    }

    /// Reports containers that had processes and have none any more.
    fn note_deaths(&mut self) {
        let begun: BTreeSet<String> = self
            .scenario
            .workloads()
            .filter(|(.., workload)| self.progress.contains_key(&workload.name))
            .map(|(pod, container, _)| cgroups::full_name(pod, container))
            .collect();
        for name in begun {
            let empty = self.tree.containers.get(&name).is_some_and(|place| !witness::populated(place));
            if empty && self.dead.insert(name.clone()) {
                self.port.send(Record::Dead { container: name });
            }
        }
    }

    /// Reports containers that are at their limit for the first time; says whether there is a new one.
    fn note_limits(&mut self) -> bool {
        let mut new = false;
        for (name, place) in &self.tree.containers {
            let at_limit =
                witness::limit(place).is_some_and(|limit| witness::current(place) as f64 >= 0.95 * limit as f64);
            if at_limit && self.at_limit.insert(name.clone()) {
                self.port.send(Record::AtLimit { container: name.clone() });
                new = true;
            }
        }
        new
    }

    /// Whether the containers that the scenario is about have reached their limits by now.
    fn expected_at_limit(&self) -> bool {
        self.scenario.expect.containers().all(|container| self.at_limit.contains(container))
    }

    /// Whether what the scenario is about has ended: the containers in trouble are dead, or every workload that ends by
    /// itself has ended.
    fn is_over(&self) -> bool {
        let mut expected = self.scenario.expect.containers().peekable();
        let dead = expected.peek().is_some() && expected.all(|container| self.dead.contains(container));
        let mut workloads = self.scenario.workloads().filter(|(.., workload)| workload.run.ends().is_some()).peekable();
        let finished =
            workloads.peek().is_some() && workloads.all(|(.., workload)| !self.running.contains(&workload.name));
        dead || finished
    }

    /// Has memguard end, and passes on its last words.
    fn end_memguard(&mut self) {
        let Some(memguard) = &self.memguard else { return };
        if !self.memguard_ended
            && let Some(pid) = Pid::from_raw(memguard.pid.cast_signed())
        {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + MEMGUARD_PATIENCE;
        while !self.memguard_ended && Instant::now() < deadline {
            for exit in children::reap() {
                self.exited(exit);
            }
            thread::sleep(STEP);
        }
        // The pipe's last lines come a moment after its writer is gone.
        let Some(memguard) = &self.memguard else { return };
        while let Ok(line) = memguard.lines.recv_timeout(Duration::from_millis(500)) {
            self.port.send(Record::Log { line });
        }
    }

    fn stop_memguard(&mut self) {
        self.end_memguard();
        let Some(memguard) = &self.memguard else { return };
        // What it keeps has to be there now that it is gone.
        if let Ok(said) = Command::new(&memguard.binary).args(["incidents", "--output", "json"]).output() {
            self.port.send(Record::Incidents { list: String::from_utf8_lossy(&said.stdout).into_owned() });
        }
        let report = Command::new(&memguard.binary).args(["report", "latest", "--output", "json"]).output();
        if let Some(report) = report.ok().and_then(|said| serde_json::from_slice(&said.stdout).ok()) {
            self.port.send(Record::Report { report });
        }
        if let Ok(bytes) = std::fs::read(RECORDING) {
            recording::pieces(&bytes).for_each(|piece| self.port.send(piece));
        }
    }
}
