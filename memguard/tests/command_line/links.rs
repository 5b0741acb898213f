//! Links between the documents: the file has to be there, and the heading.

use std::collections::BTreeSet;

use super::console::{Document, documents, root};

/// What stands in the round brackets of `[text](target)`, with the line of its paragraph.
fn targets(document: &Document) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    for (line, text) in document.prose() {
        // Not in code.
        let text: String = text.split('`').step_by(2).collect::<Vec<_>>().join("x");
        let after = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.extend(after.map(|target| (line, target.to_owned())));
    }
    targets
}

/// The anchors of a document as GitHub makes them: small letters, digits, `-` and `_`, dashes for spaces, and a number
/// behind what is there already.
fn anchors(text: &str) -> BTreeSet<String> {
    let document = Document { path: "x".into(), text: text.to_owned() };
    let mut anchors = BTreeSet::new();
    for (_, line) in document.prose() {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        anchors.extend([anchor.clone()].into_iter().chain(numbered).find(|anchor| !anchors.contains(anchor)));
    }
    anchors
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for document in documents() {
        for (line, target) in targets(&document) {
            let place = format!("{}:{line}: {target}", document.path.display());
            if target.starts_with("https://") {
                continue;
            }
            checked += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() {
                root().join(&document.path)
            } else {
                root().join(document.path.parent().unwrap()).join(file)
            };
            if !path.exists() {
                wrong.push(format!("{place}: there is no such file"));
            } else if !anchor.is_empty() && !anchors(&std::fs::read_to_string(&path).unwrap()).contains(anchor) {
                wrong.push(format!("{place}: there is no such heading"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 50, "only {checked} links were found");
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    let text = "# On a machine\n\n## `[[policy.rules]]`\n## What it may do, on a node\n```\n# no\n```\n## Keys\n## Keys\n#hash\n";
    let expected = ["on-a-machine", "policyrules", "what-it-may-do-on-a-node", "keys", "keys-1"];
    assert_eq!(anchors(text), expected.map(str::to_owned).into());
    let document = Document { path: "x".into(), text: "a [b](c.md#d) `[x](y)` [e\nf](g.md).\n".to_owned() };
    assert_eq!(targets(&document), [(1, "c.md#d".to_owned()), (1, "g.md".to_owned())]);
}
