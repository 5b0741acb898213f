//! `memguard incidents`: what was decided and done on this machine, from the copies in the run folder and, while no
//! memguard is at work, from the journal on the disk.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use clap::{Subcommand, ValueEnum};

use crate::{
    journal::{Copies, Incident, StoreError, read_only},
    telemetry::escaped,
};

pub(super) const RUN_DIR: &str = "/run/memguard";
pub(super) const STATE_DIR: &str = "/var/lib/memguard";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// As given to `memguard run`.
    #[arg(long, value_name = "FOLDER", default_value = RUN_DIR, global = true)]
    run_dir: PathBuf,

    /// As given to `memguard run`.
    #[arg(long, value_name = "FOLDER", default_value = STATE_DIR, global = true)]
    state_dir: PathBuf,

    /// How the answer looks.
    #[arg(long, value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List them, the latest at the end (what `memguard incidents` alone does).
    List,
    /// Tell all of one.
    Show { id: String },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Output {
    #[default]
    Text,
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (incidents, trouble) = gather(&args.run_dir, &args.state_dir);
    if let Some(error) = trouble {
        eprintln!("memguard: {error}");
    }
    let text = match (&args.command, args.output) {
        (None | Some(Command::List), Output::Text) => list(&incidents),
        (None | Some(Command::List), Output::Json) => serde_json::to_string_pretty(&incidents)? + "\n",
        (Some(Command::Show { id }), output) => {
            let Some(incident) = incidents.iter().find(|incident| incident.id == *id) else {
                bail!("there is no incident {} (`memguard incidents` lists them)", escaped(id));
            };
            match output {
                Output::Text => show(incident),
                Output::Json => serde_json::to_string_pretty(incident)? + "\n",
            }
        }
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What copies and journal hold, and why one of them can't be read.
pub(super) fn gather(run_dir: &Path, state_dir: &Path) -> (Vec<Incident>, Option<StoreError>) {
    let mut incidents = Copies::below(run_dir).all();
    match read_only(state_dir) {
        Ok(stored) => {
            let newer: Vec<_> = stored.into_iter().filter(|s| incidents.iter().all(|copy| copy.id != s.id)).collect();
            incidents.extend(newer);
            incidents.sort_by(|a, b| (a.decided_at, &a.id).cmp(&(b.decided_at, &b.id)));
            (incidents, None)
        }
        // memguard is at work, and keeps copies.
        Err(StoreError::InUse { .. }) => (incidents, None),
        Err(error) => (incidents, Some(error)),
    }
}

pub(super) fn time(seconds: u64) -> String {
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(|| seconds.to_string(), |timestamp| timestamp.to_string())
}

fn list(incidents: &[Incident]) -> String {
    if incidents.is_empty() {
        return "no incidents\n".to_owned();
    }
    let mut text = String::new();
    for incident in incidents {
        let _ = writeln!(
            text,
            "{}  {}  {}: {}",
            time(incident.decided_at),
            escaped(&incident.id),
            escaped(&incident.cgroup),
            escaped(&incident.outcome())
        );
    }
    text
}

fn show(incident: &Incident) -> String {
    let mut text = String::new();
    for (name, value) in [
        ("incident", incident.id.clone()),
        ("decided", time(incident.decided_at)),
        ("mode", incident.mode.to_string()),
        ("rule", incident.rule.clone()),
        ("cgroup", incident.cgroup.clone()),
        ("its id", incident.unit.to_string()),
        ("to end", incident.victim.map_or_else(|| "nothing".to_owned(), |id| format!("cgroup {id}"))),
        ("by", incident.method.map_or_else(|| "-".to_owned(), |method| method.to_string())),
        ("outcome", incident.outcome()),
    ] {
        let _ = writeln!(text, "{name:<9} {}", escaped(&value));
    }
    if let Some(workload) = &incident.workload {
        let _ = writeln!(text, "{:<9} {}", "container", escaped(&workload.name()));
        let job = workload.facts.as_ref().and_then(|facts| facts.job.as_ref());
        if let Some(job) = job {
            let _ = writeln!(text, "{:<9} {} of {}", "run", job.run_id, escaped(&job.repository));
        }
    }
    if !incident.follow_ups.is_empty() {
        text.push_str("then\n");
    }
    for follow_up in &incident.follow_ups {
        let _ = writeln!(text, "  {}", escaped(&follow_up.outcome()));
    }
    text.push_str("evidence\n");
    for term in incident.evidence.split("; ") {
        let _ = writeln!(text, "  {}", escaped(term));
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        journal::Stage,
        remote::{FollowUp, Kind, Wishes},
        respond::{Ended, Method, Mode},
    };

    pub(in super::super) fn incident() -> Incident {
        Incident {
            id: "mg-1764000000-7".to_owned(),
            decided_at: 1_764_000_000,
            boot_id: String::new(),
            mode: Mode::Enforce,
            unit: 7,
            cgroup: "a.scope\n2026 KILLED".to_owned(),
            victim: Some(8),
            method: Some(Method::Kill),
            rule: "ci".to_owned(),
            evidence: "memory at 100 % of memory.max; limit hit 9.0 times/s".to_owned(),
            workload: None,
            stage: Stage::Done { ended: Ended::Dead { write_us: 9, empty_after_ms: 12 } },
            follow_ups: Vec::new(),
            wishes: Wishes::default(),
        }
    }

    #[test]
    fn a_line_each_in_which_names_cannot_break_out() {
        assert_eq!(list(&[]), "no incidents\n");
        assert_eq!(
            list(&[incident()]),
            "2025-11-24T16:00:00Z  mg-1764000000-7  a.scope\\n2026 KILLED: killed, empty after 12 ms\n"
        );
    }

    #[test]
    fn all_of_one() {
        let text = show(&Incident { follow_ups: vec![FollowUp::new(Kind::Cancel)], ..incident() });
        for part in [
            "enforce",
            "rule      ci\n",
            "cgroup 8",
            "cgroup.kill",
            "  limit hit 9.0 times/s\n",
            "then\n  cancelling the GitHub run: to be done\n",
            "empty after 12 ms",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(time(u64::MAX), u64::MAX.to_string());
    }
}
