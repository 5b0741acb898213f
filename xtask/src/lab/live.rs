//! A run as it happens, for people.

use memguard_lab::{Line, Record, Scenario, record::Sample};
use serde_json::Value;

/// Follows the records of one run.
#[derive(Debug, Default)]
pub(super) struct Live {
    last: Option<(f64, Sample)>,
    told: Option<f64>,
}

/// A line about the container this often.
const EVERY_S: f64 = 5.0;

impl Live {
    pub(super) fn show(&mut self, scenario: &Scenario, line: &Line) {
        let t = line.t;
        match &line.record {
            Record::Boot { kernel, cpus } => println!("{t:6.1} s  guest: Linux {kernel}, {cpus} CPUs"),
            Record::Step { what } => println!("{t:6.1} s  guest: {what}"),
            Record::Trouble => println!("{t:6.1} s  guest: the trouble begins: {}", scenario.summary),
            Record::AtLimit { container } => println!("{t:6.1} s  guest: {container} is at its memory limit"),
            Record::Dead { container } => println!("{t:6.1} s  guest: the last process of {container} is gone"),
            Record::Exited { workload, code, signal } => match (code, signal) {
                (_, Some(signal)) => println!("{t:6.1} s  guest: {workload} was ended by signal {signal}"),
                (code, None) => println!("{t:6.1} s  guest: {workload} ended with code {}", code.unwrap_or_default()),
            },
            Record::Output { workload, line } => println!("{t:6.1} s  {workload}: {line}"),
            Record::Log { line } => {
                let message =
                    serde_json::from_str::<Value>(line).ok().and_then(|v| v["message"].as_str().map(str::to_owned));
                println!("{t:6.1} s  memguard: {}", message.as_deref().unwrap_or(line));
            }
            Record::Sample(sample) => self.sample(scenario, t, sample),
            Record::Started { .. }
            | Record::Recording { .. }
            | Record::Incidents { .. }
            | Record::Round { .. }
            | Record::Case { .. }
            | Record::Seen { .. }
            | Record::Event { .. }
            | Record::Facts(_)
            | Record::Stubs { .. }
            | Record::Stored { .. }
            | Record::Report { .. }
            | Record::Ended { .. }
            | Record::End { .. } => {}
        }
    }

    fn sample(&mut self, scenario: &Scenario, t: f64, sample: &Sample) {
        if self.told.is_some_and(|told| t - told < EVERY_S - 0.5) {
            return;
        }
        self.told = Some(t);
        let name = scenario.expect.container.as_deref().unwrap_or_default();
        if let (Some((then, before)), Some(now)) = (&self.last, sample.containers.get(name)) {
            let was = before.containers.get(name).copied().unwrap_or_default();
            let seconds = t - then;
            let per_s = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let progress: Vec<String> = sample
                .progress
                .iter()
                .filter(|(workload, _)| !workload.ends_with("-pause"))
                .map(|(workload, count)| {
                    format!(
                        "{workload} {:.0}/s",
                        per_s(*count, before.progress.get(workload).copied().unwrap_or_default())
                    )
                })
                .collect();
            println!(
                "{t:6.1} s  {name}: {} MiB used, {} MiB anon; limit hit {:.0}/s, refaults {:.0}/s, oom_kill {}; {}",
                now.current >> 20,
                now.anon >> 20,
                per_s(now.max_events, was.max_events),
                per_s(now.refaults, was.refaults),
                now.oom_kill,
                progress.join(", ")
            );
        }
        self.last = Some((t, sample.clone()));
    }
}
