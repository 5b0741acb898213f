//! What was written, for tests that look at it: a log, as a rule.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A writer whose copies write into the same memory.
#[derive(Clone, Debug, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes writers, as `tracing_subscriber` wants it.
    pub fn writer(&self) -> impl Fn() -> Self + Send + Sync + 'static {
        let all = self.clone();
        move || all.clone()
    }

    /// All of it so far; what is no UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
