//! Filling the cache: beside its place and under a lock, so that an interrupted run leaves nothing that looks finished, and of
//! two runs at a time the second one takes what the first has made.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::ui;

/// Kept until it goes out of scope, or its process ends.
pub(crate) struct Lock {
    _file: File,
}

/// Waits until nobody else holds this lock.
pub(crate) fn lock(path: &Path) -> anyhow::Result<Lock> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.with_context(|| format!("can't open {}", path.display()))?;
    let mut told = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(error) => return Err(error).with_context(|| format!("can't lock {}", path.display())),
        }
        if !told {
            ui::say(format!("waiting for another run that has {}", path.display()));
            told = true;
        }
        ui::check_interrupt()?;
        thread::sleep(Duration::from_millis(200));
    }
}

/// Makes what belongs into a place of the cache, if it is not whole by then. `make` gets an empty folder on the same file
/// system, and says what in it is to be moved: all of it, or something below.
pub(crate) fn fill(
    place: &Path,
    is_whole: impl Fn(&Path) -> bool,
    make: impl FnOnce(&Path) -> anyhow::Result<PathBuf>,
) -> anyhow::Result<()> {
    let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
        bail!("{} is no place in a cache", place.display());
    };
    if is_whole(place) {
        return Ok(());
    }
    fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
    let _lock = lock(&parent.join(format!(".{}.lock", name.to_string_lossy())))?;
    // By now another run may have made it.
    if is_whole(place) {
        return Ok(());
    }
    let work = tempfile::tempdir_in(parent).with_context(|| format!("can't make a folder in {}", parent.display()))?;
    let filled = make(work.path())?;
    // A part of it, or one that is out of date: nobody has made anything of that.
    match fs::symlink_metadata(place) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(place),
        Ok(_) => fs::remove_file(place),
        Err(_) => Ok(()),
    }
    .with_context(|| format!("can't remove what is left in {}", place.display()))?;
    fs::rename(&filled, place).with_context(|| format!("can't move it to {}", place.display()))?;
    if filled == work.path() {
        // It is where it belongs now; there is nothing left to clear away.
        let _ = work.keep();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn whole(place: &Path) -> bool {
        place.join("program").is_file()
    }

    #[test]
    fn of_two_at_a_time_one_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("tools/it");
        let made = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    fill(&place, whole, |work| {
                        made.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(100));
                        fs::write(work.join("program"), "")?;
                        Ok(work.to_owned())
                    })
                    .unwrap();
                    assert!(whole(&place));
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn what_fails_leaves_nothing_and_what_is_partial_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("it");
        fill(&place, whole, |work| {
            fs::write(work.join("program"), "")?;
            bail!("no network")
        })
        .unwrap_err();
        assert!(!place.exists());
        fs::create_dir(&place).unwrap();
        fs::write(place.join("rest"), "").unwrap();
        fill(&place, whole, |work| {
            let made = work.join("made");
            fs::create_dir(&made)?;
            fs::write(made.join("program"), "")?;
            Ok(made)
        })
        .unwrap();
        assert!(whole(&place) && !place.join("rest").exists());
        fill(&place, whole, |_| bail!("it is there")).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left.len(), 2, "it and its lock: {left:?}");
    }
}
