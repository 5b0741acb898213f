//! `memguard incidents`: what was decided and done on this machine, from the copies in the run folder and, while no
//! memguard is at work, from the journal on the disk.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use clap::Subcommand;

use super::{
    output::{Output, tell},
    paint::Tone,
    stored::{self, Trouble},
};
use crate::{
    journal::{Copies, Incident, Stage, latest},
    respond::Ended,
    telemetry::{escaped, shown},
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
    #[arg(long, value_enum, value_name = "FORM", default_value_t, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List them, the latest at the end.
    ///
    /// This is what `memguard incidents` alone does.
    List,
    /// Tell all of one.
    ///
    /// The evidence, what was done on the node, and what was done and remains to be done elsewhere.
    Show {
        /// As `memguard incidents` lists it.
        id: String,
    },
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (incidents, trouble) = gather(&args.run_dir, stored::read(&args.state_dir));
    if let Some(trouble @ Trouble::Forbidden { .. }) = trouble {
        bail!("{trouble}");
    }
    if let Some(trouble) = &trouble {
        super::complain(format!("{trouble}; what is told is from the run folder alone"));
    }
    let text = match (&args.command, args.output) {
        (None | Some(Command::List), Output::Text) if incidents.is_empty() => {
            format!("no incidents in {} or {}\n", shown(&args.run_dir), shown(&args.state_dir))
        }
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
    tell(args.output, &text)?;
    Ok(if trouble.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What copies and journal hold together, and why the journal's part is missing.
pub(super) fn gather(run_dir: &Path, stored: Result<Vec<Incident>, Trouble>) -> (Vec<Incident>, Option<Trouble>) {
    let (stored, trouble) = match stored {
        Ok(stored) => (stored, None),
        Err(trouble) => (Vec::new(), Some(trouble)),
    };
    (latest(stored, Copies::below(run_dir).all()), trouble)
}

pub(super) fn time(seconds: u64) -> String {
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(|| seconds.to_string(), |timestamp| timestamp.to_string())
}

fn list(incidents: &[Incident]) -> String {
    let mut text = String::new();
    for incident in incidents {
        let _ = writeln!(
            text,
            "{}  {}  {}: {}",
            Tone::Quiet.paint(time(incident.decided_at)),
            escaped(&incident.id),
            escaped(&incident.cgroup),
            outcome(incident)
        );
    }
    text
}

/// What came of it, in the colour of how well that is.
pub(super) fn outcome(incident: &Incident) -> String {
    let tone = match incident.stage {
        Stage::Done { ended: Ended::Dead { .. } | Ended::OomKilled { .. } } => Tone::Good,
        Stage::Done { ended: Ended::Lingering { .. } | Ended::NobodyDied { .. } } | Stage::Failed { .. } => Tone::Bad,
        Stage::Done { ended: Ended::DryRun } | Stage::Planned | Stage::Out { .. } | Stage::Interrupted { .. } => {
            Tone::Look
        }
        Stage::Suppressed { .. } => Tone::Quiet,
    };
    tone.paint(escaped(&incident.outcome()))
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
    ] {
        let _ = writeln!(text, "{name:<9} {}", escaped(&value));
    }
    let _ = writeln!(text, "{:<9} {}", "outcome", outcome(incident));
    if let Some(workload) = &incident.workload {
        let _ = writeln!(text, "{:<9} {}", "container", escaped(&workload.name()));
        let job = workload.facts.as_ref().and_then(|facts| facts.job.as_ref());
        if let Some(job) = job {
            let _ = writeln!(text, "{:<9} {} of {}", "run", job.run_id, escaped(&job.repository));
        }
    }
    if !incident.follow_ups.is_empty() {
        let _ = writeln!(text, "{}", Tone::Strong.paint("then"));
    }
    for follow_up in &incident.follow_ups {
        let _ = writeln!(text, "  {}", escaped(&follow_up.outcome()));
    }
    let _ = writeln!(text, "{}", Tone::Strong.paint("evidence"));
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
            revision: 0,
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
        let list = |incidents: &[Incident]| anstream::adapter::strip_str(&list(incidents)).to_string();
        assert_eq!(
            list(&[incident()]),
            "2025-11-24T16:00:00Z  mg-1764000000-7  a.scope\\n2026 KILLED: killed, empty after 12 ms\n"
        );
    }

    #[test]
    fn all_of_one() {
        let show = |incident: &Incident| anstream::adapter::strip_str(&show(incident)).to_string();
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
