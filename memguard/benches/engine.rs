//! What deciding costs: replay, a tick with so many cgroups in reclaim, decoding what the ring hands over; and the memory
//! of a cgroup that is watched.
//!
//! Criterion times it. At the end stands, in words, what a thousand cgroups cost at ten records a second each.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use memguard::{
    cgroup::CgroupHandle,
    engine::{Engine, Sample, Settings, UnitId, fixture::hang},
    trace::{Decided, Entry, Judge, replay},
    tracer,
};
use memguard_common::{Counters, Kind, RecordHeader, record::Snapshot};

/// Counts the bytes that are allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator; only sums are kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const RECORDS_PER_SECOND: u64 = 10;

/// An engine whose cgroups have a full window each.
fn at_work(cgroups: u64) -> Engine {
    let mut engine = Engine::new(Settings::default());
    for second in 0..30 {
        tick(&mut engine, cgroups, second);
    }
    engine
}

fn tick(engine: &mut Engine, cgroups: u64, second: u64) {
    for unit in 0..cgroups {
        black_box(engine.observe(UnitId(unit), hang(second)));
    }
}

/// A minute of as many cgroups, as a recording.
fn recording(cgroups: u64) -> Vec<Entry> {
    let mut engine = Engine::new(Settings::default());
    let mut entries = Vec::new();
    for second in 0..60 {
        for unit in (0..cgroups).map(UnitId) {
            let decided = Decided::of(&engine.observe(unit, hang(second)));
            entries.push(Entry::Sample { unit, sample: Box::new(hang(second)), decided });
        }
    }
    entries
}

/// Snapshots as the eBPF side writes them.
fn records(cgroups: u64) -> Vec<Vec<u8>> {
    let words = (size_of::<Counters>() / 8 + 2) as u64;
    (0..cgroups)
        .map(|cgroup_id| {
            let size = u32::try_from(size_of::<Snapshot>()).unwrap_or_default();
            let header = RecordHeader { kind: Kind::Snapshot as u32, size, at_ns: 1, cgroup_id };
            let mut record = Vec::with_capacity(size_of::<Snapshot>());
            record.extend(header.kind.to_ne_bytes());
            record.extend(header.size.to_ne_bytes());
            record.extend(header.at_ns.to_ne_bytes());
            record.extend(header.cgroup_id.to_ne_bytes());
            record.extend((0..words).flat_map(u64::to_ne_bytes));
            record
        })
        .collect()
}

fn decode(records: &[Vec<u8>]) {
    for record in records {
        let _ = black_box(tracer::decode(black_box(record)));
    }
}

fn ticks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick");
    for cgroups in [1, 100, 1000] {
        let (mut engine, mut second) = (at_work(cgroups), 30);
        group.throughput(Throughput::Elements(cgroups));
        group.bench_function(format!("{cgroups} cgroups"), |bencher| {
            bencher.iter(|| {
                tick(&mut engine, cgroups, second);
                second += 1;
            });
        });
    }
    group.finish();
}

fn replays(criterion: &mut Criterion) {
    let entries = recording(20);
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(entries.len() as u64));
    for (name, judge) in
        [("compared with the recording", Judge::Recorded), ("other settings", Judge::Engine(Box::default()))]
    {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || [judge.clone()],
                |judges| black_box(replay(&entries, &judges, &[])),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let records = records(1000);
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("1000 ring records", |bencher| bencher.iter(|| decode(&records)));
    group.finish();
}

/// Median processor time of some runs: what else the machine does is not counted.
fn median(mut run: impl FnMut()) -> Duration {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
    };
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let began = now();
            run();
            now().saturating_sub(began)
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Keys of memory.stat, as 6.12 has them.
const STAT: &str = "anon file kernel kernel_stack pagetables sec_pagetables percpu sock vmalloc shmem zswap zswapped \
    file_mapped file_dirty file_writeback swapcached anon_thp file_thp shmem_thp inactive_anon \
    active_anon inactive_file active_file unevictable slab_reclaimable slab_unreclaimable slab \
    workingset_refault_anon workingset_refault_file workingset_activate_anon workingset_activate_file \
    workingset_restore_anon workingset_restore_file workingset_nodereclaim pgdemote_kswapd \
    pgdemote_direct pgdemote_khugepaged pgscan pgsteal pgscan_kswapd pgscan_direct pgscan_khugepaged \
    pgsteal_kswapd pgsteal_direct pgsteal_khugepaged pgfault pgmajfault pgrefill pgactivate pgdeactivate \
    pglazyfree pglazyfreed zswpin zswpout thp_fault_alloc thp_collapse_alloc thp_swpout \
    thp_swpout_fallback";

