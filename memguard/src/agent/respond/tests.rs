use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use super::*;
use crate::{
    agent::Config,
    cgroup::{CgroupRoot, fake_cgroup},
    engine::{Signals, Terms},
    journal::{Copies, Journal},
    kernel::{Facts, plan as kernel_plan},
    kubernetes::{ContainerFacts, Owner, PodFacts, Pods},
    respond::{Out, OwnPod, Policy, Rule, Selectors},
};

const UID: &str = "7fb47c9c-45d8-4a2c-8f1e-0123456789ab";

/// What comes of it.
#[derive(Clone, Copy, Default)]
enum Comes {
    #[default]
    Dead,
    /// Nothing for as long as memguard runs.
    Nothing,
    /// The kill is out, and then nothing.
    Out,
    /// The kill is out, and then something goes wrong.
    OutAndError,
}

/// Writes down what would be done to whom.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(PathBuf, Method)>>>, Comes);

const OUT: Ended = Ended::Lingering { write_us: 5, waited_ms: 0 };

impl Actions for Told {
    fn end(
        &self,
        victim: CgroupHandle,
        method: Method,
        _: Duration,
        out: Out,
    ) -> impl Future<Output = Result<Ended, ActionError>> + Send + 'static {
        self.0.lock().unwrap().push((victim.path().to_owned(), method));
        let comes = self.1;
        if matches!(comes, Comes::Out | Comes::OutAndError) {
            out(OUT);
        }
        async move {
            match comes {
                Comes::Dead => Ok(Ended::Dead { write_us: 1, empty_after_ms: 2 }),
                Comes::OutAndError => Err(ActionError::Thread(std::io::ErrorKind::Other.into())),
                Comes::Nothing | Comes::Out => std::future::pending().await,
            }
        }
    }
}

/// A node with one container that hangs, and memguard on it.
struct Node {
    dir: tempfile::TempDir,
    agent: Agent<Told>,
    done: Told,
    unit: UnitId,
}

fn pod(annotations: &[(&str, &str)]) -> PodFacts {
    let text = |text: &str| text.to_owned();
    PodFacts {
        uid: text(UID),
        namespace: text("ci"),
        name: text("runner-1"),
        node: text("node-1"),
        labels: BTreeMap::from([(text("actions.github.com/scale-set-name"), text("big"))]),
        annotations: annotations.iter().map(|(name, value)| (text(name), text(value))).collect(),
        owner: Some(Owner {
            api_version: text("actions.github.com/v1alpha1"),
            kind: text("EphemeralRunner"),
            name: text("runner-1"),
            uid: text("r"),
            controller: true,
        }),
        containers: vec![ContainerFacts {
            name: text("runner"),
            id: "a".repeat(64),
            init: false,
            restartable_init: false,
            memory_limit: None,
        }],
        phase: text("Running"),
        terminating: false,
        config_hash: None,
    }
}

fn node(policy: Policy, pods: impl Into<Option<Pods>>) -> Node {
    node_where(Comes::Dead, policy, pods)
}

fn node_where(comes: Comes, policy: Policy, pods: impl Into<Option<Pods>>) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cgroup");
    let slice = format!("kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
    let path = root.join(slice).join(format!("cri-containerd-{}.scope", "a".repeat(64)));
    fake_cgroup(&path);
    fs::write(path.join("memory.current"), "1995\n").unwrap();
    let journal = Journal::open(&dir.path().join("state"), &dir.path().join("run")).unwrap().journal;
    let root = CgroupRoot::new(&root);
    let (facts, _) = Facts::gather(&root, false);
    let done = Told(Arc::default(), comes);
    let config = Config { policy, ..Config::default() };
    let mut agent =
        Agent::new(config, done.clone(), journal, &root, None, &kernel_plan(&facts), None).knowing(pods.into());
    let unit = UnitId(fs::metadata(&path).unwrap().ino());
    agent.watch(unit, &path, Duration::ZERO);
    agent.units.get_mut(&unit).unwrap().sample(Duration::from_secs(1), None).unwrap();
    Node { dir, agent, done, unit }
}

