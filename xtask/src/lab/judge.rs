//! What came of a run, held against what the scenario expects. Pure: records in, findings out.

mod counts;
pub(super) mod course;
mod healthy;
mod livelock;
mod memguard;
mod relief;

use std::collections::BTreeMap;

use memguard_lab::{
    Line, MemguardMode, Record, Scenario,
    record::{Figures, Sample},
    scenario::{Kind, Start, Workload},
};

use self::memguard::Said;
pub(super) use self::memguard::log as memguard_log;

/// What was found out about a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Judgement {
    /// Figures worth telling, in the order of their telling.
    pub(crate) facts: Vec<String>,
    /// What did not come out as it should; empty for a run that passed.
    pub(crate) failures: Vec<String>,
}

impl Judgement {
    fn expect(&mut self, holds: bool, failure: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(failure());
        }
    }

    fn fail(&mut self, failure: impl Into<String>) {
        self.failures.push(failure.into());
    }
}

/// A neighbour that was left alone goes on with at least this share of its work.
const UNTOUCHED: f64 = 0.5;

/// The records of a run, by kind.
pub(super) struct Run<'a> {
    scenario: &'a Scenario,
    mode: MemguardMode,
    lines: &'a [Line],
    samples: Vec<(f64, &'a Sample)>,
    trouble: f64,
    /// memguard was told to do without its tracer.
    files_only: bool,
    /// Paths of the cgroups that workloads were started in, by `pod/container`, below the root of cgroup v2.
    cgroups: BTreeMap<String, Vec<&'a str>>,
}

/// Judges. `arguments` are those that memguard was given beyond the usual ones.
pub(crate) fn judge(scenario: &Scenario, mode: MemguardMode, arguments: &[String], lines: &[Line]) -> Judgement {
    let mut judgement = Judgement::default();
    let Some(mut run) = Run::of(scenario, mode, lines) else {
        judgement.fail("the run ended before the trouble began");
        return judgement;
    };
    run.files_only = arguments.iter().any(|argument| argument == "--no-tracer");
    match (scenario.kind, mode) {
        (Kind::Livelock, MemguardMode::Off) => run.hangs(&mut judgement),
        (Kind::Livelock, MemguardMode::Observe) => run.is_seen(&mut judgement),
        (Kind::Livelock, MemguardMode::Enforce) => run.is_ended(&mut judgement),
        (Kind::Livelock, MemguardMode::Relieve) => run.is_relieved(&mut judgement),
        (Kind::Healthy, _) => run.lives(&mut judgement),
        (Kind::Oom, _) => run.is_killed_by_the_kernel(&mut judgement),
        (Kind::Open, _) => run.is_told(&mut judgement),
    }
    if mode != MemguardMode::Off {
        run.memguard_is_well(&mut judgement);
    }
    if mode == MemguardMode::Observe && scenario.expect.counts && !run.files_only {
        counts::compare(&run, &mut judgement);
    }
    judgement
}

impl<'a> Run<'a> {
    /// `None` for a run that broke off before its trouble began.
    pub(super) fn of(scenario: &'a Scenario, mode: MemguardMode, lines: &'a [Line]) -> Option<Self> {
        let trouble = lines.iter().find(|line| line.record == Record::Trouble)?.t;
        let mut samples = Vec::new();
        let mut cgroups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for line in lines {
            match &line.record {
                Record::Sample(sample) => samples.push((line.t, &**sample)),
                Record::Started { workload: name, cgroup, .. } => {
                    let of_it = scenario.workloads().find(|(.., workload)| workload.name == *name);
                    let path = cgroup.strip_prefix("/sys/fs/cgroup/").unwrap_or(cgroup);
                    if let Some((pod, container, _)) = of_it {
                        cgroups.entry(format!("{}/{}", pod.name, container.name)).or_default().push(path);
                    }
                }
                _ => {}
            }
        }
        Some(Self { scenario, mode, lines, samples, trouble, files_only: false, cgroups })
    }

    /// The containers that the scenario is about; all that work and say so if it names none.
    pub(super) fn containers(&self) -> Vec<String> {
        let mut named: Vec<String> = self.scenario.expect.containers().map(str::to_owned).collect();
        if named.is_empty() {
            for (pod, container, workload) in self.scenario.workloads() {
                let name = format!("{}/{}", pod.name, container.name);
                if workload.is_victim() && !named.contains(&name) {
                    named.push(name);
                }
            }
        }
        named
    }

