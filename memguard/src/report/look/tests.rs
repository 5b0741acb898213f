use std::{os::unix::fs::MetadataExt as _, time::Duration};

use super::{tasks::parse_stat, *};

/// A cgroup folder with a container below, and a /proc for its tasks.
pub(in super::super) struct Fake {
    pub(in super::super) dir: tempfile::TempDir,
}

pub(in super::super) struct Tracer(pub(in super::super) Vec<InCycle>, pub(in super::super) Option<Vec<ReturnedFile>>);

impl Insight for Tracer {
    fn in_cycles(&self) -> Vec<InCycle> {
        self.0.clone()
    }

    fn text_files(&self) -> Option<Vec<ReturnedFile>> {
        self.1.clone()
    }
}

impl Fake {
    pub(in super::super) fn new() -> Self {
        let fake = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(fake.cgroup().join("docker")).unwrap();
        fs::create_dir_all(fake.proc()).unwrap();
        fs::write(fake.cgroup().join("memory.stat"), "anon 5\n\u{1b}[2Jfile 6\n").unwrap();
        fs::write(fake.cgroup().join("memory.events"), "max 900\noom 0\n").unwrap();
        fake
    }

    pub(in super::super) fn cgroup(&self) -> PathBuf {
        self.dir.path().join("cgroup/a.scope")
    }

    pub(in super::super) fn proc(&self) -> PathBuf {
        self.dir.path().join("proc")
    }

    /// A process with one thread.
    pub(in super::super) fn task(&self, folder: &str, pid: u32, name: &str, state: char, anon_kib: u64) {
        let add = |file: &str| {
            let path = self.cgroup().join(folder).join(file);
            let before = fs::read_to_string(&path).unwrap_or_default();
            fs::write(path, format!("{before}{pid}\n")).unwrap();
        };
        add("cgroup.procs");
        add("cgroup.threads");
        let task = self.proc().join(pid.to_string());
        fs::create_dir_all(task.join("root")).unwrap();
        let status = format!(
            "Name:\t{name}\nUmask:\t0022\nState:\t{state} (disk sleep)\nTgid:\t{pid}\nVmRSS:\t  900 kB\n\
             RssAnon:\t  {anon_kib} kB\nRssFile:\t     40 kB\nRssShmem:\t      2 kB\nThreads:\t7\n"
        );
        fs::write(task.join("status"), status).unwrap();
        fs::write(task.join("stat"), format!("{pid} ({name}) {state} 1 1 1 0 -1")).unwrap();
        fs::write(task.join("wchan"), "folio_wait_bit_common").unwrap();
    }

    pub(in super::super) fn sources(&self, tracer: Option<Tracer>) -> Sources {
        Sources { proc: self.proc(), insight: tracer.map(|tracer| Box::new(tracer) as Box<dyn Insight>) }
    }

    fn look(&self, tracer: Option<Tracer>, time: Duration) -> Seen {
        let began = Instant::now();
        look(&self.sources(tracer), &self.cgroup(), began, began + time, &mut |_| {})
    }
}

const TIME: Duration = Duration::from_secs(20);

#[test]
fn tasks_come_by_what_cannot_be_reclaimed_with_those_of_cgroups_below() {
    let fake = Fake::new();
    fake.task("", 11, "listener", 'S', 300);
    fake.task("docker", 12, "python3", 'D', 4_000_000);
    fake.task("", 13, "gone", 'R', 1);
    fs::remove_dir_all(fake.proc().join("13")).unwrap();
    fake.task("", 14, "zombie", 'Z', 9_000_000);
    fs::write(fake.proc().join("14/status"), "Name:\tzombie\nState:\tZ (zombie)\nThreads:\t1\n").unwrap();
    let program = fake.dir.path().join("python3.11");
    fs::write(&program, "x").unwrap();
    std::os::unix::fs::symlink(&program, fake.proc().join("12/exe")).unwrap();
    let seen = fake.look(None, TIME);
    let names: Vec<_> = seen.look.tasks.iter().map(|task| task.comm.as_str()).collect();
    assert_eq!(names, ["python3", "listener"], "who is gone or has no memory is left out");
    let python = &seen.look.tasks[0];
    assert_eq!((python.anon, python.file, python.shmem, python.threads), (4_096_000_000, 40_960, 2048, 7));
    assert_eq!((python.state.as_str(), python.exe.as_deref()), ("D", program.to_str()));
    assert_eq!((seen.look.processes, seen.look.blocked, seen.look.in_reclaim), (4, 1, 0));
    assert_eq!(seen.look.waiting[0].wchan.as_deref(), Some("folio_wait_bit_common"));
    assert!(seen.root.is_some() && seen.look.cut.is_none());
    assert_eq!(seen.look.memory_stat, "anon 5\n[2Jfile 6\n");
    assert_eq!(seen.look.events(), [("max".to_owned(), 900), ("oom".to_owned(), 0)]);
}

