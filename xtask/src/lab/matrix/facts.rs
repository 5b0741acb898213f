//! What happened in a run: was the work of a container hung, from when to when, and how well did it work otherwise.
//! From the lab's own records alone, never from what memguard says. Pure.

use std::collections::BTreeMap;

use memguard_lab::{Line, Record, Scenario, record::Sample};

/// Work at less than this share of its progress before the trouble is hung.
pub(super) const HUNG: f64 = 0.2;
/// Progress is averaged over so many seconds: one request may come through at any time.
const SMOOTH_S: f64 = 5.0;
/// ... and over more where it comes in large pieces: so many of them.
const PIECES: f64 = 10.0;
/// A container that is hung for less than this has merely had a bad moment.
pub(super) const HANG_S: f64 = 15.0;
/// In a hang, this many seconds above the threshold do not end it.
const LAPSE_S: f64 = 3.0;

/// A stretch of time, in the guest's `CLOCK_MONOTONIC` seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Span {
    pub(super) fn length(self) -> f64 {
        self.to - self.from
    }
}

/// One container whose work reports progress.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Victim {
    /// `pod/container`
    pub(super) container: String,
    /// Its cgroup, below the root.
    pub(super) cgroup: String,
    pub(super) at_limit: Option<f64>,
    /// While it was at its limit, or from the trouble on: progress of its slowest work, as a share of that before.
    pub(super) works_at: f64,
    /// Stretches of being hung, each at least [`HANG_S`] long.
    pub(super) hangs: Vec<Span>,
    /// Of the longest one: progress in it.
    pub(super) hung_at: f64,
    /// When the kernel's OOM killer acted.
    pub(super) oom_kill: Option<f64>,
}

impl Victim {
    pub(super) fn longest(&self) -> Option<Span> {
        self.hangs.iter().copied().max_by(|a, b| a.length().total_cmp(&b.length()))
    }
}

/// Progress of a workload over time.
struct Series(Vec<(f64, u64)>);

impl Series {
    fn rate(&self, from: f64, to: f64) -> Option<f64> {
        let first = self.0.iter().rfind(|(t, _)| *t <= from + 0.2).or_else(|| self.0.first())?;
        let last = self.0.iter().rfind(|(t, _)| *t <= to + 0.2)?;
        (last.0 > first.0).then(|| last.1.saturating_sub(first.1) as f64 / (last.0 - first.0))
    }
}

/// Looks at a run. `Err` says why nothing can be told about it.
pub(super) fn victims(scenario: &Scenario, lines: &[Line]) -> Result<Vec<Victim>, String> {
    let samples: Vec<(f64, &Sample)> = lines
        .iter()
        .filter_map(|line| match &line.record {
            Record::Sample(sample) => Some((line.t, &**sample)),
            _ => None,
        })
        .collect();
    let trouble = lines.iter().find(|line| line.record == Record::Trouble).map(|line| line.t);
    let trouble = trouble.ok_or("the run ended before the trouble began")?;
    let end = samples.last().map(|(t, _)| *t).ok_or("the run has no samples")?;
    let mut cgroups: BTreeMap<String, String> = BTreeMap::new();
    let mut workloads: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (pod, container, workload) in scenario.workloads().filter(|(.., w)| w.run.reports_progress()) {
        workloads.entry(format!("{}/{}", pod.name, container.name)).or_default().push(workload.name.clone());
    }
    for line in lines {
        if let Record::Started { workload, cgroup, .. } = &line.record
            && let Some((name, _)) = workloads.iter().find(|(_, names)| names.contains(workload))
        {
            cgroups.insert(name.clone(), cgroup.trim_start_matches("/sys/fs/cgroup/").to_owned());
        }
    }
    let mut victims = Vec::new();
    for (container, names) in workloads {
        let at_limit = lines.iter().find_map(|line| match &line.record {
            Record::AtLimit { container: name } if *name == container => Some(line.t),
            _ => None,
        });
        let oom_kill = samples
            .iter()
            .find(|(_, sample)| sample.containers.get(&container).is_some_and(|figures| figures.oom_kill > 0))
            .map(|(t, _)| *t);
        let from = at_limit.unwrap_or(trouble).max(trouble);
        let mut victim = Victim {
            cgroup: cgroups.get(&container).cloned().unwrap_or_default(),
            container,
            at_limit,
            works_at: f64::INFINITY,
            hangs: Vec::new(),
            hung_at: 0.0,
            oom_kill,
        };
        for name in names {
            let exit = lines.iter().find_map(|line| match &line.record {
                Record::Exited { workload, .. } if *workload == name => Some(line.t),
                _ => None,
            });
            let to = end.min(exit.unwrap_or(end));
            let points = samples.iter().filter_map(|(t, sample)| Some((*t, *sample.progress.get(&name)?)));
            let series = Series(points.filter(|(t, _)| *t <= to).collect());
            let Some(baseline) = series.rate(trouble - 10.5, trouble).filter(|rate| *rate > 0.0) else { continue };
            let Some(mean) = series.rate(from, to) else { continue };
            victim.works_at = victim.works_at.min(mean / baseline);
            for hang in hangs(&series, baseline, from, to) {
                if victim.longest().is_none_or(|longest| hang.length() > longest.length()) {
                    victim.hung_at = series.rate(hang.from, hang.to).unwrap_or_default() / baseline;
                }
                victim.hangs.push(hang);
            }
        }
        if victim.works_at.is_finite() {
            victims.push(victim);
        }
    }
    Ok(victims)
}

