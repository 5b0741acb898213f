//! A snapshot as plain text, for a person without a terminal.

use std::fmt::Write as _;

use super::{
    snapshot::{IncidentStatus, Snapshot, UnitStatus},
    words::why,
};

const MIB: f64 = 1_048_576.0;

/// The whole of it.
#[must_use]
pub fn text(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let Snapshot { cost, totals, .. } = snapshot;
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "memguard {} in {} mode, signals: {}, up {:.0} s",
        snapshot.version, snapshot.mode, snapshot.signals_from, cost.up_s
    );
    if let Some(why) = &snapshot.no_tracer {
        let _ = writeln!(text, "  no tracer: {why}");
    }
    for lost in &snapshot.lost {
        let _ = writeln!(text, "  {}: lost {}", lost.signal, lost.lost);
    }
    let _ = write!(text, "  cost: {:.2} s of CPU", cost.cpu_s);
    if let Some(lately) = cost.cpu_lately {
        let _ = write!(text, ", lately {:.1} % of one", lately * 100.0);
    }
    let _ = write!(text, ", {:.1} MiB resident", cost.resident_kib as f64 / 1024.0);
    let _ = match cost.events_lost {
        Some(0) => writeln!(text, ", no event lost"),
        Some(lost) => writeln!(text, ", {lost} events LOST"),
        None => writeln!(text),
    };
    if let Some(pods) = &snapshot.pods {
        let stale = if pods.stale_since.is_some() { ", and the API does not tell of changes at present" } else { "" };
        let _ = writeln!(text, "  {} pods of this node are known{stale}", pods.known);
    }
    let _ = writeln!(
        text,
        "  so far: {} cgroups under reclaim, {} suspect, {} verdicts, {} killed, {} relieved, {} held back, {} failed",
        totals.under_reclaim,
        totals.suspected,
        totals.verdicts,
        totals.killed,
        totals.relieved,
        totals.suppressed,
        totals.failed
    );
    if snapshot.units.is_empty() {
        text.push_str("no cgroup is under reclaim\n");
    }
    for unit in &snapshot.units {
        of_unit(&mut text, unit, snapshot);
    }
    if snapshot.units_left_out > 0 {
        let _ = writeln!(text, "and {} more with less going on", snapshot.units_left_out);
    }
    for incident in &snapshot.incidents {
        let IncidentStatus { id, cgroup, outcome, open, .. } = incident;
        let _ = write!(text, "incident {id}: {}: {outcome}", incident.workload.as_ref().unwrap_or(cgroup));
        let _ = if *open > 0 { writeln!(text, " ({open} follow-ups open)") } else { writeln!(text) };
    }
    text
}

fn of_unit(text: &mut String, unit: &UnitStatus, snapshot: &Snapshot) {
    let memory = &unit.memory;
    let limit = memory
        .limit
        .map_or_else(String::new, |limit| format!(" of {:.0} MiB ({})", limit as f64 / MIB, memory.limited_by));
    let _ = writeln!(
        text,
        "{:<8} {}\n         {:.0}{limit}, {:.0} refaults/s; {}",
        unit.state.to_string(),
        unit.shown_name(),
        memory.current as f64 / MIB,
        unit.refaults_per_s(),
        why(unit, &snapshot.engine)
    );
}
