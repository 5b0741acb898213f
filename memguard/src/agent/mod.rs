//! The loop: wakes up when the tracer says that a cgroup is under reclaim, looks at it once a second until it is calm
//! again, and sleeps.

mod activity;
mod chain;
mod ending;
mod poll;
mod present;
mod reload;
mod respond;
mod setup;
mod states;
mod status;
mod takeover;
mod unit;
mod wait;
mod walk;
mod whose;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use memguard_common::Record;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use self::{
    activity::Activity,
    chain::{Hanging, deepest_first},
    poll::Poller,
    respond::Outcome,
    status::Lately,
    takeover::TakenOver,
    unit::Unit,
    wait::{every, tick, until, woken},
};
pub use self::{
    reload::{InForce, Reload},
    setup::Config,
};
use crate::{
    cgroup::Tree,
    engine::{Engine, State, UnitId},
    journal::Journal,
    kernel::{Coverage, Level, Plan},
    kubernetes::Pods,
    metrics::{Metrics, Questions},
    protect,
    remote::Remote,
    report::Reporter,
    respond::{Actions, Ledger, OwnPod, Suspects},
    status::Publisher,
    telemetry::{Cost, Event, Summary, emit},
    trace::Recorder,
    tracer::{Ring, Tracer},
};

/// A cgroup that has not reclaimed for this long is let go.
const IDLE_AFTER: Duration = Duration::from_secs(30);
/// Cgroups watched at once; each holds twelve open files.
const MOST_UNITS: usize = 1024;
/// Refault reports at one time: those with the highest rates.
const MOST_REPORTS: usize = 16;

/// How long the end waits for answers of Kubernetes and GitHub that are under way.
const REMOTE_PATIENCE: Duration = Duration::from_secs(4);
/// How long the end waits for reports to be written.
const REPORT_PATIENCE: Duration = Duration::from_secs(2);
/// How long the end waits for the journal's disk.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(3);

/// Joins everything. `A` is what may be done to the world.
#[derive(Debug)]
pub struct Agent<A> {
    config: Config,
    actions: A,
    tree: Tree,
    /// memguard's own cgroup and all above it.
    own: Vec<u64>,
    own_pod: OwnPod,
    /// What Kubernetes knows of this node's pods; `None` without Kubernetes.
    pods: Option<Pods>,
    /// Pods whose annotation was complained of, by uid.
    complained: HashSet<String>,
    tracer: Option<Tracer>,
    recorder: Option<Recorder>,
    reload: Option<Reload>,
    coverage: Option<Coverage>,
    level: Level,
    plan: Plan,
    publisher: Option<Publisher>,
    activity: Activity,
    poller: Poller,
    engine: Engine,
    units: HashMap<UnitId, Unit>,
    actions_under_way: JoinSet<Outcome>,
    taken_over: JoinSet<TakenOver>,
    /// Cgroups whose end is waited for.
    under_way: HashSet<u64>,
    /// Nothing is waited for any more.
    ending: watch::Sender<bool>,
    ledger: Ledger,
    journal: Journal,
    remote: Option<Remote>,
    reporter: Option<Reporter>,
    boot_id: String,
    suspects: Suspects,
    began: Instant,
    last_walk: Option<Duration>,
    /// How long it took.
    walk_took: Duration,
    lately: Lately,
    last_report: Duration,
    records: u64,
    wake_ups: u64,
    /// Units turned away because there were too many.
    turned_away: u64,
    /// Pages that came back to watched cgroups, by their files.
    refaults: u64,
    metrics: Metrics,
    questions: Questions,
    summary: Summary,
}

