//! What is kept of GitHub's description: the paths that memguard uses and all that they refer to. Prism reads the whole of it
//! in half a minute, this in a few seconds.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

/// Method and path of each request of memguard.
const USED: [(&str, &str); 9] = [
    ("post", "/app/installations/{installation_id}/access_tokens"),
    ("get", "/rate_limit"),
    ("get", "/repos/{owner}/{repo}/actions/runs/{run_id}"),
    ("post", "/repos/{owner}/{repo}/actions/runs/{run_id}/cancel"),
    ("post", "/repos/{owner}/{repo}/actions/runs/{run_id}/force-cancel"),
    ("get", "/repos/{owner}/{repo}/actions/runs/{run_id}/jobs"),
    ("post", "/repos/{owner}/{repo}/check-runs"),
    ("get", "/repos/{owner}/{repo}/commits/{ref}/check-runs"),
    ("post", "/repos/{owner}/{repo}/statuses/{sha}"),
];

/// The description of what is used.
pub(super) fn cut(whole: &Value) -> anyhow::Result<Value> {
    let mut paths = Map::new();
    for (method, path) in USED {
        let known = &whole["paths"][path];
        let operation = known.get(method).with_context(|| format!("GitHub's description has no {method} {path}"))?;
        let kept = paths.entry(path).or_insert_with(|| json!({}));
        kept[method] = operation.clone();
        if let Some(parameters) = known.get("parameters") {
            kept["parameters"] = parameters.clone();
        }
    }
    let mut cut = json!({
        "openapi": whole["openapi"],
        "info": whole["info"],
        "paths": paths,
        // The description knows of no login, and would let every request pass without.
        "security": [{"bearer": []}],
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    });
    let mut done = BTreeSet::new();
    let mut open = references(&cut["paths"]);
    while let Some(reference) = open.pop_first() {
        let pointer = reference.strip_prefix('#').with_context(|| format!("{reference} is in another file"))?;
        let part = whole.pointer(pointer).with_context(|| format!("GitHub's description lacks {reference}"))?;
        let [_, components, kind, name] = pointer.split('/').collect::<Vec<_>>()[..] else {
            bail!("{reference} is no component");
        };
        cut[components][kind][name] = part.clone();
        open.extend(references(part).into_iter().filter(|other| !done.contains(other)));
        done.insert(reference);
    }
    accept_githubs_type(&mut cut);
    // Without it Prism's own check of its example fails, and the answer is an error.
    for job in cut
        .pointer_mut("/components/examples/job-paginated/value/jobs")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        job["run_attempt"] = 1.into();
    }
    Ok(cut)
}

/// All references within.
fn references(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.insert(reference.clone());
            }
            found.extend(map.values().flat_map(references));
        }
        Value::Array(list) => found.extend(list.iter().flat_map(references)),
        _ => {}
    }
    found
}

/// GitHub takes its own media type everywhere, and says so only in its prose; Prism answers 406.
fn accept_githubs_type(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Object(content)) = map.get_mut("content")
                && let Some(json) = content.get("application/json").cloned()
            {
                content.entry("application/vnd.github+json").or_insert(json);
            }
            map.values_mut().for_each(accept_githubs_type);
        }
        Value::Array(list) => list.iter_mut().for_each(accept_githubs_type),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_kept_with_all_that_it_refers_to() {
        let mut paths = Map::new();
        for (method, path) in USED {
            paths.entry(path).or_insert_with(|| json!({"delete": {"x": {"$ref": "#/components/schemas/other"}}}))
                [method] = json!({"responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/run"}}}}}});
        }
        paths.insert("/unused".to_owned(), json!({"get": {}}));
        let mut whole = json!({
            "openapi": "3.0.3", "info": {}, "paths": paths,
            "components": {"schemas": {
                "run": {"properties": {"of": {"$ref": "#/components/schemas/deep"}}},
                "deep": {"items": [{"$ref": "#/components/schemas/run"}]},
                "other": {},
            }},
        });
        let cut = cut(&whole).unwrap();
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&cut["components"]["schemas"]), ["deep", "run"]);
        assert_eq!(cut["paths"].as_object().unwrap().len(), USED.len());
        let content = &cut["paths"]["/rate_limit"]["get"]["responses"]["200"]["content"];
        assert_eq!(names(content), ["application/json", "application/vnd.github+json"]);
        assert_eq!(names(&cut["paths"]["/rate_limit"]), ["get"]);
        whole["paths"]["/rate_limit"] = json!({});
        let error = super::cut(&whole).unwrap_err().to_string();
        assert!(error.contains("get /rate_limit"), "{error}");
    }
}