fn hangs(series: &Series, baseline: f64, from: f64, to: f64) -> Vec<Span> {
    let smooth = SMOOTH_S.max(PIECES / baseline);
    let mut spans: Vec<Span> = Vec::new();
    for (t, _) in series.0.iter().filter(|(t, _)| *t >= from && t + smooth <= to + 0.5) {
        if series.rate(*t, t + smooth).is_some_and(|rate| rate < HUNG * baseline) {
            match spans.last_mut() {
                Some(last) if t - last.to <= LAPSE_S => last.to = *t,
                _ => spans.push(Span { from: *t, to: *t }),
            }
        }
    }
    // The last average of a hang looks ahead as far as it smooths.
    for span in &mut spans {
        span.to = (span.to + smooth).min(to);
    }
    spans.retain(|span| span.length() >= HANG_S);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

    /// A run of the scenario `livelock`: at its limit at 33 s, hung between two times.
    fn run(hung: std::ops::Range<u64>, oom_at: Option<u64>) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut say = |t: u64, record: Record| lines.push(Line { seq: 0, t: t as f64, record });
        let cgroup = "/sys/fs/cgroup/kubepods.slice/x.scope".to_owned();
        say(0, Record::Started { workload: "listener".to_owned(), pid: 7, cgroup });
        let mut count = 0;
        for second in 1..=150_u64 {
            match second {
                30 => say(second, Record::Trouble),
                33 => say(second, Record::AtLimit { container: "runner/runner".to_owned() }),
                _ => {}
            }
            count += if hung.contains(&second) { 10 } else { 1000 };
            let mut sample = Sample::default();
            sample.progress.insert("listener".to_owned(), count);
            let figures = sample.containers.entry("runner/runner".to_owned()).or_default();
            figures.oom_kill = u64::from(oom_at.is_some_and(|at| second >= at));
            say(second, Record::Sample(Box::new(sample)));
        }
        lines
    }

    fn victim(lines: &[Line]) -> Victim {
        let scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
        let victims = victims(&scenario, lines).unwrap();
        victims.into_iter().find(|victim| victim.container == "runner/runner").unwrap()
    }

    #[test]
    fn a_hang_is_found_with_its_beginning_and_its_end() {
        let victim = victim(&run(40..100, None));
        assert_eq!(victim.hangs.len(), 1);
        let hang = victim.hangs[0];
        assert!((38.0..42.0).contains(&hang.from) && (97.0..102.0).contains(&hang.to), "{hang:?}");
        assert!(victim.hung_at < 0.1, "{}", victim.hung_at);
        assert_eq!(victim.cgroup, "kubepods.slice/x.scope");
        assert!((0.3..0.6).contains(&victim.works_at), "{}", victim.works_at);
    }

    #[test]
    fn work_that_goes_on_is_not_hung_and_neither_is_a_bad_moment() {
        assert!(victim(&run(0..0, None)).hangs.is_empty());
        assert!(victim(&run(40..48, None)).hangs.is_empty());
        assert!((0.9..1.1).contains(&victim(&run(0..0, None)).works_at));
    }

    #[test]
    fn the_kernels_own_kill_is_seen() {
        assert_eq!(victim(&run(40..60, Some(60))).oom_kill, Some(60.0));
        assert_eq!(victim(&run(40..60, None)).oom_kill, None);
    }

    #[test]
    fn a_run_that_broke_off_tells_nothing() {
        let scenario = Scenario::read(&paths::scenarios().join("livelock.toml")).unwrap();
        let lines: Vec<_> = run(0..0, None).into_iter().filter(|line| line.t < 20.0).collect();
        assert!(victims(&scenario, &lines).unwrap_err().contains("before the trouble"));
    }
}
