use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use redb::{StorageBackend, backends::InMemoryBackend};

use super::{
    super::{
        incident::{Stage, example},
        store::{Store, builder},
        writer::latest_only,
    },
    *,
};

const WELL: u8 = 0;
const FULL: u8 = 1;
const HANGS: u8 = 2;

/// A disk whose content outlives the database, and which can be full or hang.
#[derive(Clone, Debug)]
struct Disk {
    content: Arc<InMemoryBackend>,
    state: Arc<AtomicU8>,
}

impl Disk {
    fn new() -> Self {
        Self { content: Arc::new(InMemoryBackend::new()), state: Arc::new(AtomicU8::new(WELL)) }
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }

    fn use_it(&self) -> Result<(), io::Error> {
        while self.state.load(Ordering::SeqCst) == HANGS {
            thread::sleep(Duration::from_millis(5));
        }
        if self.state.load(Ordering::SeqCst) == FULL {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn opener(&self) -> Opener {
        let disk = self.clone();
        Box::new(move || {
            builder().create_with_backend(disk.clone()).map_err(|error| StoreError::Use(Box::new(error.into())))
        })
    }

    fn holds(&self) -> Vec<Incident> {
        Store::open(self.opener()).unwrap().all().unwrap()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.content.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.content.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.use_it()?;
        self.content.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.use_it()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.use_it()?;
        self.content.write(offset, data)
    }
}

/// As it is after it was kept so often.
fn kept(revision: u64, incident: Incident) -> Incident {
    Incident { revision, ..incident }
}

fn done(id: &str, at: u64) -> Incident {
    Incident { stage: Stage::Failed { error: "x".to_owned() }, ..example(id, at) }
}

#[test]
fn what_is_begun_is_on_the_disk_first() {
    let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
    let Opened { mut journal, incidents } = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap();
    assert_eq!(incidents, []);
    assert_eq!(journal.before(&mut example("mg-1-1", 1)), Kept::OnDisk);
    journal.after(&mut done("mg-1-1", 1));
    assert!(journal.close(Duration::from_secs(5)));
    assert_eq!(disk.holds(), [kept(1, done("mg-1-1", 1))]);
}

#[test]
fn a_disk_that_hangs_holds_a_kill_up_once_and_for_a_moment_only() {
    let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
    let mut journal = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap().journal;
    disk.set(HANGS);
    assert_eq!(journal.before(&mut example("mg-1-1", 1)), Kept::InRunFolder);
    assert!(journal.late.is_some());
    assert_eq!(journal.disk(), super::Disk::Works, "for now");
    assert_eq!(journal.before(&mut example("mg-2-1", 2)), Kept::InRunFolder);
    disk.set(WELL);
    assert!(journal.close(Duration::from_secs(10)));
    assert_eq!(disk.holds().len(), 2, "nothing was lost");
}

#[test]
fn what_a_hanging_disk_did_not_take_is_known_to_the_next_start() {
    let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
    let mut journal = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap().journal;
    disk.set(HANGS);
    journal.before(&mut example("mg-1-1", 1));
    // memguard dies: the next one sees another disk, on which it never arrived.
    let next = Disk::new();
    let Opened { journal: other, incidents } = Journal::open_with(next.opener(), Copies::below(dir.path())).unwrap();
    assert_eq!(incidents, [kept(1, example("mg-1-1", 1))]);
    assert!(other.close(Duration::from_secs(5)));
    assert_eq!(next.holds(), [kept(1, example("mg-1-1", 1))], "and is put there now");
    disk.set(WELL);
    assert!(journal.close(Duration::from_secs(10)));
}

#[test]
fn a_full_disk_gets_it_when_there_is_room_again() {
    let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
    let mut journal = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap().journal;
    journal.before(&mut example("mg-1-1", 1));
    disk.set(FULL);
    assert_eq!(journal.disk(), super::Disk::Works);
    assert_eq!(journal.before(&mut example("mg-2-1", 2)), Kept::InRunFolder);
    while journal.disk() == super::Disk::Works {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(journal.disk(), super::Disk::Fails);
    disk.set(WELL);
    journal.after(&mut done("mg-2-1", 2));
    assert!(journal.close(Duration::from_secs(10)));
    assert_eq!(disk.holds(), [kept(1, example("mg-1-1", 1)), kept(1, done("mg-2-1", 2))]);
}

#[test]
fn a_disk_that_is_full_at_the_start_gets_it_when_there_is_room() {
    let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
    disk.set(FULL);
    let Opened { mut journal, incidents } = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap();
    assert_eq!(incidents, []);
    assert_eq!(journal.before(&mut example("mg-1-1", 1)), Kept::InRunFolder);
    disk.set(WELL);
    journal.after(&mut done("mg-2-1", 2));
    assert!(journal.close(Duration::from_secs(10)));
    assert_eq!(disk.holds(), [kept(1, example("mg-1-1", 1)), kept(1, done("mg-2-1", 2))]);
}

#[test]
fn without_a_disk_it_goes_on_and_without_both_too() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let blocked = dir.path().join("file/state");
    let mut journal = Journal::open(&blocked, dir.path()).unwrap().journal;
    assert_eq!(journal.before(&mut example("mg-1-1", 1)), Kept::InRunFolder);
    assert_eq!((journal.disk(), Journal::none().disk()), (super::Disk::Fails, super::Disk::NotWanted));
    let mut journal = Journal::open(&blocked, &blocked).unwrap().journal;
    assert_eq!(journal.before(&mut example("mg-1-1", 1)), Kept::Nowhere);
}

#[test]
fn of_many_states_the_last_counts_and_all_who_wait_are_told() {
    let ((early, told_early), (late, told_late)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
    let order = |incident, done| Order { incident: Box::new(incident), done };
    let mut orders =
        vec![order(example("a", 1), vec![early]), order(example("b", 1), Vec::new()), order(done("a", 1), vec![late])];
    latest_only(&mut orders);
    assert_eq!(orders.iter().map(|order| &*order.incident).collect::<Vec<_>>(), [&example("b", 1), &done("a", 1)]);
    for done in &orders[1].done {
        done.send(()).unwrap();
    }
    told_early.try_recv().unwrap();
    told_late.try_recv().unwrap();
}

#[test]
fn what_was_dropped_while_the_disk_hung_does_not_keep_later_ones_from_waiting_for_it() {
    let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
    let mut journal = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap().journal;
    // As `latest_only` leaves one that was too much.
    journal.late = Some(mpsc::sync_channel(1).1);
    assert_eq!(journal.before(&mut example("mg-1-1", 1)), Kept::OnDisk);
    assert!(journal.close(Duration::from_secs(5)));
}

#[test]
fn of_both_places_the_later_state_counts() {
    let (disk, dir) = (Disk::new(), tempfile::tempdir().unwrap());
    let copies = Copies::below(dir.path());
    let mut journal = Journal::open_with(disk.opener(), copies.clone()).unwrap().journal;
    let mut incident = example("mg-1-1", 1);
    assert_eq!(journal.before(&mut incident), Kept::OnDisk);
    // The run folder takes nothing for a while, and the disk does.
    let (there, away) = (copies.folder().to_owned(), dir.path().join("away"));
    std::fs::rename(&there, &away).unwrap();
    std::fs::write(&there, "").unwrap();
    incident.stage = Stage::Failed { error: "x".to_owned() };
    journal.after(&mut incident);
    assert!(journal.close(Duration::from_secs(5)));
    std::fs::remove_file(&there).unwrap();
    std::fs::rename(&away, &there).unwrap();
    assert_eq!((copies.all()[0].revision, incident.revision), (1, 2));
    let opened = Journal::open_with(disk.opener(), copies).unwrap();
    assert_eq!(opened.incidents, [incident.clone()]);
    assert!(opened.journal.close(Duration::from_secs(5)));
    assert_eq!(disk.holds(), [incident], "and an older copy does not undo it");
}

/// Waits for what a journal finds later.
fn later(journal: &mut Journal) -> Vec<Incident> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_mins(1), journal.found_later()).await.unwrap() })
}

