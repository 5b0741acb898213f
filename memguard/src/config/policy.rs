//! `[policy]`: what may be ended, and how much of it.

mod rules;

use std::time::Duration;

use clap::ValueEnum as _;
use glob::Pattern;
use toml::{Table, Value};

use super::{Problems, comment, number};
use crate::respond::{Method, Mode, Policy};

/// Names of the settings, their ranges where they are numbers, and what they are for.
const MODE: (&str, &str) = (
    "mode",
    "\"off\" does not even tell of livelocks, \"observe\" writes verdicts and does nothing, \"enforce\" ends livelocks. With \
     Kubernetes, \"enforce\" here is for ARC's runner pods alone, and the rest is observed; rules can say something else.",
);
const ACTION: (&str, &str) = (
    "action",
    "\"kill\" ends the container by cgroup.kill; \"oom\" lowers its memory.max for a moment, so that the kernel's own OOM \
     killer acts, which with memory.oom.group 0 ends the hungry process alone; \"oom-then-kill\" kills if nobody died of \
     that.",
);
const ONLY: (&str, &str) = (
    "only",
    "Kill only cgroups whose path below the root matches one of these patterns (*, **, ?); with none, any that hangs.",
);
const PROTECT: (&str, &str) = (
    "protect",
    "Never kill these, whatever else is said. Added to the services that a node needs, which always are; slices, pods, \
     the root and memguard itself are never killed anyway.",
);
const KILLS: (&str, u32, u32, &str) = (
    "kills",
    0,
    10_000,
    "As many kills at most, on this node, within kills_per_s. The next ones are told, and not done.",
);
const KILLS_PER_NAMESPACE: (&str, u32, u32, &str) = (
    "kills_per_namespace",
    0,
    10_000,
    "As many at most in one namespace, within the same time: so that one team's jobs can't use up what is there for all.",
);
const POD_DELAY_S: (&str, u32, u32, &str) = (
    "pod_delay_s",
    0,
    3600,
    "After an action on one container nothing else of its pod is acted on for this long: with that one gone the others may \
     recover.",
);
const KILLS_PER_S: (&str, u32, u32, &str) = ("kills_per_s", 1, 86_400, "In any such span of time.");
const SICK_LEAST: (&str, u32, u32, &str) =
    ("sick_least", 2, 10_000, "Fewer cgroups than this that look hung at once are never taken for a sick machine.");
const SICK_SHARE: (&str, &str) = (
    "sick_share",
    "If more than this share of the cgroups under reclaim look hung at once, it is the machine (a disk that went away), \
     and no job's fault: then nothing is killed. 1 turns that off.",
);

/// Names of all that `[policy]` may have.
const NAMES: &[&str] = &[
    MODE.0,
    ACTION.0,
    ONLY.0,
    PROTECT.0,
    KILLS.0,
    KILLS_PER_NAMESPACE.0,
    KILLS_PER_S.0,
    POD_DELAY_S.0,
    SICK_LEAST.0,
    SICK_SHARE.0,
    rules::NAME,
];

pub(super) fn read(table: &Table, problems: &mut Problems) -> Policy {
    let mut policy = Policy::default();
    for (key, value) in table {
        let name = format!("policy.{key}");
        match key.as_str() {
            "mode" => policy.mode = mode(&name, value, problems).unwrap_or_default(),
            "action" => policy.method = action(&name, value, problems).unwrap_or_default(),
            rules::NAME => policy.rules = rules::read(&name, value, problems),
            "only" => policy.only = patterns(&name, value, problems),
            "protect" => policy.protect.extend(patterns(&name, value, problems)),
            "kills" => whole(&name, value, KILLS, problems, &mut policy.budget.kills),
            "kills_per_namespace" => {
                whole(&name, value, KILLS_PER_NAMESPACE, problems, &mut policy.budget.kills_per_namespace);
            }
            "kills_per_s" => policy.budget.per = seconds(&name, value, KILLS_PER_S, problems),
            "pod_delay_s" => policy.pod_delay = seconds(&name, value, POD_DELAY_S, problems),
            "sick_least" => whole(&name, value, SICK_LEAST, problems, &mut policy.sick.least),
            "sick_share" => match number(value).filter(|share| (0.1..=1.0).contains(share)) {
                Some(share) => policy.sick.share = share,
                None => problems.add(&name, value, "write a number from 0.1 to 1"),
            },
            _ => problems.unknown(&name, NAMES),
        }
    }
    policy
}

