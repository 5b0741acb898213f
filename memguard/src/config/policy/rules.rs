//! `[[policy.rules]]`: what is different for some pods or cgroups.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use glob::Pattern;
use toml::{Table, Value};

use super::{
    Problems, comment, list, patterns,
    setting::{self, Kind, Other, Setting},
};
use crate::respond::{Method, Mode, Policy, Rule};

/// Every one is tried for every verdict.
const MOST_RULES: usize = 64;
/// Of one selector.
const MOST_PATTERNS: usize = 64;
const LONGEST_PATTERN: usize = 512;
/// As a label is in Kubernetes: it stands in log lines and metrics.
const LONGEST_NAME: usize = 63;
/// A DNS subdomain of 253 characters, a slash, and a name of 63.
const LONGEST_LABEL: usize = 317;

pub(super) const WHY: &str = "Rules: what is different for some. The first one that matches counts; all selectors that it has must match \
     (namespaces, labels, containers, cgroups, runners). What it does not set (mode, action, cancel_after_oom, \
     force_cancel) is as above.";
const EXAMPLE: &str = r#"#
# [[policy.rules]]
# name = "big-runners"
# labels = { "actions.github.com/scale-set-name" = "big-*" }
# containers = ["runner"]
# mode = "enforce"
# action = "oom-then-kill"
# cancel_after_oom = false
"#;

/// What a rule is called: read with the whole list, in which names have to be different.
pub(in crate::config) const NAMES: &[Setting<Rule>] = &[Setting {
    name: "name",
    kind: Kind::Other(Other {
        takes: || format!("1 to {LONGEST_NAME} letters, digits, dots, dashes and underscores"),
        read: |_, _, _, _| {},
        write: |rule| Some(rule.name.as_str().into()),
        unsaid: "has to be said",
        example: "",
    }),
    why: "What log lines, incidents and reports call it. Each rule has its own.",
}];

