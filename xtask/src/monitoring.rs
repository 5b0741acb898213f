//! `cargo xtask monitoring`: metrics, alerts and the dashboard, held against a real Prometheus.
//!
//! An agent over made-up cgroups (`memguard/examples/monitored.rs`) serves its pages; promtool checks them, the alert rules
//! and the rules' tests; Prometheus scrapes in both formats, with the alerts loaded; and every query of the dashboard and
//! every series that it or an alert names has to find something there.

mod dashboard;
mod scraped;
mod selectors;

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use self::scraped::{Monitored, Running};
use crate::{paths, process, setup, setup::prometheus::Prometheus, ui};

/// For the livelock to be seen and ended, and for Prometheus to have scraped that.
const KILL_WITHIN: Duration = Duration::from_secs(40);

fn alerts() -> PathBuf {
    paths::root().join("deploy/chart/memguard/files/alerts.yaml")
}

pub(crate) fn run() -> anyhow::Result<()> {
    setup::ensure(setup::Part::Monitoring)?;
    let prometheus = Prometheus::find()?.context("Prometheus was unpacked, and is not there")?;
    Monitored::build()?;
    let _step = ui::step(format!("metrics, alerts and dashboard with Prometheus {}", prometheus.version()?));
    rules(&prometheus)?;
    let monitored = Monitored::start()?;
    let work = tempfile::tempdir()?;
    let running = Running::start(&prometheus, &monitored.targets, &alerts(), work.path())?;
    pages(&prometheus, &monitored)?;
    running.wait(r#"min(up{job=~"memguard.*"}) == 1 and count(up{job=~"memguard.*"}) == 4"#, KILL_WITHIN)?;
    formats(&running)?;
    running.wait(r#"min(memguard_actions_total{node="agent", method="kill", outcome="dead"}) >= 1"#, KILL_WITHIN)?;
    running.wait(r#"min(memguard_actions_suppressed_total{node="agent", reason="protected"}) >= 1"#, KILL_WITHIN)?;
    queries(&running)?;
    running
        .wait("prometheus_rule_evaluation_failures_total == 0", Duration::from_secs(10))
        .context("Prometheus could not evaluate the alerts")
}

/// The alert rules, and their tests.
fn rules(prometheus: &Prometheus) -> anyhow::Result<()> {
    let tests = paths::root().join("deploy/monitoring/alerts_test.yaml");
    process::output(
        prometheus.command("promtool")?.args(["check", "rules", "--lint=all", "--lint-fatal"]).arg(alerts()),
    )?;
    process::output(prometheus.command("promtool")?.args(["test", "rules"]).arg(&tests))?;
    let rules = fs::read_to_string(alerts())?;
    let tests = fs::read_to_string(&tests)?;
    let runbook = fs::read_to_string(paths::root().join("docs/runbook.md")).context("can't read docs/runbook.md")?;
    let mut count = 0;
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        count += 1;
        ensure!(tests.contains(&format!("alertname=\"{alert}\"")), "no test has the alert {alert} fire");
        ensure!(runbook.contains(&format!("\n## {alert}\n")), "docs/runbook.md has no section ## {alert}");
        let anchor = format!("runbook_url: docs/runbook.md#{}\n", alert.to_lowercase());
        ensure!(rules.contains(&anchor), "the alert {alert} has no {anchor}");
    }
    ui::say(format!("{count} alerts"));
    Ok(())
}

/// promtool finds nothing to say about the pages.
fn pages(prometheus: &Prometheus, monitored: &Monitored) -> anyhow::Result<()> {
    for target in &monitored.targets {
        let page = target.page()?;
        let mut command: Command = prometheus.command("promtool")?;
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(&mut command)?;
        child.stdin.take().context("promtool has no standard input")?.write_all(page.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.success() && said.trim().is_empty(),
            "promtool check metrics of {}:\n{said}",
            target.name
        );
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        ui::say(format!("the page of {} has {series} series, {} KiB", target.name, page.len() / 1024));
    }
    Ok(())
}

/// Both formats bring the same samples.
fn formats(running: &Running) -> anyhow::Result<()> {
    for node in ["agent", "figures"] {
        let scraped = running.query(&format!(r#"scrape_samples_scraped{{node="{node}"}}"#))?;
        let counts: Vec<&str> = scraped.iter().map(|sample| sample.value.1.as_str()).collect();
        ensure!(
            counts.len() == 2 && counts[0] == counts[1] && counts[0] != "0",
            "{node}: the formats bring different numbers of samples: {counts:?}"
        );
    }
    Ok(())
}

/// Every query finds something, and so does every series that an alert or the dashboard names.
fn queries(running: &Running) -> anyhow::Result<()> {
    let dashboard = dashboard::read(&paths::root().join("deploy/chart/memguard/files/dashboard.json"))?;
    for query in &dashboard {
        let found = running.query(&query.expr).with_context(|| format!("dashboard, {}", query.panel))?;
        ensure!(!found.is_empty(), "dashboard, {}: nothing comes of {}", query.panel, query.expr);
    }
    let rules = fs::read_to_string(alerts())?;
    let texts = dashboard.iter().map(|query| query.expr.as_str()).chain([rules.as_str()]);
    let selectors = selectors::of(texts);
    for selector in &selectors {
        let found = running.query(&format!("count({selector})"))?;
        ensure!(!found.is_empty(), "an alert or the dashboard names {selector}, and there is no such series");
    }
    ui::say(format!("{} queries of the dashboard, {} selectors", dashboard.len(), selectors.len()));
    Ok(())
}
