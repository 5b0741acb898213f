//! A program whose text is large and spread out, as a managed runtime with its assemblies is: it really executes code
//! on the pages of shared objects, so losing them means faulting them back in.

use std::{
    ffi::CString,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use memguard_lab::scenario::Turns;

use super::{DISK, progress::Progress, random::Random};

/// Each function of the shared objects fills one page, see tests/workloads/text.S.
const PAGE: usize = 4096;
/// Hot code comes in runs of so many pages.
const RUN: usize = 16;

type Function = unsafe extern "C" fn(u64) -> u64;

/// Text of one shared object.
#[derive(Clone, Copy)]
struct Object {
    base: usize,
    pages: usize,
}

impl Object {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let name = CString::new(path.as_os_str().as_encoded_bytes())?;
        // SAFETY: the objects are the lab's own and have no constructors.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        ensure!(!handle.is_null(), "can't load {shown}");
        let symbol = |name: &std::ffi::CStr| {
            // SAFETY: the handle is valid, and the object is never closed.
            let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if address.is_null() {
                bail!("{shown} has no {}", name.to_string_lossy())
            }
            Ok(address)
        };
        let base = symbol(c"text_base")? as usize;
        // SAFETY: text_pages is a 32-bit constant of the object.
        let pages = unsafe { symbol(c"text_pages")?.cast::<u32>().read() } as usize;
        Ok(Self { base, pages })
    }
}

/// Maps all shared objects of the text.
fn objects() -> anyhow::Result<Vec<Object>> {
    let folder = Path::new(DISK).join("text");
    let mut objects = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
        objects.push(Object::load(&entry?.path())?);
    }
    ensure!(!objects.is_empty(), "{} is empty", folder.display());
    Ok(objects)
}

/// Calls every function once: what a program does that starts, does little, and ends.
pub(super) fn touch() -> anyhow::Result<()> {
    let mut value = 1;
    for object in objects()? {
        for page in 0..object.pages {
            // SAFETY: the address is that of a function of this type in an object that stays loaded.
            value = unsafe { std::mem::transmute::<usize, Function>(object.base + page * PAGE)(value) };
        }
    }
    std::hint::black_box(value);
    Ok(())
}

/// A lock that goes to whoever has waited for it longest.
struct Baton {
    turns: Mutex<(usize, usize)>,
    /// Each waits at one of its own, so that nobody is woken for another's turn.
    called: Vec<Condvar>,
}

/// A turn. It ends when this is dropped.
struct Turn<'b>(&'b Baton);

impl Baton {
    fn new(threads: u32) -> Self {
        Self { turns: Mutex::default(), called: (0..threads.max(1)).map(|_| Condvar::new()).collect() }
    }

    fn take(&self) -> Turn<'_> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = turns.0;
        turns.0 += 1;
        let called = &self.called[mine % self.called.len()];
        drop(called.wait_while(turns, |(_, now)| *now != mine).unwrap_or_else(PoisonError::into_inner));
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.1 += 1;
        self.0.called[turns.1 % self.0.called.len()].notify_one();
    }
}

/// What a request does.
#[derive(Clone, Copy)]
pub(super) struct Calls {
    pub(super) count: u32,
    pub(super) hot_mib: u32,
    pub(super) cold_per_mille: u32,
}

/// Serves requests for ever: each calls functions, most in the hot part, the others anywhere.
pub(super) fn run(threads: u32, calls: Calls, turns: Turns, pause: Duration, progress: Progress) -> anyhow::Result<()> {
    let Calls { count, hot_mib, cold_per_mille } = calls;
    let objects = objects()?;
    let all: Vec<usize> =
        objects.iter().flat_map(|object| (0..object.pages).map(|page| object.base + page * PAGE)).collect();
    let hot_pages = (hot_mib as usize) * (1 << 20) / PAGE;
    let one_in = (all.len() / hot_pages.max(1)).max(1);
    let hot: Arc<[usize]> = all.chunks(RUN).step_by(one_in).flatten().copied().collect();
    let all: Arc<[usize]> = all.into();

    let baton = Arc::new(Baton::new(threads));
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let (all, hot, baton) = (Arc::clone(&all), Arc::clone(&hot), Arc::clone(&baton));
            thread::Builder::new().stack_size(64 * 1024).spawn(move || {
                let mut random = Random(u64::from(thread) * 2 + 1);
                let mut value = 1;
                loop {
                    let request = (turns == Turns::Requests).then(|| baton.take());
                    for _ in 0..count {
                        let _call = (turns == Turns::Calls).then(|| baton.take());
                        let from = if random.below(1000) < cold_per_mille as usize { &all } else { &hot };
                        let address = from[random.below(from.len())];
                        // SAFETY: the address is that of a function of this type in an object that stays loaded.
                        value = unsafe { std::mem::transmute::<usize, Function>(address)(value) };
                    }
                    progress.add(1);
                    drop(request);
                    thread::sleep(pause);
                }
            })
        })
        .collect::<Result<_, _>>()?;
    for worker in workers {
        let _: Result<(), _> = worker.join();
    }
    Ok(())
}
