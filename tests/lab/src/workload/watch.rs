//! A watcher of memory.pressure, as people write them: it would act at a full avg10.

use std::{fs, thread, time::Duration};

use anyhow::Context as _;

use super::progress::Progress;
use crate::guest::cgroup_path;

/// Between two reports, in readings, which are a second apart.
const REPORT: u32 = 10;

/// Reads once a second and says on standard error what it saw.
pub(super) fn psi(container: &str, threshold: f64, progress: Progress) -> anyhow::Result<()> {
    let path = cgroup_path(container).context("the container has no path")?.join("memory.pressure");
    let (mut peak, mut over) = (0.0_f64, 0_u32);
    for reading in 1_u32.. {
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        let now = full_avg10(&text).with_context(|| format!("{} has no full avg10: {text}", path.display()))?;
        peak = peak.max(now);
        over += u32::from(now > threshold);
        progress.add(1);
        if reading % REPORT == 0 {
            eprintln!("full avg10 {now:.2}, peak {peak:.2}, over {threshold:.0} in {over} of {reading} readings");
        }
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

fn full_avg10(text: &str) -> Option<f64> {
    let full = text.lines().find_map(|line| line.strip_prefix("full "))?;
    full.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_line_of_full() {
        let text = "some avg10=9.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.53 avg60=0.87 avg300=0.73 total=1\n";
        assert_eq!(full_avg10(text), Some(1.53));
        assert_eq!(full_avg10("some avg10=9.00\n"), None);
    }
}
