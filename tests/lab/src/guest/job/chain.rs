//! Rounds of the whole chain: a hang, memguard with a Kubernetes API and a GitHub on the guest's loopback, and what
//! follows, with memguard killed on the way or with something it depends on gone.

mod disk;
mod stubs;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use memguard_lab::{
    Record, Scenario,
    chain::{Fault, ROUND, Round, Server, State},
    scenario::Start,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};

use self::disk::Disk;
pub(super) use self::stubs::{Stubs, kubeconfig};
use super::{Memguard, Run, STEP};
use crate::guest::{cgroups, children, machine, port::Port, witness};

/// A round that has not come to its end so long after the trouble began is given up, and judged as it is.
const PATIENCE: Duration = Duration::from_secs(330);
/// After the last follow-up is settled: what is done twice is done by then.
const AFTERMATH: Duration = Duration::from_secs(3);
/// A container that is ended as a whole is empty sooner.
const HOG_AGAIN: Duration = Duration::from_secs(5);
/// So that a guest that stands still is told from one in which nothing happens.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at what memguard says of the incident.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// GitHub is away in three ways, one after the other, each for so long.
const GITHUB_AWAY: Duration = Duration::from_secs(20);
/// The API server is away for so long after the container is dead.
const KUBERNETES_AWAY: Duration = Duration::from_secs(30);

/// What a round has on the guest's memory.
const FOLDER: &str = "/run/chain";

pub(in crate::guest) fn chain(port: &Port, scenario: &Scenario, rounds: &[Round], app_key: &str) -> anyhow::Result<()> {
    machine::prepare(&scenario.vm, &scenario.kernel)?;
    machine::loopback()?;
    let binary = machine::install("/memguard", "usr/bin/memguard")?;
    for round in rounds {
        port.send(Record::Round { round: round.clone(), with: None });
        if let Err(error) = play(port, scenario, &binary, round, app_key) {
            // The next one begins with nothing of this one.
            port.send(Record::Output { workload: ROUND.to_owned(), line: format!("{error:#}") });
        }
    }
    Ok(())
}

fn play(port: &Port, scenario: &Scenario, binary: &Path, round: &Round, app_key: &str) -> anyhow::Result<()> {
    let _ = fs::remove_dir_all(FOLDER);
    fs::create_dir_all(FOLDER)?;
    // Text that an earlier round has read is charged to the cgroup of then, or to what is above it, so a container that finds
    // it in memory never comes to its limit.
    rustix::fs::sync();
    machine::write("/proc/sys/vm/drop_caches", "1")?;
    let tree = cgroups::make(scenario)?;
    let disk = Disk::new(round.fault)?;
    let stubs = Stubs::start(scenario, round, app_key)?;
    let starting = Starting { binary, state: disk.state(), round };
    let victim = scenario.expect.container.as_deref().context("the scenario names no container")?;
    let place = tree.containers.get(victim).with_context(|| format!("no container {victim}"))?;
    watch_for_its_end(port.clone(), victim.to_owned(), &place.path)?;
    let mut chain = Chain {
        run: Run::new(port, scenario, &tree, None),
        starting,
        place,
        disk,
        stubs,
        trouble: None,
        hog_gone: None,
        began: false,
        dead: None,
        crashed: None,
        done: None,
    };
    let outcome = chain.play();
    let Chain { mut run, mut disk, stubs, .. } = chain;
    // Nothing hangs any more, or memguard could not end.
    disk.heal();
    let sample = witness::sample(&tree, children::progress(&run.progress), None);
    port.send(Record::Sample(Box::new(sample)));
    run.end_memguard();
    let run_folder = Path::new(FOLDER).join("run");
    port.send(Record::Incidents { list: incidents(binary, &run_folder, &disk.state()) });
    // What outlives the machine's start, alone.
    port.send(Record::Stored { list: incidents(binary, &Path::new(FOLDER).join("empty"), &disk.state()) });
    let told = stubs.end(port);
    cgroups::clear()?;
    disk.clear()?;
    outcome.and(told)
}

/// How memguard is started, in the first place and after it was killed.
struct Starting<'a> {
    binary: &'a Path,
    state: PathBuf,
    round: &'a Round,
}

