//! `cargo xtask lab ends`: every livelock ended by `cgroup.kill` and by the kernel's OOM killer, and what became of it.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use anyhow::bail;
use memguard_lab::{Line, MemguardMode, Record, Scenario, scenario::Kind};

use super::{
    Options, check_machine, document,
    judge::{self, memguard_log},
    kernels,
    records::{self, Kept},
    run_all,
};
use crate::{paths, ui};

const WAYS: [(MemguardMode, &str); 2] = [(MemguardMode::Enforce, "kill"), (MemguardMode::Relieve, "oom-then-kill")];
/// What ends this soon after the verdict ended by it.
const BY_IT_S: f64 = 5.0;
/// Time to get back to work, before it is looked at.
const RECOVERY_S: f64 = 15.0;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these livelocks (`lab list`).
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    kernels: kernels::Chosen,

    /// Run nothing: tell what earlier runs left in target/lab/records.
    #[arg(long)]
    from_records: bool,

    #[command(flatten)]
    options: Options,
}

/// What became of one container, or of one run.
#[derive(Clone, Debug, Default, PartialEq)]
struct End {
    way: &'static str,
    /// As memguard told it: `dead`, `oom_killed`, ...
    outcome: String,
    /// Why there was none, instead: it broke off, or memguard did nothing, and what happened.
    nothing: Option<String>,
    /// It was a hang, or nobody knows, and nothing was done.
    is_failure: bool,
    /// From the verdict to the action, ms.
    acted_after_ms: f64,
    /// From the action to its outcome, ms.
    took_ms: Option<f64>,
    died: Vec<String>,
    lived: Vec<String>,
    /// Share of its earlier work that the container does afterwards.
    share: Option<f64>,
    oom_kills: u64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let names = if args.names.is_empty() { vec!["all".to_owned()] } else { args.names.clone() };
    let scenarios = super::scenarios(&names)?;
    let hangs: Vec<Scenario> = scenarios.into_iter().filter(|scenario| scenario.kind == Kind::Livelock).collect();
    if hangs.is_empty() {
        bail!("none of {} is a livelock (`cargo xtask lab list`)", names.join(", "));
    }
    let mut failed = 0;
    if !args.from_records {
        check_machine()?;
        let mut planned = Vec::new();
        for line in args.kernels.lines()? {
            for scenario in &hangs {
                let with = |(mode, _)| super::Planned { scenario: scenario.clone(), line, mode };
                planned.extend(WAYS.map(with));
            }
        }
        let outcomes = run_all(planned, &args.options)?;
        if let Err(error) = super::report(&outcomes) {
            ui::say(format!("{error:#}; the table tells what they did"));
        }
        failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    }
    let mut found: BTreeMap<(String, String), Vec<End>> = BTreeMap::new();
    for broken in records::broken_in(&[records::folder()])? {
        let Some((_, way)) = WAYS.iter().find(|(mode, _)| *mode == broken.mode) else { continue };
        if hangs.iter().any(|scenario| scenario.name == broken.scenario) {
            ui::say(format!("broke off: {broken}"));
            let ends = found.entry((broken.scenario, broken.release)).or_default();
            ends.push(End::nothing(way, "the run broke off".to_owned(), true));
        }
    }
    for kept in records::kept(&records::folder())? {
        let Some((_, way)) = WAYS.iter().find(|(mode, _)| *mode == kept.mode) else { continue };
        let Some(scenario) = hangs.iter().find(|scenario| scenario.name == kept.scenario) else { continue };
        if records::is_outdated(&kept, scenario).is_some() {
            continue;
        }
        let ends = of(&kept, scenario, way)?;
        found.entry((kept.scenario.clone(), kept.release.clone())).or_default().extend(ends);
    }
    if found.is_empty() {
        bail!("there is nothing to tell: no run has left its records in {}", records::folder().display());
    }
    let text = table(&found);
    if args.names.is_empty() {
        let path: PathBuf = paths::root().join("docs/ending.md");
        document::write(&path, "ends", "Two ways to end a livelock", &text)?;
        ui::say(format!("wrote {}", path.display()));
    } else {
        print!("{text}");
    }
    let failed = found.values().flatten().filter(|end| end.is_failure).count().max(failed);
    if failed > 0 {
        bail!("in {failed} runs nothing ended the hang: memguard did not act, or they broke off");
    }
    Ok(())
}

impl End {
    fn nothing(way: &'static str, why: String, is_failure: bool) -> Self {
        Self { way, nothing: Some(why), is_failure, ..Self::default() }
    }
}

fn of(kept: &Kept, scenario: &Scenario, way: &'static str) -> anyhow::Result<Vec<End>> {
    let lines = records::read(&kept.lines)?;
    let Some(run) = judge::Run::of(scenario, kept.mode, &lines) else {
        return Ok(vec![End::nothing(way, "it ended before the trouble".to_owned(), true)]);
    };
    let of = |container: &String| {
        end(&run, scenario, &lines, container, way).unwrap_or_else(|| {
            let course = run.course(container);
            End::nothing(way, format!("memguard did nothing: {}", course.told()), course.hung().is_some())
        })
    };
    Ok(run.containers().iter().map(of).collect())
}

