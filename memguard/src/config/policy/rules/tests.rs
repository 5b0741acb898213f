use proptest::prelude::*;

use super::*;
use crate::respond::Selectors;

fn parse(text: &str) -> Result<Policy, Vec<String>> {
    crate::config::configuration(&text.parse().unwrap()).map(|configuration| configuration.policy)
}

const EACH: &str = r#"
    [policy]
    kills = 3
    [[policy.rules]]
    name = "big"
    namespaces = ["ci-*", "arc"]
    labels = { "actions.github.com/scale-set-name" = "big-*", team = "a\"b" }
    containers = ["runner"]
    cgroups = ["kubepods.slice/**"]
    runners = true
    mode = "enforce"
    action = "oom-then-kill"
    cancel_after_oom = true
    force_cancel = false
    [[policy.rules]]
    name = "rest"
    cgroups = ["**"]
    mode = "off"
"#;

#[test]
fn what_is_said_is_read_in_its_order_and_what_is_written_is_read_back() {
    let policy = parse(EACH).unwrap();
    let [big, rest] = &policy.rules[..] else { panic!("{policy:?}") };
    assert_eq!((big.name.as_str(), big.mode, big.method), ("big", Some(Mode::Enforce), Some(Method::OomThenKill)));
    assert_eq!((big.cancel_after_oom, big.force_cancel), (Some(true), Some(false)));
    assert_eq!((big.selectors.namespaces.len(), big.selectors.labels.len()), (2, 2));
    assert!(big.selectors.runners && !rest.selectors.runners);
    assert_eq!((rest.mode, rest.method, rest.force_cancel), (Some(Mode::Off), None, None));
    assert_eq!(parse(&super::super::written(&policy)).unwrap(), policy);
}

#[test]
fn the_example_that_is_shown_can_be_used() {
    let shown = super::super::written(&Policy::default());
    let example = EXAMPLE.lines().map(|line| line.trim_start_matches("# ").trim_start_matches('#'));
    let used = parse(&example.collect::<Vec<_>>().join("\n")).unwrap();
    assert!(shown.contains(EXAMPLE) && used.rules.len() == 1 && used.can_enforce());
}

#[test]
fn the_examples_of_the_docs_can_be_used() {
    for (file, count) in [("docs/policy.md", 2), ("README.md", 1)] {
        let text = std::fs::read_to_string(format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let examples = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let policies: Vec<_> = examples.map(|example| parse(example).unwrap()).collect();
        assert!(policies.len() == count && policies.iter().all(Policy::can_enforce), "{file}: {policies:#?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_value_and_remedy() {
    let problems = parse(&format!(
        r#"
        [[policy.rules]]
        [[policy.rules]]
        name = "a b"
        runners = false
        mode = "kill"
        [[policy.rules]]
        name = "x"
        namespaces = "ci"
        labels = {{ a = "[", b = 1, "" = "x" }}
        containers = []
        cgroups = ["/x", "a[b"]
        action = "term"
        cancel_after_oom = 1
        force_cancel = "yes"
        images = ["x"]
        [[policy.rules]]
        name = "x"
        containers = ["{}"]
        mode = "off"
        [[policy.rules]]
        name = "default"
        labels = []
        namespaces = [1]
        mode = "off"
        "#,
        "x".repeat(600)
    ))
    .unwrap_err();
    for (name, remedy) in [
        ("policy.rules[0] has no name", "name = "),
        ("policy.rules[0] selects nothing", "is everything"),
        ("policy.rules[0] sets nothing", "cancel_after_oom"),
        ("policy.rules[1].name = \"a b\"", "dashes"),
        ("policy.rules[1].runners = false", "leave it out"),
        ("policy.rules[1].mode = \"kill\"", "enforce"),
        ("policy.rules.x.namespaces = \"ci\"", "a list"),
        ("policy.rules.x.labels.\"a\" = \"[\"", "no pattern"),
        ("policy.rules.x.labels.\"b\" = 1", "as a text"),
        ("policy.rules.x.labels: a label", "not 0"),
        ("policy.rules.x.containers has 0", "leave it out"),
        ("policy.rules.x.cgroups = \"/x\"", "without a slash"),
        ("policy.rules.x.cgroups = \"a[b\"", "no pattern"),
        ("policy.rules.x.action = \"term\"", "oom-then-kill"),
        ("policy.rules.x.cancel_after_oom = 1", "true or false"),
        ("policy.rules.x.force_cancel = \"yes\"", "true or false"),
        ("policy.rules.x.images", "namespaces, labels"),
        ("policy.rules[3].name = \"x\"", "its own"),
        ("policy.rules.x.containers has a pattern", "shorter"),
        ("policy.rules[4].name = \"default\"", "write another"),
        ("policy.rules[4].labels = []", "1 to 64 labels"),
        ("policy.rules[4].namespaces = 1", "as a text"),
    ] {
        assert!(problems.iter().any(|p| p.starts_with(name) && p.contains(remedy)), "{name}: {problems:#?}");
    }
    assert_eq!(problems.len(), 22, "{problems:#?}");
    let many = "[[policy.rules]]\n".repeat(65);
    assert!(parse(&many).unwrap_err()[0].contains("64 at most"));
    assert!(parse("[policy]\nrules = [1]").unwrap_err()[0].contains("[[policy.rules]]"));
}

fn some_patterns() -> impl Strategy<Value = Vec<Pattern>> {
    prop::collection::vec("[^/\\[*][^\\[*]{0,20}".prop_filter_map("a pattern", |text| Pattern::new(&text).ok()), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rule_is_read_back_as_it_was(
        name in "[a-z0-9._-]{1,63}",
        namespaces in some_patterns(),
        containers in some_patterns(),
        cgroups in some_patterns(),
        labels in prop::collection::btree_map(".{1,20}", some_patterns().prop_filter_map("one", |all| all.into_iter().next()), 0..3),
        mode in prop::option::of(prop::sample::select(vec![Mode::Off, Mode::Observe, Mode::Enforce])),
        truths in any::<(bool, Option<bool>)>(),
    ) {
        prop_assume!(name != Policy::DEFAULT);
        let selectors = Selectors { namespaces, labels, containers, cgroups, runners: true };
        let (cancel_after_oom, force_cancel) = (Some(truths.0), truths.1);
        let rule = Rule { name, selectors, mode, method: None, cancel_after_oom, force_cancel };
        let policy = Policy { rules: vec![rule], ..Policy::default() };
        prop_assert_eq!(parse(&super::super::written(&policy)), Ok(policy));
    }
}
