//! Two memguards for a Prometheus to scrape, without root and without a kernel that hangs anything: `cargo xtask
//! monitoring` runs it.
//!
//! The first is an agent as `memguard run --no-tracer --mode enforce` is one, but for its cgroups: they are files in a
//! temporary folder, in which a thread counts as the kernel would. One container live-locks and is ended, one live-locks and
//! is protected, one reads a lot and is well. The second has no agent: it answers with the figures that only a tracer and a
//! Kubernetes API give, made up. Each writes its name and address to standard output. Ends with standard input.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    net::Ipv4Addr,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use memguard::{
    agent::{Agent, Config},
    cgroup::CgroupRoot,
    engine::Settings,
    journal::{Disk, Journal},
    kernel::{Facts, plan},
    metrics::{About, Metrics, Outside, Present, Served, Server, Totals, listen, questions},
    remote::{Pulse, Waiting},
    respond::{KernelActions, Mode, Notes, Policy},
    telemetry::{LogFormat, LostLines, init, tell_also},
    tracer::{ProgramCost, Table, TracerCost},
};

const PODS: &str =
    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7fb47c9c_45d8_4a2c_8f1e_0123456789ab.slice";
const LIMIT: u64 = 512 << 20;

/// What a made-up container does.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Livelock,
    Stream,
}

/// The files of a cgroup, and what goes on in it. All numbers have a fixed width, so that no reader sees half a file.
struct Container {
    folder: PathBuf,
    does: Does,
    began: Instant,
}

impl Container {
    fn make(root: &Path, letter: &str, does: Does) -> anyhow::Result<Self> {
        let folder = root.join(PODS).join(format!("cri-containerd-{}.scope", letter.repeat(64)));
        fs::create_dir_all(&folder)?;
        let container = Self { folder, does, began: Instant::now() };
        for (name, text) in [
            ("memory.max", format!("{LIMIT}\n")),
            ("memory.high", "max\n".to_owned()),
            ("cgroup.events", "populated 1\nfrozen 0\n".to_owned()),
            ("cgroup.procs", String::new()),
            ("cgroup.kill", String::new()),
        ] {
            fs::write(container.folder.join(name), text)?;
        }
        container.count()?;
        Ok(container)
    }

    /// What the kernel would have counted by now.
    fn count(&self) -> io::Result<()> {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let hangs = self.does == Does::Livelock;
        // Of a stream nothing comes back, and its tasks compute.
        let (refaults, major, stalled_us, user_us) =
            if hangs { (3290 * ms / 1000, 140 * ms / 1000, 950 * ms, 20 * ms) } else { (0, 0, 50 * ms, 900 * ms) };
        let anon = if hangs { 480 << 20 } else { 64 << 20 };
        let events = format!("low 0\nhigh 0\nmax {:012}\noom 0\noom_kill 0\noom_group_kill 0\n", 69 * ms / 1000);
        let pressure = format!(
            "some avg10=0.00 avg60=0.00 avg300=0.00 total={stalled_us:012}\n\
             full avg10=0.00 avg60=0.00 avg300=0.00 total={stalled_us:012}\n"
        );
        for (name, text) in [
            ("memory.current", format!("{:012}\n", LIMIT - (1 << 20))),
            (
                "memory.stat",
                format!(
                    "anon {anon:012}\nfile {:012}\nshmem 0\nactive_file 0\ninactive_file 0\npgscan {:012}\npgsteal {:012}\n\
                     workingset_refault_file {refaults:012}\npgmajfault {major:012}\n",
                    LIMIT - (2 << 20) - anon,
                    9 * ms,
                    3300 * ms / 1000,
                ),
            ),
            ("memory.events", events.clone()),
            ("memory.events.local", events),
            ("memory.pressure", pressure.clone()),
            ("io.pressure", pressure),
            (
                "cpu.stat",
                format!("usage_usec {:012}\nuser_usec {user_us:012}\nsystem_usec {:012}\n", 950 * ms, 900 * ms),
            ),
        ] {
            let file = File::options().write(true).create(true).truncate(false).open(self.folder.join(name))?;
            file.write_all_at(text.as_bytes(), 0)?;
        }
        Ok(())
    }

