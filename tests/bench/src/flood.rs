//! A ring that is flooded: records of an event that can be provoked at will, with nobody to read them, and with a reader.
//!
//! It fails if a flood of what is only a header keeps snapshots out, if the reader is not woken up, or if it is woken up
//! more often than wake-ups are paced.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use memguard::{
    kernel::{Attach, Hook, Layout, btf},
    tracer::{self, Ring},
};
use memguard_common::{Record, maps::DEFAULT_RING_BYTES};
use rustix::thread::set_name;
use serde_json::json;
use tokio::time::timeout;

/// `task_rename(task, comm)`: the task stands for a victim of the OOM killer, and for the number of pages that were freed.
const HOOKS: &[Hook] = &[
    Hook { program: "oom_victim", attach: Attach::Tracepoint, target: "task_rename", arguments: 1, needs: &[] },
    Hook { program: "reclaim_end", attach: Attach::Tracepoint, target: "task_rename", arguments: 1, needs: &[] },
];

/// How long each part takes.
const LONG: Duration = Duration::from_secs(3);
/// Wake-ups a second at most, and what the edges of a part add.
const WAKE_UPS: u64 = 80 * LONG.as_secs() + 4;
/// Snapshots of a cgroup are a tenth of a second apart; on a busy machine some more.
const SNAPSHOTS: u64 = 5 * LONG.as_secs();
/// A header and what the kernel puts before each record.
const HEADER: u64 = 32;

/// What was read.
#[derive(Debug, Default)]
struct Read {
    headers: u64,
    snapshots: u64,
}

impl Read {
    fn take(&mut self, ring: &mut Ring) {
        ring.drain(|record| match record {
            Record::Snapshot(_) => self.snapshots += 1,
            Record::OomVictim(_) | Record::CgroupRemoved(_) => self.headers += 1,
        });
    }
}

pub(crate) async fn run() -> anyhow::Result<()> {
    let names: Vec<_> = Layout::names().chain(["btf_trace_task_rename"]).collect();
    let btf = btf::Btf::read(btf::VMLINUX.as_ref(), &names)?;
    let layout = Layout::from_btf(&btf);
    let (tracer, mut ring) = tracer::start_at(btf, &layout, HOOKS, false)?;

    let flood = Flood::start();
    thread::sleep(LONG);
    let mut unread = Read::default();
    unread.take(&mut ring);
    let lost_unread = tracer.cost(&ring).ring_full;
    let most = u64::from(DEFAULT_RING_BYTES) / 2 / HEADER;
    // What came while it was read is in the count too.
    ensure!(
        lost_unread > 0 && unread.headers >= most * 9 / 10,
        "the ring was not full: {unread:?}, {lost_unread} lost"
    );
    ensure!(unread.snapshots >= SNAPSHOTS, "snapshots found no room beside {} headers: {unread:?}", unread.headers);

    let mut read = Read::default();
    let mut wake_ups = 0;
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        timeout(LONG, ring.woken()).await.context("a ring that fills woke nobody up")??;
        wake_ups += 1;
        read.take(&mut ring);
    }
    let renames = flood.stop();
    ensure!(wake_ups <= WAKE_UPS, "{wake_ups} wake-ups in {} s", LONG.as_secs());
    ensure!(read.snapshots >= SNAPSHOTS, "{} snapshots in {} s", read.snapshots, LONG.as_secs());
    let lost = tracer.cost(&ring).ring_full - lost_unread;
    println!(
        "{}",
        json!({
            "name": "flood", "seconds": LONG.as_secs(), "events": renames, "unread_headers": unread.headers,
            "unread_snapshots": unread.snapshots, "unread_lost": lost_unread, "headers": read.headers,
            "snapshots": read.snapshots, "lost": lost, "wake_ups": wake_ups,
        })
    );
    Ok(())
}

/// A thread that renames itself as fast as it can.
struct Flood {
    stop: Arc<AtomicBool>,
    renames: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Flood {
    fn start() -> Self {
        let (stop, renames) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (stop, renames) = (Arc::clone(&stop), Arc::clone(&renames));
            move || {
                while !stop.load(Relaxed) && set_name(c"hooks-bench").is_ok() {
                    renames.fetch_add(1, Relaxed);
                }
            }
        });
        Self { stop, renames, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        let _ = self.thread.join();
        self.renames.load(Relaxed)
    }
}
