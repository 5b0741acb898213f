//! PSI's averages, from its totals.

use std::time::Duration;

/// The kernel brings its averages up to date every two seconds (`PSI_FREQ`, kernel/sched/psi.c).
const PERIOD: Duration = Duration::from_secs(2);

/// `avg10` or `avg60` of a stall, as the kernel would show it at the time of the last sample: the average decays by
/// exp(-2 s / 10 s), or exp(-2 s / 60 s), in each period (`EXP_10s`, `EXP_60s`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Average<const WINDOW_S: u32> {
    began: Option<(Duration, Duration)>,
    share: f64,
}

impl<const WINDOW_S: u32> Average<WINDOW_S> {
    /// Takes in the total stall time at an instant.
    pub(super) fn update(&mut self, at: Duration, total: Duration) {
        let Some((from, before)) = self.began else {
            self.began = Some((at, total));
            return;
        };
        let elapsed = at.saturating_sub(from);
        if elapsed < PERIOD {
            return;
        }
        self.began = Some((at, total));
        let stalled = total.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64();
        // Periods that nobody looked at are taken for ones of the same pressure, where the kernel knows each.
        let keep = (-elapsed.as_secs_f64() / f64::from(WINDOW_S)).exp();
        self.share = self.share * keep + stalled.min(1.0) * (1.0 - keep);
    }

    /// As a share of 1.
    pub(super) const fn share(&self) -> f64 {
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_and_decays_as_the_kernels() {
        let mut average = Average::<10>::default();
        let mut total = Duration::ZERO;
        for second in 0..=10 {
            average.update(Duration::from_secs(second), total);
            total += Duration::from_secs(1);
        }
        // Ten seconds of a full stall are 1 - 1/e of the way.
        assert!((average.share() - 0.632).abs() < 0.01, "{}", average.share());
        let mut slow = Average::<60>::default();
        (0..=60).for_each(|second| slow.update(Duration::from_secs(second), Duration::from_secs(second)));
        assert!((slow.share() - 0.632).abs() < 0.01, "{}", slow.share());
        for second in 11..=21 {
            average.update(Duration::from_secs(second), Duration::from_secs(10));
        }
        assert!((0.2..0.3).contains(&average.share()), "{}", average.share());
    }

    #[test]
    fn a_total_that_goes_back_is_no_stall() {
        let mut average = Average::<10>::default();
        average.update(Duration::from_secs(0), Duration::from_secs(100));
        average.update(Duration::from_secs(5), Duration::from_secs(1));
        assert!(average.share() < 1e-9);
    }
}
