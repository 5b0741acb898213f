//! The serial port for records.

use std::{
    fs::File,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use memguard_lab::{Line, Record};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};

/// `ttyS1`; the console keeps `ttyS0` to itself, so kernel messages never land in a record.
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

impl Port {
    pub(super) fn open() -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/ttyS1")?;
        let mut settings = tcgetattr(&file)?;
        settings.make_raw();
        tcsetattr(&file, OptionalActions::Now, &settings)?;
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