    /// Whether what happens to a cgroup happens to a container: it is the container's, one in it, or one around it.
    pub(super) fn is_about(&self, cgroup: &str, container: &str) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || outer.is_empty())
        };
        let paths = self.cgroups.get(container).into_iter().flatten();
        paths.into_iter().any(|path| within(path, cgroup) || within(cgroup, path))
    }

    /// The container in trouble, the first if there are several.
    fn container(&self) -> &str {
        self.scenario.expect.container.as_deref().unwrap_or_default()
    }

    fn figures(&self, container: &str) -> impl Iterator<Item = (f64, &Figures)> {
        self.samples.iter().filter_map(move |(t, sample)| Some((*t, sample.containers.get(container)?)))
    }

    pub(super) fn oom_kills(&self, container: &str) -> u64 {
        self.figures(container).map(|(_, figures)| figures.oom_kill).max().unwrap_or_default()
    }

    /// When a container came to its limit: seen to be full, or else by the first hit that the kernel counted.
    fn at_limit(&self, name: &str) -> Option<f64> {
        let seen = self.lines.iter().find_map(|line| match &line.record {
            Record::AtLimit { container } if container == name => Some(line.t),
            _ => None,
        });
        let hits = |figures: &Figures| figures.max_events + figures.high_events;
        let before = self.figures(name).take_while(|(t, _)| *t < self.trouble).last().map_or(0, |(_, f)| hits(f));
        let hit = || self.figures(name).find(|(t, f)| *t >= self.trouble && hits(f) > before).map(|(t, _)| t);
        seen.or_else(hit)
    }

    fn dead(&self, name: &str) -> Option<f64> {
        self.lines.iter().find_map(|line| match &line.record {
            Record::Dead { container } if container == name => Some(line.t),
            _ => None,
        })
    }

    fn exit(&self, name: &str) -> Option<(f64, Option<i32>, Option<i32>)> {
        self.lines.iter().find_map(|line| match &line.record {
            Record::Exited { workload, code, signal } if workload == name => Some((line.t, *code, *signal)),
            _ => None,
        })
    }

    fn last(&self) -> f64 {
        self.samples.last().map_or(self.trouble, |(t, _)| *t)
    }

    /// Progress of a workload between two times: how much, and in how many seconds.
    fn progress(&self, workload: &str, from: f64, to: f64) -> Option<(u64, f64)> {
        let within = self.samples.iter().filter(|(t, _)| (from..=to).contains(t));
        let mut points = within.filter_map(|(t, sample)| Some((*t, *sample.progress.get(workload)?)));
        let first = points.next()?;
        let last = points.next_back()?;
        Some((last.1.saturating_sub(first.1), last.0 - first.0))
    }

    /// Progress per second of a workload between two times.
    fn rate(&self, workload: &str, from: f64, to: f64) -> Option<f64> {
        let (steps, seconds) = self.progress(workload, from, to)?;
        Some(steps as f64 / seconds)
    }

    /// The workloads of a container that report progress from the beginning.
    fn victims(&self, name: &str) -> impl Iterator<Item = &Workload> {
        self.scenario
            .workloads()
            .filter(move |(pod, container, workload)| {
                format!("{}/{}", pod.name, container.name) == name && workload.is_victim()
            })
            .map(|(.., workload)| workload)
    }

    /// Everything that runs elsewhere and must not be touched.
    fn neighbours(&self) -> impl Iterator<Item = &Workload> {
        let expected: Vec<&str> = self.scenario.expect.containers().collect();
        self.scenario
            .workloads()
            .filter(move |(pod, container, workload)| {
                !expected.contains(&format!("{}/{}", pod.name, container.name).as_str())
                    && workload.at == Start::Beginning
            })
            .map(|(.., workload)| workload)
    }

    fn neighbours_live(&self, since: f64, judgement: &mut Judgement) {
        for neighbour in self.neighbours() {
            let name = &neighbour.name;
            let ended = self.exit(name);
            // Some come to their end by themselves.
            let well = ended.is_none_or(|(_, code, _)| neighbour.run.ends().is_some() && code == Some(0));
            judgement.expect(well, || format!("{name} was ended"));
            // What shares a disk with a hang is slow while that lasts.
            if self.mode == MemguardMode::Enforce
                && ended.is_none()
                && let (Some(before), Some(after)) =
                    (self.rate(name, self.trouble - 10.5, self.trouble), self.rate(name, since, self.last()))
            {
                judgement
                    .expect(after >= UNTOUCHED * before, || format!("{name} went from {before:.0}/s to {after:.0}/s"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
