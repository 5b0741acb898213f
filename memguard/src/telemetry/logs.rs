//! Setting up the log.

use std::io::{self, IsTerminal as _};

use serde::Serialize;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt as _};

use super::format::{Json, Text};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Flushes the log when it is dropped.
#[derive(Debug)]
pub struct LogGuard {
    _worker: Option<WorkerGuard>,
    lost: LostLines,
}

impl LogGuard {
    /// Lines that nobody took in time.
    #[must_use]
    pub fn lost(&self) -> LostLines {
        self.lost.clone()
    }
}

/// Counts lines that were dropped because the reader of the log is slow.
#[derive(Clone, Debug, Default)]
pub struct LostLines(Option<ErrorCounter>);

impl LostLines {
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |lost| lost.dropped_lines() as u64)
    }
}

/// Lines that wait for a slow reader of the log. Behind that they are dropped: a full disk or a stuck log collector
/// must not hold up a kill.
const BUFFERED_LINES: usize = 2048;

/// Sends log lines to standard error. `RUST_LOG` chooses levels, `info` by default.
///
/// With `in_background`, lines are written by a thread of their own, so that a stuck reader holds up nobody.
pub fn init(format: LogFormat, in_background: bool) -> LogGuard {
    let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if in_background {
        let (writer, worker) = NonBlockingBuilder::default()
            .buffered_lines_limit(BUFFERED_LINES)
            .lossy(true)
            .thread_name("memguard-log")
            .finish(io::stderr());
        let lost = LostLines(Some(writer.error_counter()));
        install(format, color, writer);
        LogGuard { _worker: Some(worker), lost }
    } else {
        install(format, color, io::stderr);
        LogGuard { _worker: None, lost: LostLines::default() }
    }
}

/// `chosen` is what `RUST_LOG` says.
///
/// kube logs each failed attempt, and all of an answer that it can't read. What memguard makes of a failure it says itself,
/// once; `RUST_LOG=info,kube_client=debug,kube_runtime=debug` has it all.
fn filter(chosen: &str) -> EnvFilter {
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).parse_lossy(chosen);
    let unnamed = ["kube_client", "kube_runtime"].into_iter().filter(|target| !chosen.contains(target));
    let quiet = unnamed.filter_map(|target| format!("{target}=off").parse().ok());
    quiet.fold(filter, EnvFilter::add_directive)
}

fn install<W: for<'w> MakeWriter<'w> + Send + Sync + 'static>(format: LogFormat, color: bool, writer: W) {
    let filter = filter(&std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // A second initialisation (tests) is no error: the first one stays.
    let _ = match format {
        LogFormat::Text => builder.event_format(Text { color }).finish().try_init(),
        LogFormat::Json => builder.event_format(Json).finish().try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_is_quiet_unless_it_is_asked_for_by_name() {
        for (chosen, parts) in [
            ("", ["info", "kube_client=off", "kube_runtime=off"]),
            ("debug", ["debug", "kube_client=off", "kube_runtime=off"]),
            ("warn,kube_client=trace", ["warn", "kube_client=trace", "kube_runtime=off"]),
        ] {
            let filter = filter(chosen).to_string();
            let mut directives: Vec<_> = filter.split(',').collect();
            directives.sort_unstable();
            let mut parts = parts.to_vec();
            parts.sort_unstable();
            assert_eq!(directives, parts);
        }
    }
}
