use std::{fs, sync::Mutex};

use super::*;
use crate::{cgroup::fake_cgroup, respond::life::tests::fake_thread};

type Seen = Arc<Mutex<Vec<Ended>>>;

/// What is told to be out.
pub(crate) fn noted() -> (Out, Seen) {
    let seen = Seen::default();
    let told = Arc::clone(&seen);
    (Arc::new(move |ended| told.lock().unwrap().push(ended)), seen)
}

/// A cgroup in a folder, and a /proc beside it.
struct Fake {
    dir: tempfile::TempDir,
    actions: KernelActions,
    out: Out,
    seen: Seen,
}

impl Fake {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fake_cgroup(&dir.path().join("a.scope"));
        let (out, seen) = noted();
        let (notes, proc) = (Notes::new(dir.path().join("run")), dir.path().join("proc"));
        Self { actions: KernelActions { notes, proc }, dir, out, seen }
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join("a.scope").join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join("a.scope").join(name)).unwrap().trim().to_owned()
    }

    fn end(
        &self,
        method: Method,
        patience: Duration,
    ) -> impl Future<Output = Result<Ended, ActionError>> + Send + 'static {
        let victim = CgroupHandle::open(&self.dir.path().join("a.scope")).unwrap();
        self.actions.end(victim, method, patience, Arc::clone(&self.out))
    }

    /// Has the OOM killer act, and what it leaves.
    async fn relieved(&self, events: &str, patience: Duration) -> Result<Ended, ActionError> {
        let ended = self.end(Method::Oom, patience);
        self.put("memory.events", events);
        ended.await
    }
}

const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_limit_that_cannot_be_lowered_ends_in_a_kill_if_that_was_asked_for() {
    let fake = Fake::new();
    fs::write(fake.dir.path().join("run"), "").unwrap();
    assert!(matches!(fake.end(Method::Oom, SHORT).await, Err(ActionError::Note { .. })));
    assert_eq!(fake.read("cgroup.kill"), "");
    assert!(matches!(fake.end(Method::OomThenKill, SHORT).await, Ok(Ended::Lingering { .. })));
    assert_eq!(fake.read("cgroup.kill"), "1");
}

#[tokio::test]
async fn when_nobody_dies_of_it_the_kill_follows_if_that_was_asked_for() {
    let fake = Fake::new();
    assert!(matches!(fake.end(Method::Oom, SHORT).await, Ok(Ended::NobodyDied { waited_ms: 2000.. })));
    assert_eq!((fake.read("cgroup.kill").as_str(), fake.seen.lock().unwrap().len()), ("", 0));
    assert!(matches!(fake.end(Method::OomThenKill, SHORT).await, Ok(Ended::Lingering { .. })));
    assert_eq!((fake.read("cgroup.kill").as_str(), fake.seen.lock().unwrap().len()), ("1", 1));
    assert_eq!(fake.read("memory.max"), "2000");
}

#[tokio::test]
async fn a_group_that_takes_its_time_to_die_is_waited_for() {
    let fake = Fake::new();
    let dies = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        fake.put("cgroup.events", "populated 0\n");
    };
    let (ended, ()) = tokio::join!(fake.relieved("oom_kill 5\noom_group_kill 1\n", LONG), dies);
    assert!(matches!(ended, Ok(Ended::OomKilled { alive: false, .. })), "{ended:?}");
    assert!(matches!(fake.seen.lock().unwrap()[..], [Ended::OomKilled { .. }]), "and it is known at once");
}

#[tokio::test]
async fn a_group_that_does_not_die_lingers() {
    let fake = Fake::new();
    let ended = fake.relieved("oom_kill 5\noom_group_kill 1\n", Duration::from_millis(700)).await;
    assert!(matches!(ended, Ok(Ended::Lingering { .. })), "{ended:?}");
}

