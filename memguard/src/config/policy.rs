//! `[policy]`: what may be ended, and how much of it.

pub(super) mod rules;

use glob::Pattern;
use toml::{Table, Value};

use super::{
    Problems, comment,
    setting::{self, Kind, Other, Setting},
};
use crate::respond::{Method, Mode, Policy};

pub(super) const SETTINGS: &[Setting<Policy>] = &[
    Setting {
        name: "mode",
        kind: Kind::Other(Other {
            takes: setting::choices::<Mode>,
            read: |policy, name, value, problems| {
                policy.mode = setting::one_of(name, value, problems).unwrap_or_default();
            },
            write: |policy| Some(setting::name_of(&policy.mode)),
            unsaid: "",
            example: "",
        }),
        why: "\"off\" does not even tell of livelocks, \"observe\" writes verdicts and does nothing, \"enforce\" ends \
              livelocks. With Kubernetes, \"enforce\" here is for ARC's runner pods alone, and the rest is observed; rules \
              can say something else.",
    },
    Setting {
        name: "action",
        kind: Kind::Other(Other {
            takes: setting::choices::<Method>,
            read: |policy, name, value, problems| {
                policy.method = setting::one_of(name, value, problems).unwrap_or_default();
            },
            write: |policy| Some(setting::name_of(&policy.method)),
            unsaid: "",
            example: "",
        }),
        why: "\"kill\" ends the container by cgroup.kill; \"oom\" lowers its memory.max for a moment, so that the kernel's \
              own OOM killer acts, which with memory.oom.group 0 ends the hungry process alone; \"oom-then-kill\" kills if \
              nobody died of that.",
    },
    Setting {
        name: "only",
        kind: Kind::Other(Other {
            takes: || "a list of patterns on the path below the root".to_owned(),
            read: |policy, name, value, problems| policy.only = patterns(name, value, problems),
            write: |policy| Some(list(&policy.only)),
            unsaid: "",
            example: "",
        }),
        why: "Kill only cgroups whose path below the root matches one of these patterns (*, **, ?); with none, any that \
              hangs.",
    },
    Setting {
        name: "protect",
        kind: Kind::Other(Other {
            takes: || "a list of patterns on the path below the root".to_owned(),
            read: |policy, name, value, problems| policy.protect.extend(patterns(name, value, problems)),
            // Those that always are protected stand in front, and in no file.
            write: |policy| Some(list(policy.protect.get(Policy::PROTECTED.len()..).unwrap_or_default())),
            unsaid: "",
            example: "",
        }),
        why: "Never kill these, whatever else is said. Added to the services that a node needs, which always are; slices, \
              pods, the root and memguard itself are never killed anyway.",
    },
    Setting {
        name: "kills",
        kind: Kind::Whole { range: (0, 10_000), place: |policy| &mut policy.budget.kills },
        why: "As many kills at most, on this node, within kills_per_s. The next ones are told, and not done.",
    },
    Setting {
        name: "kills_per_namespace",
        kind: Kind::Whole { range: (0, 10_000), place: |policy| &mut policy.budget.kills_per_namespace },
        why: "As many at most in one namespace, within the same time: so that one team's jobs can't use up what is there \
              for all.",
    },
    Setting {
        name: "kills_per_s",
        kind: Kind::Seconds { range: (1, 86_400), place: |policy| &mut policy.budget.per },
        why: "In any such span of time.",
    },
    Setting {
        name: "pod_delay_s",
        kind: Kind::Seconds { range: (0, 3600), place: |policy| &mut policy.pod_delay },
        why: "After an action on one container nothing else of its pod is acted on for this long: with that one gone the \
              others may recover.",
    },
    Setting {
        name: "sick_least",
        kind: Kind::Whole { range: (2, 10_000), place: |policy| &mut policy.sick.least },
        why: "Fewer cgroups than this that look hung at once are never taken for a sick machine.",
    },
    Setting {
        name: "sick_share",
        kind: Kind::Number { range: (0.1, 1.0), place: |policy| &mut policy.sick.share },
        why: "If more than this share of the cgroups under reclaim look hung at once, it is the machine (a disk that went \
              away), and no job's fault: then nothing is killed. 1 turns that off.",
    },
    Setting {
        name: "rules",
        kind: Kind::Other(Other {
            takes: || "tables, `[[policy.rules]]`: see below".to_owned(),
            read: |policy, name, value, problems| policy.rules = rules::read(name, value, problems),
            // They are written after all else, each as a table of its own.
            write: |_| None,
            unsaid: "",
            example: "",
        }),
        why: rules::WHY,
    },
];

