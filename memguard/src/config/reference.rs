//! The reference: every section and key of the configuration file, from the lists by which it is read.

use std::fmt::Write as _;

use serde::Serialize;

use super::{engine, github, kubernetes, policy, setting::Setting};
use crate::{
    engine::{KNOBS, Settings},
    respond::{Policy, Rule},
};

/// A section of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// As it stands in the file, with its brackets.
    pub name: &'static str,
    pub about: String,
    pub keys: Vec<Key>,
}

/// A key of a section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    pub name: &'static str,
    /// What may stand there: type, unit and range.
    pub takes: String,
    pub default: String,
    pub meaning: String,
}

fn keys<T: Clone>(settings: &[Setting<T>], defaults: &T) -> Vec<Key> {
    let key = |setting: &Setting<T>| Key {
        name: setting.name,
        takes: setting.takes(),
        default: setting.default(defaults),
        meaning: setting.why.to_owned(),
    };
    settings.iter().map(key).collect()
}

/// Everything that the file may have, in the order in which `memguard config show` writes it.
#[must_use]
pub fn reference() -> Vec<Section> {
    let engine = Settings::default();
    let thresholds = KNOBS.iter().map(|knob| {
        let (least, most) = knob.range;
        let form = if knob.graded { "`{ from = A, sure = B }` or a number for both" } else { "a number" };
        Key {
            name: knob.name,
            takes: format!("{form}, {least} to {most} ({})", knob.unit),
            default: format!("`{}`", engine::shown(knob.get(&engine.thresholds), knob.graded)),
            meaning: knob.why.to_owned(),
        }
    });
    let rule = Rule::default();
    let rules = [policy::rules::NAMES, policy::rules::SELECTORS, policy::rules::SETTINGS];
    vec![
        Section {
            name: "[engine]",
            about: "How long a hang is watched before it is called one.".to_owned(),
            keys: keys(engine::SETTINGS, &engine),
        },
        Section {
            name: "[engine.thresholds]",
            about: "What each term of the rule asks for: `from` is where it begins to hold, `sure` where it leaves no doubt. \
                    What lies between counts for less, so an unclear hang takes longer. The terms are explained in \
                    [detection.md](detection.md)."
                .to_owned(),
            keys: thresholds.collect(),
        },
        Section {
            name: "[policy]",
            about: "What may be ended, and how much of it: [policy.md](policy.md).".to_owned(),
            keys: keys(policy::SETTINGS, &Policy::default()),
        },
        Section {
            name: "[[policy.rules]]",
            about: "One table for each rule. A rule has a name, at least one selector (namespaces, labels, containers, \
                    cgroups, runners) and at least one setting (mode, action, cancel_after_oom, force_cancel)."
                .to_owned(),
            keys: rules.into_iter().flat_map(|settings| keys(settings, &rule)).collect(),
        },
        Section {
            name: "[kubernetes]",
            about: "What is done at the Kubernetes API after a kill. Whether there is one is a matter of flags \
                    (`--kubernetes`, `--kubeconfig`), which are read at the start alone."
                .to_owned(),
            keys: keys(kubernetes::SETTINGS, &kubernetes::KubernetesSettings::default()),
        },
        Section {
            name: "[github]",
            about: format!("{} [github.md](github.md) has the permissions.", github::OFF),
            keys: keys(github::SETTINGS, &github::unsaid()),
        },
    ]
}

const HEAD: &str = "\
# The configuration file

<!-- Made by `memguard config reference` from memguard/src/config and memguard/src/engine/thresholds.rs; a test compares. -->

TOML, named with `--config FILE`; in the chart it is the value `config`. Nothing in it has to be said. A key that is not in
these tables is a mistake, and so is a value out of its range: `memguard config check FILE` lists all mistakes of a file at
once, and memguard does not start with one. `memguard config show` prints a file with every key at its default;
`memguard config show careful` those of another profile.

The file is read again when it changes, and on SIGHUP ([usage.md](usage.md)). Options of the command line are over it.
";

/// The reference as a page: `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for Section { name, about, keys } in reference() {
        // Writing to a string does not fail.
        let _ = write!(page, "\n## `{name}`\n\n{about}\n\n| key | takes | default | |\n|---|---|---|---|\n");
        for Key { name, takes, default, meaning } in keys {
            let _ = writeln!(page, "| `{name}` | {takes} | {default} | {} |", plain(&meaning));
        }
    }
    page
}

/// A sentence as a cell of a table, in which nothing is mark-up.
fn plain(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '|' | '<' | '[' | ']' | '`') {
            cell.push('\\');
        }
        cell.push(c);
    }
    cell
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What the parser itself says that it takes, once it is asked for what it does not.
    fn taken(section: &str) -> BTreeSet<String> {
        let text = format!("{section}\nno_such_setting = 1\n");
        let problems = super::super::configuration(&text.parse().unwrap()).unwrap_err();
        let told = problems.iter().find(|problem| problem.contains("no_such_setting")).unwrap();
        let (_, names) = told.rsplit_once("there are: ").unwrap();
        names.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn every_key_that_is_taken_is_told_and_no_other() {
        let sections = reference();
        for section in &sections {
            let told: BTreeSet<_> = section.keys.iter().map(|key| key.name.to_owned()).collect();
            assert_eq!(taken(section.name), told, "{}", section.name);
        }
        let tables: BTreeSet<_> = sections
            .iter()
            .map(|section| section.name.trim_matches(['[', ']']))
            .filter(|name| !name.contains('.'))
            .collect();
        let problems = super::super::configuration(&"no_such_setting = 1".parse().unwrap()).unwrap_err();
        let (_, known) = problems[0].rsplit_once("there are: ").unwrap();
        assert_eq!(known.split(", ").collect::<BTreeSet<_>>(), tables);
    }

    #[test]
    fn each_says_what_it_takes_what_it_is_by_default_and_what_for() {
        for section in reference() {
            assert!(!section.about.is_empty());
            for key in section.keys {
                for text in [&key.takes, &key.default, &key.meaning] {
                    assert!(!text.is_empty() && !text.contains('\n'), "{key:?}");
                }
            }
        }
        let of = |section: &str, name: &str| {
            let all = reference();
            let section = all.iter().find(|found| found.name == section).unwrap();
            section.keys.iter().find(|key| key.name == name).unwrap().clone()
        };
        assert_eq!(of("[engine]", "hold_s").takes, "whole seconds, 1 to 3600");
        assert_eq!(of("[engine]", "hold_s").default, "`7`");
        assert_eq!(of("[policy]", "mode").takes, "`\"off\"`, `\"observe\"` or `\"enforce\"`");
        assert_eq!(of("[policy]", "protect").default, "`[]`");
        assert_eq!(of("[engine.thresholds]", "lost").default, "`{ from = 0.85, sure = 0.95 }`");
        assert_eq!(of("[github]", "credentials").default, "one way has to be said");
    }

    /// `MEMGUARD_BLESS=1` writes it anew.
    #[test]
    fn the_document_is_what_the_lists_make() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        if std::env::var_os("MEMGUARD_BLESS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), markdown(), "MEMGUARD_BLESS=1 writes it anew");
    }

    #[test]
    fn patterns_are_no_mark_up() {
        assert_eq!(plain("(*, **, ?) [github]"), "(\\*, \\*\\*, ?) \\[github\\]");
    }
}
