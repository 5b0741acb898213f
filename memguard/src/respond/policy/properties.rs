//! What has to hold of policy and plan whatever is configured and whatever the facts are.

use std::{path::Path, time::Duration};

use glob::Pattern;
use proptest::{
    prelude::*,
    sample::{select, subsequence},
    test_runner::RngSeed,
};

use super::{fixture::*, *};
use crate::{
    engine::UnitId,
    respond::{Decision, PlanFacts, Planned, plan},
    workload::Place,
};

fn config() -> ProptestConfig {
    let standard = ProptestConfig::default();
    let (cases, rng_seed) = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => (standard.cases, standard.rng_seed),
        None => (512, RngSeed::Fixed(20_261_125)),
    };
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..standard }
}

const NAMESPACES: &[&str] = &["ci", "web", NEVER_IN];
const CGROUPS: &[&str] = &[
    "kubepods.slice/kubepods-pod1.slice/cri-containerd-aa.scope",
    "kubepods.slice/kubepods-pod1.slice",
    "system.slice/actions.runner.service",
    "system.slice/kubelet.service",
    "",
];

fn some_patterns(of: &'static [&'static str]) -> impl Strategy<Value = Vec<Pattern>> {
    subsequence(of, 0..=1).prop_map(|texts| patterns(&texts))
}

fn a_mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Off, Mode::Observe, Mode::Enforce])
}

prop_compose! {
    fn selectors()(
        namespaces in some_patterns(&["*", "ci", "w?b", "kube-*"]),
        containers in some_patterns(&["*", "runner", "app"]),
        cgroups in some_patterns(&["**", "kubepods.slice/**", "system.slice/*"]),
        by_label in subsequence(vec![("run", "*"), ("team", "db")], 0..=1),
        runners in any::<bool>(),
    ) -> Selectors {
        Selectors { namespaces, labels: labels(&by_label), containers, cgroups, runners }
    }
}

prop_compose! {
    fn a_rule()(
        name in "[a-z]{1,3}",
        selectors in selectors(),
        mode in prop::option::of(a_mode()),
        method in prop::option::of(select(vec![Method::Kill, Method::Oom, Method::OomThenKill])),
        cancel_after_oom in any::<Option<bool>>(),
        force_cancel in any::<Option<bool>>(),
    ) -> Rule {
        Rule { name, selectors, mode, method, cancel_after_oom, force_cancel }
    }
}

prop_compose! {
    fn policy()(
        mode in a_mode(),
        ceiling in prop_oneof![4 => Just(Mode::Enforce), 1 => a_mode()],
        rules in prop::collection::vec(a_rule(), 0..4),
        only in some_patterns(&["**", "system.slice/*"]),
        protected in some_patterns(&["**/cri-*", "system.slice/**"]),
        kills in 0_u32..4,
        kills_per_namespace in 0_u32..3,
        pod_delay in 0_u64..20,
    ) -> Policy {
        let mut policy = Policy { mode, ceiling, rules, only, ..Policy::default() };
        policy.protect.extend(protected);
        policy.budget = Limit { kills, kills_per_namespace, ..policy.budget };
        policy.pod_delay = Duration::from_secs(pod_delay);
        policy
    }
}

prop_compose! {
    fn thing()(
        which in 0..4,
        namespace in select(NAMESPACES),
        cgroup in select(CGROUPS),
        container in prop::option::weighted(0.9, select(vec!['a', 'b', 'f'])),
        is_placed in prop::bool::weighted(0.9),
        (kubernetes, below_kubepods, stale) in any::<(bool, bool, bool)>(),
        said in prop::option::of(prop_oneof![select(vec!["off", "observe", "enforce"]).prop_map(str::to_owned), any::<String>()]),
    ) -> Thing {
        let thing = match which {
            0 => runner(),
            1 => pod(namespace, &[("team", "db")]),
            2 => unknown_pod(),
            _ => service(),
        };
        let place = is_placed.then(|| Place { container_id: container.map(|id| id.to_string().repeat(64)), ..place('a') });
        let thing = Thing { cgroup: cgroup.into(), kubernetes, below_kubepods, stale, place, ..thing };
        match said {
            Some(said) => annotated(thing, &said),
            None => thing,
        }
    }
}

prop_compose! {
    fn ledger()(
        all in prop::collection::vec((0_u64..1000, a_mode(), prop::option::of(select(NAMESPACES)), any::<bool>()), 0..5),
    ) -> Ledger {
        let mut ledger = Ledger::default();
        for (second, mode, namespace, of_this_pod) in all {
            ledger.spend(Spent {
                at: Duration::from_secs(second),
                mode,
                namespace: namespace.map(str::to_owned),
                pod_uid: of_this_pod.then(|| UID.to_owned()),
            });
        }
        ledger
    }
}