    /// Ends all processes, if that was asked for.
    fn obey(&mut self) -> io::Result<()> {
        if fs::read_to_string(self.folder.join("cgroup.kill"))?.trim() == "1" {
            let file = File::options().write(true).open(self.folder.join("cgroup.events"))?;
            file.write_all_at(b"populated 0", 0)?;
        }
        Ok(())
    }
}

/// Counts and obeys for ever.
fn kernel(mut containers: Vec<Container>) -> io::Result<()> {
    loop {
        for container in &mut containers {
            container.count()?;
            container.obey()?;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn serve(name: &str, served: Served) -> anyhow::Result<Server> {
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
    println!("{name} {}", listener.address()?);
    Ok(listener.serve(served)?)
}

/// Figures that only a tracer and a Kubernetes API give.
fn made_up(seconds: u64) -> Present {
    let run = |program: &str, runs| ProgramCost {
        program: program.to_owned(),
        verified_instructions: Some(500),
        jited_bytes: 2000,
        runs,
        run_ns: runs * 150,
    };
    Present {
        states: [2, 3, 1, 0],
        watched: 6 + seconds / 60,
        suspected: 1,
        records: 40 * seconds,
        wake_ups: 10 * seconds,
        totals: Totals {
            cycles: Some(700 * seconds),
            empty_cycles: Some(seconds / 10),
            pages_reclaimed: Some(22_000 * seconds),
            reclaim_ns: Some(400_000_000 * seconds),
            stall_ns: Some(600_000_000 * seconds),
            refaults: 1500 * seconds,
            text_returns: Some(30 * seconds),
            oom_victims: Some(0),
        },
        tracer: Some(TracerCost {
            programs: vec![run("reclaim_begin", 700 * seconds), run("fault_fexit", 9000 * seconds)],
            ring_full: 0,
            cgroups_left_out: 0,
            cycles_untimed: 0,
            ends_lost: 0,
            stalls_untimed: 0,
            undecodable: 0,
        }),
        table: Some(Table { slots: 8192, used: Some(60) }),
        journal: Disk::Works,
        outside: Some(Outside { pods: 6, stale_since: None, waiting: Waiting::default(), pulse: Pulse::here() }),
        ..Present::default()
    }
}

fn main() -> anyhow::Result<()> {
    let _log = init(LogFormat::Text, false);
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("cgroup");
    let (ill, spared) = (Container::make(&root, "a", Does::Livelock)?, Container::make(&root, "b", Does::Livelock)?);
    let containers = vec![ill, spared, Container::make(&root, "c", Does::Stream)?];
    thread::spawn(move || {
        if let Err(error) = kernel(containers) {
            eprintln!("the made-up kernel ended: {error}");
        }
    });
    thread::spawn(|| {
        // Whoever started this has ended, or wants it to end.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    });

    let root = CgroupRoot::new(root);
    let (facts, _) = Facts::gather(&root, false);
    let plan = plan(&facts);
    let about = About { kernel: facts.kernel.clone(), plan: plan.clone(), memory_locked: true };
    let metrics = Metrics::default();
    let counting = metrics.clone();
    tell_also(move |event| counting.observe(event));
    let served = |metrics, asker| Served {
        metrics,
        about: about.clone(),
        asker,
        started: SystemTime::now(),
        lost_lines: LostLines::default(),
    };

    let (asker, inbox) = questions();
    let _first = serve("agent", served(metrics.clone(), asker))?;
    let (asker, mut made_up_for) = questions();
    let _second = serve("figures", served(Metrics::default(), asker))?;

    let mut policy = Policy::default();
    policy.protect.push(glob::Pattern::new("**/cri-containerd-b*.scope").context("a bad pattern")?);
    let engine = Settings { window: Duration::from_secs(3), hold: Duration::from_secs(3), ..Settings::default() };
    policy.mode = Mode::Enforce;
    let config = Config { engine, policy, ..Config::default() };
    let journal = Journal::open(&dir.path().join("state"), &dir.path().join("run"))?.journal;
    let actions = KernelActions::new(Notes::new(dir.path().join("run")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now();
    runtime.block_on(async {
        let figures = async {
            loop {
                let question = made_up_for.next().await;
                let _ = question.send(made_up(began.elapsed().as_secs()));
            }
        };
        tokio::select! {
            summary = Agent::new(config, actions, journal, &root, None, &plan, None).measured_by(metrics, inbox).run(None) => {
                summary.context("can't listen for signals").map(drop)
            }
            () = figures => Ok(()),
        }
    })
}
