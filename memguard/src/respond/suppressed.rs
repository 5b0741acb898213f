//! Why nothing is done about a verdict: each reason with a sentence, its values, and where it can be changed.

use serde::Serialize;

/// Why nothing is done about a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Suppressed {
    #[error("the root of the tree is never killed")]
    Root,
    #[error("it is memguard's own cgroup, or one above it")]
    Own,
    #[error("it is in memguard's own pod")]
    OwnPod,
    #[error("it only groups others, and none of them can be told to be the one")]
    NoVictim,
    #[error("pod {name} is in namespace kube-system, of which nothing is ever ended")]
    KubeSystem { name: String },
    #[error(
        "it is no container that the API knows of ({runtime_id}), perhaps the pod's pause container{}",
        if *facts_stale { "; the API does not answer now, so it may be a newer one" } else { "" }
    )]
    UnknownContainer { runtime_id: String, facts_stale: bool },
    #[error("it is in a static pod that the API does not know of, and that may be a part of the cluster itself")]
    UnknownStaticPod,
    #[error("{victim} is protected by the pattern {pattern}")]
    Protected { victim: String, pattern: String },
    #[error("{victim} is none of those that may be killed (policy.only)")]
    NotSelected { victim: String },
    #[error(
        "whose pod it is is not known ({}), and {} depends on it: it is looked at again (a rule that selects by cgroups alone \
         needs no pod)",
        if !*kubernetes {
            "no Kubernetes API was given"
        } else if *facts_stale {
            "the API does not answer, and had not told of it"
        } else {
            "the API has not told of it"
        },
        if depends_on == super::Policy::DEFAULT { "policy.mode".to_owned() } else { format!("the rule {depends_on}") }
    )]
    PodUnknown { depends_on: String, kubernetes: bool, facts_stale: bool },
    #[error("a kill of it is still under way")]
    UnderWay,
    #[error(
        "something else of its pod was acted on {acted_ago_s} s ago, and the rest gets {pod_delay_s} s to recover \
         (policy.pod_delay_s)"
    )]
    PodDelay { acted_ago_s: u64, pod_delay_s: u64 },
    #[error(
        "{suspects} of {under_reclaim} cgroups under reclaim look hung at once: that is the machine, a disk perhaps, and not \
         a job (policy.sick_share)"
    )]
    ManyAtOnce { suspects: usize, under_reclaim: usize },
    #[error(
        "the budget of {kills} kill{} in {per_s} s is spent (policy.kills, policy.kills_per_s)",
        if *kills == 1 { "" } else { "s" }
    )]
    BudgetSpent { kills: u32, per_s: u64 },
    #[error(
        "the budget of {kills_per_namespace} kill{} in {per_s} s in namespace {in_namespace} is spent \
         (policy.kills_per_namespace, policy.kills_per_s)",
        if *kills_per_namespace == 1 { "" } else { "s" }
    )]
    NamespaceBudgetSpent { in_namespace: String, kills_per_namespace: u32, per_s: u64 },
    #[error("the check right before found it changed: {why}")]
    Changed { why: String },
    #[error("the cgroup is gone")]
    Gone,
}

impl Suppressed {
    /// As in records and metrics: short, and the same in every version.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Own => "own",
            Self::OwnPod => "own_pod",
            Self::NoVictim => "no_victim",
            Self::KubeSystem { .. } => "kube_system",
            Self::UnknownContainer { .. } => "unknown_container",
            Self::UnknownStaticPod => "unknown_static_pod",
            Self::Protected { .. } => "protected",
            Self::NotSelected { .. } => "not_selected",
            Self::PodUnknown { .. } => "pod_unknown",
            Self::UnderWay => "under_way",
            Self::PodDelay { .. } => "pod_delay",
            Self::ManyAtOnce { .. } => "many_at_once",
            Self::BudgetSpent { .. } => "budget_spent",
            Self::NamespaceBudgetSpent { .. } => "namespace_budget_spent",
            Self::Changed { .. } => "changed",
            Self::Gone => "gone",
        }
    }

    /// One of each.
    #[cfg(test)]
    pub(crate) fn each() -> Vec<Self> {
        let text = || "x".to_owned();
        vec![
            Self::Root,
            Self::Own,
            Self::OwnPod,
            Self::NoVictim,
            Self::KubeSystem { name: text() },
            Self::UnknownContainer { runtime_id: text(), facts_stale: true },
            Self::UnknownStaticPod,
            Self::Protected { victim: text(), pattern: text() },
            Self::NotSelected { victim: text() },
            Self::PodUnknown { depends_on: text(), kubernetes: true, facts_stale: true },
            Self::UnderWay,
            Self::PodDelay { acted_ago_s: 1, pod_delay_s: 10 },
            Self::ManyAtOnce { suspects: 1, under_reclaim: 1 },
            Self::BudgetSpent { kills: 1, per_s: 1 },
            Self::NamespaceBudgetSpent { in_namespace: text(), kills_per_namespace: 1, per_s: 1 },
            Self::Changed { why: text() },
            Self::Gone,
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn labels_are_those_of_the_records_and_no_two_are_alike() {
        let each = Suppressed::each();
        let labels: HashSet<_> = each.iter().map(Suppressed::label).collect();
        assert_eq!(labels.len(), each.len());
        for reason in each {
            assert_eq!(serde_json::to_value(&reason).unwrap()["reason"], reason.label());
            assert!(!reason.to_string().is_empty());
        }
    }

    #[test]
    fn a_pod_that_is_not_known_is_told_with_what_would_help() {
        let reason = |depends_on: &str, kubernetes, facts_stale| {
            Suppressed::PodUnknown { depends_on: depends_on.to_owned(), kubernetes, facts_stale }.to_string()
        };
        assert!(reason("default", true, false).contains("has not told of it), and policy.mode depends"));
        assert!(reason("ci", true, true).contains("does not answer") && reason("ci", true, true).contains("rule ci"));
        assert!(reason("ci", false, false).contains("no Kubernetes API"));
    }
}
