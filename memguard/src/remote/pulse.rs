//! Whether the thread that talks to Kubernetes and GitHub is alive.

use std::time::Duration;

use tokio::{runtime::Handle, time::timeout};

/// Has the thread's runtime do next to nothing, and sees whether it does.
#[derive(Clone, Debug)]
pub struct Pulse(Handle);

impl Pulse {
    /// Of the runtime in which this is called; there has to be one.
    #[must_use]
    pub fn here() -> Self {
        Self(Handle::current())
    }

    /// Whether it does so within this time. Not if it hangs in a call that blocks, nor if it has ended.
    pub async fn beats(&self, patience: Duration) -> bool {
        let beat = self.0.spawn(std::future::ready(()));
        matches!(timeout(patience, beat).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[tokio::test]
    async fn a_thread_that_works_has_one_and_one_that_hangs_or_has_ended_has_none() {
        let (tell, told) = mpsc::channel();
        let (free, freed) = mpsc::channel::<()>();
        let (end, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tell.send(Pulse::here()).unwrap();
                ended.recv().await;
                let _ = freed.recv();
            });
        });
        let pulse = told.recv().unwrap();
        assert!(pulse.beats(Duration::from_secs(5)).await);
        drop(end);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!pulse.beats(Duration::from_millis(50)).await, "it hangs");
        drop(free);
        thread.join().unwrap();
        assert!(!pulse.beats(Duration::from_secs(5)).await, "it is gone");
    }
}
