//! Runs that should hang.

use super::{
    Judgement, Run, Said,
    course::{Course, HUNG, Work},
};

/// Of the moments in a hang, so many may be those of work.
const TOLERATED: f64 = 0.05;

impl Run<'_> {
    /// Without memguard: the limit is hit, the work all but stops, and the kernel does nothing about it.
    pub(super) fn hangs(&self, judgement: &mut Judgement) {
        let needed = f64::from(self.scenario.expect.hang_s.unwrap_or_default());
        for container in self.containers() {
            let course = self.course(&container);
            let Some(at_limit) = course.at_limit else {
                judgement.fail(format!("{container} never reached its limit"));
                continue;
            };
            let work = match Work::of(self, &container) {
                Ok(work) => work,
                Err(why) => {
                    judgement.fail(why);
                    continue;
                }
            };
            let Some(hang) = course.hang() else {
                judgement.fail(format!("{container} never fell under a fifth of its work, {}", work.told()));
                continue;
            };
            let end = hang.onset + needed;
            judgement.expect(self.last() + 1.5 >= end, || {
                format!("the run ended {:.0} s after {container} hung, not {needed:.0} s", self.last() - hang.onset)
            });
            let share = work.share(hang.onset, end.min(work.until)).unwrap_or_default();
            judgement.facts.push(format!(
                "{container} at {:.1} % of its work, {}, for {needed:.0} s, {:.1} s after the limit",
                share * 100.0,
                work.told(),
                hang.onset - at_limit
            ));
            judgement
                .expect(share < HUNG, || format!("{container} made {:.0} % progress, not under 20 %", share * 100.0));
            let above = work.above(hang.onset, end);
            judgement.expect(above <= TOLERATED, || {
                format!("{container} was above a fifth of its progress in {:.0} % of the time", above * 100.0)
            });
            judgement.expect(work.until + 1.5 >= end.min(self.last()), || format!("the work of {container} ended"));
            self.kernel_looks_on(&container, hang.onset, end, judgement);
        }
    }

    /// memory.events between two times: the limit is hit all along, oom and `oom_kill` stay 0.
    fn kernel_looks_on(&self, container: &str, from: f64, to: f64, judgement: &mut Judgement) {
        let figures: Vec<_> = self.figures(container).filter(|(t, _)| (from..=to).contains(t)).collect();
        let (Some((_, first)), Some((_, last))) = (figures.first(), figures.last()) else { return };
        judgement.facts.push(format!(
            "memory.events: max +{}, high +{}, oom {}, oom_kill {}; {} refaults, {:.2} per page freed",
            last.max_events - first.max_events,
            last.high_events - first.high_events,
            last.oom,
            last.oom_kill,
            last.refaults - first.refaults,
            (last.refaults - first.refaults) as f64 / (last.steals - first.steals).max(1) as f64
        ));
        let hits = |at: usize| figures[at].1.max_events + figures[at].1.high_events;
        let stands_still = (10..figures.len()).any(|at| hits(at) == hits(at - 10));
        judgement.expect(!stands_still, || "max and high of memory.events stood still for ten seconds".to_owned());
        judgement.expect(last.oom == 0 && last.oom_kill == 0, || {
            format!("the kernel acted: oom {}, oom_kill {}", last.oom, last.oom_kill)
        });
        // What TCG alone can cause looks like a hang and has next to no refaults.
        judgement.expect(last.refaults > first.refaults && last.steals > first.steals, || {
            "nothing was reclaimed and refaulted: this is a hang of the emulator's own".to_owned()
        });
    }

    /// memguard enforces: verdict, kill, death in time, and nobody else is touched.
    pub(super) fn is_ended(&self, judgement: &mut Judgement) {
        let said = Said::of(self.lines);
        let patience = f64::from(self.scenario.expect.dead_within_s.unwrap_or_default());
        let containers = self.containers();
        let mut all_dead = self.trouble;
        for container in &containers {
            let course = self.course(container);
            let Some(at_limit) = course.at_limit else {
                judgement.fail(format!("{container} never reached its limit"));
                continue;
            };
            let verdict = self.verdict_on(&said, container, judgement);
            let Some(dead) = course.dead else {
                judgement.fail(format!("{container} was not ended"));
                continue;
            };
            all_dead = all_dead.max(dead);
            self.tell_times(&said, &course, judgement);
            if let Some(verdict) = verdict {
                judgement.facts.push(format!("{container}: verdict to death {:.2} s", dead - verdict));
            }
            judgement.facts.push(format!("{container}: dead {:.1} s after the limit", dead - at_limit));
            judgement.expect(dead - at_limit <= patience, || {
                format!("{container}: dead {:.1} s after the limit, not within {patience:.0} s", dead - at_limit)
            });
            let oom_kills = self.oom_kills(container);
            judgement.expect(oom_kills == 0, || format!("the kernel's OOM killer acted {oom_kills} times"));
        }
        let count = containers.len();
        judgement.expect(said.kills as usize == count, || format!("memguard killed {} times, not {count}", said.kills));
        judgement.expect(said.verdicts.len() == count, || format!("{} verdicts, not {count}", said.verdicts.len()));
        self.neighbours_live(all_dead, judgement);
    }

    /// memguard observes: a verdict, and everybody lives.
    pub(super) fn is_seen(&self, judgement: &mut Judgement) {
        let said = Said::of(self.lines);
        for container in self.containers() {
            let course = self.course(&container);
            judgement.facts.push(format!("{container} {}", course.told()));
            judgement.expect(course.hung().is_some(), || format!("{container} did not hang: {}", course.told()));
            let verdict = self.verdict_on(&said, &container, judgement);
            self.tell_times(&said, &course, judgement);
            if let Some(verdict) = verdict {
                self.in_time(verdict, &course, judgement);
            }
            if course.oom_kill.is_none() {
                judgement.expect(course.dead.is_none(), || format!("{container} died"));
            }
        }
        judgement.expect(said.kills == 0, || "memguard killed in observe mode".to_owned());
        judgement.expect(said.dry_runs >= 1, || "memguard did not say what it would do".to_owned());
        self.neighbours_live(self.trouble, judgement);
    }

    /// Whether a verdict came soon enough after the limit.
    pub(super) fn in_time(&self, verdict: f64, course: &Course, judgement: &mut Judgement) {
        let patience = f64::from(self.scenario.expect.dead_within_s.unwrap_or_default());
        let Some(after) = course.at_limit.map(|at_limit| verdict - at_limit) else { return };
        judgement.expect(after <= patience, || {
            format!("{}: verdict {after:.1} s after the limit, not within {patience:.0} s", course.container)
        });
    }

    /// When the first verdict on a container came. None at all is a failure, and so is one on work that goes on.
    pub(super) fn verdict_on(&self, said: &Said, container: &str, judgement: &mut Judgement) -> Option<f64> {
        let verdict = said.verdicts.iter().find(|verdict| self.is_about(&verdict.cgroup, container));
        let Some(verdict) = verdict else {
            judgement.fail(format!("memguard gave no verdict on {container}"));
            return None;
        };
        match self.at_limit(container) {
            Some(at_limit) if verdict.t >= at_limit => {}
            _ => judgement.fail(format!("a verdict on {container} before it reached its limit")),
        }
        if let Some(share) = self.share_before(container, verdict.t) {
            judgement.expect(share < super::course::SLOW, || {
                format!("{container}: a verdict on work that is not hung: it was at {:.0} %", share * 100.0)
            });
        }
        Some(verdict.t)
    }

    /// From the onset of the hang to suspicion and verdict. Negative: they came first.
    pub(super) fn tell_times(&self, said: &Said, course: &Course, judgement: &mut Judgement) {
        let container = &course.container;
        let Some(verdict) = said.verdicts.iter().find(|verdict| self.is_about(&verdict.cgroup, container)) else {
            return;
        };
        let suspect = said
            .suspicions
            .iter()
            .filter(|suspicion| self.is_about(&suspicion.cgroup, container) && suspicion.t <= verdict.t)
            .map(|suspicion| suspicion.t)
            .next_back();
        let mut told = Vec::new();
        if let Some(hang) = course.hang() {
            if let Some(suspect) = suspect {
                told.push(format!("onset to suspect {:.1} s", suspect - hang.onset));
            }
            told.push(format!("onset to verdict {:.1} s", verdict.t - hang.onset));
        }
        if let Some(at_limit) = course.at_limit {
            told.push(format!("limit to verdict {:.1} s", verdict.t - at_limit));
        }
        judgement.facts.push(format!("{container}: {}", told.join(", ")));
    }
}
