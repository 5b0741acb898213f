//! Power that goes at any moment, for tests: a disk keeps what was synced, and of what came after that as much as it likes.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::StorageBackend;

use super::{
    incident::{Incident, example},
    store::{Opener, Store, StoreError, builder, is_damaged},
};

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Data(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(length) => content.resize(*length, 0),
            Self::Data(at, data) => {
                let end = at + data.len();
                content.resize(content.len().max(end), 0);
                content[*at..end].copy_from_slice(data);
            }
        }
    }

    /// As a disk leaves it that was in the middle of it.
    fn half(&self) -> Self {
        match self {
            Self::Data(at, data) => Self::Data(*at, data[..data.len() / 2].to_vec()),
            Self::Length(length) => Self::Length(*length),
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    synced: Vec<u8>,
    /// What a reader sees.
    seen: Vec<u8>,
    since: Vec<Change>,
    /// Changes and syncs until the power goes.
    left: Option<usize>,
}

impl Content {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.spend()?;
        change.apply(&mut self.seen);
        self.since.push(change);
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Content>>);

impl Disk {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }

    fn opener(&self) -> Opener {
        let disk = self.clone();
        Box::new(move || {
            let failed = |error: redb::DatabaseError| StoreError::Open {
                file: "the disk".into(),
                source: Box::new(error.into()),
            };
            builder().create_with_backend(disk.clone()).map_err(failed)
        })
    }

    fn power_goes_after(&self, changes: usize) {
        self.content().left = Some(changes);
    }

    /// What is there when the power is back. `luck` decides which of the changes that were not synced got there: whole, half, not at
    /// all, in whatever mix.
    fn power_is_back(&self, luck: u64) -> Self {
        let content = self.content();
        let mut found = content.synced.clone();
        let mut state = luck;
        for change in &content.since {
            // Knuth's generator: enough to mix.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match (luck, state >> 62) {
                (0, _) | (2.., 0) => {}
                (1, _) | (2.., 1 | 2) => change.apply(&mut found),
                (2.., _) => change.half().apply(&mut found),
            }
        }
        Self(Arc::new(Mutex::new(Content { synced: found.clone(), seen: found, ..Content::default() })))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.content().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let content = self.content();
        let data = content.seen.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let length = usize::try_from(len).map_err(io::Error::other)?;
        self.content().change(Change::Length(length))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut content = self.content();
        content.spend()?;
        content.synced = content.seen.clone();
        content.since.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.content().change(Change::Data(at, data.to_vec()))
    }
}

const LUCK: u64 = 8;

fn incident(number: u64) -> Incident {
    example(&format!("mg-{number}-1"), number)
}

#[test]
fn what_was_confirmed_outlives_a_power_loss_at_any_moment() {
    let mut whole = false;
    let mut losses = 0;
    for changes in 0..200 {
        let disk = Disk::default();
        let mut store = Store::open(disk.opener()).unwrap();
        store.put(&[incident(1)]).unwrap();
        disk.power_goes_after(changes);
        let confirmed = store.put(&[incident(2)]).is_ok();
        drop(store);
        losses += usize::from(!confirmed);
        for luck in 0..LUCK {
            let store = Store::open(disk.power_is_back(luck).opener()).unwrap();
            let all = store.all().unwrap();
            assert_eq!(all.first(), Some(&incident(1)), "{changes} {luck}");
            assert!(all.len() == 2 || !confirmed, "{changes} {luck}: confirmed, and gone");
            assert!(all.get(1).is_none_or(|second| *second == incident(2)), "{changes} {luck}");
        }
        whole |= confirmed;
        if confirmed {
            break;
        }
    }
    assert!(whole && losses > 3, "or this shows nothing: {losses}");
}

#[test]
fn a_power_loss_while_it_is_made_leaves_what_can_be_opened_or_is_put_aside() {
    let mut made = 0;
    for changes in 0..50 {
        let disk = Disk::default();
        disk.power_goes_after(changes);
        made += usize::from(Store::open(disk.opener()).is_ok());
        for luck in 0..LUCK {
            match Store::open(disk.power_is_back(luck).opener()) {
                Ok(store) => assert_eq!(store.all().unwrap(), []),
                Err(StoreError::Open { source, .. }) => assert!(is_damaged(&source), "{changes} {luck}: {source}"),
                Err(error) => panic!("{changes} {luck}: {error}"),
            }
        }
    }
    assert!((1..50).contains(&made), "or this shows nothing: {made}");
}
