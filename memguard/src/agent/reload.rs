//! Another configuration while the agent runs.

use std::{
    io,
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::Agent;
use crate::{
    engine::{Engine, Settings, State},
    remote::{Outward, Remote},
    respond::{Actions, Policy},
    telemetry::with_causes,
};

/// How often the file is looked at: a `ConfigMap` of Kubernetes changes without anybody sending a signal.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The part of the configuration that can change.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    pub engine: Settings,
    pub policy: Policy,
    /// Put in force by the thread that talks to Kubernetes and GitHub, where there is one.
    pub outward: Outward,
}

/// A disk that takes this long to read a few lines does not answer.
const LATE: Duration = Duration::from_secs(45);

/// Reads the configuration, on a thread of its own: its file is on a disk, which may hang, and that must hold up nothing but
/// the next configuration.
#[derive(Debug)]
pub struct Reload {
    asks: SyncSender<bool>,
    answers: UnboundedReceiver<Read>,
    /// Since when the thread reads. It is asked for one thing at a time.
    reading: Option<Instant>,
    /// Somebody asked while it did.
    again: bool,
    /// That it is late was told.
    told: bool,
}

/// What came of it, and whether somebody had asked.
#[derive(Debug)]
pub(super) struct Read {
    asked: bool,
    result: anyhow::Result<Option<InForce>>,
}

impl Reload {
    /// `read` gives `None` if nothing has changed since the last time, unless it is called with `true`: then somebody asked.
    /// An error is told and changes nothing.
    pub fn new(mut read: impl FnMut(bool) -> anyhow::Result<Option<InForce>> + Send + 'static) -> io::Result<Self> {
        let (asks, inbox) = sync_channel(1);
        let (tell, answers) = unbounded_channel();
        // Nobody waits for its end, which a disk could put off for ever.
        thread::Builder::new().name("configuration".to_owned()).spawn(move || {
            while let Ok(asked) = inbox.recv() {
                if tell.send(Read { asked, result: read(asked) }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { asks, answers, reading: None, again: false, told: false })
    }

    fn ask(&mut self, asked: bool) {
        if let Some(since) = self.reading {
            self.again |= asked;
            if !self.told && since.elapsed() >= LATE {
                self.told = true;
                tracing::warn!(
                    for_s = since.elapsed().as_secs(),
                    "the configuration file can't be read, its disk does not answer; the configuration of before stays in force"
                );
            }
            return;
        }
        match self.asks.try_send(asked) {
            Ok(()) => self.reading = Some(Instant::now()),
            // It takes each request before it answers, so there is room.
            Err(TrySendError::Full(_)) => self.again |= asked,
            Err(TrySendError::Disconnected(_)) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::error!("the thread that reads the configuration is gone; a restart brings it back");
                }
            }
        }
    }
}

/// What the thread has read, once there is something.
pub(super) async fn answer(reload: &mut Option<Reload>) -> Read {
    if let Some(reload) = reload
        && let Some(read) = reload.answers.recv().await
    {
        return read;
    }
    std::future::pending().await
}

impl<A: Actions> Agent<A> {
    /// Where another configuration comes from.
    #[must_use]
    pub fn reloading(self, reload: Option<Reload>) -> Self {
        Self { reload, ..self }
    }

    /// Has the configuration looked at.
    pub(super) fn reload(&mut self, asked: bool) {
        let Some(reload) = &mut self.reload else {
            tracing::warn!("asked to read the configuration again, and none was given (--config)");
            return;
        };
        // What the other thread said since the last time of what it could not use at once.
        if let Some(good) = self.remote.as_ref().and_then(Remote::outcome) {
            self.metrics.reloaded(good);
        }
        reload.ask(asked);
    }

    /// Puts the configuration in force if there is another one.
    pub(super) fn reloaded(&mut self, Read { asked, result }: Read) {
        if let Some(reload) = &mut self.reload {
            (reload.reading, reload.told) = (None, false);
            if std::mem::take(&mut reload.again) {
                reload.ask(true);
            }
        }
        match result {
            Ok(None) => {}
            Ok(Some(new)) => {
                self.metrics.reloaded(true);
                if let Some(remote) = &self.remote {
                    remote.change(&new.outward, asked);
                }
                self.put_in_force(new);
            }
            Err(error) => {
                self.metrics.reloaded(false);
                tracing::error!("the configuration of before stays in force: {}", with_causes(&error));
            }
        }
    }

    fn put_in_force(&mut self, new: InForce) {
        let InForce { engine, policy, .. } = new;
        let mode = policy.usual_mode();
        tracing::info!(%mode, rules = policy.rules.len(), "the configuration was read again and is in force");
        let changed = policy != self.config.policy;
        (self.config.policy, self.summary.mode) = (policy, mode);
        if engine == self.config.engine {
            if changed {
                self.judge_anew();
            }
            return;
        }
        // Evidence gathered by other measures counts for nothing, so all of it is gathered anew.
        self.engine = Engine::new(engine.clone());
        for unit in self.units.values_mut() {
            unit.victim = None;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.begin_again(engine.clone());
            for (id, unit) in &self.units {
                recorder.watch(*id, &unit.name.cgroup);
            }
        }
        self.config.engine = engine;
    }

