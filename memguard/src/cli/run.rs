//! `memguard run`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use glob::Pattern;

use super::{engine::EngineArgs, reach::ReachArgs, reload};
use crate::{
    agent::{Agent, Config, InForce},
    cgroup::{CgroupRoot, own_cgroup},
    config::pattern,
    engine::Settings,
    journal::{Journal, Opened},
    kernel::{Facts, Level, Plan},
    metrics::{self, About, Metrics, Questions, Served},
    protect,
    report::{Insight, Machine, Reporter, Sources},
    respond::{KernelActions, Method, Mode, Notes, OwnPod, Restored},
    status,
    telemetry::{Event, LogFormat, Started, emit, escaped, init, shown, tell_also},
    trace::{Recorder, Start, Writer},
    tracer::{self, Limits, Ring, Tracer, embedded_object},
};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The cgroup v2 tree to watch: its mount, or a folder in it to watch only what is below.
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,

    /// `off` does not even tell of livelocks; `observe` writes verdicts and does nothing; both are over all that the
    /// configuration says. `enforce` ends livelocks where no rule of the configuration says otherwise [default: as the
    /// configuration says, or `observe`].
    #[arg(long, value_enum)]
    pub(super) mode: Option<Mode>,

    /// How log lines look.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,

    #[command(flatten)]
    pub(super) engine: EngineArgs,

    /// How a livelock is ended: `kill` by cgroup.kill, `oom` by the kernel's own OOM killer, asked by a limit that is
    /// lowered for a moment [default: as the configuration says, or `kill`].
    #[arg(long, value_enum)]
    pub(super) action: Option<Method>,

    /// Where it is noted which limits are lowered and what is about to be done, for the next start; and where `memguard
    /// incidents` looks. Must outlive memguard, and should not be on a disk.
    #[arg(long, value_name = "FOLDER", default_value = super::incidents::RUN_DIR)]
    run_dir: PathBuf,

    /// Where the journal of incidents is kept, through restarts of the machine.
    #[arg(long, value_name = "FOLDER", default_value = super::incidents::STATE_DIR)]
    state_dir: PathBuf,

    #[command(flatten)]
    pub(super) reach: ReachArgs,

    /// Kill only cgroups whose path below the root matches this pattern (`*`, `**`, `?`); may be given again. Added to
    /// the configuration's.
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub(super) only: Vec<Pattern>,

    /// Never kill cgroups whose path below the root matches this pattern (`*`, `**`, `?`); may be given again. Slices,
    /// pods, the root, memguard's own cgroup and the services that a node needs are never killed anyway.
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub(super) protect: Vec<Pattern>,

    /// Serve /metrics, /healthz and /readyz there, without encryption: `127.0.0.1:9619`, or `[::]:9619` for every address,
    /// IPv4 and IPv6. What they tell names no pod [default: not at all].
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    metrics_listen: Option<SocketAddr>,

    /// Write down all that the engine sees, for `memguard replay`; a recording that is there is continued.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// End after so many seconds, with a summary.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_between(1, 31_536_000))]
    duration: Option<Duration>,

    /// Seconds between two reports of refault rates, for each cgroup under reclaim.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds_between(1, 86_400))]
    report_interval: Duration,

    /// Cgroups that the tracer counts at once; each takes about 770 bytes of kernel memory.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().slots / 2, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    max_cgroups: u32,

    /// Work from cgroup files alone, without eBPF.
    #[arg(long)]
    no_tracer: bool,

    /// Keep no journal: for `memguard record`, beside a memguard that has one.
    #[arg(skip)]
    record_only: bool,

    /// Have the kernel measure the run time of the tracer's programs. Costs some 50 ns for each run of any eBPF program
    /// on this machine.
    #[arg(long)]
    bpf_stats: bool,
}

pub(super) fn seconds_between(least: u32, most: u32) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let seconds: u32 = text.parse().map_err(|_| "expected a whole number of seconds".to_owned())?;
        if (least..=most).contains(&seconds) {
            Ok(Duration::from_secs(u64::from(seconds)))
        } else {
            Err(format!("expected {least} to {most} seconds"))
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an IP address and a port: 127.0.0.1:9619, or [::]:9619".to_owned())
}

/// `memguard record`: what `run` takes and makes sense without acting, and where to write.
#[derive(Debug, clap::Args)]
pub(super) struct RecordArgs {
    /// The recording; one that is there is continued.
    #[arg(value_name = "OUT")]
    out: PathBuf,

    /// The cgroup v2 tree to watch.
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,

    /// End after so many seconds; until Ctrl-C without it.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_between(1, 31_536_000))]
    duration: Option<Duration>,

    /// Work from cgroup files alone, without eBPF.
    #[arg(long)]
    no_tracer: bool,

    #[command(flatten)]
    engine: EngineArgs,
}

/// Only so that `record` gets `run`'s defaults from one place.
#[derive(clap::Parser)]
struct Defaults {
    #[command(flatten)]
    args: Args,
}

