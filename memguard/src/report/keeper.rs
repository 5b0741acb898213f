//! The thread that completes reports and writes them, and the handle that the agent has.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    collector::{Collector, Kept},
    look::{HotFile, Sources},
    record::{Machine, Record, TermRecord, VERSION, shown},
    resolve::resolve,
    store::Store,
    timeline::Point,
};
use crate::{
    engine::{Memory, Settings, UnitId, Verdict},
    remote::Workload,
    respond::Mode,
};

/// Time between two looks at the tasks of a cgroup while it is suspect. A kill follows its verdict at once, so the latest
/// look before it has to do.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Reports that wait for the disk; more are lost, and that is told.
const MOST_WAITING: usize = 16;

/// What the agent knows of a verdict, all of it in memory already.
#[derive(Debug)]
pub struct Draft {
    pub incident: String,
    /// Seconds since 1970.
    pub decided_at: u64,
    /// When the verdict was there.
    pub at: Instant,
    pub mode: Mode,
    pub unit: UnitId,
    /// Escaped.
    pub cgroup: String,
    pub victim: Option<String>,
    pub workload: Option<Workload>,
    pub verdict: Verdict,
    pub settings: Settings,
    pub memory: Memory,
    pub timeline: Vec<Point>,
}

struct Order {
    draft: Box<Draft>,
    /// What was seen of its tasks, if there was anything by then.
    kept: Option<Kept>,
}

/// Has reports made, without ever waiting.
#[derive(Debug)]
pub struct Reporter {
    collector: Collector,
    drafts: SyncSender<Order>,
    /// Set at the end: paths are not looked for any more.
    ending: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Reporter {
    /// Starts both threads. Reports go below `state_dir`.
    pub fn start(sources: Sources, state_dir: &Path, machine: Machine) -> io::Result<Self> {
        let collector = Collector::start(sources)?;
        let (drafts, inbox) = mpsc::sync_channel(MOST_WAITING);
        let (store, its) = (Store::below(state_dir), collector.clone());
        let ending = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ending);
        let thread = thread::Builder::new()
            .name("report-disk".to_owned())
            .spawn(move || keep(&store, &its, &machine, &inbox, &told))?;
        Ok(Self { collector, drafts, ending, thread })
    }

    /// The cgroup is suspect: has its tasks looked at, every few seconds. `last` is when they were.
    pub fn suspect(&self, unit: UnitId, folder: &Path, now: Duration, last: &mut Option<Duration>) {
        if last.is_none_or(|last| now.saturating_sub(last) >= LOOK_EVERY) {
            *last = Some(now);
            self.collector.look(unit, folder.to_owned());
        }
    }

    /// Somebody looks at the cgroup, in `memguard top`: has its files counted every few seconds, and tells what is known by now.
    #[must_use]
    pub fn files(&self, unit: UnitId, folder: &Path) -> Vec<HotFile> {
        self.collector.show(unit, folder);
        self.collector.files(unit, &self.ending)
    }

    /// The cgroup is not suspect any more, or gone.
    pub fn forget(&self, unit: UnitId) {
        self.collector.forget(unit);
    }

    /// Has a report written. If it can't be, the reason is told and nothing else is lost.
    pub fn verdict(&self, draft: Draft) {
        // Now, because a look is forgotten when its cgroup is let go, and the disk may hang meanwhile.
        let kept = self.collector.at_hand(draft.unit);
        let (order, why) = match self.drafts.try_send(Order { draft: Box::new(draft), kept }) {
            Ok(()) => return,
            Err(TrySendError::Full(order)) => (order, "the disk has not taken those before it"),
            Err(TrySendError::Disconnected(order)) => (order, "the thread that writes them has ended"),
        };
        tracing::error!(incident = order.draft.incident, "the report is lost: {why}");
    }

