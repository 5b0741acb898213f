//! What the agent does about a verdict.

#[cfg(test)]
mod tests;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::Either;

use super::{
    Agent,
    ending::{OutNote, told},
    whose::Whose,
};
use crate::{
    cgroup::CgroupHandle,
    crash,
    engine::{UnitId, Verdict},
    journal::{Incident, Stage},
    remote::{Remote, Wishes, follow_ups},
    report::Draft,
    respond::{
        ActionError, Actions, Applies, Decision, DryRun, Ended, Method, Mode, PlanFacts, Planned, Spent, Suppressed,
        fresh_check, plan,
    },
    telemetry::{Action, CgroupName, Event, SuppressedAction, VerdictEvent, emit, escaped},
    workload::Place,
};

/// Pods whose annotation is complained of, in one life of memguard.
const MOST_COMPLAINTS: usize = 256;

/// An action that has come to its end.
#[derive(Debug)]
pub(super) struct Outcome {
    unit: UnitId,
    incident: Incident,
    victim_id: u64,
    victim: CgroupName,
    on_behalf_of: CgroupName,
    method: Method,
    because: String,
    verdict_to_action: Duration,
    /// What is certain since the kill is out, if it is.
    so_far: Option<Ended>,
    /// `None` if memguard ends before it is known.
    result: Option<Result<Ended, ActionError>>,
}

