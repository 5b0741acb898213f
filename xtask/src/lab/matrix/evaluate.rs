//! What a rule made of a run, held against what the work in it did. Pure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use memguard_lab::{
    place,
    scenario::{Half, Kind},
};
use serde::{Deserialize, Serialize};

use super::replay::{Replayed, Said, WAIT};
use crate::lab::judge::course::{Course, Hang};

/// A hang that lasts so long has to be seen; one that ends sooner by itself may be, and needs not.
const PERMANENT_S: f64 = 60.0;
/// A crawl has to be seen when the kernel takes longer than this, from the onset, to end it.
const CRAWL_S: f64 = 35.0;
/// Work that the kernel's OOM killer ends so soon after its limit does not work at its limit: it could not have become a
/// false alarm for most rules, however they are.
const KERNELS_S: f64 = 30.0;
/// The kernel's kill is seen in samples, by memguard and by the lab, each with its own second.
const SAMPLES_S: f64 = 3.0;

/// What a run was, by what its work did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Class {
    /// It hung, as it should, and that has to be seen.
    Hung,
    /// It hung, but recovered by itself, or was ended by the kernel or with the run before long: a verdict is right, and
    /// none is too.
    HungBriefly,
    /// It worked, at its limit.
    Works,
    /// The kernel's OOM killer ended it soon after it came to its limit, as it should: neither a hang nor a trial of
    /// false alarms.
    KernelActed,
    /// It never came to its limit, or nothing tells how its work went: it proves nothing.
    Unproven,
    /// It hung, and by its name should not have: counted for nobody.
    Contrary,
}

/// What a rule made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// A verdict in the hang.
    Caught,
    /// No verdict, though it hung. Earlier lists have a word of their own for hangs too short for a rule: what is too
    /// short is for who counts, see `Count`.
    #[serde(alias = "too-short")]
    Missed,
    /// A verdict on work that went on.
    FalseAlarm,
    /// A verdict on work that need not be healthy by its name, and did not come to a hang but was under half of its speed.
    OnSlowWork,
    /// No verdict, and none was due.
    Silent,
}

/// What a rule did in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    pub(crate) outcome: Outcome,
    /// Seconds from the onset; negative if it came first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) suspect_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verdict_s: Option<f64>,
    /// Of a false alarm: what it was about, below the root of cgroup v2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cgroup: Option<String>,
}

/// A run with everything that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evaluated {
    pub(crate) scenario: String,
    /// The line: `6.12`.
    pub(crate) kernel: String,
    pub(crate) release: String,
    pub(crate) kind: Kind,
    pub(crate) half: Half,
    pub(crate) class: Class,
    /// Of the recording, where the lab left it.
    pub(crate) file: String,
    /// The memguard that made the recording, see `records::Kept`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) build: Option<String>,
    pub(crate) courses: Vec<Course>,
    /// By rule. One that was rightly silent is left out.
    pub(crate) rules: BTreeMap<String, Judged>,
    /// Where it is now.
    #[serde(skip)]
    pub(crate) recording: PathBuf,
}

impl Evaluated {
    /// By what all rules said in it.
    pub(super) fn judge(&mut self, replayed: &Replayed) {
        self.class = class(self.kind, &self.courses);
        self.rules = judge(self.kind, &self.courses, replayed);
        self.kernel = super::line(&self.release);
        if replayed.signals_from == "files" {
            // A column of its own for runs that were made with --no-tracer.
            self.kernel.push_str(", no tracer");
        }
    }

    /// How long the hang lasted that has to be seen; the shortest of them if several containers hung. 0 if there is none.
    pub(super) fn hung_s(&self) -> f64 {
        let longest = |course: &Course| {
            let due = course.hangs.iter().filter(|hang| hang_is_due(course, hang));
            due.map(|hang| course.ended_by_kernel(hang).unwrap_or(hang.end) - hang.onset).reduce(f64::max)
        };
        self.courses.iter().filter_map(longest).reduce(f64::min).unwrap_or_default()
    }

    pub(crate) fn outcome(&self, rule: &str) -> Outcome {
        self.rules.get(rule).map_or(Outcome::Silent, |judged| judged.outcome)
    }

    /// The course that the run is about: the first that hung, else the first.
    pub(crate) fn course(&self) -> Option<&Course> {
        self.courses.iter().find(|course| course.hung().is_some()).or(self.courses.first())
    }
}

/// Whether a hang has to be seen.
fn hang_is_due(course: &Course, hang: &Hang) -> bool {
    hang.is_one()
        && match course.ended_by_kernel(hang) {
            Some(kill) => kill - hang.onset >= CRAWL_S,
            None => hang.lasts || hang.seconds() >= PERMANENT_S,
        }
}

