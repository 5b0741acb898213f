use super::{fixture::*, *};

fn enforcing(rules: Vec<Rule>) -> Policy {
    Policy { mode: Mode::Enforce, rules, ..Policy::default() }
}

fn rule(name: &str, mode: Mode, selectors: Selectors) -> Rule {
    Rule { name: name.to_owned(), mode: Some(mode), selectors, ..Rule::default() }
}

fn namespace(pattern: &str) -> Selectors {
    Selectors { namespaces: patterns(&[pattern]), ..Selectors::default() }
}

fn cgroups(pattern: &str) -> Selectors {
    Selectors { cgroups: patterns(&[pattern]), ..Selectors::default() }
}

fn mode(policy: &Policy, thing: &Thing) -> (Mode, String) {
    let applies = policy.applies(&thing.subject());
    (applies.mode, applies.rule)
}

fn default(mode: Mode) -> (Mode, String) {
    (mode, Policy::DEFAULT.to_owned())
}

#[test]
fn nothing_is_enforced_until_told() {
    for thing in [runner(), pod("ci", &[]), service(), unknown_pod()] {
        assert_eq!(mode(&Policy::default(), &thing), default(Mode::Observe));
    }
    assert!(!Policy::default().can_enforce());
}

#[test]
fn with_kubernetes_enforce_is_for_runners_alone() {
    let policy = enforcing(Vec::new());
    assert_eq!(mode(&policy, &runner()), default(Mode::Enforce));
    for (other, because) in [
        (pod("ci", &[]), Because::NoRunner),
        (service(), Because::NoRunner),
        (unknown_pod(), Because::PodUnknown),
        (Thing { place: None, ..unknown_pod() }, Because::PodUnknown),
    ] {
        let applies = policy.applies(&other.subject());
        assert_eq!((applies.mode, applies.because), (Mode::Observe, because));
        assert_eq!(applies.may_act_later(), because == Because::PodUnknown);
    }
}

#[test]
fn without_kubernetes_enforce_is_for_everything() {
    let policy = enforcing(Vec::new());
    for thing in [service(), unknown_pod()] {
        assert_eq!(mode(&policy, &Thing { kubernetes: false, ..thing }), default(Mode::Enforce));
    }
}

#[test]
fn the_first_rule_that_matches_counts() {
    let big = Selectors { labels: labels(&[("actions.github.com/scale-set-name", "big")]), ..Selectors::default() };
    let mut first = rule("big", Mode::Enforce, big);
    (first.method, first.cancel_after_oom, first.force_cancel) = (Some(Method::Oom), Some(true), Some(false));
    let policy = Policy { rules: vec![first, rule("ci", Mode::Off, namespace("ci"))], ..Policy::default() };
    let applies = policy.applies(&runner().subject());
    assert_eq!((applies.mode, applies.method, applies.rule.as_str()), (Mode::Enforce, Method::Oom, "big"));
    assert_eq!((applies.cancel_after_oom, applies.force_cancel), (true, Some(false)));
    assert_eq!(mode(&policy, &pod("ci", &[])), (Mode::Off, "ci".to_owned()));
    assert_eq!(mode(&policy, &pod("web", &[])), default(Mode::Observe));
    assert!(policy.can_enforce());
}

#[test]
fn what_a_rule_leaves_open_is_as_the_policy_says() {
    let how = Rule { mode: None, method: Some(Method::Oom), ..rule("how", Mode::Off, namespace("*")) };
    let policy = enforcing(vec![how]);
    let of = |thing: &Thing| {
        let applies = policy.applies(&thing.subject());
        (applies.mode, applies.method, applies.cancel_after_oom, applies.force_cancel)
    };
    assert_eq!(of(&runner()), (Mode::Enforce, Method::Oom, false, None));
    assert_eq!(of(&pod("ci", &[])), (Mode::Observe, Method::Oom, false, None), "no runner");
}

#[test]
fn an_annotation_only_makes_it_milder() {
    let policy = enforcing(Vec::new());
    for (said, becomes) in [("off", Mode::Off), ("observe", Mode::Observe), ("enforce", Mode::Enforce)] {
        assert_eq!(mode(&policy, &annotated(runner(), said)).0, becomes, "{said}");
        assert_eq!(mode(&Policy::default(), &annotated(runner(), said)).0, becomes.min(Mode::Observe), "{said}");
    }
    for odd in ["", "Off", "kill"] {
        let applies = policy.applies(&annotated(runner(), odd).subject());
        let because = Because::Annotation { understood: false };
        assert_eq!((applies.mode, applies.because), (Mode::Observe, because), "{odd}");
        assert!(applies.why().contains("memguard.dev/mode"), "{}", applies.why());
    }
}

#[test]
fn nothing_goes_beyond_the_ceiling() {
    let rules = vec![rule("all", Mode::Enforce, cgroups("**")), rule("x", Mode::Off, namespace("x"))];
    let policy = Policy { ceiling: Mode::Observe, ..enforcing(rules) };
    let applies = policy.applies(&runner().subject());
    assert_eq!((applies.mode, applies.because), (Mode::Observe, Because::Ceiling));
    assert!(applies.why().contains("--mode observe") && !policy.can_enforce());
}

#[test]
fn an_unknown_pod_is_enforced_by_its_cgroup_alone() {
    let by_cgroup = rule("tree", Mode::Enforce, cgroups("kubepods.slice/**"));
    let by_namespace = |mode| rule("ns", mode, namespace("prod"));
    let of = |rules: Vec<Rule>| {
        let applies = Policy { rules, ..Policy::default() }.applies(&unknown_pod().subject());
        (applies.mode, applies.because, applies.rule)
    };
    assert_eq!(of(vec![by_cgroup.clone()]), (Mode::Enforce, Because::Rule, "tree".to_owned()));
    let unknown = (Mode::Observe, Because::PodUnknown, "ns".to_owned());
    assert_eq!(of(vec![by_namespace(Mode::Enforce)]), unknown, "it may be, or not");
    assert_eq!(of(vec![by_namespace(Mode::Off), by_cgroup.clone()]), unknown, "it may have to be spared");
    assert_eq!(of(vec![by_namespace(Mode::Enforce), by_cgroup.clone()]).0, Mode::Enforce, "either way");
    assert_eq!(of(vec![by_cgroup, by_namespace(Mode::Off)]).0, Mode::Enforce, "that one does not count any more");
    assert_eq!(of(vec![by_namespace(Mode::Off)]), (Mode::Observe, Because::Default, "default".to_owned()));
}

#[test]
fn without_an_api_rules_for_pods_cannot_be_told_and_enforce_nothing() {
    let host = Thing { kubernetes: false, ..unknown_pod() };
    let policy = enforcing(vec![rule("ns", Mode::Enforce, namespace("*")), rule("off", Mode::Off, namespace("x"))]);
    assert_eq!(policy.applies(&host.subject()).because, Because::PodUnknown);
    let service = Thing { kubernetes: false, ..service() };
    assert_eq!(mode(&policy, &service), default(Mode::Enforce), "no pod's");
}

#[test]
fn every_reason_has_a_sentence() {
    for because in [
        Because::Default,
        Because::Rule,
        Because::NoRunner,
        Because::PodUnknown,
        Because::Annotation { understood: true },
        Because::Annotation { understood: false },
        Because::Ceiling,
    ] {
        let applies = Applies { because, ..Policy::default().applies(&runner().subject()) };
        assert!(applies.why().len() > 10);
    }
}
