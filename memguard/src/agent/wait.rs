//! What the loop waits for. What is not there is waited for in vain, and holds nobody up.

use std::{future::pending, io, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::tracer::Ring;

pub(super) fn every(time: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + time, time);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

pub(super) async fn woken(ring: &mut Option<Ring>) -> io::Result<()> {
    match ring {
        Some(ring) => ring.woken().await,
        None => pending().await,
    }
}

pub(super) async fn tick(ticking: &mut Option<Interval>) {
    match ticking {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => pending().await,
    }
}

pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