    /// A hang of which a verdict was only told is judged once more: by another policy something may have to be done.
    fn judge_anew(&mut self) {
        let now = super::now();
        for id in self.units.keys().filter(|id| self.engine.state(**id) == State::Livelock).copied().collect::<Vec<_>>()
        {
            self.engine.acted(id, now);
            if let Some(recorder) = &mut self.recorder {
                recorder.acted(id, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::Config,
        cgroup::CgroupRoot,
        config::KubernetesSettings,
        journal::Journal,
        kernel::{Facts, plan},
        remote::{self, Setup},
        respond::{DryRun, Mode},
    };

    fn agent(reload: Option<Reload>) -> Agent<DryRun> {
        let dir = tempfile::tempdir().unwrap();
        let root = CgroupRoot::new(dir.path());
        let (facts, _) = Facts::gather(&root, false);
        Agent::new(Config::default(), DryRun, Journal::none(), &root, None, &plan(&facts), None).reloading(reload)
    }

    /// Asks, and waits for what comes of it.
    async fn reload(agent: &mut Agent<DryRun>, asked: bool) {
        agent.reload(asked);
        let read = tokio::time::timeout(Duration::from_secs(30), answer(&mut agent.reload)).await.unwrap();
        agent.reloaded(read);
    }

    fn other() -> InForce {
        let hold = Duration::from_secs(40);
        let sick = crate::respond::Sick { least: 9, share: 0.9 };
        let policy = Policy { mode: Mode::Enforce, sick, ..Policy::default() };
        InForce { engine: Settings { hold, ..Settings::default() }, policy, outward: Outward::default() }
    }

    #[tokio::test]
    async fn another_configuration_is_in_force_at_once() {
        let mut agent = agent(Some(Reload::new(|asked| Ok(asked.then(other))).unwrap()));
        reload(&mut agent, false).await;
        assert_eq!(agent.config.policy.mode, Mode::Observe, "the same file");
        reload(&mut agent, true).await;
        assert_eq!((agent.config.policy.mode, agent.config.policy.sick.least), (Mode::Enforce, 9));
        assert_eq!(agent.engine.settings().hold, Duration::from_secs(40));
        assert_eq!(agent.summary.mode, Mode::Enforce);
    }

    #[tokio::test]
    async fn what_concerns_others_is_handed_to_their_thread() {
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}],
            "users": [{"name": "u", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        let outward = Outward::default();
        let setup = Setup { kubeconfig: Some(kubeconfig), node: "n".to_owned(), outward: outward.clone() };
        let remote = remote::start(setup, Journal::none().pen()).unwrap();
        let others = Reload::new(move |_| {
            let kubernetes = KubernetesSettings { events: false, ..outward.kubernetes };
            Ok(Some(InForce { outward: Outward { kubernetes, ..outward.clone() }, ..other() }))
        });
        let mut agent = agent(Some(others.unwrap())).reaching(Some(remote));
        let events = |agent: &Agent<DryRun>| agent.remote.as_ref().unwrap().reach().events;
        assert!(events(&agent));
        reload(&mut agent, false).await;
        for _ in 0..1000 {
            if !events(&agent) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the change does not arrive");
    }

    #[tokio::test]
    async fn mistakes_change_nothing() {
        let mut agent = agent(Some(Reload::new(|_| anyhow::bail!("policy.mode = 3")).unwrap()));
        reload(&mut agent, true).await;
        assert_eq!(agent.config.policy.mode, Mode::Observe);
    }

    /// Whoever asks meanwhile is answered afterwards, by a file that is read anew.
    #[tokio::test]
    async fn a_disk_that_hangs_holds_up_nothing_but_the_configuration() {
        let (disk, hangs) = std::sync::mpsc::channel::<()>();
        let read = move |asked: bool| {
            hangs.recv()?;
            Ok(asked.then(other))
        };
        let mut agent = agent(Some(Reload::new(read).unwrap()));
        let began = Instant::now();
        for asked in [false, false, true, false] {
            agent.reload(asked);
        }
        assert!(began.elapsed() < Duration::from_secs(10), "nobody waits");
        disk.send(()).unwrap();
        let first = answer(&mut agent.reload).await;
        assert!(!first.asked);
        agent.reloaded(first);
        assert_eq!(agent.config.policy.mode, Mode::Observe);
        disk.send(()).unwrap();
        let second = answer(&mut agent.reload).await;
        agent.reloaded(second);
        assert_eq!(agent.config.policy.mode, Mode::Enforce, "as was asked for");
        assert!(agent.reload.as_ref().unwrap().reading.is_none(), "and not once for each");
    }
}
