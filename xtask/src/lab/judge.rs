//! What came of a run, held against what the scenario expects. Pure: records in, findings out.

mod counts;
mod memguard;

use memguard_lab::{
    Line, MemguardMode, Record, Scenario,
    record::{Figures, Sample},
    scenario::{Kind, Program, Start},
};

pub(super) use self::memguard::log as memguard_log;
use self::memguard::{End, Said};

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
}

/// A hung listener does less than this share of its work.
const HUNG: f64 = 0.2;
/// A neighbour that was left alone goes on with at least this share of its work.
const UNTOUCHED: f64 = 0.5;
/// Progress is averaged over so many seconds before it is called hung: one request may come through at any time.
const SMOOTH_S: f64 = 5.0;
/// Of the averages in a hang, so many may lie above the threshold.
const TOLERATED: f64 = 0.05;

/// The records of a run, by kind.
struct Run<'a> {
    scenario: &'a Scenario,
    mode: MemguardMode,
    lines: &'a [Line],
    samples: Vec<(f64, &'a Sample)>,
    trouble: f64,
}

/// Judges.
pub(crate) fn judge(scenario: &Scenario, mode: MemguardMode, lines: &[Line]) -> Judgement {
    let mut judgement = Judgement::default();
    let samples = lines
        .iter()
        .filter_map(|line| match &line.record {
            Record::Sample(sample) => Some((line.t, &**sample)),
            _ => None,
        })
        .collect();
    let trouble = lines.iter().find(|line| line.record == Record::Trouble).map(|line| line.t);
    let Some(trouble) = trouble else {
        judgement.failures.push("the run ended before the trouble began".to_owned());
        return judgement;
    };
    let run = Run { scenario, mode, lines, samples, trouble };
    match (scenario.kind, mode) {
        (Kind::Livelock, MemguardMode::Off) => run.hangs(&mut judgement),
        (Kind::Livelock, MemguardMode::Observe) => run.is_seen(&mut judgement),
        (Kind::Livelock, MemguardMode::Enforce) => run.is_ended(&mut judgement),
        (Kind::Healthy, _) => run.lives(&mut judgement),
        (Kind::Oom, _) => run.is_killed_by_the_kernel(&mut judgement),
    }
    if mode != MemguardMode::Off {
        run.memguard_is_well(&mut judgement);
    }
    if mode == MemguardMode::Observe && scenario.expect.counts {
        counts::compare(&run, &mut judgement);
    }
    judgement
}