/// Whether a hang of this container has to be seen.
pub(super) fn is_due(course: &Course) -> bool {
    course.hangs.iter().any(|hang| hang_is_due(course, hang))
}

/// Whether the kernel acted before anybody would have called it a hang.
fn is_kernels(course: &Course) -> bool {
    course.oom_kill.is_some_and(|kill| course.at_limit.is_none_or(|at_limit| kill - at_limit < KERNELS_S))
}

pub(super) fn class(kind: Kind, courses: &[Course]) -> Class {
    let hung = courses.iter().any(|course| course.hung().is_some());
    if kind.may_hang() && courses.iter().any(is_due) {
        return Class::Hung;
    }
    if kind.may_hang() && (hung || courses.iter().any(Course::is_cut_short)) {
        return Class::HungBriefly;
    }
    if hung {
        return Class::Contrary;
    }
    let mut strained =
        courses.iter().filter(|course| course.at_limit.is_some() || course.oom_kill.is_some()).peekable();
    if courses.iter().any(|course| course.untold.is_some()) || strained.peek().is_none() {
        Class::Unproven
    } else if strained.all(is_kernels) {
        Class::KernelActed
    } else {
        Class::Works
    }
}

/// What a rule's first verdict on a container, or none, amounts to. `slow` says whether work was under half of its speed
/// right before a time.
fn outcome(kind: Kind, course: &Course, rule: &str, verdict: Option<f64>, slow: impl Fn(f64) -> bool) -> Outcome {
    let until = verdict.unwrap_or(f64::INFINITY);
    if course.hangs.iter().any(|hang| hang_is_due(course, hang) && hang.until() < until) {
        return Outcome::Missed;
    }
    let Some(verdict) = verdict else { return Outcome::Silent };
    // Who waits for the kernel has seen the hang when the kernel has.
    let with_the_kernel = |hang: &Hang| {
        course.ended_by_kernel(hang).is_some_and(|kill| (hang.onset..=kill + SAMPLES_S).contains(&verdict))
    };
    if rule == WAIT && course.hangs.iter().any(|hang| hang.is_one() && with_the_kernel(hang)) {
        return Outcome::Caught;
    }
    // What comes after the kernel has killed harms nobody, and helps nobody.
    let late = course.oom_kill.is_some_and(|kill| verdict >= kill - 1.5);
    let begins_to_crawl = || course.hung().is_some_and(|hang| verdict < hang.onset) && slow(verdict);
    if late {
        if is_due(course) { Outcome::Missed } else { Outcome::Silent }
    } else if course.is_right(kind, verdict) || begins_to_crawl() {
        Outcome::Caught
    } else if kind.may_hang() && slow(verdict) {
        Outcome::OnSlowWork
    } else {
        Outcome::FalseAlarm
    }
}

/// Whether what happens to a cgroup, below the root of cgroup v2, happens to a container: it is the container's, one in
/// it, or one around it.
fn is_about(cgroup: &str, container: &str) -> bool {
    place::of(container).is_some_and(|path| path.starts_with(cgroup) || Path::new(cgroup).starts_with(&path))
}

/// All rules in a run: for each the worst that it did to any of the containers.
fn judge(kind: Kind, courses: &[Course], replayed: &Replayed) -> BTreeMap<String, Judged> {
    let mut rules = BTreeMap::new();
    for (rule, said) in &replayed.rules {
        let mut all: Vec<Judged> = courses.iter().map(|course| one(kind, course, rule, said)).collect();
        // A verdict on what the scenario is not about.
        let elsewhere = said
            .iter()
            .filter(|said| said.verdict)
            .find(|said| courses.iter().all(|course| !is_about(&said.cgroup, &course.container)));
        if let Some(said) = elsewhere {
            let cgroup = Some(said.cgroup.clone());
            all.push(Judged { outcome: Outcome::FalseAlarm, suspect_s: None, verdict_s: None, cgroup });
        }
        let rank = |judged: &Judged| match judged.outcome {
            Outcome::FalseAlarm => (4, 0.0),
            Outcome::Missed => (3, 0.0),
            Outcome::OnSlowWork => (2, 0.0),
            Outcome::Caught => (1, judged.verdict_s.unwrap_or_default()),
            Outcome::Silent => (0, 0.0),
        };
        let worst = all.into_iter().max_by(|a, b| {
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        if let Some(worst) = worst.filter(|judged| judged.outcome != Outcome::Silent) {
            rules.insert(rule.clone(), worst);
        }
    }
    rules
}

/// The first verdict on a container.
fn verdict<'s>(course: &Course, said: &'s [Said]) -> Option<&'s Said> {
    said.iter().find(|said| said.verdict && is_about(&said.cgroup, &course.container))
}

