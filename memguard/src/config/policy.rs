//! `[policy]`: what may be ended, and how much of it.

use std::time::Duration;

use clap::ValueEnum as _;
use glob::Pattern;
use toml::{Table, Value};

use super::{Problems, comment, number};
use crate::respond::{Mode, Policy};

/// What the file says about acting; flags can say more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySettings {
    pub mode: Mode,
    pub policy: Policy,
}

/// Names of the settings, their ranges where they are numbers, and what they are for.
const MODE: (&str, &str) = ("mode", "\"observe\" writes verdicts and does nothing, \"enforce\" ends livelocks.");
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
const KILLS_PER_S: (&str, u32, u32, &str) = ("kills_per_s", 1, 86_400, "In any such span of time.");
const SICK_LEAST: (&str, u32, u32, &str) =
    ("sick_least", 2, 10_000, "Fewer cgroups than this that look hung at once are never taken for a sick machine.");
const SICK_SHARE: (&str, &str) = (
    "sick_share",
    "If more than this share of the cgroups under reclaim look hung at once, it is the machine (a disk that went away), \
     and no job's fault: then nothing is killed. 1 turns that off.",
);

pub(super) fn read(table: &Table, problems: &mut Problems) -> PolicySettings {
    let mut settings = PolicySettings::default();
    let policy = &mut settings.policy;
    for (key, value) in table {
        let name = format!("policy.{key}");
        match key.as_str() {
            "mode" => match value.as_str().map(|mode| clap::ValueEnum::from_str(mode, false)) {
                Some(Ok(mode)) => settings.mode = mode,
                _ => problems.add(&name, value, r#"write "observe" or "enforce""#),
            },
            "action" => match value.as_str().map(|action| clap::ValueEnum::from_str(action, false)) {
                Some(Ok(method)) => policy.method = method,
                _ => problems.add(&name, value, r#"write "kill", "oom" or "oom-then-kill""#),
            },
            "only" => policy.only = patterns(&name, value, problems),
            "protect" => policy.protect.extend(patterns(&name, value, problems)),
            "kills" => whole(&name, value, KILLS, problems, &mut policy.budget.kills),
            "kills_per_s" => {
                let mut seconds = 0;
                whole(&name, value, KILLS_PER_S, problems, &mut seconds);
                policy.budget.per = Duration::from_secs(seconds.into());
            }
            "sick_least" => whole(&name, value, SICK_LEAST, problems, &mut policy.sick.least),
            "sick_share" => match number(value).filter(|share| (0.1..=1.0).contains(share)) {
                Some(share) => policy.sick.share = share,
                None => problems.add(&name, value, "write a number from 0.1 to 1"),
            },
            _ => problems.unknown(
                &name,
                &[MODE.0, ACTION.0, ONLY.0, PROTECT.0, KILLS.0, KILLS_PER_S.0, SICK_LEAST.0, SICK_SHARE.0],
            ),
        }
    }
    settings
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
pub(super) fn written(settings: &PolicySettings) -> String {
    let PolicySettings { mode, policy } = settings;
    let list = |patterns: &[Pattern]| {
        Value::Array(patterns.iter().map(|pattern| Value::String(pattern.as_str().to_owned())).collect())
    };
    let always = Policy::PROTECTED.len();
    let added = policy.protect.get(always..).unwrap_or_default();
    let mut lines = vec!["[policy]".to_owned()];
    let mut say = |name: &str, value: String, why: &str| {
        lines.extend(comment(why));
        lines.push(format!("{name} = {value}"));
    };
    say(MODE.0, format!("\"{mode}\""), MODE.1);
    let action = policy.method.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    say(ACTION.0, format!("\"{action}\""), ACTION.1);
    say(ONLY.0, list(&policy.only).to_string(), ONLY.1);
    say(PROTECT.0, list(added).to_string(), PROTECT.1);
    say(KILLS.0, policy.budget.kills.to_string(), KILLS.3);
    say(KILLS_PER_S.0, policy.budget.per.as_secs().to_string(), KILLS_PER_S.3);
    say(SICK_LEAST.0, policy.sick.least.to_string(), SICK_LEAST.3);
    say(SICK_SHARE.0, policy.sick.share.to_string(), SICK_SHARE.1);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::respond::Method;

    fn parse(text: &str) -> Result<PolicySettings, Vec<String>> {
        crate::config::configuration(&text.parse().unwrap()).map(|configuration| configuration.policy)
    }

    #[test]
    fn what_is_said_is_read_and_what_is_written_is_read_back() {
        let text = "[policy]\nmode = \"enforce\"\naction = \"oom-then-kill\"\nonly = [\"kubepods.slice/**\", 'a\"b']\nprotect = [\"**/db.service\"]\n\
                    kills = 3\nkills_per_s = 60\nsick_least = 9\nsick_share = 0.75";
        let settings = parse(text).unwrap();
        let policy = &settings.policy;
        assert_eq!((settings.mode, policy.method), (Mode::Enforce, Method::OomThenKill));
        assert_eq!((policy.only.len(), policy.protect.len()), (2, Policy::PROTECTED.len() + 1));
        assert_eq!((policy.budget.kills, policy.budget.per), (3, Duration::from_mins(1)));
        assert_eq!((policy.sick.least, policy.sick.share), (9, 0.75));
        assert_eq!(parse(&written(&settings)).unwrap(), settings);
        assert_eq!(parse("").unwrap(), PolicySettings::default());
    }

    #[test]
    fn mistakes_are_told_with_value_and_remedy() {
        let problems = parse(
            "policy = { mode = \"kill\", only = \"x\", protect = [\"a[b\", 3, \"/sys/x\"], kills = -1, kills_per_s = 0, \
             sick_least = 1, sick_share = 0, budget = 1, action = \"term\" }",
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
            ("policy.action = \"term\"", "oom-then-kill"),
        ] {
            assert!(problems.iter().any(|p| p.starts_with(name) && p.contains(remedy)), "{name}: {problems:#?}");
        }
        assert_eq!(problems.len(), 11, "{problems:#?}");
        assert!(parse("policy = 1").unwrap_err()[0].contains("[policy]"));
    }
}
