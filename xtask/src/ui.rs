//! Telling what happens, and stopping when asked to.

use std::{
    fmt::Display,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on Ctrl-C (or a terminal that closes) sets a flag, so that VMs and temporary files are cleared away. A second one ends at once.
pub(crate) fn catch_interrupts() -> anyhow::Result<()> {
    let flag = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // Registered first, so that it sees the flag of an earlier signal only.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
            .context("can't catch signals")?;
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("can't catch signals")?;
    }
    Ok(())
}

pub(crate) fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// An error if somebody pressed Ctrl-C.
pub(crate) fn check_interrupt() -> anyhow::Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// Says what is done now, and, when it is dropped, how long it took.
pub(crate) struct Step {
    what: String,
    began: Instant,
}

pub(crate) fn step(what: impl Display) -> Step {
    eprintln!("==> {what}");
    Step { what: what.to_string(), began: Instant::now() }
}

impl Drop for Step {
    fn drop(&mut self) {
        let seconds = self.began.elapsed().as_secs_f64();
        if seconds >= 1.0 {
            eprintln!("    {:.0} s: {}", seconds, self.what);
        }
    }
}

/// One line below a step.
pub(crate) fn say(what: impl Display) {
    eprintln!("    {what}");
}
