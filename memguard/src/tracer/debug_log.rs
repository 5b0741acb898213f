//! What the hooks say for debugging (aya-log), in the same log as all the rest: `RUST_LOG=info,memguard_ebpf=debug`, or `trace` for
//! each cycle. Unless somebody asks, the constant that it hangs on is 0 and the verifier takes the code out of the programs.

use aya::{Ebpf, EbpfLoader};
use aya_log::{EbpfLogger, LEVEL};
use log::{Level, Log, Metadata, Record};

/// What chooses these lines in `RUST_LOG`.
const TARGET: &str = "memguard_ebpf";
const MAP: &str = "AYA_LOGS";
/// For what is said within a second: at some 150 bytes a line, nine hundred.
const RING_BYTES: u32 = 128 * 1024;

/// How much is asked for, as `AYA_LOG_LEVEL` has it: 0 nothing, 1 errors, up to 5 for everything.
fn level() -> u8 {
    if tracing::enabled!(target: TARGET, tracing::Level::TRACE) {
        5
    } else if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        4
    } else {
        0
    }
}

/// The hooks' debugging log, from before the load to its end.
#[derive(Debug)]
pub(super) struct Wanted(u8);

impl Wanted {
    pub(super) fn now() -> Self {
        Self(level())
    }

    /// Tells the programs what to say. Without anything the ring is as small as a ring may be.
    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(RING_BYTES);
        loader.override_global(LEVEL, &self.0, true);
        loader.map_max_entries(MAP, if self.0 == 0 { page } else { RING_BYTES.max(page) });
    }

    /// Where it comes out; `None` if nothing is asked for.
    pub(super) fn open(self, ebpf: &mut Ebpf) -> Option<DebugLog> {
        if self.0 == 0 {
            return None;
        }
        EbpfLogger::init_with_logger(ebpf, Forward)
            .inspect_err(|error| tracing::warn!(%error, "what the hooks say for debugging can't be read"))
            .map(DebugLog)
            .ok()
    }
}

/// What the hooks have said and nobody has read yet.
pub(super) struct DebugLog(EbpfLogger<Forward>);

impl DebugLog {
    /// Puts all of it into the log.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

/// aya-log speaks to `log`, memguard to `tracing`.
struct Forward;

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: TARGET, "{text}"),
            Level::Warn => tracing::warn!(target: TARGET, "{text}"),
            Level::Info => tracing::info!(target: TARGET, "{text}"),
            Level::Debug => tracing::debug!(target: TARGET, "{text}"),
            Level::Trace => tracing::trace!(target: TARGET, "{text}"),
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use memguard_stubs::captured::Captured;
    use tracing_subscriber::EnvFilter;

    use super::*;

    /// What is asked for, and what comes out of one line, by what `RUST_LOG` says.
    fn with(filter: &str) -> (u8, String) {
        let lines = Captured::default();
        let log = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_ansi(false)
            .with_writer(lines.writer())
            .finish();
        let asked = tracing::subscriber::with_default(log, || {
            Forward.log(&Record::builder().level(Level::Debug).args(format_args!("cgroup 7 was removed")).build());
            level()
        });
        (asked, lines.text())
    }

    #[test]
    fn the_hooks_are_asked_to_speak_only_if_somebody_listens() {
        assert_eq!(with("info"), (0, String::new()));
        assert_eq!(with("debug,memguard_ebpf=info"), (0, String::new()));
        assert_eq!(with("info,memguard_ebpf=trace").0, 5);
        let (asked, text) = with("info,memguard_ebpf=debug");
        assert_eq!(asked, 4);
        assert!(text.contains("DEBUG memguard_ebpf: cgroup 7 was removed"), "{text}");
    }
}
