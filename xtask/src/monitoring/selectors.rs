//! The series that an expression of `PromQL` names.

use std::collections::BTreeSet;

/// Names of metrics that are memguard's.
const OURS: [&str; 3] = ["memguard_", "process_", "up"];

/// Every selector of a series of ours, with its matchers, in any number of texts.
pub(super) fn of<'t>(texts: impl Iterator<Item = &'t str>) -> BTreeSet<String> {
    texts.flat_map(in_one).collect()
}

fn in_one(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let ours = name == "up" || OURS.iter().any(|prefix| prefix.ends_with('_') && name.starts_with(prefix));
        let matchers = after.strip_prefix('{').and_then(matchers).unwrap_or("");
        if ours {
            found.push(if matchers.is_empty() { name.to_owned() } else { format!("{name}{{{matchers}}}") });
        }
        rest = after;
        // Words within quotes are no names.
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted.split_once('"').map_or("", |(_, after)| after);
        } else if rest.starts_with('{') && !matchers.is_empty() {
            rest = &rest[matchers.len() + 2..];
        }
    }
    found
}

/// Up to the brace that closes, which may be within quotes before.
fn matchers(text: &str) -> Option<&str> {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(&text[..at]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_found_with_their_matchers() {
        let expr = r#"sum by (node) (rate(memguard_x_total{what="a}b", node=~"$n"}[5m])) / up{job="x"} > process_y or go_z{a="b"}"#;
        let found = of([expr, "memguard_x_bucket"].into_iter());
        let found: Vec<_> = found.iter().map(String::as_str).collect();
        assert_eq!(
            found,
            ["memguard_x_bucket", r#"memguard_x_total{what="a}b", node=~"$n"}"#, "process_y", r#"up{job="x"}"#]
        );
        assert!(
            of(["{{ $labels.node }} upper memguard up to"].into_iter()).contains("up"),
            "a word of prose is one too"
        );
    }
}