pub(super) fn record(args: RecordArgs) -> anyhow::Result<ExitCode> {
    let RecordArgs { out, cgroup_root, duration, no_tracer, engine } = args;
    let defaults = Defaults::try_parse_from(["memguard"])?.args;
    let code = run(&Args {
        cgroup_root,
        duration,
        no_tracer,
        engine,
        mode: Some(Mode::Observe),
        record: Some(out.clone()),
        record_only: true,
        ..defaults
    })?;
    let bytes = std::fs::metadata(&out).map_or(0, |metadata| metadata.len());
    eprintln!("{}: {} KiB; `memguard replay` reads it", out.display(), bytes.div_ceil(1024));
    Ok(code)
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (began, started) = (std::time::Instant::now(), SystemTime::now());
    let root = CgroupRoot::new(&args.cgroup_root);
    if let Some(obstacle) = root.facts().obstacle() {
        bail!("{obstacle}");
    }
    let InForce { engine, policy, outward } = reload::in_force(args, root.facts().kill)?;
    let log = init(args.log_format, true);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("can't start the async runtime")?;
    // An address that is taken is told before anything is touched. Nobody is answered before there is something to tell.
    let listener = args.metrics_listen.map(metrics::listen).transpose()?;
    let metrics = Metrics::default();
    if listener.is_some() {
        let metrics = metrics.clone();
        tell_also(move |event| metrics.observe(event));
    }
    // Before anything is touched: with another memguard at work this one ends here.
    let opened = if args.record_only {
        Opened { journal: Journal::none(), incidents: Vec::new() }
    } else {
        Journal::open(&args.state_dir, &args.run_dir)?
    };
    let (facts, plan, tracer) = runtime.block_on(async { attach(args, &root) });

    protect::raise_open_files();
    protect::trim_heap();
    let memory_locked = protect::lock_memory().inspect_err(|error| tracing::warn!("{error}")).is_ok();
    if let Err(error) = protect::lower_oom_score() {
        tracing::warn!(%error, "can't lower oom_score_adj: under memory pressure memguard may be chosen by the OOM killer");
    }
    protect::no_core_dumps();
    let own = own_cgroup(root.path(), std::process::id());
    if own.is_none() {
        tracing::debug!("memguard's own cgroup is not below the root that it watches");
    }
    emit(&Event::Started(Box::new(Started {
        version: env!("CARGO_PKG_VERSION"),
        mode: policy.usual_mode(),
        root: facts.root.clone(),
        plan: plan.clone(),
        attached_after_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        memory_locked,
        own_cgroup: own.as_deref().map(shown),
    })));
    if plan.level == Level::Degraded {
        for signal in plan.signals.iter().filter(|signal| signal.lost.is_some()) {
            tracing::warn!("{}: lost {}", signal.signal, signal.lost.unwrap_or_default());
        }
    }
    let config =
        Config { engine, policy, report_interval: args.report_interval, duration: args.duration, ..Config::default() };
    let Opened { journal, incidents } = opened;
    let notes = Notes::new(args.run_dir.clone());
    put_back_limits(args, &notes, &root);
    let remote = if args.record_only { None } else { args.reach.start(outward, journal.pen())? };
    // Beside a memguard that is at work a recording is only made, and not shown.
    let publisher = if args.record_only {
        None
    } else {
        let failed = |error: &status::ServeError| tracing::warn!("`memguard top` and `status` can't look: {error}");
        status::serve(&args.run_dir).inspect_err(failed).ok()
    };
    let recorder = match &args.record {
        Some(path) => Some(recorder(path, &facts.kernel.release, &plan, &config.engine)?),
        None => None,
    };
    let (server, questions) = match listener {
        Some(listener) => {
            let (asker, questions) = metrics::questions();
            let about = About { kernel: facts.kernel.clone(), plan: plan.clone(), memory_locked };
            let served = Served { metrics: metrics.clone(), about, asker, started, lost_lines: log.lost() };
            (Some(listener.serve(served)?), questions)
        }
        None => (None, Questions::default()),
    };
    let own = own.as_deref();
    let (mut tracer, ring) = tracer.unzip();
    let reporter = if args.record_only { None } else { reporter(args, &facts, &plan, tracer.as_mut()) };
    let reload = reload::reload(args, root.facts().kill)?;
    let summary = runtime.block_on(async {
        Agent::new(config, KernelActions::new(notes), journal, &root, own, &plan, tracer)
            .running_in(OwnPod::told(|name| std::env::var(name).ok()))
            .recorded_by(recorder)
            .reaching(remote)
            .measured_by(metrics, questions)
            .shown_by(publisher)
            .reporting(reporter)
            .continuing(incidents)
            .reloading(reload)
            .run(ring)
            .await
    });
    drop(server);
    summary.context("can't listen for signals")?;
    Ok(ExitCode::SUCCESS)
}