/// `CLOCK_MONOTONIC`, the clock of the ring's records too.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Seconds since 1970.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl<A: Actions> Agent<A> {
    /// Runs until SIGINT, SIGTERM or the configured time.
    pub async fn run(mut self, mut ring: Option<Ring>) -> std::io::Result<Summary> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut looking = self.reload.is_some().then(|| every(reload::LOOK_EVERY));
        let deadline = self.config.duration.map(|duration| tokio::time::Instant::now() + duration);
        // Without a tracer nothing wakes memguard up, so it looks all the time.
        let mut ticking = (ring.is_none() || self.hooks_speak()).then(|| every(self.config.tick));
        let mut unasked = ring.is_some().then(|| every(self.config.read_every));
        loop {
            tokio::select! {
                woken = woken(&mut ring) => {
                    if let Err(error) = woken {
                        ring = None;
                        self.without_ring(&error);
                        ticking = Some(every(self.config.tick));
                        continue;
                    }
                    self.wake_ups += 1;
                    self.drain(ring.as_mut());
                    if ticking.is_none() && self.activity.any_fresh() {
                        ticking = Some(every(self.config.tick));
                    }
                }
                () = tick(&mut unasked) => {
                    self.drain(ring.as_mut());
                    if ticking.is_none() && self.activity.any_fresh() {
                        ticking = Some(every(self.config.tick));
                    }
                }
                () = tick(&mut ticking) => {
                    self.drain(ring.as_mut());
                    self.look(now(), ring.is_none());
                    self.report(ring.as_ref());
                    self.show(ring.as_ref());
                    if self.units.is_empty() && ring.is_some() && !self.watched() && !self.hooks_speak() {
                        ticking = None;
                    }
                }
                Some(outcome) = self.actions_under_way.join_next() => self.joined(outcome),
                Some(taken) = self.taken_over.join_next() => self.took_over(taken),
                incidents = self.journal.found_later() => {
                    tracing::info!(count = incidents.len(), "the journal can be read at last; going on with what it holds");
                    self.go_on_with(incidents);
                }
                question = self.questions.next() => {
                    let _ = question.send(self.present(ring.as_ref()));
                }
                () = status::changed(&mut self.publisher) => {
                    self.somebody_came(ring.as_ref());
                    if ticking.is_none() && self.watched() {
                        ticking = Some(every(self.config.tick));
                    }
                }
                () = tick(&mut looking) => self.reload(false),
                read = reload::answer(&mut self.reload) => self.reloaded(read),
                _ = hang_up.recv() => self.reload(true),
                () = until(deadline) => break,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        // Each of these waits has its limit, and the chart's grace period is above their sum.
        self.settle().await;
        if self.remote.take().is_some_and(|remote| !remote.close(REMOTE_PATIENCE)) {
            tracing::warn!("a server does not answer; the next start goes on with what remains to be done there");
        }
        let journal = std::mem::replace(&mut self.journal, Journal::none());
        if !journal.close(JOURNAL_PATIENCE) {
            tracing::error!(
                "the disk of the journal does not answer; what it lacks is in the run folder, for the next start"
            );
        }
        if self.reporter.take().is_some_and(|reporter| !reporter.close(REPORT_PATIENCE)) {
            tracing::error!("the disk does not answer; the latest reports may be lost");
        }
        self.summary.watched_for_s = self.began.elapsed().as_secs_f64();
        for unit in self.units.values_mut() {
            if let Some(report) = unit.report(self.engine.state(UnitId(unit.name.id))) {
                emit(&Event::Refaults(Box::new(report)));
            }
        }
        if let Some(Err(error)) = self.recorder.take().map(Recorder::finish) {
            tracing::error!(%error, "the recording is not complete");
        }
        emit(&Event::Cost(Box::new(self.cost(ring.as_ref()))));
        emit(&Event::Summary(Box::new(self.summary.clone())));
        Ok(self.summary)
    }

    /// Takes in what the hooks handed over.
    fn drain(&mut self, ring: Option<&mut Ring>) {
        if let Some(tracer) = &mut self.tracer {
            tracer.listen();
        }
        let Some(ring) = ring else { return };
        ring.drain(|record| {
            self.records += 1;
            match record {
                Record::Snapshot(snapshot) => self.activity.snapshot(&snapshot),
                Record::OomVictim(header) => {
                    tracing::debug!(cgroup = header.cgroup_id, "the kernel's OOM killer chose a victim");
                }
                Record::CgroupRemoved(header) => {
                    self.activity.removed(header.cgroup_id);
                    self.tree.remove(header.cgroup_id);
                }
            }
        });
    }

    /// Whether the hooks say something for debugging, so that somebody has to come by even while all is calm.
    fn hooks_speak(&self) -> bool {
        self.tracer.as_ref().is_some_and(Tracer::speaks)
    }

    /// One look at everything that is, or was a moment ago, under reclaim.
    fn look(&mut self, now: Duration, poll: bool) {
        if poll {
            self.walk_if_due(now, Duration::from_secs(5));
            for owner in self.poller.poll(&self.tree) {
                if let Some(path) = self.tree.path(owner).map(Path::to_owned) {
                    self.watch(UnitId(owner), &path, now);
                }
            }
        } else {
            if self.activity.any_unplaced() {
                self.walk_if_due(now, walk::AT_MOST_EVERY);
            }
            for reclaiming in self.activity.take_fresh() {
                if let Some((owner, path)) = self.tree.limit_owner(reclaiming.cgroup, reclaiming.limit_owner) {
                    self.watch(UnitId(owner), &path, now);
                }
            }
        }
        let sums = self.activity.sums(&self.units.keys().copied().collect());
        let mut hanging = Hanging::default();
        for id in deepest_first(self.units.iter().map(|(id, unit)| (*id, unit.handle.path()))) {
            let Some(unit) = self.units.get_mut(&id) else { continue };
            let tracer = self.coverage.map(|coverage| {
                let counters = sums.get(&id).copied().unwrap_or_default();
                (activity::sample(&counters, coverage), counters)
            });
            match unit.sample(now, tracer.as_ref()) {
                Ok(mut sample) => {
                    self.refaults = self.refaults.saturating_add(unit.refaults);
                    let path = unit.path();
                    sample.hung_below = hanging.is_below(&path);
                    let hung_below = sample.hung_below;
                    let recorded = self.recorder.is_some().then(|| sample.clone());
                    let observation = self.engine.observe(id, sample);
                    if let (Some(recorder), Some(sample)) = (&mut self.recorder, recorded) {
                        recorder.sample(id, sample, &observation);
                    }
                    self.observed(id, now, observation);
                    if hung_below {
                        // It may have been suspect before the one below it was: that is one hang, and not two.
                        self.suspects.forget(id);
                    }
                    if self.hangs(id, now) {
                        hanging.add(&path);
                    }
                }
                Err(error) if error.is_gone() => {
                    tracing::debug!(%error, "let go");
                    self.let_go(id);
                }
                Err(error) => {
                    tracing::warn!(%error, "a cgroup can't be judged");
                    self.let_go(id);
                }
            }
            let at_rest = |unit: &Unit| now.saturating_sub(unit.last_active) > IDLE_AFTER && !unit.kill_under_way;
            if self.engine.state(id) == State::Calm && self.units.get(&id).is_some_and(at_rest) {
                self.let_go(id);
            }
        }
    }

    fn watch(&mut self, id: UnitId, path: &Path, now: Duration) {
        if let Some(unit) = self.units.get_mut(&id) {
            unit.last_active = now;
            return;
        }
        if self.units.len() >= MOST_UNITS {
            self.turned_away += 1;
            if self.turned_away.is_power_of_two() {
                tracing::warn!(
                    most = MOST_UNITS,
                    turned_away = self.turned_away,
                    "too many cgroups under reclaim at once"
                );
            }
            return;
        }
        match Unit::open(self.tree.root(), path, now) {
            Ok(unit) => {
                self.summary.under_reclaim += 1;
                if let Some(recorder) = &mut self.recorder {
                    recorder.watch(id, &unit.name.cgroup);
                }
                self.units.insert(id, unit);
            }
            Err(error) if error.is_gone() => tracing::debug!(%error, "not watched"),
            Err(error) => tracing::warn!(%error, "a cgroup under reclaim can't be watched"),
        }
    }

    fn let_go(&mut self, id: UnitId) {
        self.engine.forget(id);
        if let Some(recorder) = &mut self.recorder {
            recorder.forget(id);
        }
        let looked = self.units.remove(&id).is_some_and(|unit| unit.last_look.is_some());
        if let Some(reporter) = self.reporter.as_ref().filter(|_| looked) {
            reporter.forget(id);
        }
        self.suspects.forget(id);
        self.activity.forget_unit(id);
    }

    fn report(&mut self, ring: Option<&Ring>) {
        let now = now();
        if now.saturating_sub(self.last_report) < self.config.report_interval {
            return;
        }
        self.last_report = now;
        let mut reports: Vec<_> =
            self.units.iter_mut().filter_map(|(id, unit)| unit.report(self.engine.state(*id))).collect();
        reports.sort_by(|a, b| b.refaults_per_s.mean.total_cmp(&a.refaults_per_s.mean));
        let left_out = reports.len().saturating_sub(MOST_REPORTS);
        let any = !reports.is_empty();
        for report in reports.into_iter().take(MOST_REPORTS) {
            emit(&Event::Refaults(Box::new(report)));
        }
        if left_out > 0 {
            tracing::info!(left_out, "more cgroups are under reclaim, with lower refault rates");
        }
        if any {
            emit(&Event::Cost(Box::new(self.cost(ring))));
        }
    }

    fn cost(&self, ring: Option<&Ring>) -> Cost {
        let (resident_kib, resident_peak_kib) = protect::resident_kib();
        Cost {
            cpu_s: protect::cpu_seconds(),
            up_s: self.began.elapsed().as_secs_f64(),
            resident_kib,
            resident_peak_kib,
            records: self.records,
            wake_ups: self.wake_ups,
            tracer: self.tracer.as_ref().zip(ring).map(|(tracer, ring)| tracer.cost(ring)),
        }
    }
}
