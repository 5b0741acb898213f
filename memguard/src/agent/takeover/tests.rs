use std::{fs, path::Path};

use super::*;
use crate::{
    agent::Config,
    cgroup::{CgroupRoot, fake_cgroup},
    journal::{Copies, Journal, Opened, example},
    kernel::{Facts, plan},
    respond::{DryRun, Limit, Mode, fake_thread},
};

const SIGKILL: [u64; 2] = [256, 0];
const NONE: [u64; 2] = [0, 0];

/// A node on which memguard was ended while it ended a cgroup.
struct Node {
    dir: tempfile::TempDir,
    watch: Watch,
    incident: Incident,
}

impl Node {
    fn new(stage: Stage, patience: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (root, proc) = (dir.path().join("cgroup"), dir.path().join("proc"));
        let path = root.join("a.slice/a.scope");
        fake_cgroup(&path);
        fs::write(path.join("cgroup.procs"), "5\n").unwrap();
        let victim = CgroupHandle::open(&path).unwrap().inode();
        let incident = Incident { victim: Some(victim), boot_id: "this".to_owned(), stage, ..example("mg-1-1", 1000) };
        let watch = Watch { root, proc, boot_id: "this".to_owned(), patience };
        Self { dir, watch, incident }
    }

    fn with_thread(self, pending: [u64; 2]) -> Self {
        fake_thread(&self.watch.proc, 5, 5, 'D', pending, 0);
        self
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join("cgroup/a.slice/a.scope").join(name), text).unwrap();
    }

    async fn sees(&self) -> Option<Stage> {
        self.watch.see(&self.incident).await
    }

    /// What is seen if something happens half a second later, and that nothing can be said before.
    async fn sees_later(&self, happens: impl FnOnce()) -> Option<Stage> {
        let mut sees = Box::pin(self.sees());
        let early = tokio::time::timeout(Duration::from_millis(500), &mut sees).await;
        assert!(early.is_err(), "{early:?}");
        happens();
        sees.await
    }
}

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);
const GONE: Option<Stage> = Some(Stage::Interrupted { found: Found::Gone });
const ALIVE: Option<Stage> = Some(Stage::Interrupted { found: Found::Alive });

fn out() -> Stage {
    Stage::Out { at: unix_ms(), so_far: Ended::Lingering { write_us: 5, waited_ms: 0 } }
}

const fn lingers(stage: Option<&Stage>) -> bool {
    matches!(stage, Some(Stage::Done { ended: Ended::Lingering { .. } }))
}

#[tokio::test]
async fn what_was_about_to_be_ended_is_found_alive_or_gone() {
    let node = Node::new(Stage::Planned, LONG).with_thread(NONE);
    let seen = |incident: Incident| {
        let watch = node.watch.clone();
        async move { watch.see(&incident).await }
    };
    let incident = &node.incident;
    assert_eq!(seen(incident.clone()).await, ALIVE);
    assert_eq!(seen(Incident { boot_id: "another start".to_owned(), ..incident.clone() }).await, GONE);
    assert_eq!(seen(Incident { victim: incident.victim.map(|id| id + 1_000_000), ..incident.clone() }).await, GONE);
    assert_eq!(seen(Incident { victim: None, ..incident.clone() }).await, GONE);
    node.put("cgroup.events", "populated 0\n");
    assert_eq!(seen(incident.clone()).await, GONE);
}

#[tokio::test]
async fn who_has_the_signal_is_not_alive_though_nobody_noted_that_it_is_out() {
    let node = Node::new(Stage::Planned, LONG).with_thread(SIGKILL);
    assert_eq!(node.sees_later(|| node.put("cgroup.events", "populated 0\n")).await, GONE);
    let stays = Node::new(Stage::Planned, SHORT).with_thread(SIGKILL).sees().await;
    assert!(lingers(stays.as_ref()), "{stays:?}");
}

#[tokio::test]
async fn a_kill_that_is_out_is_waited_for_whoever_lives_there() {
    for pending in [SIGKILL, NONE] {
        let node = Node::new(out(), LONG).with_thread(pending);
        let dead = node.sees_later(|| node.put("cgroup.events", "populated 0\n")).await;
        let Some(Stage::Done { ended: Ended::Dead { write_us: 5, empty_after_ms } }) = dead else { panic!("{dead:?}") };
        assert!(empty_after_ms >= 500);
        let stays = Node::new(out(), SHORT).with_thread(pending).sees().await;
        assert!(lingers(stays.as_ref()), "{stays:?}");
    }
}

