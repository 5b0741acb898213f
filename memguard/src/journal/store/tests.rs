use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::SystemTime,
};

use super::{
    super::incident::{Stage, example},
    *,
};

#[test]
fn what_was_put_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    assert_eq!(read_only(&folder).unwrap(), []);
    let mut store = Store::open(opener(folder.clone())).unwrap();
    store.put(&[example("mg-5-1", 5), example("mg-4-1", 4)]).unwrap();
    store.put(&[Incident { evidence: "new".to_owned(), ..example("mg-5-1", 5) }]).unwrap();
    drop(store);
    let all = read_only(&folder).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].decided_at, all[1].evidence.as_str()), (4, "new"));
}

/// Everything about a file that a reader could have changed.
fn state(file: &Path) -> (Vec<u8>, u64, SystemTime) {
    let metadata = fs::metadata(file).unwrap();
    (fs::read(file).unwrap(), metadata.blocks(), metadata.modified().unwrap())
}

#[test]
fn a_reader_changes_nothing_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    assert_eq!(read_only(&folder).unwrap(), []);
    assert!(!folder.exists());
    fs::create_dir(&folder).unwrap();
    assert_eq!(read_only(&folder).unwrap(), []);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    let mut store = Store::open(opener(folder.clone())).unwrap();
    store.put(&[example("mg-5-1", 5)]).unwrap();
    drop(store);
    let file = folder.join(NAME);
    let before = state(&file);
    // As for somebody who may not write, and on a file system that is read-only.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(read_only(&folder).unwrap().len(), 1);
    assert_eq!(state(&file), before);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn one_that_was_not_closed_is_read_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (open, killed) = (dir.path().join("open"), dir.path().join("killed"));
    let mut store = Store::open(opener(open.clone())).unwrap();
    store.put(&[example("mg-5-1", 5), example("mg-6-1", 6)]).unwrap();
    fs::create_dir(&killed).unwrap();
    // What a memguard that is killed leaves there.
    fs::copy(open.join(NAME), killed.join(NAME)).unwrap();
    let file = killed.join(NAME);
    let error = Database::builder().open_read_only(&file).err().unwrap();
    assert!(matches!(error, DatabaseError::RepairAborted), "or this test shows nothing: {error}");
    let before = state(&file);
    assert_eq!(read_only(&killed).unwrap().len(), 2);
    assert_eq!(state(&file), before);
}

#[test]
fn what_is_no_store_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(NAME), "").unwrap();
    assert_eq!(read_only(dir.path()).unwrap(), [], "as a full disk leaves it");
    for content in [b"x".to_vec(), vec![7; 100_000]] {
        fs::write(dir.path().join(NAME), &content).unwrap();
        let error = read_only(dir.path()).unwrap_err().to_string();
        assert!(error.contains(NAME), "{error}");
        assert_eq!(fs::read(dir.path().join(NAME)).unwrap(), content);
    }
}

#[test]
fn one_at_a_time_and_the_error_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let _store = Store::open(opener(dir.path().to_owned())).unwrap();
    let error = Store::open(opener(dir.path().to_owned())).err().unwrap().to_string();
    assert!(error.contains("another memguard") && error.contains("--state-dir"), "{error}");
    assert!(matches!(read_only(dir.path()), Err(StoreError::InUse { .. })));
}

#[test]
fn a_damaged_one_is_put_aside() {
    // The second one is what a full disk leaves of a database that was being made: a length, and no header yet.
    for content in [vec![7; 100_000], vec![0; 1 << 20], vec![0; 10]] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), &content).unwrap();
        let mut store = Store::open(opener(dir.path().to_owned())).unwrap();
        store.put(&[example("mg-1-1", 1)]).unwrap();
        assert_eq!(fs::read(dir.path().join("journal.damaged")).unwrap(), content);
    }
}

/// Some hundred incidents, cleanly closed; or as a memguard leaves it that was killed.
fn large(folder: &Path, closed: bool) -> Vec<u8> {
    let mut store = Store::open(opener(folder.to_owned())).unwrap();
    for at in 0..100_u64 {
        let evidence = "memory at 100 % of memory.max; ".repeat(30);
        store.put(&[Incident { evidence, ..example(&format!("mg-{}-7", 1_700_000_000 + at), at) }]).unwrap();
    }
    let held = (!closed).then_some(store);
    let content = fs::read(folder.join(NAME)).unwrap();
    drop(held);
    content
}

/// A bad page of the disk: wherever it is, the store is used or put aside, and memguard starts. Only a panic fails this; in
/// memguard it would end the process, at each start anew.
#[test]
fn one_with_a_damaged_page_is_used_or_put_aside() {
    const PAGE: usize = 4096;
    let (mut aside, mut used) = (0, 0);
    for closed in [true, false] {
        let made = tempfile::tempdir().unwrap();
        let whole = large(made.path(), closed);
        for (number, page) in (1..whole.len() / PAGE).step_by(2).enumerate() {
            let mut content = whole.clone();
            let place = &mut content[page * PAGE..][..PAGE];
            match number % 3 {
                0 => place.fill(0),
                1 => place[..64].iter_mut().zip(1..).for_each(|(byte, n): (_, u8)| *byte ^= n),
                _ => place.copy_from_slice(&whole[..PAGE]),
            }
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(NAME), &content).unwrap();
            let mut store = Store::open(opener(dir.path().to_owned())).unwrap();
            let before = store.all().unwrap().len();
            store.put(&[example("mg-1-1", 1)]).unwrap();
            assert_eq!(store.all().unwrap().len(), before + 1, "page {page}");
            if dir.path().join("journal.damaged").exists() {
                assert_eq!((fs::read(dir.path().join("journal.damaged")).unwrap() == content, before), (true, 0));
                aside += 1;
            } else {
                used += 1;
            }
        }
    }
    assert!(aside > 20 && used > 0, "or this shows little: {aside} {used}");
}

#[test]
fn an_older_state_does_not_take_the_place_of_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(opener(dir.path().to_owned())).unwrap();
    let at = |revision| Incident { revision, ..example("mg-1-1", 1) };
    for (put, there) in [(2, 2), (1, 2), (2, 2), (3, 3)] {
        store.put(&[at(put)]).unwrap();
        assert_eq!(store.all().unwrap(), [at(there)]);
    }
}

#[test]
fn the_oldest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(opener(dir.path().to_owned())).unwrap();
    let closed = |n: u64| {
        let stage = Stage::Suppressed { why: String::new() };
        Incident { stage, ..example(&format!("mg-{}-1", 1_700_000_000 + n), 1_700_000_000 + n) }
    };
    let many: Vec<_> = (0..MOST + 10).map(closed).collect();
    store.put(&[example("mg-1-1", 1)]).unwrap();
    store.put(&many).unwrap();
    let all = store.all().unwrap();
    assert_eq!((all.len() as u64, all[0].decided_at), (MOST, 1), "what is open stays");
    assert_eq!(all[1].decided_at, 1_700_000_011);
}