/// Whom it is for.
pub(in crate::config) const SELECTORS: &[Setting<Rule>] = &[
    Setting {
        name: "namespaces",
        kind: Kind::Other(Other {
            takes: || format!("a list of 1 to {MOST_PATTERNS} patterns"),
            read: |rule, name, value, problems| {
                rule.selectors.namespaces = some(name, value, problems, r#"["ci-*"]"#);
            },
            write: |rule| said(&rule.selectors.namespaces),
            unsaid: "any",
            example: "",
        }),
        why: "The pod's namespace matches one of these.",
    },
    Setting {
        name: "labels",
        kind: Kind::Other(Other {
            takes: || format!("a table of 1 to {MOST_PATTERNS} labels, each with a pattern"),
            read: |rule, name, value, problems| rule.selectors.labels = labels(name, value, problems),
            write: |rule| {
                let labels = rule.selectors.labels.iter();
                let table: Table = labels.map(|(label, pattern)| (label.clone(), pattern.as_str().into())).collect();
                (!table.is_empty()).then_some(Value::Table(table))
            },
            unsaid: "any",
            example: "",
        }),
        why: "The pod has each of these labels, with a value that matches.",
    },
    Setting {
        name: "containers",
        kind: Kind::Other(Other {
            takes: || format!("a list of 1 to {MOST_PATTERNS} patterns"),
            read: |rule, name, value, problems| {
                rule.selectors.containers = some(name, value, problems, r#"["runner"]"#);
            },
            write: |rule| said(&rule.selectors.containers),
            unsaid: "any",
            example: "",
        }),
        why: "The container's name matches one of these.",
    },
    Setting {
        name: "cgroups",
        kind: Kind::Other(Other {
            takes: || format!("a list of 1 to {MOST_PATTERNS} patterns on the path below the root"),
            read: |rule, name, value, problems| rule.selectors.cgroups = bounded(name, value, problems, patterns),
            write: |rule| said(&rule.selectors.cgroups),
            unsaid: "any",
            example: "",
        }),
        why: "The cgroup's path matches one of these; [\"**\"] is everything. Needs no Kubernetes.",
    },
    Setting {
        name: "runners",
        kind: Kind::Other(Other {
            takes: || "`true`".to_owned(),
            read: |rule, name, value, problems| match value.as_bool() {
                Some(true) => rule.selectors.runners = true,
                _ => problems.add(name, value, "write true, or leave it out"),
            },
            write: |rule| rule.selectors.runners.then_some(Value::Boolean(true)),
            unsaid: "any pod",
            example: "",
        }),
        why: "Only pods of ARC's runners, and those that runners make for their jobs.",
    },
];

/// What is different for them.
pub(in crate::config) const SETTINGS: &[Setting<Rule>] = &[
    Setting {
        name: "mode",
        kind: Kind::Other(Other {
            takes: setting::choices::<Mode>,
            read: |rule, name, value, problems| rule.mode = setting::one_of(name, value, problems),
            write: |rule| rule.mode.as_ref().map(setting::name_of),
            unsaid: AS_ABOVE,
            example: "",
        }),
        why: "As in [policy], and with Kubernetes too for whatever the rule selects.",
    },
    Setting {
        name: "action",
        kind: Kind::Other(Other {
            takes: setting::choices::<Method>,
            read: |rule, name, value, problems| rule.method = setting::one_of(name, value, problems),
            write: |rule| rule.method.as_ref().map(setting::name_of),
            unsaid: AS_ABOVE,
            example: "",
        }),
        why: "As in [policy].",
    },
    Setting {
        name: "cancel_after_oom",
        kind: Kind::Other(Other {
            takes: || SWITCH.to_owned(),
            read: |rule, name, value, problems| rule.cancel_after_oom = truth(name, value, problems),
            write: |rule| rule.cancel_after_oom.map(Value::Boolean),
            unsaid: "`false`",
            example: "",
        }),
        why: "Cancel the GitHub run also where the runner lives: the OOM killer ended a process, or what was ended is another container \
              (dind, a job's own pod) or only a part of one.",
    },
    Setting {
        name: "force_cancel",
        kind: Kind::Other(Other {
            takes: || SWITCH.to_owned(),
            read: |rule, name, value, problems| rule.force_cancel = truth(name, value, problems),
            write: |rule| rule.force_cancel.map(Value::Boolean),
            unsaid: "as in `[github]`",
            example: "",
        }),
        why: "Whether a cancellation that does not come through may be forced.",
    },
];

const AS_ABOVE: &str = "as in `[policy]`";
const SWITCH: &str = "`true` or `false`";

/// Patterns, if there are any.
fn said(patterns: &[Pattern]) -> Option<Value> {
    (!patterns.is_empty()).then(|| list(patterns))
}

pub(super) fn read(name: &str, value: &Value, problems: &mut Problems) -> Vec<Rule> {
    let Some(tables) = value.as_array().filter(|rules| rules.iter().all(Value::is_table)) else {
        problems.add(name, value, "write each rule as a table, [[policy.rules]]");
        return Vec::new();
    };
    if tables.len() > MOST_RULES {
        problems.0.push(format!("{name}: there are {} rules: write {MOST_RULES} at most", tables.len()));
        return Vec::new();
    }
    let mut names = HashSet::new();
    let tables = tables.iter().filter_map(Value::as_table).enumerate();
    tables.map(|(index, table)| rule(&format!("{name}[{index}]"), table, &mut names, problems)).collect()
}

fn rule<'t>(place: &str, table: &'t Table, names: &mut HashSet<&'t str>, problems: &mut Problems) -> Rule {
    let mut rule = Rule::default();
    let (mut selects, mut sets) = (false, false);
    match table.get("name") {
        Some(Value::String(name)) if is_name(name) && name != Policy::DEFAULT => {
            rule.name.clone_from(name);
            if !names.insert(name) {
                problems.0.push(format!("{place}.name = {name:?}: another rule has this name; give each its own"));
            }
        }
        Some(Value::String(name)) if name == Policy::DEFAULT => {
            problems.0.push(format!(
                "{place}.name = {name:?}: that is what the policy without rules is called; write another"
            ));
        }
        Some(other) => problems.add(
            &format!("{place}.name"),
            other,
            &format!("write 1 to {LONGEST_NAME} letters, digits, dots, dashes and underscores"),
        ),
        None => problems.0.push(format!("{place} has no name: write name = \"...\"; log lines call it that")),
    }
    // People know a rule by its name, and a nameless one by its place.
    let called = if rule.name.is_empty() { place.to_owned() } else { format!("policy.rules.{}", rule.name) };
    for (key, value) in table {
        let name = format!("{called}.{key}");
        let among = |settings: &'static [Setting<Rule>]| settings.iter().find(|setting| setting.name == key);
        let (selector, setting) = (among(SELECTORS), among(SETTINGS));
        selects |= selector.is_some();
        sets |= setting.is_some();
        match selector.or(setting).or(among(NAMES)) {
            Some(setting) => setting.read(&mut rule, &name, value, problems),
            None => problems.unknown(&name, &[NAMES, SELECTORS, SETTINGS].map(setting::names).concat()),
        }
    }
    if !selects {
        let all = setting::names(SELECTORS).join(", ");
        problems.0.push(format!("{called} selects nothing: write one of {all} (cgroups = [\"**\"] is everything)"));
    }
    if !sets {
        problems.0.push(format!("{called} sets nothing: write one of {}", setting::names(SETTINGS).join(", ")));
    }
    rule
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed)
}

