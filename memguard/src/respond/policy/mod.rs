//! What may be ended, how, and how much of it: set by the operator, read by the planner.
//!
//! From what is strongest to what is weakest: what is never ended ([`Subject::never`]), [`Policy::protect`], [`Policy::only`],
//! the ceiling, the pod's annotation (which only makes it milder), the first rule that matches, and the default.

mod budget;
#[cfg(test)]
pub(super) mod fixture;
#[cfg(test)]
mod properties;
mod rules;
mod subject;
#[cfg(test)]
mod tests;

use std::time::Duration;

use glob::Pattern;
use serde::{Deserialize, Serialize};

pub(super) use self::rules::any_path;
pub use self::{
    budget::{Ledger, Limit, Sick, Spent, Suspects},
    rules::{Matches, Rule, Selectors},
    subject::{NEVER_IN, OwnPod, Subject},
};
use super::actions::Method;
use crate::kubernetes::{PodFacts, RunnerRef};

/// Whether memguard acts. In this order, from the mildest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing is done, and nothing is told (but at the log's debug level).
    Off,
    /// Verdicts are written, nothing is done.
    #[default]
    Observe,
    /// Livelocks are ended.
    Enforce,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        })
    }
}

/// What may be killed, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// For what no rule says something else of. With Kubernetes, [`Mode::Enforce`] here is for ARC's runner pods alone; what
    /// else there is on such a node is observed.
    pub mode: Mode,
    /// Nothing goes beyond it, whatever is said elsewhere.
    pub ceiling: Mode,
    pub method: Method,
    /// The first one that matches counts.
    pub rules: Vec<Rule>,
    /// Only cgroups that match one of these are killed, as patterns on their path below the root; any if empty.
    pub only: Vec<Pattern>,
    /// Cgroups that are never killed, in the same way, whatever else is said.
    pub protect: Vec<Pattern>,
    pub budget: Limit,
    /// After an action on one container nothing else of its pod is acted on for so long.
    pub pod_delay: Duration,
    pub sick: Sick,
}

impl Policy {
    /// Services without which a node is lost. Slices, the root and memguard's own cgroup are never killed anyway.
    pub const PROTECTED: &'static [&'static str] = &[
        "init.scope",
        "**/init.scope",
        "**/kubelet.service",
        "**/containerd.service",
        "**/crio.service",
        "**/docker.service",
        "**/dbus*.service",
        "**/systemd-*.service",
        "**/ssh*.service",
    ];
    /// What stands in place of a rule's name where none was asked or none matched.
    pub const DEFAULT: &'static str = "default";
    /// The annotation by which a pod makes it milder for itself: `off` or `observe`.
    pub const ANNOTATION: &'static str = "memguard.dev/mode";

    /// Whether it can come to an action at all.
    #[must_use]
    pub fn can_enforce(&self) -> bool {
        self.ceiling == Mode::Enforce
            && (self.mode == Mode::Enforce || self.rules.iter().any(|rule| rule.mode == Some(Mode::Enforce)))
    }

    /// The mode of what no rule is for.
    #[must_use]
    pub fn usual_mode(&self) -> Mode {
        self.mode.min(self.ceiling)
    }

    /// What holds for a cgroup.
    #[must_use]
    pub fn applies(&self, subject: &Subject<'_>) -> Applies {
        let mut applies = self.by_rules(subject);
        if let Some(said) = subject.pod.and_then(annotation) {
            applies.at_most(said.unwrap_or(Mode::Observe), Because::Annotation { understood: said.is_ok() });
        }
        applies.at_most(self.ceiling, Because::Ceiling);
        applies
    }

    fn by_rules(&self, subject: &Subject<'_>) -> Applies {
        let (mut perhaps, mut settled): (Option<Applies>, _) = (None, None);
        let mut least = Mode::Enforce;
        for rule in &self.rules {
            let matches = rule.selectors.matches(subject);
            if matches == Matches::No {
                continue;
            }
            let applies = self.by(Some(rule), subject);
            if matches == Matches::Yes {
                settled = Some(applies);
                break;
            }
            least = least.min(applies.mode);
            if perhaps.as_ref().is_none_or(|other| other.most() < applies.most()) {
                perhaps = Some(applies);
            }
        }
        let settled = settled.unwrap_or_else(|| self.by(None, subject));
        let Some(perhaps) = perhaps else { return settled };
        // What can't be told must not decide for a kill. Where all that may hold say the same, nothing depends on it.
        match (least.min(settled.mode), perhaps.most().max(settled.most())) {
            (Mode::Enforce, _) => settled,
            (_, Mode::Enforce) => Applies::unknown(perhaps),
            _ if perhaps.mode > settled.mode => perhaps,
            _ => settled,
        }
    }

    /// What holds by this rule, or without one.
    fn by(&self, rule: Option<&Rule>, subject: &Subject<'_>) -> Applies {
        let name = rule.map_or(Self::DEFAULT, |rule| rule.name.as_str());
        let applies = Applies {
            mode: self.mode,
            method: rule.and_then(|rule| rule.method).unwrap_or(self.method),
            cancel_after_oom: rule.and_then(|rule| rule.cancel_after_oom).unwrap_or(false),
            force_cancel: rule.and_then(|rule| rule.force_cancel),
            rule: name.to_owned(),
            because: Because::Default,
        };
        if let Some(mode) = rule.and_then(|rule| rule.mode) {
            return Applies { mode, because: Because::Rule, ..applies };
        }
        if self.mode < Mode::Enforce || !subject.kubernetes {
            return applies;
        }
        match subject.pod {
            Some(pod) if RunnerRef::of(pod).is_some() => applies,
            None if subject.is_in_pod() => Applies::unknown(applies),
            _ => Applies { mode: Mode::Observe, because: Because::NoRunner, ..applies },
        }
    }
}

