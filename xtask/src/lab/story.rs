//! What happened in a run, in a few plain lines: what was seen, when, what was done.

use memguard_lab::{Line, Record, Scenario, record::Sample};
use serde_json::Value;

use super::judge::memguard_log;

/// Tells it.
pub(crate) fn tell(scenario: &Scenario, lines: &[Line]) -> String {
    let mut story = Vec::new();
    let container = scenario.expect.container.as_deref().unwrap_or_default();
    let samples: Vec<(f64, &Sample)> = lines
        .iter()
        .filter_map(|line| match &line.record {
            Record::Sample(sample) => Some((line.t, &**sample)),
            _ => None,
        })
        .collect();
    let mut say = |t: f64, what: String| story.push(format!("{t:6.1} s  {what}"));
    let mut at_limit = None;
    let mut verdict = None;
    for line in lines {
        match &line.record {
            Record::Boot { kernel, .. } => say(line.t, format!("Linux {kernel} booted")),
            Record::Trouble => say(line.t, format!("the trouble began. {}", scenario.summary)),
            Record::AtLimit { container: name } if name == container => {
                at_limit = Some(line.t);
                say(line.t, format!("{name} reached its memory limit"));
            }
            Record::Log { .. } => {
                for (_, entry) in memguard_log(std::slice::from_ref(line)) {
                    let message = plainly(&entry, container);
                    match entry["kind"].as_str() {
                        Some("verdict") => {
                            if let Some(seen) = hang(&samples, container, at_limit, line.t) {
                                say(line.t, seen);
                            }
                            verdict = Some(line.t);
                            say(line.t, format!("memguard saw it: {message}"));
                        }
                        Some("action" | "suppressed") => say(line.t, format!("memguard acted: {message}")),
                        _ => {}
                    }
                }
            }
            Record::Dead { container: name } if name == container => {
                let since = |t: Option<f64>| t.map_or(0.0, |t| line.t - t);
                say(
                    line.t,
                    format!(
                        "{name} was empty, {:.1} s after its limit, {:.2} s after the verdict",
                        since(at_limit),
                        since(verdict)
                    ),
                );
            }
            _ => {}
        }
    }
    if verdict.is_none() {
        story.push("          memguard saw no livelock".to_owned());
    }
    story.join("\n")
}

/// An event's sentence with the scenario's own name for the container, and one piece of evidence a line.
fn plainly(entry: &Value, container: &str) -> String {
    let mut message = entry["message"].as_str().unwrap_or_default().to_owned();
    if let Some(path) = entry["cgroup"].as_str().filter(|path| !path.is_empty()) {
        message = message.replace(path, container);
    }
    message.replace("; ", ";\n            ")
}

/// How the container was doing right before the verdict.
fn hang(samples: &[(f64, &Sample)], container: &str, at_limit: Option<f64>, verdict: f64) -> Option<String> {
    let from = at_limit?;
    let window: Vec<_> = samples.iter().filter(|(t, _)| (verdict - 10.5..=verdict).contains(t)).collect();
    let (first, last) = (window.first()?, window.last()?);
    let (was, now) = (first.1.containers.get(container)?, last.1.containers.get(container)?);
    let seconds = last.0 - first.0;
    let before = samples.iter().rfind(|(t, _)| *t < from - 5.0)?;
    let earlier = samples.iter().rfind(|(t, _)| *t < before.0 - 9.0)?;
    let slowed: Vec<String> = last
        .1
        .progress
        .iter()
        .filter_map(|(name, count)| {
            let rate = (count - first.1.progress.get(name)?) as f64 / seconds;
            let baseline = (before.1.progress.get(name)?.saturating_sub(*earlier.1.progress.get(name)?)) as f64
                / (before.0 - earlier.0);
            (baseline > 0.0 && rate < 0.2 * baseline)
                .then(|| format!("{name} did {rate:.0}/s instead of {baseline:.0}/s"))
        })
        .collect();
    Some(format!(
        "for {:.0} s it hung: {}; memory.events max {}, oom {}, oom_kill {}; {:.0} refaults/s",
        verdict - from,
        slowed.join(", "),
        now.max_events,
        now.oom,
        now.oom_kill,
        now.refaults.saturating_sub(was.refaults) as f64 / seconds
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_story_names_the_container_as_the_scenario_does() {
        let entry =
            json!({"cgroup": "k.slice/x.scope", "message": "LIVELOCK in k.slice/x.scope: at its limit; no OOM"});
        assert_eq!(plainly(&entry, "runner/runner"), "LIVELOCK in runner/runner: at its limit;\n            no OOM");
        assert_eq!(plainly(&json!({"message": "hello"}), "a/b"), "hello");
        assert_eq!(plainly(&json!({}), "a/b"), "");
    }
}