#[tokio::test]
async fn without_a_group_the_others_live_if_one_has_no_signal() {
    let fake = Fake::new();
    fake.put("cgroup.procs", "5\n6\n");
    let proc = fake.dir.path().join("proc");
    fake_thread(&proc, 5, 5, 'R', [0, 256], 0);
    fake_thread(&proc, 6, 6, 'S', [0, 0], 0);
    let began = Instant::now();
    let ended = fake.relieved("oom_kill 7\n", LONG).await;
    assert!(matches!(ended, Ok(Ended::OomKilled { processes: 3, alive: true, .. })), "{ended:?}");
    assert!(began.elapsed() < LONG, "not all the patience");
    fake_thread(&proc, 6, 6, 'S', [0, 256], 0);
    fake.put("memory.events", "oom_kill 4\n");
    let dies = async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        fake.put("cgroup.events", "populated 0\n");
    };
    let (ended, ()) = tokio::join!(fake.relieved("oom_kill 5\n", LONG), dies);
    assert!(matches!(ended, Ok(Ended::OomKilled { alive: false, .. })), "{ended:?}");
}

#[tokio::test]
async fn who_was_killed_is_dead_though_the_limit_cannot_be_put_back() {
    let fake = Fake::new();
    let ended = fake.end(Method::Oom, SHORT);
    while fake.read("memory.max") == "2000" {
        tokio::time::sleep(SHORT).await;
    }
    // It can be read, and not opened any more.
    let max = fake.dir.path().join("a.scope/memory.max");
    fs::remove_file(&max).unwrap();
    fs::create_dir(max).unwrap();
    fake.put("memory.events", "oom_kill 5\n");
    fake.put("cgroup.events", "populated 0\n");
    let ended = ended.await;
    assert!(matches!(ended, Ok(Ended::OomKilled { alive: false, .. })), "{ended:?}");
}

#[tokio::test]
async fn a_kill_is_written_at_once_and_confirmed() {
    let fake = Fake::new();
    let future = fake.end(Method::Kill, LONG);
    while fake.read("cgroup.kill") != "1" {
        std::thread::yield_now();
    }
    fake.put("cgroup.events", "populated 0\n");
    assert!(matches!(future.await.unwrap(), Ended::Dead { .. }), "it did not wait for somebody to poll it");
}

#[tokio::test]
async fn a_task_that_does_not_die_is_reported_as_such() {
    let ended = Fake::new().end(Method::Kill, SHORT).await.unwrap();
    assert!(matches!(ended, Ended::Lingering { .. }));
}

#[tokio::test]
async fn what_cannot_be_killed_is_an_error_with_the_remedy() {
    let fake = Fake::new();
    let kill = fake.dir.path().join("a.scope/cgroup.kill");
    fs::remove_file(&kill).unwrap();
    fs::create_dir(kill).unwrap();
    let error = fake.end(Method::Kill, Duration::ZERO).await.unwrap_err().to_string();
    assert!(error.contains("cgroup.kill") && error.contains("root"), "{error}");
    assert_eq!(*fake.seen.lock().unwrap(), [], "it is not out");
}

#[tokio::test]
async fn a_cgroup_that_vanished_before_the_kill_counts_as_dead() {
    let fake = Fake::new();
    fs::remove_file(fake.dir.path().join("a.scope/cgroup.kill")).unwrap();
    let ended = fake.end(Method::Kill, Duration::ZERO).await.unwrap();
    assert!(matches!(ended, Ended::Dead { .. }));
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let fake = Fake::new();
    let handle = CgroupHandle::open(&fake.dir.path().join("a.scope")).unwrap();
    let ended = DryRun.end(handle, Method::Kill, Duration::ZERO, Arc::clone(&fake.out)).await;
    assert_eq!(ended.unwrap(), Ended::DryRun);
    assert_eq!((fake.read("cgroup.kill").as_str(), fake.seen.lock().unwrap().len()), ("", 0));
}

#[test]
fn what_was_certain_is_said_with_what_came_of_it() {
    let lingering = Ended::Lingering { write_us: 1, waited_ms: 0 };
    assert_eq!(lingering.emptied(7), Ended::Dead { write_us: 1, empty_after_ms: 7 });
    assert_eq!(lingering.waited(7), Ended::Lingering { write_us: 1, waited_ms: 7 });
    let oom = |alive| Ended::OomKilled { processes: 1, after_ms: 2, alive };
    assert_eq!((oom(true).emptied(7), oom(true).waited(7)), (oom(false), oom(true)));
    assert_eq!(lingering.late(), "");
    assert!(Ended::Dead { write_us: 3_200_000, empty_after_ms: 3300 }.late().contains("3.2 s"));
}