impl Node {
    /// A verdict comes. What was kept of it, and what was told to be done.
    async fn hangs(&mut self) -> (Option<Incident>, usize) {
        self.begins_to_hang();
        while let Some(outcome) = self.agent.actions_under_way.join_next().await {
            self.agent.joined(outcome);
        }
        (self.kept(), self.done.0.lock().unwrap().len())
    }

    fn kept(&self) -> Option<Incident> {
        Copies::below(&self.dir.path().join("run")).all().pop()
    }

    fn begins_to_hang(&mut self) {
        let verdict = Verdict {
            unit: self.unit,
            at: Duration::from_secs(9),
            suspect_since: Duration::ZERO,
            held: Duration::from_secs(9),
            signals: Signals { limit: 2000, ..Signals::default() },
            terms: Terms(Vec::new()),
        };
        self.agent.respond(self.unit, verdict);
    }
}

fn enforcing() -> Policy {
    Policy { mode: Mode::Enforce, ..Policy::default() }
}

fn known(annotations: &[(&str, &str)]) -> Pods {
    Pods::told(vec![pod(annotations)], None)
}

#[tokio::test]
async fn a_runner_is_ended_by_the_rule_that_selects_its_scale_set() {
    let label = ("actions.github.com/scale-set-name".to_owned(), glob::Pattern::new("big").unwrap());
    let rule = Rule {
        name: "big".to_owned(),
        selectors: Selectors { labels: BTreeMap::from([label]), ..Selectors::default() },
        mode: Some(Mode::Enforce),
        method: Some(Method::OomThenKill),
        ..Rule::default()
    };
    let mut node = node(Policy { rules: vec![rule], ..Policy::default() }, known(&[]));
    let (incident, done) = node.hangs().await;
    let incident = incident.unwrap();
    assert_eq!((incident.rule.as_str(), incident.mode, done), ("big", Mode::Enforce, 1));
    assert_eq!(node.done.0.lock().unwrap()[0].1, Method::OomThenKill);
    assert!(matches!(incident.stage, Stage::Done { ended: Ended::Dead { .. } }));
    assert_eq!(node.agent.units[&node.unit].name.short(), "ci/runner-1/runner");
}

#[tokio::test]
async fn what_is_only_observed_is_a_dry_run_and_what_is_off_is_not_told() {
    let mut observed = node(enforcing(), known(&[("memguard.dev/mode", "observe")]));
    let (incident, done) = observed.hangs().await;
    let incident = incident.unwrap();
    assert_eq!((incident.mode, done), (Mode::Observe, 0));
    assert!(matches!(incident.stage, Stage::Done { ended: Ended::DryRun }));
    let mut off = node(enforcing(), known(&[("memguard.dev/mode", "off")]));
    assert_eq!(off.hangs().await, (None, 0));
    assert_eq!(off.agent.summary.verdicts, 0);
}

#[tokio::test]
async fn an_annotation_that_is_no_sense_is_observed_and_complained_of_once() {
    let mut node = node(enforcing(), known(&[("memguard.dev/mode", "please\nnot")]));
    for _ in 0..2 {
        assert_eq!(node.hangs().await.1, 0);
    }
    assert_eq!(node.agent.complained.len(), 1);
    let path = node.agent.units[&node.unit].path();
    let (_, sentence) = Whose::of(&path, node.agent.pods.as_ref()).nonsense().unwrap();
    assert!(!sentence.contains('\n') && sentence.contains("ci/runner-1"), "{sentence}");
}

#[tokio::test]
async fn a_pod_that_the_api_has_not_told_of_is_left_alone_until_it_has() {
    let mut node = node(enforcing(), Pods::default());
    let (incident, done) = node.hangs().await;
    assert_eq!(done, 0);
    assert!(matches!(incident.unwrap().stage, Stage::Suppressed { why } if why.contains("not known")));
    node.agent.pods = Some(known(&[]));
    assert_eq!(node.hangs().await.1, 1);
}