/// The files of a cgroup, in a folder that is none: reading and parsing without what the kernel does to write them.
fn files(folder: &std::path::Path) -> std::io::Result<()> {
    let stat = STAT.split(' ').fold(String::new(), |text, key| text + key + " 503316480\n");
    let pressure = "some avg10=75.00 avg60=50.10 avg300=20.00 total=150000000\n\
                    full avg10=51.00 avg60=30.00 avg300=10.00 total=102000000\n";
    for (name, text) in [
        ("memory.current", "535822336\n"),
        ("memory.max", "536870912\n"),
        ("memory.high", "max\n"),
        ("memory.stat", &stat),
        ("memory.events", "low 0\nhigh 0\nmax 112847\noom 0\noom_kill 0\noom_group_kill 0\n"),
        ("memory.pressure", pressure),
        ("io.pressure", pressure),
        ("cpu.pressure", pressure),
        ("cpu.stat", "usage_usec 166000000\nuser_usec 2000000\nsystem_usec 164000000\ncore_sched.force_idle_usec 0\n"),
        ("cgroup.events", "populated 1\nfrozen 0\n"),
    ] {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

fn look(cgroup: &CgroupHandle) {
    let _ = black_box((cgroup.memory(), cgroup.pressure(), cgroup.cpu()));
}

/// A cgroup to read; `None` where no folder can be made.
fn fake() -> Option<(tempfile::TempDir, CgroupHandle)> {
    let folder = tempfile::tempdir().ok()?;
    files(folder.path()).ok()?;
    let handle = CgroupHandle::open(folder.path()).ok()?;
    Some((folder, handle))
}

fn reading(criterion: &mut Criterion) {
    let Some((_folder, handle)) = fake() else { return };
    criterion.bench_function("read and parse a cgroup's files", |bencher| bencher.iter(|| look(&handle)));
}

fn in_words() {
    const CGROUPS: u64 = 1000;
    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut engine = at_work(CGROUPS);
    let usual = (ALLOCATED.load(Ordering::Relaxed) - before) as u64 / CGROUPS;
    // Far more often than the agent ever looks, which fills the window up to its cap.
    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut crowded = Engine::new(Settings::default());
    for step in 0..10_000 {
        crowded.observe(UnitId(0), Sample { at: Duration::from_micros(step), ..hang(1) });
    }
    let most = ALLOCATED.load(Ordering::Relaxed) - before;
    drop(crowded);

    let mut second = 30;
    let looked = median(|| {
        tick(&mut engine, CGROUPS, second);
        second += 1;
    });
    let records = records(CGROUPS);
    let decoded = median(|| decode(&records)).saturating_mul(u32::try_from(RECORDS_PER_SECOND).unwrap_or_default());
    let read = fake().map(|(_folder, handle)| median(|| (0..CGROUPS).for_each(|_| look(&handle)))).unwrap_or_default();
    let share = |time: Duration| time.as_secs_f64() * 100.0;
    println!(
        "\n{CGROUPS} cgroups in reclaim, {RECORDS_PER_SECOND} records a second each, a look a second at each, of a core:"
    );
    println!("  {:6.3} % to decode records, {:.3} % to decide", share(decoded), share(looked));
    println!("  {:6.3} % to read and parse files, without what the kernel does to write them", share(read));
    println!("  {:6.3} % together", share(decoded + looked + read));
    println!("the engine keeps {usual} bytes for each cgroup, and never more than {most}");
}

criterion_group!(benches, ticks, replays, decoding, reading);

fn main() {
    benches();
    // `cargo test --benches` and `cargo bench NAME` are about something else.
    if std::env::args().skip(1).all(|argument| argument == "--bench") {
        in_words();
    }
    Criterion::default().configure_from_args().final_summary();
}