    /// Waits until all that was handed over is written, or for so long. Whether it is.
    #[must_use]
    pub fn close(self, patience: Duration) -> bool {
        let Self { collector, drafts, ending, thread } = self;
        ending.store(true, Ordering::Relaxed);
        drop((collector, drafts));
        let began = Instant::now();
        while !thread.is_finished() {
            if began.elapsed() >= patience {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

fn keep(store: &Store, collector: &Collector, machine: &Machine, inbox: &Receiver<Order>, ending: &AtomicBool) {
    while let Ok(Order { draft, kept }) = inbox.recv() {
        let (kept, gap) = kept.map_or_else(|| collector.take(draft.unit), |kept| (kept, None));
        let mut record = record(*draft, machine.clone(), kept.at.map(|at| (at, kept.seen.look)), gap);
        if !put(store, &record) {
            continue;
        }
        // The report is safe. The paths that are not known yet may need the disk of the container.
        let files = record.look.as_mut().and_then(|look| look.files.as_mut());
        if let (Some(root), Some(files)) = (&kept.seen.root, files)
            && resolve(root, files, &kept.seen.devices, ending)
        {
            put(store, &record);
        }
    }
}

fn put(store: &Store, record: &Record) -> bool {
    let written = store.put(record);
    match &written {
        Ok(()) => tracing::debug!(incident = record.incident, "the report is written"),
        Err(error) => tracing::error!(incident = record.incident, "the report is lost: {error}"),
    }
    written.is_ok()
}

fn record(draft: Draft, machine: Machine, look: Option<(Instant, super::Look)>, gap: Option<String>) -> Record {
    let Draft { incident, decided_at, at, mode, unit, cgroup, victim, workload, verdict, settings, memory, timeline } =
        draft;
    let look = look.map(|(seen_at, look)| super::Look {
        before_verdict_s: at.saturating_duration_since(seen_at).as_secs_f64(),
        ..look
    });
    let mut gaps = Vec::from_iter(gap);
    if look.as_ref().is_some_and(|look| look.files.is_none()) {
        gaps.push("which files came back is not known: the fault hook that tells is not in the plan".to_owned());
    }
    if let Some(cut) = look.as_ref().and_then(|look| look.cut.as_ref()) {
        gaps.push(format!("the look at its tasks is not complete: {cut}"));
    }
    Record {
        version: VERSION,
        incident,
        decided_at,
        mode,
        unit: unit.0,
        cgroup: shown(&cgroup, 1024),
        victim: victim.map(|victim| shown(&victim, 1024)),
        workload,
        machine,
        suspect_for_s: verdict.at.saturating_sub(verdict.suspect_since).as_secs_f64(),
        confidence: verdict.terms.confidence(),
        terms: TermRecord::all(&verdict.terms),
        settings,
        memory,
        timeline,
        look,
        gaps,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::{
        super::{
            InCycle, ReturnedFile, Timeline,
            look::tests::{Fake, Tracer},
        },
        *,
    };
    use crate::engine::{Engine, fixture::hang};

    fn draft(id: &str) -> Draft {
        let settings = Settings::default();
        let mut engine = Engine::new(settings.clone());
        let mut timeline = Timeline::default();
        let (verdict, memory, now) = (0..)
            .find_map(|second| {
                let sample = hang(second);
                let (memory, at) = (sample.memory, sample.at);
                let observation = engine.observe(UnitId(7), sample);
                timeline.push(at, observation.state, &memory, observation.signals.as_ref());
                observation.verdict.map(|verdict| (verdict, memory, at))
            })
            .unwrap();
        Draft {
            incident: id.to_owned(),
            decided_at: 1,
            at: Instant::now(),
            mode: Mode::Enforce,
            unit: UnitId(7),
            cgroup: "a.scope".to_owned(),
            victim: None,
            workload: None,
            verdict,
            settings,
            memory,
            timeline: timeline.points(now),
        }
    }

    /// With a state folder of its own.
    fn reporter(fake: &Fake, tracer: Option<Tracer>) -> (Reporter, Store) {
        let state = fake.dir.path().join("state");
        (Reporter::start(fake.sources(tracer), &state, Machine::default()).unwrap(), Store::below(&state))
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_verdict_leaves_a_report_with_the_tasks_of_before_the_kill() {
        let fake = Fake::new();
        fake.task("", 11, "python3", 'D', 4000);
        let lib = fake.proc().join("11/root/usr/lib");
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join("libx.so"), "x").unwrap();
        let metadata = fs::metadata(lib.join("libx.so")).unwrap();
        let (inode, device) = {
            use std::os::unix::fs::MetadataExt as _;
            (metadata.ino(), rustix::fs::major(metadata.dev()) << 20 | rustix::fs::minor(metadata.dev()))
        };
        let cgroup = {
            use std::os::unix::fs::MetadataExt as _;
            fs::metadata(fake.cgroup()).unwrap().ino()
        };
        let tracer = Tracer(
            vec![InCycle { tid: 11, since_ns: 1, cgroup }],
            Some(vec![ReturnedFile { device, inode, cgroup, returns: 44 }]),
        );
        let (reporter, store) = reporter(&fake, Some(tracer));
        let mut last = None;
        reporter.suspect(UnitId(7), &fake.cgroup(), Duration::from_secs(10), &mut last);
        reporter.suspect(UnitId(7), &fake.cgroup(), Duration::from_secs(11), &mut last);
        assert_eq!(last, Some(Duration::from_secs(10)), "not each second");
        for _ in 0..2000 {
            // Until the look has been taken: the draft then finds it at hand.
            if let Some(kept) = reporter.collector.at_hand(UnitId(7)) {
                assert_eq!(kept.seen.look.tasks[0].comm, "python3");
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        reporter.suspect(UnitId(7), &fake.cgroup(), Duration::from_secs(14), &mut last);
        thread::sleep(Duration::from_millis(100));
        // The kill: everything is gone, and the unit let go.
        fs::rename(fake.proc().join("11"), fake.dir.path().join("dead")).unwrap();
        let (draft, began) = (draft("mg-1-7"), Instant::now());
        reporter.verdict(draft);
        assert!(began.elapsed() < Duration::from_secs(1));
        reporter.forget(UnitId(7));
        let path = |store: &Store| store.get("mg-1-7").ok()?.look?.files?.first()?.path.clone();
        while path(&store).is_none() && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(reporter.close(PATIENCE));
        let record = store.get("mg-1-7").unwrap();
        let look = record.look.unwrap();
        assert_eq!((look.tasks.len(), look.in_reclaim), (1, 1));
        assert!(look.before_verdict_s > 0.05, "{}", look.before_verdict_s);
        let files = look.files.unwrap();
        assert_eq!(
            (files[0].returns, files[0].path.as_deref()),
            (44, Some("/usr/lib/libx.so")),
            "found after the kill"
        );
        assert!(record.terms.iter().all(|term| term.met) && record.timeline.len() > 5);
        assert_eq!(record.gaps, Vec::<String>::new());
    }

    #[test]
    fn a_status_file_that_hangs_costs_its_tasks_and_no_time() {
        let fake = Fake::new();
        fake.task("", 11, "python3", 'D', 4000);
        fake.task("", 12, "stuck", 'D', 5000);
        let hangs = fake.proc().join("12/status");
        fs::remove_file(&hangs).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &hangs, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let (reporter, store) = reporter(&fake, None);
        let drafts = [Draft { unit: UnitId(0), ..draft("mg-1-0") }, draft("mg-1-7")];
        let began = Instant::now();
        let mut last = None;
        for second in 0..300 {
            reporter.suspect(UnitId(second), &fake.cgroup(), Duration::from_secs(second * 10), &mut last);
        }
        // More than fit in its queue; and the agent waits for none of it.
        reporter.suspect(UnitId(7), &fake.cgroup(), Duration::from_hours(3), &mut last);
        for draft in drafts {
            reporter.verdict(draft);
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert!(reporter.close(PATIENCE), "the thread that is stuck is not waited for");
        let record = store.get("mg-1-0").unwrap();
        let look = record.look.unwrap();
        assert_eq!(
            look.tasks.iter().map(|task| task.comm.as_str()).collect::<Vec<_>>(),
            ["python3"],
            "what was read by then"
        );
        assert!(record.gaps.iter().any(|gap| gap.contains("has not answered")), "{:?}", record.gaps);
        let other = store.get("mg-1-7").unwrap();
        assert!(other.look.is_none() && other.gaps[0].contains("another cgroup's task"), "{:?}", other.gaps);
        // So that the thread ends.
        let _ = fs::OpenOptions::new().write(true).open(&hangs);
    }

    #[test]
    fn a_disk_that_cannot_be_written_loses_the_report_and_nothing_else() {
        let fake = Fake::new();
        let (reporter, store) = reporter(&fake, None);
        // A file where the folder should be: like a full disk, but also for root.
        fs::write(fake.dir.path().join("state"), "x").unwrap();
        reporter.verdict(draft("mg-1-7"));
        assert!(reporter.close(PATIENCE));
        assert!(store.get("mg-1-7").is_err());
        let error = store.put(&super::super::fixture::record("mg-1-7")).unwrap_err().to_string();
        assert!(error.contains("state/reports"), "{error}");
        fs::remove_file(fake.dir.path().join("state")).unwrap();
        store.put(&super::super::fixture::record("mg-1-7")).unwrap();
        assert_eq!(fs::metadata(fake.dir.path().join("state")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_disk_that_hangs_holds_up_nobody() {
        let fake = Fake::new();
        let (reporter, _store) = reporter(&fake, None);
        // The part file is a FIFO that nobody reads: the writer hangs in open().
        let folder = fake.dir.path().join("state/reports");
        fs::create_dir_all(&folder).unwrap();
        let part = folder.join("mg-1-7.part");
        rustix::fs::mknodat(rustix::fs::CWD, &part, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let drafts: Vec<_> = (0..MOST_WAITING + 8).map(|_| draft("mg-1-7")).collect();
        let began = Instant::now();
        for draft in drafts {
            reporter.verdict(draft);
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert!(!reporter.close(Duration::from_millis(300)), "it is said that it did not come to its end");
        let _ = fs::OpenOptions::new().read(true).write(true).open(&part);
    }
}