impl Starting<'_> {
    fn memguard(&self, port: &Port) -> anyhow::Result<Memguard> {
        let folder = Path::new(FOLDER);
        let mut command = Command::new(self.binary);
        command
            .args(["run", "--mode", "enforce", "--log-format", "json", "--report-interval", "3600"])
            .args(["--kubernetes", "on", "--node-name", stubs::NODE, "--kubeconfig"])
            .arg(folder.join(stubs::KUBECONFIG))
            .arg("--config")
            .arg(folder.join(stubs::CONFIG))
            .arg("--run-dir")
            .arg(folder.join("run"))
            .arg("--state-dir")
            .arg(&self.state);
        command.env("SSL_CERT_FILE", folder.join(stubs::AUTHORITY));
        if let Some(point) = &self.round.point {
            command.env("MEMGUARD_CRASH_AT", point).env("MEMGUARD_CRASH_MARK", mark());
        }
        Memguard::start(port, self.binary.to_owned(), command)
    }
}

/// Is there once memguard has been killed at the round's point.
fn mark() -> PathBuf {
    Path::new(FOLDER).join("crashed")
}

/// What `memguard incidents` says.
fn incidents(binary: &Path, run: &Path, state: &Path) -> String {
    let mut command = Command::new(binary);
    command.args(["incidents", "--output", "json", "--run-dir"]).arg(run).arg("--state-dir").arg(state);
    command.output().map_or_else(|error| error.to_string(), |said| String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Reports the moment in which the last process of a container is gone, as the kernel tells it.
fn watch_for_its_end(port: Port, container: String, cgroup: &Path) -> anyhow::Result<()> {
    let path = cgroup.join("cgroup.events");
    let events = File::open(&path).with_context(|| format!("can't open {}", path.display()))?;
    thread::spawn(move || {
        let mut lived = false;
        // The file fails once the cgroup is removed.
        while let Some(populated) = read_populated(&events) {
            if lived && !populated {
                return port.send(Record::Dead { container });
            }
            lived |= populated;
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&second));
        }
    });
    Ok(())
}

fn read_populated(mut events: &File) -> Option<bool> {
    use std::io::{Read as _, Seek as _};
    let mut text = String::new();
    events.rewind().ok()?;
    events.read_to_string(&mut text).ok()?;
    Some(text.lines().any(|line| line == "populated 1"))
}

/// A round under way.
struct Chain<'a> {
    run: Run<'a>,
    starting: Starting<'a>,
    place: &'a cgroups::Place,
    disk: Disk,
    stubs: Stubs,
    trouble: Option<Instant>,
    /// When the hog was seen to be gone.
    hog_gone: Option<Instant>,
    /// The fault has begun.
    began: bool,
    /// When the container was seen to be dead.
    dead: Option<Instant>,
    /// When memguard was seen to have been killed, or to be at it.
    crashed: Option<Instant>,
    /// When there was nothing left to do.
    done: Option<Instant>,
}