/// A disk on which an earlier memguard has left two incidents; of one there is a copy too.
fn left_behind(dir: &Path) -> Disk {
    let disk = Disk::new();
    let mut journal = Journal::open_with(disk.opener(), Copies::below(&dir.join("before"))).unwrap().journal;
    for at in [1, 2] {
        journal.before(&mut example(&format!("mg-{at}-1"), at));
    }
    assert!(journal.close(Duration::from_secs(5)));
    Copies::below(dir).put(&kept(2, done("mg-2-1", 2))).unwrap();
    disk
}

#[test]
fn what_a_disk_that_answers_late_holds_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let disk = left_behind(dir.path());
    disk.set(HANGS);
    let Opened { mut journal, incidents } = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap();
    assert_eq!(incidents, [kept(2, done("mg-2-1", 2))], "what the run folder has, after some patience");
    disk.set(WELL);
    assert_eq!(later(&mut journal), [kept(1, example("mg-1-1", 1))], "what is gone on with already is left out");
    assert!(journal.close(Duration::from_secs(5)));
    assert_eq!(disk.holds(), [kept(1, example("mg-1-1", 1)), kept(2, done("mg-2-1", 2))]);
}

#[test]
fn so_is_what_one_holds_that_could_not_be_used_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let disk = left_behind(dir.path());
    disk.set(FULL);
    let Opened { mut journal, incidents } = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap();
    assert_eq!(incidents.len(), 1);
    assert_eq!(journal.before(&mut example("mg-3-1", 3)), Kept::InRunFolder);
    disk.set(WELL);
    assert_eq!(later(&mut journal), [kept(1, example("mg-1-1", 1))], "and nothing of this start");
    assert!(journal.close(Duration::from_secs(10)));
    assert_eq!(disk.holds().len(), 3);
}

