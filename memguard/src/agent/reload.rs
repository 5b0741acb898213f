//! Another configuration while the agent runs.

use std::time::Duration;

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

/// Reads the configuration.
pub struct Reload(Box<Read>);

type Read = dyn FnMut(bool) -> anyhow::Result<Option<InForce>>;

impl Reload {
    /// `read` gives `None` if nothing has changed since the last time, unless it is called with `true`: then somebody asked.
    /// An error is told and changes nothing.
    pub fn new(read: impl FnMut(bool) -> anyhow::Result<Option<InForce>> + 'static) -> Self {
        Self(Box::new(read))
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reload").finish_non_exhaustive()
    }
}

impl<A: Actions> Agent<A> {
    /// Where another configuration comes from.
    #[must_use]
    pub fn reloading(self, reload: Option<Reload>) -> Self {
        Self { reload, ..self }
    }

    /// Looks at the configuration, and puts it in force if there is another one.
    pub(super) fn reload(&mut self, asked: bool) {
        let Some(reload) = &mut self.reload else {
            tracing::warn!("asked to read the configuration again, and none was given (--config)");
            return;
        };
        // What the other thread said since the last time of what it could not use at once.
        if let Some(good) = self.remote.as_ref().and_then(Remote::outcome) {
            self.metrics.reloaded(good);
        }
        match (reload.0)(asked) {
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

    fn other() -> InForce {
        let hold = Duration::from_secs(40);
        let sick = crate::respond::Sick { least: 9, share: 0.9 };
        let policy = Policy { mode: Mode::Enforce, sick, ..Policy::default() };
        InForce { engine: Settings { hold, ..Settings::default() }, policy, outward: Outward::default() }
    }

    #[tokio::test]
    async fn another_configuration_is_in_force_at_once() {
        let mut agent = agent(Some(Reload::new(|asked| Ok(asked.then(other)))));
        agent.reload(false);
        assert_eq!(agent.config.policy.mode, Mode::Observe, "the same file");
        agent.reload(true);
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
        let reload = Reload::new(move |_| {
            let kubernetes = KubernetesSettings { events: false, ..outward.kubernetes };
            Ok(Some(InForce { outward: Outward { kubernetes, ..outward.clone() }, ..other() }))
        });
        let mut agent = agent(Some(reload)).reaching(Some(remote));
        let events = |agent: &Agent<DryRun>| agent.remote.as_ref().unwrap().reach().events;
        assert!(events(&agent));
        agent.reload(false);
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
        let mut agent = agent(Some(Reload::new(|_| anyhow::bail!("policy.mode = 3"))));
        agent.reload(true);
        assert_eq!(agent.config.policy.mode, Mode::Observe);
    }
}