impl<A: Actions> Agent<A> {
    /// The cgroup turned suspect: open now what a kill will need.
    pub(super) fn prepare(&mut self, id: UnitId) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        if !unit.was_suspect {
            unit.was_suspect = true;
            self.summary.suspected += 1;
        }
        let Some(path) = self.tree.victim(&unit.path()) else { return };
        unit.victim = open_armed(&path);
        if let (Some(remote), Some(place)) = (&self.remote, Place::of(&path)) {
            remote.look_up(&place);
        }
    }

    /// Verdict, plan, fresh check, action; every way it can go leaves a line in the log.
    pub(super) fn respond(&mut self, id: UnitId, verdict: Verdict) {
        let decided = Instant::now();
        let now = super::now();
        // As long as the engine may be silent about one of them.
        let lately = self.config.engine.post_action_delay + self.config.engine.window;
        let suspects = self.suspects.count(now, lately);
        let under_reclaim = self.under_reclaim();
        let Some(unit) = self.units.get_mut(&id) else { return };
        let Some(latest) = unit.latest.clone() else { return };
        let decided_at = super::unix_seconds();
        let incident = format!("mg-{decided_at}-{id}");

        // The victim may be another one than when the cgroup turned suspect: another container of the pod grew.
        let victim_path = self.tree.victim(&unit.path());
        let armed = unit
            .victim
            .take()
            .filter(|victim| victim_path.as_deref() == Some(victim.path()) && victim.check_identity().is_ok());
        let victim = armed.or_else(|| victim_path.as_deref().and_then(open_armed));
        let unit_path = unit.path();
        let whose = Whose::of(victim_path.as_deref().unwrap_or(&unit_path), self.pods.as_ref());
        unit.name.pod = Whose::of(&unit_path, self.pods.as_ref()).name();
        let on_behalf_of = unit.name.clone();
        let facts = PlanFacts {
            now,
            root: self.tree.root(),
            owner: unit.handle.path(),
            victim: victim.as_ref().map(|victim| (UnitId(victim.inode()), victim.path())),
            subject: whose.subject(self.tree.root(), &self.own_pod),
            own: &self.own,
            under_way: unit.kill_under_way
                || victim.as_ref().is_some_and(|victim| self.under_way.contains(&victim.inode())),
            ledger: &self.ledger,
            suspects,
            under_reclaim,
        };
        let Planned { applies, decision } = plan(&facts, &self.config.policy);
        if decision == Decision::Ignore {
            tracing::debug!("livelock in {on_behalf_of}: not told, {}", applies.why());
            return;
        }
        let Applies { mode, ref rule, .. } = applies;
        crash::point("verdict");
        let place = victim.as_ref().and_then(|victim| Place::of(victim.path()));
        let workload = self.remote.as_ref().zip(place.as_ref()).and_then(|(remote, place)| remote.workload(place));
        let reported = victim_path.as_deref().map(|path| CgroupName::new(self.tree.root(), 0, path).cgroup);
        let mut record = Incident {
            id: incident.clone(),
            revision: 0,
            decided_at,
            boot_id: self.boot_id.clone(),
            mode,
            unit: id.0,
            cgroup: on_behalf_of.cgroup.clone(),
            victim: None,
            method: None,
            rule: rule.clone(),
            evidence: verdict.terms.sentence(),
            workload,
            stage: Stage::Planned,
            follow_ups: Vec::new(),
            wishes: wishes(self.remote.as_ref(), &applies),
        };
        let workload = record.workload.clone();
        let decision = match (decision, victim) {
            (Decision::Suppress(reason), _) => Err(reason),
            (Decision::Ignore, _) | (Decision::End { .. }, None) => Err(Suppressed::NoVictim),
            (Decision::End { method, .. }, Some(victim)) => {
                (record.victim, record.method) = (Some(victim.inode()), Some(method));
                if let Some(remote) = &self.remote {
                    record.follow_ups = follow_ups(mode, record.workload.as_ref(), remote.reach());
                }
                // Before the last look, because the disk may take its moment.
                if mode == Mode::Enforce {
                    crash::point("journal-before");
                    self.metrics.kept(self.journal.before(&mut record));
                    crash::point("journal-kept");
                }
                let thresholds = &self.config.engine.thresholds;
                fresh_check(&unit.handle, &victim, &verdict, latest.memory.ooms(), thresholds)
                    .map(|()| (victim, method))
            }
        };
        // First the kill, then the words: the log waits for nobody, but its lines take time to write down.
        let outcome = match decision {
            Ok((victim, method)) => {
                crash::point("fresh-checked");
                let victim_id = victim.inode();
                let victim_name = CgroupName::new(self.tree.root(), victim_id, victim.path()).of_pod(whose.name());
                let (note, patience) = (OutNote::new(self.journal.pen(), record.clone()), self.config.kill_patience);
                let before_action = decided.elapsed();
                let action = match mode {
                    Mode::Enforce => Either::Left(self.actions.end(victim, method, patience, note.out())),
                    Mode::Observe | Mode::Off => Either::Right(DryRun.end(victim, method, patience, note.out())),
                };
                let until_begun = decided.elapsed();
                unit.kill_under_way = true;
                self.under_way.insert(victim_id);
                let (namespace, pod_uid) = (whose.namespace(), whose.pod_uid());
                self.ledger.spend(Spent { at: now, mode, namespace, pod_uid });
                if mode == Mode::Enforce {
                    self.suspects.forget(id);
                }
                let (on_behalf_of, because) = (on_behalf_of.clone(), applies.why());
                let ending = self.ending.subscribe();
                self.actions_under_way.spawn(async move {
                    let result = tokio::select! {
                        result = action => Some(result),
                        () = told(ending) => None,
                    };
                    // The kernel may have taken longer for the write than it was waited for.
                    let verdict_to_action = match &result {
                        Some(Ok(Ended::Dead { write_us, .. } | Ended::Lingering { write_us, .. })) => {
                            until_begun.max(before_action + Duration::from_micros(*write_us))
                        }
                        _ => until_begun,
                    };
                    let mut incident = record;
                    let so_far = note.close(&mut incident);
                    Outcome {
                        unit: id,
                        incident,
                        victim_id,
                        victim: victim_name,
                        on_behalf_of,
                        method,
                        because,
                        verdict_to_action,
                        so_far,
                        result,
                    }
                });
                None
            }
            Err(reason) => {
                record.stage = Stage::Suppressed { why: escaped(&reason.to_string()) };
                record.follow_ups.clear();
                self.journal.after(&mut record);
                Some(reason)
            }
        };
        self.summary.verdict(
            &incident,
            &on_behalf_of.cgroup,
            self.began.elapsed().as_secs_f64(),
            verdict.terms.sentence(),
        );
        if let Some(reporter) = &self.reporter {
            let timeline = self.units.get(&id).map(|unit| unit.timeline.points(now)).unwrap_or_default();
            reporter.verdict(Draft {
                incident: incident.clone(),
                decided_at,
                at: decided,
                mode,
                unit: id,
                cgroup: on_behalf_of.cgroup.clone(),
                victim: reported,
                workload,
                verdict: verdict.clone(),
                settings: self.config.engine.clone(),
                memory: latest.memory,
                timeline,
            });
        }
        // In observe mode nothing changes, so one verdict for one livelock is enough.
        if applies.may_act_later() {
            self.engine.acted(id, verdict.at);
            if let Some(recorder) = &mut self.recorder {
                recorder.acted(id, verdict.at);
            }
        }
        emit(&Event::Verdict(Box::new(VerdictEvent {
            incident: incident.clone(),
            mode,
            rule: rule.clone(),
            because: applies.why(),
            unit: on_behalf_of.clone(),
            suspect_for_s: verdict.at.saturating_sub(verdict.suspect_since).as_secs_f64(),
            verdict,
            memory: latest.memory,
            tracer: latest.tracer,
            signals_from: self.level,
        })));
        if let Some(reason) = outcome {
            self.summary.suppressed(&incident, &escaped(&reason.to_string()));
            emit(&Event::Suppressed(Box::new(SuppressedAction {
                incident,
                unit: on_behalf_of,
                rule: rule.clone(),
                reason,
            })));
        }
        if let Some((pod, sentence)) = whose.nonsense()
            && self.complained.len() < MOST_COMPLAINTS
            && self.complained.insert(pod.to_owned())
        {
            tracing::warn!("{sentence}");
        }
    }

    pub(super) fn finished(&mut self, outcome: Outcome) {
        if let Some(unit) = self.units.get_mut(&outcome.unit) {
            unit.kill_under_way = false;
        }
        self.under_way.remove(&outcome.victim_id);
        let (ended, error) = match (outcome.result, outcome.so_far) {
            (Some(Ok(ended)), _) => (Some(ended), None),
            // There was no way back from what is out, whatever went wrong after it.
            (Some(Err(error)), Some(so_far)) => {
                tracing::error!(incident = outcome.incident.id, %error, "the kill is out");
                (Some(so_far), None)
            }
            (Some(Err(error)), None) => (None, Some(escaped(&error.to_string()))),
            (None, Some(so_far)) => (Some(so_far), None),
            (None, None) => {
                tracing::warn!(
                    incident = outcome.incident.id,
                    "{} was to be ended, and it is not known yet whether it was; the next start looks again",
                    outcome.victim
                );
                return;
            }
        };
        let mut record = outcome.incident;
        record.stage = match (ended, &error) {
            (Some(ended), _) => Stage::Done { ended },
            (None, error) => Stage::Failed { error: error.clone().unwrap_or_default() },
        };
        crash::point("confirmed");
        self.journal.after(&mut record);
        crash::point("outcome-kept");
        let (incident, rule) = (record.id.clone(), record.rule.clone());
        if let Some(remote) = &self.remote {
            remote.follow(record);
        }
        let action = Action {
            incident,
            victim: outcome.victim,
            on_behalf_of: outcome.on_behalf_of,
            method: outcome.method,
            rule,
            because: outcome.because,
            verdict_to_action_ms: outcome.verdict_to_action.as_secs_f64() * 1e3,
            ended,
            error,
        };
        self.summary.action(&action);
        emit(&Event::Action(Box::new(action)));
    }
}

/// As the rule says, or else as it is configured for all.
fn wishes(remote: Option<&Remote>, applies: &Applies) -> Wishes {
    let all = remote.map(Remote::wishes).unwrap_or_default();
    Wishes {
        cancel_after_oom: applies.cancel_after_oom,
        force_cancel: applies.force_cancel.unwrap_or(all.force_cancel),
        ..all
    }
}

/// Opens what may have to be killed. That cgroup.kill can't be opened is told by the kill itself, if it comes to it.
fn open_armed(path: &Path) -> Option<CgroupHandle> {
    match CgroupHandle::open(path) {
        Ok(mut victim) => {
            if let Err(error) = victim.arm() {
                tracing::debug!(%error, "cgroup.kill can't be opened early");
            }
            Some(victim)
        }
        Err(error) => {
            tracing::debug!(%error, "what would have to be killed can't be opened");
            None
        }
    }
}
