//! Both servers, a journal, and an incident.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use memguard::{
    config::{GitHubSettings, KubernetesSettings},
    github::{Settings, Source},
    journal::{Copies, Incident, Journal, Opened, Stage},
    kubernetes::{Generation, RunnerRef},
    remote::{FollowUp, Kind, Outward, Progress, Remote, Setup, Workload, follow_ups, start},
    respond::{Ended, Method, Mode},
};
use memguard_stubs::{
    github::{self, GitHubStub, Run},
    kubernetes::{
        self, KubeStub,
        objects::{Runner, ephemeral_runner, secret},
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const TOKEN: &str = "0123456789-a-token-of-no-known-kind";
pub(crate) const RUN: u64 = 42;

pub(crate) struct World {
    pub(crate) kube: KubeStub,
    pub(crate) github: GitHubStub,
    pub(crate) folder: TempDir,
    journal: Journal,
    remote: Option<Remote>,
}

pub(crate) async fn github(token: &str, token_life_s: u32) -> GitHubStub {
    let runs = vec![Run::on("octo/repo", RUN, "r-1")];
    let setup = github::Setup { runs, token: Some(token.to_owned()), token_life_s, ..github::Setup::default() };
    GitHubStub::start("127.0.0.1:0".parse().unwrap(), setup).await.unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_token_life(3600).await
    }

    /// Tokens of an App live so many seconds.
    pub(crate) async fn with_token_life(seconds: u32) -> Self {
        let github = github(TOKEN, seconds).await;
        let objects = vec![runner(&github.url(), &json!({})), arcs_secret(&[("github_token", TOKEN)])];
        let setup = kubernetes::Setup { objects, ..kubernetes::Setup::default() };
        let kube = KubeStub::start("127.0.0.1:0".parse().unwrap(), setup).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), kube.kubeconfig()).unwrap();
        let Opened { journal, .. } = Journal::open(&folder.path().join("state"), folder.path()).unwrap();
        Self { kube, github, folder, journal, remote: None }
    }

    pub(crate) fn start(&mut self, outward: Outward) {
        let kubeconfig = Some(self.folder.path().join("kubeconfig"));
        let setup = Setup { kubeconfig, node: "node-1".to_owned(), outward };
        self.remote = Some(start(setup, self.journal.pen()).unwrap());
    }

    pub(crate) fn remote(&self) -> &Remote {
        self.remote.as_ref().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// An incident of runner r-1, with what follows by the settings in force. Returns its id.
    pub(crate) fn follow(&self, id: &str) -> String {
        self.follow_for(id, workload())
    }

    /// The same, of another container.
    pub(crate) fn follow_for(&self, id: &str, workload: Workload) -> String {
        let follow_ups = follow_ups(Mode::Enforce, Some(&workload), self.remote().reach());
        let incident = Incident {
            id: id.to_owned(),
            revision: 0,
            decided_at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(),
            boot_id: String::new(),
            mode: Mode::Enforce,
            unit: 7,
            cgroup: "a.scope".to_owned(),
            victim: Some(7),
            method: Some(Method::Kill),
            rule: "ci".to_owned(),
            evidence: "memory at 100 % of memory.max".to_owned(),
            workload: Some(workload),
            stage: Stage::Done { ended: Ended::Dead { write_us: 1, empty_after_ms: 2 } },
            follow_ups,
            wishes: self.remote().wishes(),
        };
        self.remote().follow(incident);
        id.to_owned()
    }

    pub(crate) fn kept(&self, id: &str) -> Option<Incident> {
        Copies::below(self.folder.path()).all().into_iter().find(|kept| kept.id == id)
    }

    pub(crate) fn progress(&self, id: &str, kind: Kind) -> Option<Progress> {
        let kept = self.kept(id)?;
        kept.follow_ups.into_iter().find(|this: &FollowUp| this.kind == kind).map(|this| this.progress)
    }

    /// How one of an incident's follow-ups ended.
    pub(crate) async fn end(&self, id: &str, kind: Kind) -> Progress {
        let settled = || self.progress(id, kind).is_some_and(|progress| !matches!(progress, Progress::Open(_)));
        until(&format!("the end of {kind:?}"), settled).await;
        self.progress(id, kind).unwrap()
    }

    /// Requests to read a Secret.
    pub(crate) fn secrets_read(&self) -> usize {
        self.kube.requests().iter().filter(|request| request.path.contains("/secrets")).count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.remote.take().map(|remote| remote.close(Duration::from_secs(5)));
    }
}

/// Runner r-1 of this GitHub, with changes to its spec.
pub(crate) fn runner(github: &str, spec: &Value) -> Value {
    let config_url = format!("{github}/octo");
    let mut object = ephemeral_runner(&Runner {
        namespace: "ci",
        name: "r-1",
        uid: "runner-r-1",
        job: Some(("octo/repo", RUN)),
        config_url: &config_url,
        arc_version: "0.9.2",
    });
    for (name, value) in spec.as_object().unwrap() {
        object["spec"][name] = value.clone();
    }
    object
}

pub(crate) fn arcs_secret(values: &[(&str, &str)]) -> Value {
    secret("ci", "arc-secret", values)
}

pub(crate) fn workload() -> Workload {
    Workload {
        node: "node-1".to_owned(),
        namespace: "ci".to_owned(),
        pod: "r-1".to_owned(),
        pod_uid: "pod-r-1".to_owned(),
        container: Some("runner".to_owned()),
        is_runner: true,
        nested: false,
        memory_limit: None,
        stale_since: None,
        runner: Some(RunnerRef {
            api: Generation::ScaleSets,
            namespace: "ci".to_owned(),
            name: "r-1".to_owned(),
            uid: Some("runner-r-1".to_owned()),
        }),
        facts: None,
    }
}

/// A GitHub with these credentials; without Events, which matter nowhere here.
pub(crate) fn outward(github: Option<(&GitHubStub, Source)>) -> Outward {
    let github = github.map(|(stub, source)| GitHubSettings {
        connection: Settings { url: stub.url(), timeout: Duration::from_secs(5), ..Settings::new(source) },
        cancel: true,
        force_cancel: false,
        force_cancel_after: Duration::from_mins(1),
        check_run: true,
    });
    Outward { kubernetes: KubernetesSettings { events: false, ..KubernetesSettings::default() }, github }
}

/// A token in a file.
pub(crate) fn token_file(path: &Path, token: &str) -> Source {
    std::fs::write(path, token).unwrap();
    Source::Token(path.to_owned())
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_mins(1), "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
