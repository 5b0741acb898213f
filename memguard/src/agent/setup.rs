//! What the agent is made of.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

use super::{Agent, activity::Activity, now, poll::Poller, status::Lately};
use crate::{
    cgroup::{CgroupRoot, Tree, lineage},
    engine::{Engine, Settings},
    journal::{Journal, boot_id},
    kernel::{Level, Plan},
    kubernetes::Pods,
    metrics::{Metrics, Questions},
    protect::cpu_seconds,
    remote::Remote,
    report::Reporter,
    respond::{Actions, Ledger, OwnPod, Policy, Suspects},
    telemetry::Summary,
    trace::Recorder,
    tracer::Tracer,
};

/// How the agent runs.
#[derive(Clone, Debug)]
pub struct Config {
    pub engine: Settings,
    pub policy: Policy,
    /// Time between two looks at a cgroup under reclaim.
    pub tick: Duration,
    /// The ring is read this often without a wake-up too. Most records have none of their own, and a ring that is full
    /// wakes nobody up: however it came to that, it ends here.
    pub read_every: Duration,
    /// Time between two reports of refault rates.
    pub report_interval: Duration,
    /// End after this time; run until a signal without it.
    pub duration: Option<Duration>,
    /// How long to wait for the last process after a kill.
    pub kill_patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            engine: Settings::default(),
            policy: Policy::default(),
            tick: Duration::from_secs(1),
            read_every: Duration::from_secs(10),
            report_interval: Duration::from_secs(30),
            duration: None,
            kill_patience: Duration::from_secs(20),
        }
    }
}

impl<A: Actions> Agent<A> {
    #[must_use]
    pub fn new(
        config: Config,
        actions: A,
        journal: Journal,
        root: &CgroupRoot,
        own: Option<&Path>,
        plan: &Plan,
        tracer: Option<Tracer>,
    ) -> Self {
        let mut tree = Tree::new(root.path());
        tree.walk();
        Self {
            engine: Engine::new(config.engine.clone()),
            summary: Summary { mode: config.policy.usual_mode(), ..Summary::default() },
            own: own.map(|path| lineage(root.path(), path)).unwrap_or_default(),
            own_pod: OwnPod::default(),
            pods: None,
            complained: HashSet::new(),
            coverage: tracer.is_some().then(|| plan.coverage()),
            level: plan.level,
            plan: plan.clone(),
            publisher: None,
            config,
            actions,
            tree,
            tracer,
            recorder: None,
            reload: None,
            activity: Activity::default(),
            poller: Poller::default(),
            units: HashMap::new(),
            actions_under_way: JoinSet::new(),
            taken_over: JoinSet::new(),
            under_way: HashSet::new(),
            ending: watch::Sender::new(false),
            ledger: Ledger::default(),
            journal,
            remote: None,
            reporter: None,
            boot_id: boot_id(),
            suspects: Suspects::default(),
            began: Instant::now(),
            last_walk: None,
            walk_took: Duration::ZERO,
            lately: Lately::new(now(), cpu_seconds()),
            last_report: now(),
            records: 0,
            wake_ups: 0,
            turned_away: 0,
            refaults: 0,
            metrics: Metrics::default(),
            questions: Questions::default(),
        }
    }

    /// The tracer's counters stand still from now on, which would speak against every hang: it works from files alone, as
    /// if there had never been a tracer.
    pub(super) fn without_ring(&mut self, error: &std::io::Error) {
        tracing::error!(%error, "the ring buffer can't be waited for any more; working from cgroup files, every second");
        (self.tracer, self.coverage, self.level) = (None, None, Level::Files);
        self.plan.no_tracer = Some(format!("its ring buffer can't be waited for any more: {error}"));
    }

    /// Knows whose the containers are. Without it the node is taken for one without Kubernetes.
    #[must_use]
    pub fn knowing(self, pods: Option<Pods>) -> Self {
        Self { pods, ..self }
    }

    /// Knows in which pod it runs itself.
    #[must_use]
    pub fn running_in(self, own_pod: OwnPod) -> Self {
        Self { own_pod, ..self }
    }

    /// Has all that the engine sees written down.
    #[must_use]
    pub fn recorded_by(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// Knows whose the containers are, and has seen to what remains to be done elsewhere after one was ended.
    #[must_use]
    pub fn reaching(self, remote: Option<Remote>) -> Self {
        let pods = remote.as_ref().map(|remote| remote.pods().clone()).or(self.pods);
        Self { pods, remote, ..self }
    }

    /// Has a report made of each verdict.
    #[must_use]
    pub fn reporting(self, reporter: Option<Reporter>) -> Self {
        Self { reporter, ..self }
    }
}