/// Puts back the limits that an earlier memguard had lowered when it ended. Who only records holds no journal, so a memguard
/// may be at work beside it, whose limit is lowered right now.
fn put_back_limits(args: &Args, notes: &Notes, root: &CgroupRoot) {
    if args.record_only {
        return;
    }
    for restored in notes.restore(root.path()) {
        match restored {
            Restored::PutBack(path) => {
                tracing::warn!("put back the limit of {}, which was lowered when memguard ended", shown(&path));
            }
            Restored::Failed(error) => {
                tracing::error!("can't put back a limit that was lowered when memguard ended: {error}");
            }
            Restored::Unusable(why) => tracing::warn!("deleted a note that says nothing: {}", escaped(&why)),
        }
    }
}

/// What makes reports. Without it memguard does all the rest.
fn reporter(args: &Args, facts: &Facts, plan: &Plan, tracer: Option<&mut Tracer>) -> Option<Reporter> {
    let insight = tracer.and_then(|tracer| match tracer.take_details() {
        Ok(details) => Some(Box::new(details) as Box<dyn Insight>),
        Err(error) => {
            tracing::warn!("reports will not tell tasks in reclaim and files: {error}");
            None
        }
    });
    let sources = Sources { proc: PathBuf::from("/proc"), insight };
    let machine = Machine::new(&args.reach.node().unwrap_or_default(), &facts.kernel, plan);
    Reporter::start(sources, &args.state_dir, machine)
        .inspect_err(|error| tracing::warn!("there will be no reports, their threads can't be started: {error}"))
        .ok()
}

/// Begins or continues a recording.
fn recorder(path: &std::path::Path, kernel: &str, plan: &Plan, settings: &Settings) -> anyhow::Result<Recorder> {
    let (writer, damage) = Writer::append(path)?;
    if let Some(damage) = damage {
        tracing::warn!("{} was {damage}; it goes on from there", path.display());
    }
    let start = Start {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel.to_owned(),
        signals_from: plan.level.to_string(),
        unix_time_s: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
        settings: settings.clone(),
    };
    Recorder::new(writer, start).with_context(|| format!("can't record to {}", path.display()))
}

/// The tracer and where its records come out, if there is one.
type Attached = Option<(Tracer, Ring)>;

/// Facts, plan, apply. Needs the runtime, because the ring buffer registers with it.
fn attach(args: &Args, root: &CgroupRoot) -> (Facts, Plan, Attached) {
    let object = embedded_object().is_some() && !args.no_tracer;
    let (mut facts, btf) = Facts::gather(root, object);
    let limits = Limits { slots: args.max_cgroups.saturating_mul(2), ..Limits::default() };
    match tracer::start(&mut facts, btf, limits, args.bpf_stats) {
        Ok((mut plan, tracer)) => {
            if args.no_tracer {
                plan.no_tracer = Some("--no-tracer was given".to_owned());
            }
            (facts, plan, tracer)
        }
        // The kernel would not take the object at all. Files still tell a livelock.
        Err(error) => {
            tracing::error!("{error}; working from cgroup files alone");
            facts.object = false;
            let mut plan = crate::kernel::plan(&facts);
            plan.no_tracer = Some(error.to_string());
            (facts, plan, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::{CgroupHandle, fake_cgroup};

    fn args(more: &[&str]) -> Result<Args, clap::Error> {
        Defaults::try_parse_from(std::iter::once(&"memguard").chain(more)).map(|defaults| defaults.args)
    }

    #[test]
    fn who_only_records_leaves_a_limit_alone_that_is_lowered_right_now() {
        let dir = tempfile::tempdir().unwrap();
        let (path, run) = (dir.path().join("cgroup/a.scope"), dir.path().join("run"));
        fake_cgroup(&path);
        fs::write(path.join("memory.max"), "1000\n").unwrap();
        fs::create_dir(&run).unwrap();
        let inode = CgroupHandle::open(&path).unwrap().inode();
        let note = serde_json::json!({ "path": path, "inode": inode, "limit": 2000, "now": 1000 });
        fs::write(run.join(format!("lowered-{inode}.json")), note.to_string()).unwrap();
        let after = |record_only| {
            let args = Args { record_only, ..args(&[]).unwrap() };
            put_back_limits(&args, &Notes::new(run.clone()), &CgroupRoot::new(dir.path().join("cgroup")));
            fs::read_to_string(path.join("memory.max")).unwrap().trim().to_owned()
        };
        assert_eq!(after(true), "1000");
        assert_eq!(after(false), "2000");
    }

    #[test]
    fn patterns_that_never_match_are_refused_as_in_the_file() {
        for flag in ["--only", "--protect"] {
            for never in ["", "/system.slice/db.service"] {
                let error = args(&[flag, never]).unwrap_err().to_string();
                assert!(error.contains(flag) && error.contains("without a slash"), "{error}");
            }
            let mistake = args(&[flag, "a[b"]).unwrap_err().to_string();
            assert!(mistake.contains("a[b") && mistake.contains("is no pattern"), "{mistake}");
            assert!(args(&[flag, "system.slice/db.service"]).is_ok());
        }
    }
}