#[tokio::test]
async fn after_the_oom_killer_others_may_live() {
    let so_far = Ended::OomKilled { processes: 1, after_ms: 2, alive: true };
    let stage = || Stage::Out { at: unix_ms(), so_far };
    let lives = Node::new(stage(), LONG).with_thread(NONE).sees().await;
    assert_eq!(lives, Some(Stage::Done { ended: so_far }));
    let group = Node::new(stage(), SHORT).with_thread(SIGKILL).sees().await;
    assert!(lingers(group.as_ref()), "{group:?}");
    let node = Node::new(stage(), LONG).with_thread(SIGKILL);
    let dead = node.sees_later(|| node.put("cgroup.events", "populated 0\n")).await;
    assert_eq!(dead, Some(Stage::Done { ended: Ended::OomKilled { processes: 1, after_ms: 2, alive: false } }));
}

#[tokio::test]
async fn what_cannot_be_seen_is_never_gone() {
    let node = Node::new(Stage::Planned, Duration::ZERO).with_thread(NONE);
    node.put("cgroup.events", "nonsense\n");
    assert_eq!(node.sees_later(|| node.put("cgroup.events", "populated 1\n")).await, ALIVE);
    // The tree can't be walked.
    let node = Node::new(Stage::Planned, Duration::ZERO).with_thread(NONE);
    let (root, away) = (node.watch.root.clone(), node.dir.path().join("away"));
    fs::rename(&root, &away).unwrap();
    assert_eq!(node.sees_later(|| fs::rename(&away, &root).unwrap()).await, ALIVE);
    // Who is in there can't be.
    let node = Node::new(Stage::Planned, SHORT);
    node.put("cgroup.procs", "0\n");
    assert_eq!(node.sees().await, ALIVE, "after it was watched");
}

#[test]
fn when_memguard_ends_before_it_knows_only_what_is_out_counts() {
    assert!(lingers(at_the_end(&out()).as_ref()));
    assert_eq!(at_the_end(&Stage::Planned), None);
}

#[test]
fn kills_of_before_count_for_as_long_as_any_budget_says() {
    let allows = |incident: &Incident, seconds, per| {
        let limit = Limit { kills: 1, kills_per_namespace: 1, per };
        let (mut ledger, now) = (Ledger::default(), Duration::from_secs(30));
        recall(&mut ledger, incident, seconds, now);
        ledger.allows(now, Mode::Enforce, None, limit).is_ok()
    };
    let with = |stage| Incident { stage, ..example("mg-1-1", 1000) };
    let killed = with(Stage::Interrupted { found: Found::Gone });
    let (minutes, hours) = (Duration::from_mins(10), Duration::from_hours(3));
    assert!(!allows(&killed, 1010, minutes), "just now");
    assert!(!allows(&killed, 1599, minutes), "before the machine's start");
    assert!(allows(&killed, 1600, minutes), "long ago");
    assert!(!allows(&killed, 1600, hours), "not for a budget that another configuration may have");
    assert!(allows(&killed, 1000 + 3 * 3600, hours));
    assert!(!allows(&killed, 900, minutes), "the clock was set back");
    assert!(!allows(&with(out()), 1010, minutes), "it is out");
    assert!(allows(&with(Stage::Interrupted { found: Found::Alive }), 1010, minutes));
}

#[test]
fn a_tree_of_one_is_enough_to_find_it() {
    let dir = tempfile::tempdir().unwrap();
    fake_cgroup(dir.path());
    let id = CgroupHandle::open(dir.path()).unwrap().inode();
    assert!(open(dir.path(), id).unwrap().is_some());
    assert!(open(dir.path(), id + 1).unwrap().is_none(), "another one in its place");
    assert!(open(Path::new("/nonexistent"), id).unwrap().is_none());
}

#[tokio::test]
async fn what_the_journal_could_not_say_at_the_start_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let [state, away, run, root] = ["state", "away", "run", "cgroup"].map(|name| dir.path().join(name));
    let mut before = Journal::open(&away, &dir.path().join("run-of-before")).unwrap().journal;
    before.before(&mut Incident { boot_id: "another start".to_owned(), ..example("mg-1-1", 1000) });
    assert!(before.close(Duration::from_secs(5)));
    // Something is in the way of the folder, until the disk is mounted.
    fs::write(&state, "").unwrap();
    let Opened { journal, incidents } = Journal::open(&state, &run).unwrap();
    assert_eq!(incidents, []);
    let pen = journal.pen();
    fs::create_dir(&root).unwrap();
    let root = CgroupRoot::new(&root);
    let (facts, _) = Facts::gather(&root, false);
    let config = Config { duration: Some(Duration::from_secs(2)), ..Config::default() };
    let agent = Agent::new(config, DryRun, journal, &root, None, &plan(&facts), None).continuing(incidents);
    fs::remove_file(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    // Whatever is to be written has it look sooner than by itself.
    let why = String::new();
    pen.after(&mut Incident { stage: Stage::Suppressed { why }, ..example("mg-2-2", 1000) });
    drop(pen);
    agent.run(None).await.unwrap();
    let interrupted = Stage::Interrupted { found: Found::Gone };
    let copies = Copies::below(&run).all();
    assert!(copies.iter().any(|kept| kept.id == "mg-1-1" && kept.stage == interrupted), "{copies:?}");
}