fn truth(name: &str, value: &Value, problems: &mut Problems) -> Option<bool> {
    let read = value.as_bool();
    if read.is_none() {
        problems.add(name, value, "write true or false");
    }
    read
}

/// A list of patterns on names.
fn some(name: &str, value: &Value, problems: &mut Problems, example: &str) -> Vec<Pattern> {
    bounded(name, value, problems, |name, value, problems| {
        let Some(list) = value.as_array() else {
            problems.add(name, value, &format!("write a list of patterns, as {example}"));
            return Vec::new();
        };
        list.iter().filter_map(|item| pattern(name, item, problems)).collect()
    })
}

/// A list that is not empty, and not too long, of patterns that are not too long.
fn bounded(
    name: &str,
    value: &Value,
    problems: &mut Problems,
    read: impl FnOnce(&str, &Value, &mut Problems) -> Vec<Pattern>,
) -> Vec<Pattern> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let too_long = |item: &Value| item.as_str().is_some_and(|text| text.len() > LONGEST_PATTERN);
    if value.is_array() && !(1..=MOST_PATTERNS).contains(&list.len()) {
        problems.0.push(format!("{name} has {} patterns: write 1 to {MOST_PATTERNS}, or leave it out", list.len()));
        return Vec::new();
    }
    if list.iter().any(too_long) {
        problems.0.push(format!("{name} has a pattern of more than {LONGEST_PATTERN} bytes: write a shorter one"));
        return Vec::new();
    }
    read(name, value, problems)
}

fn pattern(name: &str, value: &Value, problems: &mut Problems) -> Option<Pattern> {
    match value.as_str().map(Pattern::new) {
        Some(Ok(_)) if value.as_str().is_some_and(|text| text.len() > LONGEST_PATTERN) => {
            problems.0.push(format!("{name} is a pattern of more than {LONGEST_PATTERN} bytes: write a shorter one"));
        }
        Some(Ok(pattern)) => return Some(pattern),
        Some(Err(error)) => problems.add(name, value, &format!("is no pattern: {error}")),
        None => problems.add(name, value, "write each pattern as a text"),
    }
    None
}

fn labels(name: &str, value: &Value, problems: &mut Problems) -> BTreeMap<String, Pattern> {
    let Some(table) = value.as_table().filter(|table| (1..=MOST_PATTERNS).contains(&table.len())) else {
        let remedy =
            format!("write 1 to {MOST_PATTERNS} labels with patterns, as {{ \"app.kubernetes.io/name\" = \"ci-*\" }}");
        problems.add(name, value, &remedy);
        return BTreeMap::new();
    };
    let mut labels = BTreeMap::new();
    for (label, value) in table {
        if label.is_empty() || label.len() > LONGEST_LABEL {
            problems.0.push(format!("{name}: a label has 1 to {LONGEST_LABEL} characters, not {}", label.len()));
        } else if let Some(pattern) = pattern(&format!("{name}.{label:?}"), value, problems) {
            labels.insert(label.clone(), pattern);
        }
    }
    labels
}

/// The rules as a part of a configuration file; without any, an example of one as a comment.
pub(super) fn written(rules: &[Rule]) -> String {
    let mut text = comment(WHY).join("\n") + "\n";
    if rules.is_empty() {
        text.push_str(EXAMPLE);
    }
    for rule in rules {
        text.push_str("\n[[policy.rules]]\n");
        for setting in [NAMES, SELECTORS, SETTINGS].into_iter().flatten() {
            text.extend(setting.value(rule).map(|value| format!("{} = {value}\n", setting.name)));
        }
    }
    text
}
