//! The port for records.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Context as _;

use memguard_lab::{Line, Record};
use rustix::termios::{OptionalActions, isatty, tcdrain, tcgetattr, tcsetattr};

use super::machine::{self, Virtio};

/// What the lab calls the port of virtio.
const NAME: &str = "memguard.records";

/// The second serial port, or a port of virtio's where the machine has but one. The console has the first one to itself, so
/// kernel messages never land in a record.
#[derive(Clone)]
pub(super) struct Port(Arc<Mutex<State>>);

struct State {
    file: File,
    seq: u64,
}

/// `CLOCK_MONOTONIC` in seconds.
pub(super) fn now() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The port of this name. The host tells names after the device is there.
fn virtio() -> anyhow::Result<PathBuf> {
    for _ in 0..100 {
        for port in std::fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            if std::fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == NAME) {
                return Ok(Path::new("/dev").join(port.file_name()));
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("no port of virtio is called {NAME}")
}

impl Port {
    pub(super) fn open() -> anyhow::Result<Self> {
        let path = if machine::has(Virtio::Console) { virtio()? } else { PathBuf::from("/dev/ttyS1") };
        let opened = File::options().read(true).write(true).open(&path);
        let file = opened.with_context(|| format!("can't open {}", path.display()))?;
        if isatty(&file) {
            let mut settings = tcgetattr(&file)?;
            settings.make_raw();
            tcsetattr(&file, OptionalActions::Now, &settings)?;
        }
        Ok(Self(Arc::new(Mutex::new(State { file, seq: 0 }))))
    }

    pub(super) fn send(&self, record: Record) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line { seq: state.seq, t: now(), record };
        state.seq += 1;
        let Ok(mut text) = serde_json::to_string(&line) else { return };
        text.push('\n');
        if let Err(error) = state.file.write_all(text.as_bytes()) {
            println!("lab-guest: can't send a record: {error}");
        }
    }

    /// Waits until the last byte is out.
    pub(super) fn drain(&self) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = tcdrain(&state.file);
    }
}