#[test]
fn what_the_tracer_knows_is_joined_by_cgroup_and_thread() {
    let fake = Fake::new();
    fake.task("", 11, "python3", 'R', 300);
    fake.task("", 12, "quiet", 'S', 300);
    let id = fs::metadata(fake.cgroup()).unwrap().ino();
    let exe = fake.dir.path().join("python3.11");
    fs::write(&exe, "x").unwrap();
    std::os::unix::fs::symlink(&exe, fake.proc().join("11/exe")).unwrap();
    let metadata = fs::metadata(&exe).unwrap();
    let device = rustix::fs::major(metadata.dev()) << 20 | rustix::fs::minor(metadata.dev());
    let file = |inode, cgroup, returns| ReturnedFile { device, inode, cgroup, returns };
    let cycles = vec![
        InCycle { tid: 11, since_ns: 1, cgroup: id },
        InCycle { tid: 11, since_ns: 1, cgroup: id },
        InCycle { tid: 99, since_ns: 1, cgroup: id + 1_000_000 },
    ];
    let files = vec![file(5, id, 3), file(metadata.ino(), id, 70), file(5, id + 1_000_000, 9000)];
    let seen = fake.look(Some(Tracer(cycles, Some(files))), TIME);
    assert_eq!((seen.look.in_reclaim, seen.look.waiting.len()), (1, 1), "another cgroup's task is none of ours");
    assert!(seen.look.waiting[0].reclaims_for_ms.unwrap() > 0.0);
    let files = seen.look.files.unwrap();
    assert_eq!(files.iter().map(|file| file.returns).collect::<Vec<_>>(), [70, 3]);
    assert_eq!((files[0].path.as_deref(), files[0].by_inode), (exe.to_str(), false), "the program is found by exe");
    assert_eq!((files[1].path.as_deref(), seen.devices), (None, vec![device, device]));
    assert_eq!(fake.look(Some(Tracer(Vec::new(), None)), TIME).look.files, None, "this hook does not tell");
}

#[test]
fn names_as_bad_as_they_get_stay_short_and_on_their_line() {
    let fake = Fake::new();
    fake.task("", 11, &format!("<script>\u{202e}{}", "x".repeat(10_000)), 'D', 300);
    fake.task("", 12, ") D (", 'D', 200);
    fake.task("", 13, "nul\0\x1b[2K", 'D', 100);
    let look = fake.look(None, TIME).look;
    assert!(look.tasks[0].comm.starts_with("<script>\\u{202e}xxx") && look.tasks[0].comm.len() < 100);
    assert_eq!(look.tasks[1].comm, ") D (");
    assert_eq!(look.tasks[2].comm, "nul\\u{0}\\u{1b}[2K");
    assert_eq!(look.waiting.len(), 3, "{:?}", look.waiting);
    for text in ["", "x", "1 (", "1 )(", "1 (a) ", "1 (a) 7", "\u{0}", "1 (ü"] {
        assert_eq!(parse_stat(text.as_bytes()), None, "{text}");
    }
    assert_eq!(
        task(1, b"RssAnon:\t99999999999999999999 kB\nState:\nThreads:\tx\n\xff\xfe:\n").unwrap(),
        Task { pid: 1, ..Task::default() }
    );
}

#[test]
fn a_thousand_tasks_are_bounded_in_number_and_time() {
    let fake = Fake::new();
    for pid in 1000..1200 {
        fake.task("", pid, "worker", 'D', u64::from(pid));
    }
    let look = fake.look(None, TIME).look;
    assert_eq!((look.processes, look.tasks.len(), look.waiting.len(), look.blocked), (200, 48, 48, 200));
    assert_eq!(look.tasks[0].pid, 1199);
    let look = fake.look(None, Duration::ZERO).look;
    assert_eq!(look.cut.as_deref(), Some("the time was over after 0 of 200 processes"));
    fs::write(fake.cgroup().join("cgroup.procs"), "0\n0\n").unwrap();
    assert!(fake.look(None, TIME).look.cut.unwrap().contains("hostPID"));
}

#[test]
fn overlayfs_has_to_be_believed_by_inode_and_that_is_said() {
    let file = || HotFile { inode: 5, ..HotFile::default() };
    let device = 259 << 20 | 1;
    let mut exact = file();
    assert!(name(&mut exact, device, (259, 1), 5, "/a"));
    let mut overlay = file();
    assert!(!name(&mut overlay, device, (0, 47), 5, "/b"));
    assert_eq!((overlay.path.as_deref(), overlay.by_inode), (Some("/b"), true));
    name(&mut overlay, device, (0, 47), 5, "/c");
    assert_eq!(overlay.path.as_deref(), Some("/b"), "the first one stays");
    assert!(name(&mut overlay, device, (259, 1), 5, "/d"), "unless it is certain");
    assert_eq!((overlay.path.as_deref(), overlay.by_inode), (Some("/d"), false));
    for (device_of_file, inode) in [((8, 1), 5), ((259, 1), 6), ((0, 47), 6)] {
        let mut other = file();
        name(&mut other, device, device_of_file, inode, "/x");
        assert_eq!(other.path, None, "{device_of_file:?} {inode}");
    }
}