/// What the pod says about itself; the error is what is neither `off` nor `observe` nor `enforce`.
fn annotation(pod: &PodFacts) -> Option<Result<Mode, &str>> {
    pod.annotations.get(Policy::ANNOTATION).map(|value| match value.as_str() {
        "off" => Ok(Mode::Off),
        "observe" => Ok(Mode::Observe),
        "enforce" => Ok(Mode::Enforce),
        other => Err(other),
    })
}

impl Default for Policy {
    fn default() -> Self {
        let protect = Self::PROTECTED.iter().filter_map(|pattern| Pattern::new(pattern).ok()).collect();
        Self {
            mode: Mode::default(),
            ceiling: Mode::Enforce,
            method: Method::default(),
            rules: Vec::new(),
            only: Vec::new(),
            protect,
            // The runners of a node have one namespace as a rule, so by default it may use up all.
            budget: Limit { kills: 10, kills_per_namespace: 10, per: Duration::from_mins(10) },
            pod_delay: Duration::from_secs(10),
            sick: Sick { least: 5, share: 0.5 },
        }
    }
}

/// What holds for a cgroup, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applies {
    pub mode: Mode,
    pub method: Method,
    /// Cancel the GitHub run also where the kernel's OOM killer ended a process and the runner lives.
    pub cancel_after_oom: bool,
    /// `None`: as is said elsewhere.
    pub force_cancel: Option<bool>,
    /// Name of the rule that matched, or [`Policy::DEFAULT`].
    pub rule: String,
    pub because: Because,
}

/// Where the mode comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// `policy.mode`.
    Default,
    Rule,
    /// `policy.mode` is enforce, and this is no runner of ARC's.
    NoRunner,
    /// It depends on the pod, and that is not known: so nothing is done, and it's told.
    PodUnknown,
    /// The pod made it milder; what it said may not have been understood.
    Annotation {
        understood: bool,
    },
    Ceiling,
}

impl Applies {
    fn unknown(self) -> Self {
        Self { mode: Mode::Observe, because: Because::PodUnknown, ..self }
    }

    /// What the mode could be if all were known.
    fn most(&self) -> Mode {
        if self.because == Because::PodUnknown { Mode::Enforce } else { self.mode }
    }

    fn at_most(&mut self, mode: Mode, because: Because) {
        if self.most() > mode {
            (self.mode, self.because) = (self.mode.min(mode), because);
        }
    }

    /// Whether another verdict on the same livelock can lead to an action: then it has to be judged again, also if nothing
    /// was done this time.
    #[must_use]
    pub fn may_act_later(&self) -> bool {
        self.most() == Mode::Enforce
    }

    /// Why the mode is what it is, for people.
    #[must_use]
    pub fn why(&self) -> String {
        let Self { mode, rule, .. } = self;
        match self.because {
            Because::Default => format!("policy.mode is {mode}"),
            Because::Rule => format!("the rule {rule} says {mode}"),
            Because::NoRunner => {
                "with Kubernetes, policy.mode enforce is for ARC's runner pods alone, and this is none \
                                  (a rule in policy.rules can select it)"
                    .to_owned()
            }
            Because::PodUnknown => format!("whose pod it is is not known, and the rule {rule} depends on it"),
            Because::Annotation { understood: true } => {
                format!("the pod's annotation {} says {mode}", Policy::ANNOTATION)
            }
            Because::Annotation { understood: false } => {
                format!("the pod's annotation {} is none of off and observe, and taken for {mode}", Policy::ANNOTATION)
            }
            Because::Ceiling => format!("memguard was started with --mode {mode}"),
        }
    }
}