fn planned(policy: &Policy, thing: &Thing, ledger: &Ledger) -> Planned {
    let root = Path::new("/sys/fs/cgroup");
    let path = root.join(&thing.cgroup);
    let facts = PlanFacts {
        now: Duration::from_secs(1000),
        root,
        owner: &path,
        victim: Some((UnitId(9), &path)),
        subject: thing.subject(),
        own: &[1],
        under_way: false,
        ledger,
        suspects: 1,
        under_reclaim: 1,
    };
    plan(&facts, policy)
}

fn kills(policy: &Policy, thing: &Thing, ledger: &Ledger) -> bool {
    let Planned { applies, decision } = planned(policy, thing, ledger);
    applies.mode == Mode::Enforce && matches!(decision, Decision::End { .. })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_a_pod_says_never_makes_it_stricter(policy in policy(), thing in thing(), said in any::<String>()) {
        let unsaid = {
            let mut thing = thing.clone();
            if let Some(pod) = &mut thing.pod {
                pod.annotations.clear();
            }
            thing
        };
        for said in ["off", "observe", "enforce", &said] {
            let with = annotated(unsaid.clone(), said);
            prop_assert!(policy.applies(&with.subject()).mode <= policy.applies(&unsaid.subject()).mode);
        }
    }

    #[test]
    fn a_milder_rule_in_front_lets_nothing_more_through(
        policy in policy(), thing in thing(), ledger in ledger(), front in a_rule(), mode in select(vec![Mode::Off, Mode::Observe]),
    ) {
        let mut milder = policy.clone();
        milder.rules.insert(0, Rule { mode: Some(mode), ..front });
        prop_assert!(kills(&policy, &thing, &ledger) || !kills(&milder, &thing, &ledger));
    }

    #[test]
    fn nothing_gets_past_a_milder_rule_in_front_for_everything(policy in policy(), thing in thing(), ledger in ledger()) {
        let mut milder = policy;
        let selectors = Selectors { cgroups: patterns(&["**"]), ..Selectors::default() };
        milder.rules.insert(0, Rule { name: "all".to_owned(), selectors, mode: Some(Mode::Observe), ..Rule::default() });
        prop_assert!(!kills(&milder, &thing, &ledger));
    }

    #[test]
    fn another_pattern_to_protect_lets_nothing_more_through(
        policy in policy(), thing in thing(), ledger in ledger(), pattern in "[a-z*?/.]{1,12}",
    ) {
        let mut safer = policy.clone();
        safer.protect.extend(Pattern::new(&pattern));
        prop_assert!(kills(&policy, &thing, &ledger) || !kills(&safer, &thing, &ledger));
    }

    #[test]
    fn a_lower_ceiling_lets_nothing_through(policy in policy(), thing in thing(), ledger in ledger()) {
        let lower = Policy { ceiling: Mode::Observe, ..policy };
        prop_assert!(!kills(&lower, &thing, &ledger));
    }

    #[test]
    fn kube_system_never(policy in policy(), thing in thing(), ledger in ledger()) {
        let is = thing.pod.as_ref().is_some_and(|pod| pod.namespace == NEVER_IN);
        let decision = planned(&policy, &thing, &ledger).decision;
        prop_assert!(!(is && matches!(decision, Decision::End { .. })), "not even as a dry run");
    }

    #[test]
    fn what_is_not_known_is_enforced_by_its_cgroup_alone(policy in policy(), thing in thing(), ledger in ledger()) {
        let unknown = Thing { kubernetes: true, pod: None, ..thing };
        if unknown.subject().is_in_pod() && kills(&policy, &unknown, &ledger) {
            let by = planned(&policy, &unknown, &ledger).applies.rule;
            let tells = |rule: &Rule| {
                let Selectors { namespaces, labels, containers, runners, .. } = &rule.selectors;
                rule.name == by && namespaces.is_empty() && labels.is_empty() && containers.is_empty() && !runners
            };
            prop_assert!(policy.rules.iter().any(tells), "by {}", by);
        }
    }

    #[test]
    fn with_kubernetes_no_rule_means_runners_alone(policy in policy(), thing in thing(), ledger in ledger()) {
        let (policy, thing) = (Policy { rules: Vec::new(), ..policy }, Thing { kubernetes: true, ..thing });
        let is_runner = thing.pod.as_ref().is_some_and(|pod| RunnerRef::of(pod).is_some());
        prop_assert!(is_runner || !kills(&policy, &thing, &ledger));
    }

    #[test]
    fn the_same_facts_give_the_same_plan(policy in policy(), thing in thing(), ledger in ledger()) {
        let first = planned(&policy, &thing, &ledger);
        prop_assert_eq!(&first, &planned(&policy.clone(), &thing.clone(), &ledger.clone()));
        prop_assert!(!first.applies.why().is_empty());
        prop_assert!(first.applies.mode <= policy.ceiling);
    }
}
