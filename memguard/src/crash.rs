//! Points at which the lab kills memguard, to see that nothing is lost (`cargo xtask lab chain`).
//!
//! Without the cargo feature `crash-points` there is nothing of this in the program: a node's memguard can't be told to
//! end itself.

/// Every point, in the order of the chain: from the verdict to the last answer of the last follow-up.
///
/// `X-before` is right before the request of follow-up X, `X-answered` when its answer is there and nothing was written
/// down yet, `X-kept` once the journal has it.
pub const POINTS: &[&str] = &[
    "verdict",
    "journal-before",
    "journal-kept",
    "fresh-checked",
    "kill-written",
    "confirmed",
    "outcome-kept",
    "identify-before",
    "identify-answered",
    "identify-kept",
    "cancel-before",
    "cancel-answered",
    "cancel-kept",
    "cancel-watch-before",
    "cancel-watch-answered",
    "cancel-watch-kept",
    "force-cancel-before",
    "force-cancel-answered",
    "force-cancel-kept",
    "delete-runner-before",
    "delete-runner-answered",
    "delete-runner-kept",
    "pod-event-before",
    "pod-event-answered",
    "pod-event-kept",
    "runner-event-before",
    "runner-event-answered",
    "runner-event-kept",
    "check-run-before",
    "check-run-answered",
    "check-run-kept",
];

/// Names the point at which to end.
#[cfg(feature = "crash-points")]
pub const AT: &str = "MEMGUARD_CRASH_AT";
/// Names a file that is made right before the end; where it is there already, the point is passed.
#[cfg(feature = "crash-points")]
pub const MARK: &str = "MEMGUARD_CRASH_MARK";

/// Does nothing.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn point(_name: &'static str) {}

/// Ends memguard by SIGKILL if this is the point that [`AT`] names, for the first time by [`MARK`].
#[cfg(feature = "crash-points")]
pub fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not among the points");
    if std::env::var_os(AT).is_some_and(|at| at == name) && first_time() {
        eprintln!("memguard ends itself at {name}");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(feature = "crash-points")]
fn first_time() -> bool {
    std::env::var_os(MARK).is_none_or(|mark| std::fs::File::create_new(mark).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_there_once() {
        let mut sorted = POINTS.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), POINTS.len());
    }
}
