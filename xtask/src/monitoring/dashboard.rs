//! Grafana's dashboard: its queries, and whether Grafana would take it.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

/// One query of a panel, with its variables filled in.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) panel: String,
    pub(super) expr: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dashboard {
    uid: String,
    schema_version: u32,
    templating: Templating,
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
struct Templating {
    list: Vec<Variable>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    definition: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Panel {
    id: u64,
    #[serde(rename = "type")]
    kind: String,
    title: String,
    #[serde(default)]
    description: String,
    grid_pos: Place,
    #[serde(default)]
    datasource: Option<Source>,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Clone, Copy, Deserialize)]
struct Place {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
}

#[derive(Deserialize)]
struct Source {
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    expr: String,
    ref_id: String,
}

/// Of Grafana 12.
const SCHEMA: u32 = 42;
const COLUMNS: u32 = 24;

/// Reads it, and says what is wrong with it.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Query>> {
    let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    check(&text).with_context(|| format!("{}", path.display()))
}

fn check(text: &str) -> anyhow::Result<Vec<Query>> {
    let dashboard: Dashboard = serde_json::from_str(text)?;
    ensure!(dashboard.uid == "memguard" && dashboard.schema_version == SCHEMA, "uid or schemaVersion is another one");
    let variables = &dashboard.templating.list;
    for (name, kind) in [("datasource", "datasource"), ("node", "query")] {
        ensure!(variables.iter().any(|v| v.name == name && v.kind == kind), "there is no variable {name}");
    }
    let mut queries = Vec::new();
    for variable in variables.iter().filter(|variable| variable.kind == "query") {
        // label_values(metric, label)
        let metric = variable.definition.strip_prefix("label_values(").and_then(|rest| rest.split_once(", "));
        let (metric, _) =
            metric.with_context(|| format!("variable {}: no label_values(metric, label)", variable.name))?;
        queries.push(Query { panel: format!("variable {}", variable.name), expr: metric.to_owned() });
    }
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in &dashboard.panels {
        let title = &panel.title;
        ensure!(ids.insert(panel.id), "{title}: its id is another one's");
        let Place { x, y, w, h } = panel.grid_pos;
        ensure!(w > 0 && x + w <= COLUMNS, "{title}: it is beside the grid");
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row))) {
            ensure!(taken.insert(cell), "{title}: it lies over another panel");
        }
        if panel.kind == "row" {
            continue;
        }
        ensure!(!panel.description.is_empty(), "{title}: it says nothing about itself");
        let uid = panel.datasource.as_ref().map(|source| source.uid.as_str());
        ensure!(uid == Some("${datasource}"), "{title}: its datasource is not the variable's");
        ensure!(!panel.targets.is_empty(), "{title}: it has no query");
        let refs: BTreeSet<_> = panel.targets.iter().map(|target| &target.ref_id).collect();
        ensure!(refs.len() == panel.targets.len(), "{title}: two queries have the same refId");
        for target in &panel.targets {
            ensure!(target.expr.contains(r#"node=~"$node""#), "{title}: {} does not go by the node", target.expr);
            queries.push(Query { panel: title.clone(), expr: filled_in(&target.expr)? });
        }
    }
    Ok(queries)
}

/// As Grafana would, for all nodes and a short span of time.
fn filled_in(expr: &str) -> anyhow::Result<String> {
    let filled = expr.replace("$node", ".*").replace("$__rate_interval", "30s").replace("$__range", "1m");
    if filled.contains('$') {
        bail!("{expr} has a variable that nobody knows");
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(id: u32, x: u32, expr: &str) -> serde_json::Value {
        serde_json::json!({
            "id": id, "type": "stat", "title": "t", "description": "d", "gridPos": {"x": x, "y": 0, "w": 12, "h": 4},
            "datasource": {"uid": "${datasource}"}, "targets": [{"expr": expr, "refId": "A"}]
        })
    }

    fn dashboard(panels: &[serde_json::Value]) -> String {
        serde_json::json!({
            "uid": "memguard", "schemaVersion": SCHEMA, "panels": panels,
            "templating": {"list": [
                {"name": "datasource", "type": "datasource"},
                {"name": "node", "type": "query", "definition": "label_values(memguard_build_info, node)"}
            ]}
        })
        .to_string()
    }

    #[test]
    fn queries_are_filled_in_and_faults_are_told() {
        let good = r#"rate(x{node=~"$node"}[$__rate_interval])"#;
        let queries = check(&dashboard(&[panel(1, 0, good), panel(2, 12, good)])).unwrap();
        let exprs: Vec<_> = queries.iter().map(|query| query.expr.as_str()).collect();
        let filled = r#"rate(x{node=~".*"}[30s])"#;
        assert_eq!(exprs, ["memguard_build_info", filled, filled]);
        for (panels, fault) in [
            ([panel(1, 0, good), panel(1, 12, good)], "id"),
            ([panel(1, 0, good), panel(2, 6, good)], "over another"),
            ([panel(1, 0, good), panel(2, 13, good)], "beside"),
            ([panel(1, 0, good), panel(2, 12, "up")], "node"),
            ([panel(1, 0, good), panel(2, 12, r#"x{node=~"$node"}[$__x]"#)], "variable"),
        ] {
            let error = format!("{:#}", check(&dashboard(&panels)).unwrap_err());
            assert!(error.contains(fault), "{fault}: {error}");
        }
    }
}
