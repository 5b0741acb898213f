//! Runs that memguard has no business with.

use memguard_lab::{MemguardMode, scenario::Program};

use super::{
    Judgement, Run, Said,
    course::{Course, HUNG, Work},
    memguard::Event,
};

impl Run<'_> {
    /// Healthy work runs to its end, at its limit, and memguard has nothing to say.
    pub(super) fn lives(&self, judgement: &mut Judgement) {
        for (.., workload) in self.scenario.workloads() {
            let name = &workload.name;
            match self.exit(name) {
                None => judgement.expect(workload.run.ends().is_none() && !workload.fails, || {
                    format!("{name} did not come to its end")
                }),
                Some((_, Some(code), _)) => judgement.expect((code != 0) == workload.fails, || {
                    let not = if workload.fails { ", and should have failed" } else { "" };
                    format!("{name} ended with code {code}{not}")
                }),
                Some((_, None, signal)) => judgement.fail(format!("{name} was ended by signal {signal:?}")),
            }
            let done =
                self.samples.last().and_then(|(_, sample)| sample.progress.get(name).copied()).unwrap_or_default();
            let silent = matches!(workload.run, Program::Pause | Program::Exec { .. });
            judgement.expect(silent || done > 0, || format!("{name} made no progress"));
        }
        let works_at = self.scenario.expect.works_at.unwrap_or(HUNG);
        for container in self.containers() {
            let course = self.course(&container);
            judgement.facts.push(format!("{container} {}", course.told()));
            if self.victims(&container).next().is_some()
                && let Err(why) = Work::of(self, &container)
            {
                judgement.fail(why);
            }
            judgement.expect(course.worst.is_none_or(|worst| worst >= works_at), || {
                let worst = course.worst.unwrap_or_default() * 100.0;
                format!(
                    "{container} is not healthy: in its worst 30 s at {worst:.0} % of its work, not {:.0} %",
                    works_at * 100.0
                )
            });
        }
        for (name, figures) in self.samples.last().into_iter().flat_map(|(_, sample)| &sample.containers) {
            judgement.expect(figures.oom_kill == 0, || format!("the kernel killed in {name}"));
            let hits = figures.max_events + figures.high_events;
            if hits > 0 {
                judgement.facts.push(format!("{name}: limit hit {hits} times, {} refaults", figures.refaults));
            }
        }
        if self.scenario.expect.at_limit {
            let hits: u64 = self.samples.last().map_or(0, |(_, sample)| {
                sample.containers.values().map(|figures| figures.max_events + figures.high_events).sum()
            });
            judgement.expect(hits > 0, || "nobody reached a limit, so this proves nothing".to_owned());
        }
        self.no_verdict(judgement, |_| false);
    }

    /// Whatever happens may happen: only what became of the work is told.
    pub(super) fn is_told(&self, judgement: &mut Judgement) {
        for container in self.containers() {
            judgement.facts.push(format!("{container} {}", self.course(&container).told()));
        }
    }

    /// The kernel's OOM killer acts. What hung until then had the verdict by right.
    pub(super) fn is_killed_by_the_kernel(&self, judgement: &mut Judgement) {
        for container in self.containers() {
            let oom_kills = self.oom_kills(&container);
            judgement.facts.push(format!("{container}: the kernel's OOM killer ended {oom_kills} processes"));
            judgement.expect(oom_kills > 0, || format!("the kernel's OOM killer did not act in {container}"));
        }
        let courses: Vec<_> = self.containers().iter().map(|container| self.course(container)).collect();
        self.no_verdict(judgement, |verdict| {
            let is_right = |course: &Course| course.is_right(self.scenario.kind, verdict.t);
            courses.iter().any(|course| self.is_about(&verdict.cgroup, &course.container) && is_right(course))
        });
    }

    /// No verdict but those that are right.
    fn no_verdict(&self, judgement: &mut Judgement, is_right: impl Fn(&Event) -> bool) {
        if self.mode == MemguardMode::Off {
            return;
        }
        let said = Said::of(self.lines);
        let (right, wrong): (Vec<_>, Vec<_>) = said.verdicts.iter().partition(|verdict| is_right(verdict));
        for verdict in &right {
            judgement.facts.push(format!("a verdict in a hang, at {:.1} s", verdict.t));
        }
        judgement.expect(wrong.is_empty() && said.kills as usize <= right.len(), || {
            format!("FALSE ALARM: {}", wrong.first().map_or("a kill", |verdict| &verdict.message))
        });
        if !said.suspicions.is_empty() {
            judgement.facts.push(format!("suspect {} times", said.suspicions.len()));
        }
    }
}