impl Run<'_> {
    fn container(&self) -> &str {
        self.scenario.expect.container.as_deref().unwrap_or_default()
    }

    fn figures(&self) -> impl Iterator<Item = (f64, &Figures)> {
        self.samples.iter().filter_map(|(t, sample)| Some((*t, sample.containers.get(self.container())?)))
    }

    fn at_limit(&self) -> Option<f64> {
        self.lines.iter().find_map(|line| match &line.record {
            Record::AtLimit { container } if container == self.container() => Some(line.t),
            _ => None,
        })
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

    /// Progress per second of a workload between two times.
    fn rate(&self, workload: &str, from: f64, to: f64) -> Option<f64> {
        let within = self.samples.iter().filter(|(t, _)| (from..=to).contains(t));
        let mut points = within.filter_map(|(t, sample)| Some((*t, *sample.progress.get(workload)?)));
        let first = points.next()?;
        let last = points.next_back()?;
        Some(last.1.saturating_sub(first.1) as f64 / (last.0 - first.0))
    }

    /// Progress per second in the last ten seconds before the trouble.
    fn baseline(&self, workload: &str) -> Option<f64> {
        self.rate(workload, self.trouble - 10.5, self.trouble)
    }

    /// The workloads of the container in trouble that report progress from the beginning.
    fn listeners(&self) -> impl Iterator<Item = &str> {
        self.scenario
            .workloads()
            .filter(|(pod, container, workload)| {
                format!("{}/{}", pod.name, container.name) == self.container()
                    && matches!(workload.run, Program::Listener { .. })
            })
            .map(|(.., workload)| workload.name.as_str())
    }

    /// Everything that runs elsewhere and must not be touched.
    fn neighbours(&self) -> impl Iterator<Item = &str> {
        self.scenario
            .workloads()
            .filter(|(pod, container, workload)| {
                format!("{}/{}", pod.name, container.name) != self.container() && workload.at == Start::Beginning
            })
            .map(|(.., workload)| workload.name.as_str())
    }

    /// The first time from `from` on at which a workload's smoothed progress is that of a hung one.
    fn onset(&self, workload: &str, baseline: f64, from: f64) -> Option<f64> {
        let times = self.samples.iter().map(|(t, _)| *t).filter(|t| *t >= from);
        times
            .into_iter()
            .find(|t| self.rate(workload, *t, t + SMOOTH_S + 0.5).is_some_and(|rate| rate < HUNG * baseline))
    }

    /// Share of progress in a stretch, and the share of moments in it that were not hung.
    fn hung(&self, workload: &str, baseline: f64, from: f64, to: f64) -> Option<(f64, f64)> {
        let mean = self.rate(workload, from, to)? / baseline;
        let moments: Vec<f64> = self
            .samples
            .iter()
            .map(|(t, _)| *t)
            .filter(|t| *t >= from && t + SMOOTH_S <= to)
            .filter_map(|t| self.rate(workload, t, t + SMOOTH_S + 0.5))
            .collect();
        let above = moments.iter().filter(|rate| **rate >= HUNG * baseline).count();
        Some((mean, above as f64 / moments.len().max(1) as f64))
    }

    /// Without memguard: the limit is hit, the listener all but stops, and the kernel does nothing about it.
    fn hangs(&self, judgement: &mut Judgement) {
        let Some(at_limit) = self.at_limit() else {
            judgement.failures.push(format!("{} never reached its limit", self.container()));
            return;
        };
        let needed = f64::from(self.scenario.expect.hang_s.unwrap_or_default());
        let mut any = false;
        for listener in self.listeners() {
            any = true;
            let Some(baseline) = self.baseline(listener).filter(|rate| *rate > 0.0) else {
                judgement.failures.push(format!("{listener} made no progress before the trouble"));
                continue;
            };
            let Some(onset) = self.onset(listener, baseline, at_limit) else {
                judgement.failures.push(format!("{listener} never fell under a fifth of its {baseline:.0}/s"));
                continue;
            };
            let end = onset + needed;
            let last = self.samples.last().map_or(0.0, |(t, _)| *t);
            judgement.expect(last + 1.5 >= end, || {
                format!("the run ended {:.0} s after {listener} hung, not {needed:.0} s", last - onset)
            });
            let Some((share, above)) = self.hung(listener, baseline, onset, end) else {
                judgement.failures.push(format!("{listener} left no figures of its hang"));
                continue;
            };
            judgement.facts.push(format!(
                "{listener} at {:.1} % of {baseline:.0}/s for {needed:.0} s, {:.1} s after the limit",
                share * 100.0,
                onset - at_limit
            ));
            judgement
                .expect(share < HUNG, || format!("{listener} made {:.0} % progress, not under 20 %", share * 100.0));
            judgement.expect(above <= TOLERATED, || {
                format!("{listener} was above a fifth of its progress in {:.0} % of the time", above * 100.0)
            });
            judgement.expect(self.exit(listener).is_none_or(|(t, ..)| t >= end), || format!("{listener} ended"));
            self.kernel_looks_on(onset, end, judgement);
        }
        judgement.expect(any, || "the scenario has no listener in the container in trouble".to_owned());
    }

    /// memory.events between two times: max rises all along, oom and `oom_kill` stay 0.
    fn kernel_looks_on(&self, from: f64, to: f64, judgement: &mut Judgement) {
        let figures: Vec<_> = self.figures().filter(|(t, _)| (from..=to).contains(t)).collect();
        let (Some((_, first)), Some((_, last))) = (figures.first(), figures.last()) else { return };
        judgement.facts.push(format!(
            "memory.events: max +{}, oom {}, oom_kill {}; {} refaults, {:.2} per page freed",
            last.max_events - first.max_events,
            last.oom,
            last.oom_kill,
            last.refaults - first.refaults,
            (last.refaults - first.refaults) as f64 / (last.steals - first.steals).max(1) as f64
        ));
        let stands_still = figures.windows(11).any(|ten| ten[10].1.max_events == ten[0].1.max_events);
        judgement.expect(!stands_still, || "max of memory.events stood still for ten seconds".to_owned());
        judgement.expect(last.oom == 0 && last.oom_kill == 0, || {
            format!("the kernel acted: oom {}, oom_kill {}", last.oom, last.oom_kill)
        });
        // What TCG alone can cause looks like a hang and has next to no refaults.
        judgement.expect(last.refaults > first.refaults && last.steals > first.steals, || {
            "nothing was reclaimed and refaulted: this is a hang of the emulator's own".to_owned()
        });
    }

    /// memguard enforces: verdict, kill, death in time, and nobody else is touched.
    fn is_ended(&self, judgement: &mut Judgement) {
        let said = Said::of(self.lines);
        let Some(at_limit) = self.at_limit() else {
            judgement.failures.push(format!("{} never reached its limit", self.container()));
            return;
        };
        let patience = f64::from(self.scenario.expect.dead_within_s.unwrap_or_default());
        let verdict = said.verdicts.first();
        judgement.expect(verdict.is_some(), || "memguard gave no verdict".to_owned());
        let Some(dead) = self.dead(self.container()) else {
            judgement.failures.push(format!("{} was not ended", self.container()));
            return;
        };
        if let Some((t, _)) = verdict {
            judgement.facts.push(format!("limit to verdict {:.1} s, verdict to death {:.2} s", t - at_limit, dead - t));
        }
        judgement.facts.push(format!("dead {:.1} s after the limit", dead - at_limit));
        judgement.expect(dead - at_limit <= patience, || {
            format!("dead {:.1} s after the limit, not within {patience:.0} s", dead - at_limit)
        });
        judgement.expect(said.kills == 1, || format!("memguard killed {} times, not once", said.kills));
        judgement.expect(said.verdicts.len() == 1, || format!("{} verdicts, not one", said.verdicts.len()));
        let oom_kills = self.figures().map(|(_, figures)| figures.oom_kill).max().unwrap_or_default();
        judgement.expect(oom_kills == 0, || format!("the kernel's OOM killer acted {oom_kills} times"));
        self.neighbours_live(dead, judgement);
    }

    fn neighbours_live(&self, since: f64, judgement: &mut Judgement) {
        for neighbour in self.neighbours() {
            judgement.expect(self.exit(neighbour).is_none(), || format!("{neighbour} was ended"));
            let end = self.samples.last().map_or(since, |(t, _)| *t);
            if let (Some(before), Some(after)) = (self.baseline(neighbour), self.rate(neighbour, since, end)) {
                judgement.expect(after >= UNTOUCHED * before, || {
                    format!("{neighbour} went from {before:.0}/s to {after:.0}/s")
                });
            }
        }
    }

    /// memguard observes: a verdict, and everybody lives.
    fn is_seen(&self, judgement: &mut Judgement) {
        let said = Said::of(self.lines);
        match (said.verdicts.first(), self.at_limit()) {
            (Some((t, _)), Some(at_limit)) => judgement.facts.push(format!("limit to verdict {:.1} s", t - at_limit)),
            (Some(_), None) => judgement.failures.push("a verdict on what never reached its limit".to_owned()),
            (None, _) => judgement.failures.push("memguard gave no verdict".to_owned()),
        }
        judgement.expect(said.kills == 0, || "memguard killed in observe mode".to_owned());
        judgement.expect(said.dry_runs >= 1, || "memguard did not say what it would do".to_owned());
        let oom_kills = self.figures().map(|(_, figures)| figures.oom_kill).max().unwrap_or_default();
        if oom_kills == 0 {
            judgement.expect(self.dead(self.container()).is_none(), || format!("{} died", self.container()));
        }
        self.neighbours_live(self.trouble, judgement);
    }

    /// Healthy work runs to its end, at its limit, and memguard has nothing to say.
    fn lives(&self, judgement: &mut Judgement) {
        let said = Said::of(self.lines);
        for (.., workload) in self.scenario.workloads() {
            let name = &workload.name;
            match self.exit(name) {
                Some((_, Some(0), _)) | None => {}
                Some((_, code, signal)) => {
                    judgement.failures.push(format!("{name} ended with code {code:?}, signal {signal:?}"));
                }
            }
            let finite = !matches!(
                workload.run,
                Program::Pause | Program::Steady | Program::Listener { .. } | Program::Hog { .. }
            );
            judgement.expect(!finite || self.exit(name).is_some(), || format!("{name} did not come to its end"));
            let done =
                self.samples.last().and_then(|(_, sample)| sample.progress.get(name).copied()).unwrap_or_default();
            let silent = matches!(workload.run, Program::Pause | Program::Exec { .. });
            judgement.expect(silent || done > 0, || format!("{name} made no progress"));
        }
        for (name, figures) in self.samples.last().into_iter().flat_map(|(_, sample)| &sample.containers) {
            judgement.expect(figures.oom_kill == 0, || format!("the kernel killed in {name}"));
            if figures.max_events > 0 {
                judgement
                    .facts
                    .push(format!("{name}: limit hit {} times, {} refaults", figures.max_events, figures.refaults));
            }
        }
        if self.scenario.expect.at_limit {
            let hits =
                self.samples.last().map_or(0, |(_, sample)| sample.containers.values().map(|f| f.max_events).sum());
            judgement.expect(hits > 0, || "nobody reached a limit, so this proves nothing".to_owned());
        }
        self.no_verdict(&said, judgement);
    }

    fn is_killed_by_the_kernel(&self, judgement: &mut Judgement) {
        let said = Said::of(self.lines);
        let oom_kills = self.figures().map(|(_, figures)| figures.oom_kill).max().unwrap_or_default();
        judgement.facts.push(format!("the kernel's OOM killer ended {oom_kills} processes"));
        judgement.expect(oom_kills > 0, || "the kernel's OOM killer did not act".to_owned());
        self.no_verdict(&said, judgement);
    }

    fn no_verdict(&self, said: &Said, judgement: &mut Judgement) {
        if self.mode != MemguardMode::Off {
            judgement.expect(said.verdicts.is_empty() && said.kills == 0, || {
                format!("FALSE ALARM: {}", said.verdicts.first().map_or("a kill", |(_, message)| message))
            });
            if said.suspicions > 0 {
                judgement.facts.push(format!("suspect {} times", said.suspicions));
            }
        }
    }

    /// It started, lost nothing, ended when asked to; and what it cost.
    fn memguard_is_well(&self, judgement: &mut Judgement) {
        let said = Said::of(self.lines);
        judgement.expect(said.started, || "memguard did not start".to_owned());
        judgement.expect(said.level.as_deref() != Some("files"), || "memguard ran without its tracer".to_owned());
        judgement.expect(said.end == End::Code(0), || format!("memguard ended with {:?}", said.end));
        judgement.expect(said.lost == Some(0), || format!("memguard lost {:?} events", said.lost));
        // From 7.1 on tracepoints can be preempted (kernel commit a46023d5616e), and a program that is entered again on
        // the same CPU is skipped the second time.
        let cycles =
            self.samples.last().map_or(0, |(_, sample)| sample.containers.values().map(|f| f.max_events).sum());
        judgement.expect(said.ends_lost * 100 <= cycles, || {
            format!("the ends of {} of {cycles} reclaim cycles were not seen", said.ends_lost)
        });
        judgement.expect(said.errors.is_empty(), || format!("memguard reported: {}", said.errors.join("; ")));
        let resident = self.samples.iter().filter_map(|(_, sample)| sample.memguard_resident_kib).max();
        let cpu = |from: f64, to: f64| {
            let mut points = self
                .samples
                .iter()
                .filter(|(t, _)| (from..=to).contains(t))
                .filter_map(|(t, sample)| Some((*t, sample.memguard_cpu_s?)));
            let first = points.next()?;
            let last = points.next_back()?;
            Some((last.1 - first.1) / (last.0 - first.0) * 100.0)
        };
        let last = self.samples.last().map_or(0.0, |(t, _)| *t);
        let until = self.dead(self.container()).unwrap_or(last);
        let from = self.at_limit().unwrap_or(self.trouble);
        if let (Some(rest), Some(busy), Some(resident)) =
            (cpu(self.trouble - 10.5, self.trouble), cpu(from, until), resident)
        {
            judgement.facts.push(format!(
                "memguard ({}): {rest:.2} % of a core before, {busy:.1} % at the limit, {:.1} MiB resident",
                said.level.as_deref().unwrap_or("?"),
                resident as f64 / 1024.0
            ));
        }
    }
}

#[cfg(test)]
mod tests;