fn one(kind: Kind, course: &Course, rule: &str, said: &[Said]) -> Judged {
    let about: Vec<&Said> = said.iter().filter(|said| is_about(&said.cgroup, &course.container)).collect();
    let verdict = verdict(course, said);
    let until = verdict.map_or(f64::MAX, |verdict| verdict.t);
    // The suspicion that led to it; without a verdict, the first one.
    let suspicions = || about.iter().filter(|said| !said.verdict && said.t <= until);
    let suspect = if verdict.is_some() { suspicions().next_back() } else { suspicions().next() };
    // From the onset of the hang that the verdict is in, or comes right before.
    let hangs = || course.hangs.iter().filter(|hang| hang.is_one() || course.hung().is_none());
    let hang = hangs().find(|hang| verdict.is_none_or(|verdict| verdict.t <= hang.until()));
    let since = |t: f64| hang.map(|hang| ((t - hang.onset) * 10.0).round() / 10.0);
    let outcome = outcome(kind, course, rule, verdict.map(|said| said.t), |t| course.is_slow(t));
    Judged {
        outcome,
        suspect_s: suspect.and_then(|said| since(said.t)),
        verdict_s: verdict.and_then(|said| since(said.t)),
        cgroup: verdict.filter(|_| outcome == Outcome::FalseAlarm).map(|said| said.cgroup.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hang(onset: f64, end: f64, lasts: bool) -> Course {
        let hangs = vec![Hang { onset, end, share: 0.01, lasts }];
        Course { container: "a/b".to_owned(), at_limit: Some(30.0), hangs, share: Some(0.1), ..Course::default() }
    }

    fn of(course: &Course, verdict: Option<f64>) -> Outcome {
        outcome(Kind::Livelock, course, "", verdict, |_| false)
    }

    #[test]
    fn a_hang_is_caught_or_missed() {
        let course = hang(33.0, 100.0, true);
        assert_eq!(class(Kind::Livelock, std::slice::from_ref(&course)), Class::Hung);
        assert_eq!(of(&course, Some(48.0)), Outcome::Caught);
        assert_eq!(of(&course, Some(30.0)), Outcome::Caught, "it was beginning");
        assert_eq!(of(&course, Some(120.0)), Outcome::Caught, "the smoothed end is before that of the run");
        assert_eq!(of(&hang(33.0, 70.0, false), Some(90.0)), Outcome::FalseAlarm, "it was over");
        assert_eq!(of(&course, Some(20.0)), Outcome::FalseAlarm);
        assert_eq!(outcome(Kind::Livelock, &course, "", Some(20.0), |_| true), Outcome::Caught, "it crawled already");
        assert_eq!(of(&course, None), Outcome::Missed);
    }

    #[test]
    fn a_second_hang_counts_like_the_first() {
        let mut twice = hang(33.0, 70.0, false);
        twice.hangs.push(Hang { onset: 90.0, end: 130.0, share: 0.0, lasts: true });
        assert_eq!((of(&twice, Some(105.0)), of(&twice, Some(50.0))), (Outcome::Caught, Outcome::Caught));
        assert_eq!(of(&twice, Some(76.0)), Outcome::FalseAlarm, "it had recovered");
        assert_eq!(of(&twice, None), Outcome::Missed);
        twice.hangs[0].end = 100.0;
        assert_eq!(of(&twice, Some(110.0)), Outcome::Missed, "of the first one");
    }

    #[test]
    fn a_crawl_is_the_kernels_when_it_is_quick() {
        let slow = Course { oom_kill: Some(90.0), ..hang(33.0, 88.0, false) };
        assert_eq!(of(&slow, None), Outcome::Missed);
        assert_eq!(of(&slow, Some(60.0)), Outcome::Caught);
        assert_eq!(of(&slow, Some(90.0)), Outcome::Missed, "the kernel was first");
        let quick = Course { oom_kill: Some(66.0), ..hang(33.0, 65.0, false) };
        assert_eq!(class(Kind::Livelock, std::slice::from_ref(&quick)), Class::HungBriefly);
        assert_eq!((of(&quick, None), of(&quick, Some(50.0))), (Outcome::Silent, Outcome::Caught));
        let stall = Course { oom_kill: Some(50.0), ..hang(33.0, 49.0, false) };
        assert_eq!(of(&stall, Some(45.0)), Outcome::Caught);
        assert_eq!(of(&stall, Some(52.0)), Outcome::Silent);
    }

    #[test]
    fn a_run_that_ends_in_a_stall_tells_neither_way_of_a_livelock_and_all_of_healthy_work() {
        let cut = hang(33.0, 61.0, true);
        let class = |kind, course: &Course| class(kind, std::slice::from_ref(course));
        assert_eq!(class(Kind::Livelock, &cut), Class::HungBriefly);
        assert_eq!((of(&cut, None), of(&cut, Some(32.0))), (Outcome::Silent, Outcome::Caught));
        assert_eq!(class(Kind::Livelock, &hang(33.0, 42.0, true)), Class::Works, "hardly a stall");
        assert_eq!(class(Kind::Livelock, &hang(33.0, 61.0, false)), Class::Works, "it recovered");
        assert_eq!(class(Kind::Healthy, &cut), Class::Works);
        assert_eq!(outcome(Kind::Healthy, &cut, "", Some(45.0), |_| true), Outcome::FalseAlarm);
    }

    #[test]
    fn who_waits_for_the_kernel_is_right_when_it_acts_in_a_hang() {
        let slow = Course { oom_kill: Some(90.0), ..hang(33.0, 92.0, false) };
        let waits = |verdict| outcome(Kind::Livelock, &slow, WAIT, verdict, |_| false);
        assert_eq!((waits(Some(90.5)), waits(None)), (Outcome::Caught, Outcome::Missed));
        assert_eq!(of(&slow, Some(90.5)), Outcome::Missed, "for anybody else that is late");
        let works = Course { hangs: Vec::new(), ..slow };
        assert_eq!(outcome(Kind::Oom, &works, WAIT, Some(90.5), |_| false), Outcome::Silent);
    }

    #[test]
    fn what_the_kernel_ends_at_once_is_no_trial_of_false_alarms() {
        let killed = |at_limit, oom_kill| Course { at_limit, oom_kill, hangs: Vec::new(), ..hang(0.0, 0.0, false) };
        for (kind, limit, kill, class_) in [
            (Kind::Oom, Some(30.0), Some(30.5), Class::KernelActed),
            (Kind::Livelock, Some(30.0), Some(37.0), Class::KernelActed),
            (Kind::Oom, None, Some(37.0), Class::KernelActed),
            (Kind::Healthy, Some(30.0), Some(90.0), Class::Works),
            (Kind::Healthy, None, None, Class::Unproven),
        ] {
            assert_eq!(class(kind, &[killed(limit, kill)]), class_, "{limit:?} {kill:?}");
        }
        let two = [killed(Some(30.0), Some(31.0)), killed(Some(30.0), None)];
        assert_eq!(class(Kind::Healthy, &two), Class::Works, "the other one worked on at its limit");
        let beside = [killed(Some(30.0), Some(31.0)), killed(None, None)];
        assert_eq!(class(Kind::Healthy, &beside), Class::KernelActed);
    }

    #[test]
    fn work_that_goes_on_makes_a_false_alarm() {
        let works = Course { hangs: Vec::new(), share: Some(0.9), ..hang(0.0, 0.0, false) };
        assert_eq!(class(Kind::Healthy, std::slice::from_ref(&works)), Class::Works);
        assert_eq!(outcome(Kind::Healthy, &works, "", Some(40.0), |_| false), Outcome::FalseAlarm);
        assert_eq!(outcome(Kind::Healthy, &works, "", Some(40.0), |_| true), Outcome::FalseAlarm, "slow is not hung");
        assert_eq!(outcome(Kind::Healthy, &works, "", None, |_| false), Outcome::Silent);
        let stalled = hang(33.0, 50.0, false);
        assert_eq!(of(&stalled, Some(45.0)), Outcome::FalseAlarm, "it recovered by itself");
    }

    #[test]
    fn what_a_run_did_goes_before_its_name() {
        let hung = [hang(33.0, 100.0, true)];
        assert_eq!(class(Kind::Healthy, &hung), Class::Contrary);
        let works = [Course { hangs: Vec::new(), ..hang(0.0, 0.0, false) }];
        assert_eq!(class(Kind::Livelock, &works), Class::Works);
        let elsewhere = [Course { at_limit: None, ..works[0].clone() }];
        assert_eq!(class(Kind::Healthy, &elsewhere), Class::Unproven);
        let untold = [Course { untold: Some("no progress".to_owned()), ..works[0].clone() }];
        assert_eq!(class(Kind::Healthy, &untold), Class::Unproven);
        assert_eq!(outcome(Kind::Livelock, &works[0], "", Some(50.0), |_| true), Outcome::OnSlowWork);
        assert_eq!(outcome(Kind::Livelock, &works[0], "", Some(50.0), |_| false), Outcome::FalseAlarm);
    }
}