#[tokio::test]
async fn what_the_api_said_before_it_went_away_is_enough() {
    let mut node = node(enforcing(), Pods::told(vec![pod(&[])], Some(SystemTime::UNIX_EPOCH)));
    assert_eq!(node.hangs().await.1, 1);
    let name = &node.agent.units[&node.unit].name;
    assert!(name.to_string().contains("as last known"), "{name}");
}

#[tokio::test]
async fn memguards_own_pod_is_left_alone() {
    let mut own = node(enforcing(), known(&[]));
    own.agent = own.agent.running_in(OwnPod::told(|name| (name == "POD_UID").then(|| UID.to_owned())));
    let (incident, done) = own.hangs().await;
    assert_eq!(done, 0);
    assert!(matches!(incident.unwrap().stage, Stage::Suppressed { why } if why.contains("own pod")));
}

#[tokio::test]
async fn without_kubernetes_all_is_as_before() {
    assert_eq!(node(enforcing(), None).hangs().await.1, 1);
    assert_eq!(node(Policy::default(), None).hangs().await.1, 0);
}

#[tokio::test]
async fn after_an_action_the_rest_of_the_pod_waits() {
    let mut node = node(enforcing(), known(&[]));
    assert_eq!(node.hangs().await.1, 1);
    let (incident, done) = node.hangs().await;
    assert_eq!(done, 1);
    assert!(matches!(incident.unwrap().stage, Stage::Suppressed { why } if why.contains("pod_delay_s")));
}

#[tokio::test]
async fn a_kill_that_is_out_is_known_to_the_next_start_at_once() {
    let mut node = node_where(Comes::Out, enforcing(), None);
    node.begins_to_hang();
    // Here memguard could end.
    assert!(matches!(node.kept().unwrap().stage, Stage::Out { so_far: OUT, .. }));
}

#[tokio::test]
async fn what_memguards_end_finds_under_way_counts_as_far_as_it_is_certain() {
    let ended = async |comes| {
        let mut node = node_where(comes, enforcing(), None);
        node.begins_to_hang();
        node.agent.ending.send_replace(true);
        node.agent.settle().await;
        (node.kept().unwrap().stage, node.agent.under_way.len())
    };
    assert!(matches!(ended(Comes::Out).await, (Stage::Done { ended: Ended::Lingering { write_us: 5, .. } }, 0)));
    assert!(matches!(ended(Comes::Nothing).await, (Stage::Planned, 0)), "the next start looks");
}

#[tokio::test]
async fn a_kill_that_is_out_has_not_failed_whatever_comes_after_it() {
    let mut node = node_where(Comes::OutAndError, enforcing(), None);
    let (incident, _) = node.hangs().await;
    assert!(matches!(incident.unwrap().stage, Stage::Done { ended: Ended::Lingering { .. } }));
}

#[tokio::test]
async fn what_the_last_memguard_had_begun_is_taken_over_and_not_done_again() {
    let mut before = node_where(Comes::Out, enforcing(), None);
    before.begins_to_hang();
    let out = before.kept().unwrap();
    let mut node = node(enforcing(), None);
    let victim = out.victim.unwrap();
    node.agent = node.agent.continuing(vec![out.clone()]);
    assert!(node.agent.under_way.contains(&victim));
    node.agent.ending.send_replace(true);
    node.agent.settle().await;
    let kept = node.kept().unwrap();
    assert_eq!((&kept.id, kept.spent()), (&out.id, true));
    assert!(matches!(kept.stage, Stage::Done { .. }), "{:?}", kept.stage);
    assert!(!node.agent.under_way.contains(&victim) && node.done.0.lock().unwrap().is_empty());
    let one = crate::respond::Limit { kills: 1, kills_per_namespace: 1, per: Duration::from_hours(1) };
    assert!(node.agent.ledger.allows(crate::agent::now(), Mode::Enforce, None, one).is_err(), "it counts");
}

#[tokio::test]
async fn a_cgroup_whose_end_is_waited_for_is_not_ended_again() {
    let mut node = node(enforcing(), None);
    node.agent.under_way.insert(node.unit.0);
    assert_eq!(node.hangs().await.1, 0);
    node.agent.under_way.clear();
    assert_eq!(node.hangs().await.1, 1);
}
