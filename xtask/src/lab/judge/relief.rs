//! Runs in which the kernel's own OOM killer has to end the hang, asked by memguard.

use super::{Judgement, Run, Said, UNTOUCHED, course::Work};

/// The kernel acts within 0.5 s of the lowered limit; figures are taken once a second.
const KERNEL_ACTS_WITHIN_S: f64 = 3.0;
/// Time to get back to work, before it is looked at.
const RECOVERY_S: f64 = 15.0;

impl Run<'_> {
    /// memguard lowers the limit: the kernel kills somebody, the limit is what it was, and the work goes on.
    pub(super) fn is_relieved(&self, judgement: &mut Judgement) {
        let said = Said::of(self.lines);
        let containers = self.containers();
        for container in &containers {
            let course = self.course(container);
            self.tell_times(&said, &course, judgement);
            let Some(verdict) = self.verdict_on(&said, container, judgement) else { continue };
            self.in_time(verdict, &course, judgement);
            match course.oom_kill {
                Some(kill) => judgement.expect((verdict..=verdict + KERNEL_ACTS_WITHIN_S).contains(&kill), || {
                    format!("{container}: the kernel's OOM killer acted {:.1} s after the verdict", kill - verdict)
                }),
                None => judgement.fail(format!("{container}: the kernel's OOM killer did not act")),
            }
            if self.dies_as_a_group(container) {
                judgement.expect(course.dead.is_some(), || format!("{container} did not die as a group"));
                continue;
            }
            judgement.expect(course.dead.is_none(), || format!("{container} died as a whole"));
            for victim in self.victims(container) {
                judgement.expect(self.exit(&victim.name).is_none(), || format!("{} died with the hog", victim.name));
            }
            let limits: Vec<_> = self.figures(container).map(|(_, figures)| figures.limit).collect();
            judgement.expect(limits.first() == limits.last(), || {
                format!("{container}: memory.max was {:?} and is {:?}", limits.first(), limits.last())
            });
            let (from, to) = (verdict + RECOVERY_S, self.last());
            let share = Work::of(self, container).ok().and_then(|work| work.share(from, to)).unwrap_or_default();
            judgement.facts.push(format!("{container}: at {:.0} % of its work after it", share * 100.0));
            judgement.expect(to - from >= RECOVERY_S && share >= UNTOUCHED, || {
                format!("{container}: at {:.0} % of its work from {from:.0} s to {to:.0} s", share * 100.0)
            });
        }
        let count = containers.len();
        judgement.expect(said.reliefs as usize == count && said.kills == 0, || {
            format!("memguard relieved {} times and killed {} times, not {count} and 0", said.reliefs, said.kills)
        });
        judgement.expect(said.verdicts.len() == count, || format!("{} verdicts, not {count}", said.verdicts.len()));
        self.neighbours_live(self.trouble, judgement);
    }

    /// Whether the kernel's OOM killer ends all of this container, if it ends one process of it.
    fn dies_as_a_group(&self, container: &str) -> bool {
        let mut all = self.scenario.pod.iter().flat_map(|pod| pod.container.iter().map(move |one| (pod, one)));
        all.any(|(pod, one)| one.oom_group && container == format!("{}/{}", pod.name, one.name))
    }
}