fn mode(name: &str, value: &Value, problems: &mut Problems) -> Option<Mode> {
    one_of(name, value, r#"write "off", "observe" or "enforce""#, problems)
}

fn action(name: &str, value: &Value, problems: &mut Problems) -> Option<Method> {
    one_of(name, value, r#"write "kill", "oom" or "oom-then-kill""#, problems)
}

fn one_of<T: clap::ValueEnum>(name: &str, value: &Value, remedy: &str, problems: &mut Problems) -> Option<T> {
    let read = value.as_str().and_then(|text| T::from_str(text, false).ok());
    if read.is_none() {
        problems.add(name, value, remedy);
    }
    read
}

fn seconds(name: &str, value: &Value, setting: (&str, u32, u32, &str), problems: &mut Problems) -> Duration {
    let mut seconds = 0;
    whole(name, value, setting, problems, &mut seconds);
    Duration::from_secs(seconds.into())
}

pub(super) fn whole(
    name: &str,
    value: &Value,
    setting: (&str, u32, u32, &str),
    problems: &mut Problems,
    into: &mut u32,
) {
    let (_, least, most, _) = setting;
    match value.as_integer().and_then(|count| u32::try_from(count).ok()).filter(|n| (least..=most).contains(n)) {
        Some(count) => *into = count,
        None => problems.add(name, value, &format!("write a whole number from {least} to {most}")),
    }
}

fn patterns(name: &str, value: &Value, problems: &mut Problems) -> Vec<Pattern> {
    let Some(list) = value.as_array() else {
        problems.add(name, value, r#"write a list of patterns, as ["kubepods.slice/**"]"#);
        return Vec::new();
    };
    let mut patterns = Vec::new();
    for item in list {
        match item.as_str().map(Pattern::new) {
            // Paths are matched from below the root, so this could never match anything, and would protect nothing.
            Some(Ok(_)) if item.as_str().is_some_and(|text| text.is_empty() || text.starts_with('/')) => {
                problems.add(name, item, "patterns are on the path below the root and begin without a slash");
            }
            Some(Ok(pattern)) => patterns.push(pattern),
            Some(Err(error)) => problems.add(name, item, &format!("is no pattern: {error}")),
            None => problems.add(name, item, "write each pattern as a text"),
        }
    }
    patterns
}

/// The settings as a part of a configuration file.
pub(super) fn written(policy: &Policy) -> String {
    let always = Policy::PROTECTED.len();
    let added = policy.protect.get(always..).unwrap_or_default();
    let mut lines = vec!["[policy]".to_owned()];
    let mut say = |name: &str, value: String, why: &str| {
        lines.extend(comment(why));
        lines.push(format!("{name} = {value}"));
    };
    say(MODE.0, format!("\"{}\"", policy.mode), MODE.1);
    say(ACTION.0, format!("\"{}\"", action_name(policy.method)), ACTION.1);
    say(ONLY.0, list(&policy.only).to_string(), ONLY.1);
    say(PROTECT.0, list(added).to_string(), PROTECT.1);
    say(KILLS.0, policy.budget.kills.to_string(), KILLS.3);
    say(KILLS_PER_NAMESPACE.0, policy.budget.kills_per_namespace.to_string(), KILLS_PER_NAMESPACE.3);
    say(KILLS_PER_S.0, policy.budget.per.as_secs().to_string(), KILLS_PER_S.3);
    say(POD_DELAY_S.0, policy.pod_delay.as_secs().to_string(), POD_DELAY_S.3);
    say(SICK_LEAST.0, policy.sick.least.to_string(), SICK_LEAST.3);
    say(SICK_SHARE.0, policy.sick.share.to_string(), SICK_SHARE.1);
    lines.join("\n") + "\n\n" + &rules::written(&policy.rules)
}

fn list(patterns: &[Pattern]) -> Value {
    Value::Array(patterns.iter().map(|pattern| Value::String(pattern.as_str().to_owned())).collect())
}

fn action_name(method: Method) -> String {
    method.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
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
