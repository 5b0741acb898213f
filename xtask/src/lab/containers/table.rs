//! The tables of docs/containers.md.

use std::fmt::Write as _;

use memguard_lab::{Line, Record};
use serde_json::Value;

use super::judge::Judged;

/// A case a row.
const COURSE: [&str; 8] = [
    "limit to verdict",
    "verdict to action",
    "action to its end",
    "status",
    "TaskOOM",
    "Events on the pod",
    "report",
    "stopped within",
];
const COST: [&str; 9] = [
    "ready after",
    "plan",
    "doctor",
    "resident",
    "its cgroup at most",
    "RLIMIT_MEMLOCK",
    "capabilities",
    "no new privileges",
    "seccomp",
];

pub(super) fn tables(lines: &[Line], judged: &[Judged]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}\n", world(lines));
    table(&mut text, &["outcome"], &COURSE, judged);
    text.push('\n');
    table(&mut text, &[], &COST, judged);
    for (what, screen) in judged.first().into_iter().flat_map(|first| &first.screens) {
        let _ = write!(text, "\n*At a terminal of 80 by 24, {what}:*\n\n```text\n{screen}\n```\n");
    }
    text
}

/// `Linux 6.12.73, containerd 1.7.24, runc version 1.1.15`
fn world(lines: &[Line]) -> String {
    let kernel = lines.iter().find_map(|line| match &line.record {
        Record::Boot { kernel, cpus } => {
            Some(format!("Linux {kernel} on {cpus} CPU{}", if *cpus == 1 { "" } else { "s" }))
        }
        _ => None,
    });
    let node = lines.iter().find_map(|line| match &line.record {
        Record::Seen { of, told, .. } if of == "node" => Some(told),
        _ => None,
    });
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let node = node.map_or_else(String::new, |node| {
        let runtime = &node["runtime"];
        format!(", {} {}, {}", text(&runtime["name"]), text(&runtime["version"]), text(&node["runc"]))
    });
    format!("{}{node}.", kernel.unwrap_or_default())
}

fn table(text: &mut String, first: &[&str], names: &[&str], judged: &[Judged]) {
    let heads = ["case"].iter().chain(first).chain(names);
    let heads: Vec<&str> = heads.copied().collect();
    let _ = writeln!(text, "| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len()));
    for one in judged {
        let mut cells = vec![one.case.to_string()];
        if !first.is_empty() {
            let outcome = if one.failures.is_empty() { "as it should be".to_owned() } else { one.failures.join("; ") };
            cells.push(outcome.replace('|', "\\|").replace('\n', " "));
        }
        cells.extend(names.iter().map(|name| one.fact_of(name).replace('|', "\\|")));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use memguard_lab::containers::{Case, Ending, Variant};

    use super::*;

    #[test]
    fn a_row_for_each_case() {
        let judged = Judged {
            case: Case { variant: Variant::Privileged, ending: Ending::Kill },
            facts: vec![("status", "exit 137, Error".to_owned()), ("resident", "20.0 MiB".to_owned())],
            failures: vec!["a|b\nc".to_owned()],
            screens: vec![("opened", "a | b".to_owned())],
        };
        let text = tables(&[], &[judged]);
        assert!(
            text.contains("| privileged: kill | a\\|b c | - | - | - | exit 137, Error | - | - | - | - |\n"),
            "{text}"
        );
        assert!(text.contains("| privileged: kill | - | - | - | 20.0 MiB |"), "{text}");
        for row in text.lines().filter(|line| line.starts_with("| privileged")) {
            let head = text.lines().filter(|line| line.starts_with("| case"));
            assert!(head.into_iter().any(|head| head.matches(" | ").count() == row.matches(" | ").count()), "{row}");
        }
    }
}