#[test]
fn nothing_is_written_before_that_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let disk = left_behind(dir.path());
    // It recovers right between a look at it and a write.
    let (opener, failures) = (disk.opener(), AtomicU8::new(2));
    let recovers: Opener = Box::new(move || {
        let left = failures.load(Ordering::SeqCst);
        if left > 0 {
            failures.store(left - 1, Ordering::SeqCst);
            return Err(StoreError::Use(Box::new(redb::Error::Io(io::ErrorKind::StorageFull.into()))));
        }
        opener()
    });
    // After another start of the machine: nothing is at hand that would be written first.
    let Opened { mut journal, .. } = Journal::open_with(recovers, Copies::below(&dir.path().join("run"))).unwrap();
    assert_eq!(journal.before(&mut example("mg-3-1", 3)), Kept::InRunFolder);
    journal.after(&mut done("mg-3-1", 3));
    assert_eq!(
        later(&mut journal),
        [kept(1, example("mg-1-1", 1)), kept(1, example("mg-2-1", 2))],
        "and nothing of this start"
    );
    assert!(journal.close(Duration::from_secs(10)));
    assert_eq!(disk.holds().len(), 3);
}

#[test]
fn a_disk_that_works_has_nothing_to_tell_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = left_behind(dir.path());
    let Opened { mut journal, incidents } = Journal::open_with(disk.opener(), Copies::below(dir.path())).unwrap();
    assert_eq!(incidents, [kept(1, example("mg-1-1", 1)), kept(2, done("mg-2-1", 2))]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let waited =
        runtime.block_on(async { tokio::time::timeout(Duration::from_millis(50), journal.found_later()).await });
    assert!(waited.is_err());
    assert!(journal.close(Duration::from_secs(5)));
}