pub(super) fn read(table: &Table, problems: &mut Problems) -> Policy {
    let mut policy = Policy::default();
    setting::read("policy", SETTINGS, table, &mut policy, problems);
    policy
}

/// A pattern on the path of a cgroup below the root, from a file or a flag.
pub(crate) fn pattern(text: &str) -> Result<Pattern, String> {
    // Paths are matched from below the root, so this could never match anything, and would protect nothing.
    if text.is_empty() || text.starts_with('/') {
        return Err("patterns are on the path below the root and begin without a slash".to_owned());
    }
    Pattern::new(text).map_err(|error| format!("is no pattern: {error}"))
}

fn patterns(name: &str, value: &Value, problems: &mut Problems) -> Vec<Pattern> {
    let Some(list) = value.as_array() else {
        problems.add(name, value, r#"write a list of patterns, as ["kubepods.slice/**"]"#);
        return Vec::new();
    };
    let mut patterns = Vec::new();
    for item in list {
        match item.as_str().map(pattern) {
            Some(Ok(pattern)) => patterns.push(pattern),
            Some(Err(why)) => problems.add(name, item, &why),
            None => problems.add(name, item, "write each pattern as a text"),
        }
    }
    patterns
}

/// The settings as a part of a configuration file.
pub(super) fn written(policy: &Policy) -> String {
    format!("[policy]\n{}\n\n{}", setting::written(SETTINGS, policy).join("\n"), rules::written(&policy.rules))
}

fn list(patterns: &[Pattern]) -> Value {
    Value::Array(patterns.iter().map(|pattern| Value::String(pattern.as_str().to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(text: &str) -> Result<Policy, Vec<String>> {
        crate::config::configuration(&text.parse().unwrap()).map(|configuration| configuration.policy)
    }

    #[test]
    fn what_is_said_is_read_and_what_is_written_is_read_back() {
        let text = "[policy]\nmode = \"enforce\"\naction = \"oom-then-kill\"\nonly = [\"kubepods.slice/**\", 'a\"b']\nprotect = [\"**/db.service\"]\n\
                    kills = 3\nkills_per_namespace = 2\nkills_per_s = 60\npod_delay_s = 7\nsick_least = 9\nsick_share = 0.75";
        let policy = parse(text).unwrap();
        assert_eq!((policy.mode, policy.method), (Mode::Enforce, Method::OomThenKill));
        assert_eq!((policy.only.len(), policy.protect.len()), (2, Policy::PROTECTED.len() + 1));
        assert_eq!((policy.budget.kills, policy.budget.kills_per_namespace), (3, 2));
        assert_eq!((policy.budget.per, policy.pod_delay), (Duration::from_mins(1), Duration::from_secs(7)));
        assert_eq!((policy.sick.least, policy.sick.share), (9, 0.75));
        assert_eq!(parse(&written(&policy)).unwrap(), policy);
        assert_eq!(parse("").unwrap(), Policy::default());
    }

    #[test]
    fn mistakes_are_told_with_value_and_remedy() {
        let problems = parse(
            "policy = { mode = \"kill\", only = \"x\", protect = [\"a[b\", 3, \"/sys/x\"], kills = -1, kills_per_s = 0, \
             sick_least = 1, sick_share = 0, budget = 1, action = \"term\", kills_per_namespace = 1.5, pod_delay_s = 3601, rules = 1 }",
        )
        .unwrap_err();
        for (name, remedy) in [
            ("policy.mode = \"kill\"", "enforce"),
            ("policy.only = \"x\"", "a list"),
            ("policy.protect = \"a[b\"", "no pattern"),
            ("policy.protect = 3", "as a text"),
            ("policy.protect = \"/sys/x\"", "without a slash"),
            ("policy.kills = -1", "from 0 to"),
            ("policy.kills_per_s = 0", "from 1 to"),
            ("policy.sick_least = 1", "from 2 to"),
            ("policy.sick_share = 0", "from 0.1 to 1"),
            ("policy.budget", "kills_per_s"),
            ("policy.kills_per_namespace = 1.5", "from 0 to"),
            ("policy.pod_delay_s = 3601", "from 0 to 3600"),
            ("policy.rules = 1", "[[policy.rules]]"),
            ("policy.action = \"term\"", "oom-then-kill"),
        ] {
            assert!(problems.iter().any(|p| p.starts_with(name) && p.contains(remedy)), "{name}: {problems:#?}");
        }
        assert_eq!(problems.len(), 14, "{problems:#?}");
        assert!(parse("policy = 1").unwrap_err()[0].contains("[policy]"));
    }
}
