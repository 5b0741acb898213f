//! Rules that refine the policy for some cgroups: whom they select, and what they set.

use std::collections::BTreeMap;

use glob::Pattern;

use super::{Mode, Subject};
use crate::{kubernetes::RunnerRef, respond::Method};

/// A part of the policy for what it selects. What it leaves open is as the policy says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    pub name: String,
    pub selectors: Selectors,
    pub mode: Option<Mode>,
    pub method: Option<Method>,
    /// Cancel the GitHub run also where the kernel's OOM killer ended a process and the runner lives.
    pub cancel_after_oom: Option<bool>,
    /// Force a cancellation that has not come through.
    pub force_cancel: Option<bool>,
}

/// Whom a rule is for: all that are given have to match, of each list any one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    pub namespaces: Vec<Pattern>,
    /// Values by label.
    pub labels: BTreeMap<String, Pattern>,
    /// Names of containers.
    pub containers: Vec<Pattern>,
    /// Paths below the root.
    pub cgroups: Vec<Pattern>,
    /// Pods of ARC's runners, and those that they make for their jobs.
    pub runners: bool,
}

/// Whether a rule is for a cgroup. In this order, so that all of several conditions is the least of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matches {
    No,
    /// It depends on what is not known.
    Perhaps,
    Yes,
}

impl From<bool> for Matches {
    fn from(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

impl Selectors {
    /// Nothing is selected by: that is everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>) -> Matches {
        let Self { namespaces, labels, containers, cgroups, runners } = self;
        let cgroup = Matches::from(cgroups.is_empty() || any_path(cgroups, subject.cgroup).is_some());
        if namespaces.is_empty() && labels.is_empty() && containers.is_empty() && !runners {
            return cgroup;
        }
        let Some(pod) = subject.pod else {
            return cgroup.min(if subject.is_in_pod() { Matches::Perhaps } else { Matches::No });
        };
        let namespace = namespaces.is_empty() || any(namespaces, &pod.namespace);
        let labels = labels.iter().map(|(label, pattern)| match pod.labels.get(label) {
            Some(value) => pattern.matches(value).into(),
            None if pod.may_have_more_labels() => Matches::Perhaps,
            None => Matches::No,
        });
        let container = match subject.container() {
            _ if containers.is_empty() => Matches::Yes,
            Some(container) => any(containers, &container.name).into(),
            None => Matches::Perhaps,
        };
        let runner = !runners || RunnerRef::of(pod).is_some();
        [cgroup, namespace.into(), container, runner.into()].into_iter().chain(labels).min().unwrap_or(Matches::No)
    }
}

fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

/// The first pattern that a path matches. What is not UTF-8 in it is matched as well: a job that names a cgroup oddly must
/// not slip out of what is said about it.
pub(in crate::respond) fn any_path<'a>(patterns: &'a [Pattern], path: &std::path::Path) -> Option<&'a Pattern> {
    let text = path.to_string_lossy();
    patterns.iter().find(|pattern| pattern.matches(&text))
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

    use super::{super::fixture::*, *};
    use crate::workload::Place;

    fn matches(selectors: &Selectors, thing: &Thing) -> Matches {
        selectors.matches(&thing.subject())
    }

    #[test]
    fn each_selector_looks_at_its_own_fact() {
        let namespace = Selectors { namespaces: patterns(&["prod", "c?"]), ..Selectors::default() };
        let container = Selectors { containers: patterns(&["run*"]), ..Selectors::default() };
        let runners = Selectors { runners: true, ..Selectors::default() };
        let cgroup = Selectors { cgroups: patterns(&["kubepods.slice/**"]), ..Selectors::default() };
        let label = Selectors { labels: labels(&[("team", "db-*")]), ..Selectors::default() };
        let other = pod("web", &[("team", "db-1")]);
        for (selectors, runner_is, other_is, service_is) in [
            (&namespace, true, false, false),
            (&container, true, false, false),
            (&runners, true, false, false),
            (&cgroup, true, true, false),
            (&label, false, true, false),
            (&Selectors::default(), true, true, true),
        ] {
            let all = [(runner(), runner_is), (other.clone(), other_is), (service(), service_is)];
            for (thing, is) in all {
                assert_eq!(matches(selectors, &thing), Matches::from(is), "{selectors:?} {thing:?}");
            }
        }
    }

    #[test]
    fn all_that_are_given_have_to_match() {
        let both = Selectors { namespaces: patterns(&["ci"]), containers: patterns(&["dind"]), ..Selectors::default() };
        assert_eq!(matches(&both, &runner()), Matches::No);
        assert_eq!(matches(&both, &Thing { place: Some(place('b')), ..runner() }), Matches::Yes);
        let two = Selectors { labels: labels(&[("a", "1"), ("b", "*")]), ..Selectors::default() };
        assert_eq!(matches(&two, &pod("x", &[("a", "1"), ("b", "")])), Matches::Yes);
        assert_eq!(matches(&two, &pod("x", &[("a", "1")])), Matches::No);
    }

    #[test]
    fn jobs_pods_of_the_kubernetes_mode_are_runners_too() {
        let runners = Selectors { runners: true, ..Selectors::default() };
        let job = |name: &str| {
            let mut thing = pod("ci", &[("runner-pod", "runner-1")]);
            name.clone_into(&mut thing.pod.as_mut().unwrap().name);
            thing
        };
        assert_eq!(matches(&runners, &job("runner-1-workflow")), Matches::Yes);
        assert_eq!(matches(&runners, &job("runner-1-step-0a1b")), Matches::Yes);
        assert_eq!(matches(&runners, &job("something-else")), Matches::No, "a label alone says nothing");
    }

    #[test]
    fn what_is_not_known_is_neither_yes_nor_no() {
        let namespace = Selectors { namespaces: patterns(&["*"]), ..Selectors::default() };
        assert_eq!(matches(&namespace, &unknown_pod()), Matches::Perhaps);
        let strange = Thing { place: None, ..unknown_pod() };
        assert_eq!(matches(&namespace, &strange), Matches::Perhaps, "something odd below kubepods");
        let elsewhere = Selectors { cgroups: patterns(&["system.slice/*"]), ..namespace };
        assert_eq!(matches(&elsewhere, &unknown_pod()), Matches::No, "whichever pod it is");
        let container = Selectors { containers: patterns(&["*"]), ..Selectors::default() };
        assert_eq!(matches(&container, &Thing { place: Some(place('f')), ..runner() }), Matches::Perhaps);
        let slice = Place { container_id: None, ..place('a') };
        assert_eq!(matches(&container, &Thing { place: Some(slice), ..runner() }), Matches::Perhaps);
        let label = Selectors { labels: labels(&[("zzz", "*")]), ..Selectors::default() };
        let names: Vec<_> = (0..64).map(|i| format!("l{i}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(matches(&label, &pod("x", &many)), Matches::Perhaps, "the rest was not kept");
        assert_eq!(matches(&label, &pod("x", &many[1..])), Matches::No);
    }

    #[test]
    fn an_odd_name_does_not_slip_out() {
        let odd = Path::new(OsStr::from_bytes(b"kubepods.slice/a/\xff"));
        assert!(any_path(&patterns(&["kubepods.slice/**"]), odd).is_some());
    }
}