/// The first action on a container; `None` if there was none.
fn end(run: &judge::Run<'_>, scenario: &Scenario, lines: &[Line], container: &str, way: &'static str) -> Option<End> {
    let (told, action) = memguard_log(lines).find(|(_, entry)| {
        entry["kind"] == "action" && entry["cgroup"].as_str().is_some_and(|cgroup| run.is_about(cgroup, container))
    })?;
    let figure = |name: &str| action[name].as_f64();
    let took_ms = figure("empty_after_ms").or_else(|| figure("after_ms"));
    let acted = told - took_ms.unwrap_or_default() / 1e3;
    let mut died = Vec::new();
    let mut lived = Vec::new();
    for (pod, of, workload) in scenario.workloads() {
        if format!("{}/{}", pod.name, of.name) != container {
            continue;
        }
        let exit = lines.iter().find_map(|line| match &line.record {
            Record::Exited { workload: name, signal, .. } if *name == workload.name => Some((line.t, *signal)),
            _ => None,
        });
        match exit {
            Some((t, Some(_))) if t > acted - 1.0 && t < told + BY_IT_S => died.push(workload.name.clone()),
            None => lived.push(workload.name.clone()),
            // It had ended before, or ends by itself.
            Some(_) => {}
        }
    }
    Some(End {
        way,
        outcome: action["outcome"].as_str().unwrap_or("failed").to_owned(),
        nothing: None,
        is_failure: false,
        acted_after_ms: figure("verdict_to_action_ms").unwrap_or_default(),
        took_ms,
        died,
        share: if lived.is_empty() { None } else { run.share_after(container, told + RECOVERY_S) },
        lived,
        oom_kills: run.oom_kills(container),
    })
}

fn table(found: &BTreeMap<(String, String), Vec<End>>) -> String {
    let mut text = "<!-- Written by `cargo xtask lab ends`: do not edit here. -->\n\n\
         | livelock | kernel | action | verdict to action | action to relief | died | lived | work afterwards | kernel's oom_kill |\n\
         |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for ((scenario, release), ends) in found {
        let mut ends = ends.clone();
        ends.sort_by_key(|end| end.way);
        for end in ends {
            let ms = |ms: f64| if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") };
            let names = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(", ") };
            let version = release.split(['+', '-']).next().unwrap_or(release);
            if let Some(why) = &end.nothing {
                let _ = writeln!(text, "| {scenario} | {version} | {} | - | {why} | - | - | - | - |", end.way);
                continue;
            }
            let took = match (end.outcome.as_str(), end.took_ms) {
                ("dead" | "oom_killed", Some(took)) => ms(took),
                (other, _) => other.to_owned(),
            };
            let share = end.share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0));
            let _ = writeln!(
                text,
                "| {scenario} | {version} | {} | {} | {took} | {} | {} | {share} | {} |",
                end.way,
                ms(end.acted_after_ms),
                names(&end.died),
                names(&end.lived),
                end.oom_kills
            );
        }
    }
    text.push('\n');
    for (_, way) in WAYS {
        let all: Vec<&End> = found.values().flatten().filter(|end| end.way == way).collect();
        let mut took: Vec<f64> = all.iter().filter_map(|end| end.took_ms).collect();
        took.sort_by(f64::total_cmp);
        if let (Some(median), Some(worst)) = (took.get(took.len() / 2), took.last()) {
            let alive = all.iter().filter(|end| end.share.is_some_and(|share| share >= 0.5)).count();
            let idle = all.iter().filter(|end| end.nothing.is_some()).count();
            let idle = if idle > 0 { format!(" In {idle} nothing was done.") } else { String::new() };
            let _ = writeln!(
                text,
                "{way}: {} runs, relief after {median:.0} ms in the median, {worst:.0} ms at worst; in {alive} the others worked \
                 on at half their speed or more.{idle}",
                all.len()
            );
        } else if !all.is_empty() {
            let _ = writeln!(text, "{way}: {} runs, and in none of them anything was done.", all.len());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(way: &'static str, outcome: &str, took_ms: f64, share: Option<f64>) -> End {
        End {
            way,
            outcome: outcome.to_owned(),
            nothing: None,
            is_failure: false,
            acted_after_ms: 2.5,
            took_ms: Some(took_ms),
            died: vec!["hog".to_owned()],
            lived: share.map(|_| "listener".to_owned()).into_iter().collect(),
            share,
            oom_kills: u64::from(share.is_some()),
        }
    }

    #[test]
    fn each_way_has_a_row_and_a_sum() {
        let ends = vec![
            end("oom-then-kill", "oom_killed", 130.0, Some(1.01)),
            end("kill", "dead", 80.0, None),
            End::nothing("kill", "memguard did nothing: hung 60 s and more".to_owned(), true),
        ];
        let text = table(&BTreeMap::from([(("livelock".to_owned(), "6.12.73+deb12".to_owned()), ends)]));
        assert!(text.contains("| livelock | 6.12.73 | kill | 2.5 ms | 80 ms | hog | - | - | 0 |"), "{text}");
        assert!(text.contains("| oom-then-kill | 2.5 ms | 130 ms | hog | listener | 101 % | 1 |"), "{text}");
        assert!(text.contains("| kill | - | memguard did nothing: hung 60 s and more | - |"), "{text}");
        assert!(text.contains("kill: 2 runs, relief after 80 ms"), "{text}");
        assert!(text.contains("or more. In 1 nothing was done.\n"), "{text}");
        assert!(text.contains("oom-then-kill: 1 runs, relief after 130 ms"), "{text}");
        assert!(text.contains("in 1 the others worked"), "{text}");
    }
}