impl Chain<'_> {
    fn play(&mut self) -> anyhow::Result<()> {
        self.run.start_pauses()?;
        self.run.start(Start::Beginning)?;
        let warm = Instant::now() + Duration::from_secs(self.run.scenario.time.warm_up_s.into());
        self.run.memguard = Some(self.starting.memguard(self.run.port)?);
        let mut next_look = Instant::now();
        let mut next_sample = Instant::now();
        loop {
            let now = Instant::now();
            self.run.pass_on_logs();
            for exit in children::reap() {
                self.run.exited(exit);
                if self.run.memguard_ended {
                    self.memguard_ended(exit.signal)?;
                }
            }
            if self.trouble.is_none() && now >= warm {
                self.trouble = Some(now);
                self.run.port.send(Record::Trouble);
                self.run.start(Start::Trouble)?;
            }
            if now >= next_sample {
                next_sample = now + SAMPLE_EVERY;
                let memguard = self.run.memguard.as_ref().map(|memguard| memguard.pid);
                let sample = witness::sample(self.run.tree, children::progress(&self.run.progress), memguard);
                self.run.port.send(Record::Sample(Box::new(sample)));
            }
            if self.crashed.is_none() && mark().exists() {
                self.crashed = Some(now);
            }
            if self.run.note_limits() && self.run.expected_at_limit() && !self.began {
                self.began = true;
                self.begin_fault()?;
            }
            if self.dead.is_none() && self.trouble.is_some() && !witness::populated(self.place) {
                self.dead = Some(now);
            }
            self.hog_again(now)?;
            self.end_fault(now)?;
            if self.dead.is_some() && self.done.is_none() && now >= next_look {
                next_look = now + LOOK_AGAIN;
                let copies = Path::new(FOLDER).join("run");
                // Without the store: to look at it takes a disk that works.
                let said = incidents(self.starting.binary, &copies, &Path::new(FOLDER).join("empty"));
                self.done = is_settled(&said).then(Instant::now);
            }
            let over = self.done.is_some_and(|done| done.elapsed() >= AFTERMATH) && self.fault_is_over();
            let late = self.trouble.is_some_and(|trouble| trouble.elapsed() >= PATIENCE);
            if over || late {
                return Ok(());
            }
            thread::sleep(STEP);
        }
    }

    /// It is started again, as Kubernetes would; but only after the one end that was to be.
    fn memguard_ended(&mut self, signal: Option<i32>) -> anyhow::Result<()> {
        if signal != Some(Signal::KILL.as_raw()) || !mark().exists() {
            bail!("memguard ended by itself");
        }
        self.run.pass_on_logs();
        self.run.memguard = Some(self.starting.memguard(self.run.port)?);
        self.run.memguard_ended = false;
        Ok(())
    }

    /// Now and then the kernel's own OOM killer ends the hog before there is a verdict, and nothing hangs any more: then the
    /// trouble begins once more.
    fn hog_again(&mut self, now: Instant) -> anyhow::Result<()> {
        let gone = self.trouble.is_some() && self.dead.is_none() && !self.run.is_running(Start::Trouble);
        let since = if gone { *self.hog_gone.get_or_insert(now) } else { now };
        if !gone {
            self.hog_gone = None;
        } else if now.duration_since(since) >= HOG_AGAIN {
            // With memguard at it all of the container is gone a moment later.
            self.hog_gone = None;
            self.run.port.send(Record::Step { what: "the kernel's OOM killer was there first: once more".to_owned() });
            self.run.start(Start::Trouble)?;
        }
        Ok(())
    }

    fn begin_fault(&mut self) -> anyhow::Result<()> {
        let what = match self.starting.round.fault {
            Fault::None | Fault::DiskFullAtStart => return Ok(()),
            Fault::GithubAway => {
                self.stubs.order(Server::Github, State::Refuses)?;
                "GitHub's port is closed"
            }
            Fault::KubernetesAway => {
                self.stubs.order(Server::Kubernetes, State::Refuses)?;
                "the API server's port is closed"
            }
            Fault::DiskFull => {
                self.disk.fill()?;
                "the disk is full"
            }
            Fault::DiskHangs => {
                self.disk.freeze()?;
                "the disk hangs"
            }
        };
        self.run.port.send(Record::Step { what: what.to_owned() });
        Ok(())
    }

    fn end_fault(&mut self, now: Instant) -> anyhow::Result<()> {
        let since = |then: Option<Instant>| then.map(|then| now.duration_since(then));
        let step = match self.starting.round.fault {
            Fault::None => None,
            Fault::GithubAway => since(self.dead).and_then(|dead| {
                let steps = [
                    (State::Unavailable, "GitHub says 503"),
                    (State::Hangs, "GitHub takes connections and says nothing"),
                    (State::Well, "GitHub is back"),
                ];
                let due = (dead.as_secs() / GITHUB_AWAY.as_secs()).min(3);
                let due = usize::try_from(due).unwrap_or_default();
                let next = self.stubs.changes();
                (next <= due)
                    .then(|| steps.get(next - 1))
                    .flatten()
                    .map(|(state, what)| (Server::Github, *state, *what))
            }),
            Fault::KubernetesAway => since(self.dead)
                .filter(|dead| *dead >= KUBERNETES_AWAY && self.stubs.changes() == 1)
                .map(|_| (Server::Kubernetes, State::Well, "the API server is back")),
            Fault::DiskFull | Fault::DiskFullAtStart | Fault::DiskHangs => {
                // A killed process with a thread that waits for a frozen disk is not gone before that thaws.
                let due = since(self.dead).max(since(self.crashed)).is_some_and(|since| since >= disk::SICK_FOR);
                if due && self.disk.is_sick() {
                    self.disk.heal();
                    self.run.port.send(Record::Step { what: "the disk is well again".to_owned() });
                }
                None
            }
        };
        if let Some((server, state, what)) = step {
            self.stubs.order(server, state)?;
            self.run.port.send(Record::Step { what: what.to_owned() });
        }
        Ok(())
    }

    fn fault_is_over(&self) -> bool {
        match self.starting.round.fault {
            Fault::None | Fault::GithubAway | Fault::KubernetesAway => true,
            Fault::DiskFull | Fault::DiskFullAtStart | Fault::DiskHangs => !self.disk.is_sick(),
        }
    }
}

/// Whether an incident that ended something has nothing left to do.
fn is_settled(incidents: &str) -> bool {
    let incidents: Vec<serde_json::Value> = serde_json::from_str(incidents).unwrap_or_default();
    incidents.iter().any(|incident| {
        let stage = &incident["stage"];
        let ended = stage["stage"] == "done" || (stage["stage"] == "interrupted" && stage["found"] == "gone");
        let mut open = incident["follow_ups"].as_array().into_iter().flatten().filter(|one| one["state"] == "open");
        ended && open.next().is_none()
    })
}
