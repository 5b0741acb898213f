//! What the agent does about a verdict.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::Either;

use super::Agent;
use crate::{
    cgroup::CgroupHandle,
    crash,
    engine::{UnitId, Verdict},
    journal::{Incident, Stage},
    remote::{Remote, follow_ups},
    report::Draft,
    respond::{ActionError, Actions, Decision, DryRun, Ended, Method, Mode, PlanFacts, Suppressed, fresh_check, plan},
    telemetry::{Action, CgroupName, Event, SuppressedAction, VerdictEvent, emit, escaped},
    workload::Place,
};

/// An action that has come to its end.
#[derive(Debug)]
pub(super) struct Outcome {
    unit: UnitId,
    incident: Incident,
    victim: CgroupName,
    on_behalf_of: CgroupName,
    method: Method,
    verdict_to_action: Duration,
    result: Result<Ended, ActionError>,
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
        let under_reclaim = self.units.len();
        let Some(unit) = self.units.get_mut(&id) else { return };
        let Some(latest) = unit.latest.clone() else { return };
        let decided_at = super::unix_seconds();
        let incident = format!("mg-{decided_at}-{id}");
        let on_behalf_of = unit.name.clone();

        // The victim may be another one than when the cgroup turned suspect: another container of the pod grew.
        let victim_path = self.tree.victim(&unit.path());
        let armed = unit
            .victim
            .take()
            .filter(|victim| victim_path.as_deref() == Some(victim.path()) && victim.check_identity().is_ok());
        let victim = armed.or_else(|| victim_path.as_deref().and_then(open_armed));
        let facts = PlanFacts {
            root: self.tree.root(),
            owner: unit.handle.path(),
            victim: victim.as_ref().map(|victim| (UnitId(victim.inode()), victim.path())),
            own: &self.own,
            under_way: unit.kill_under_way,
            within_budget: self.budget.allows(now, self.config.policy.budget),
            suspects,
            under_reclaim,
        };
        let place = victim.as_ref().and_then(|victim| Place::of(victim.path()));
        let workload = self.remote.as_ref().zip(place.as_ref()).and_then(|(remote, place)| remote.workload(place));
        let reported = victim_path.as_deref().map(|path| CgroupName::new(self.tree.root(), 0, path).cgroup);
        let mut record = Incident {
            id: incident.clone(),
            decided_at,
            boot_id: self.boot_id.clone(),
            mode: self.config.mode,
            unit: id.0,
            cgroup: on_behalf_of.cgroup.clone(),
            victim: None,
            method: None,
            evidence: verdict.terms.sentence(),
            workload,
            stage: Stage::Planned,
            follow_ups: Vec::new(),
            wishes: self.remote.as_ref().map(Remote::wishes).unwrap_or_default(),
        };
        let workload = record.workload.clone();
        crash::point("verdict");
        let decision = match (plan(&facts, &self.config.policy), victim) {
            (Decision::Suppress(reason), _) => Err(reason),
            (Decision::End { .. }, None) => Err(Suppressed::NoVictim),
            (Decision::End { method, .. }, Some(victim)) => {
                (record.victim, record.method) = (Some(victim.inode()), Some(method));
                if let Some(remote) = &self.remote {
                    record.follow_ups = follow_ups(self.config.mode, record.workload.as_ref(), remote.reach());
                }
                // Before the last look, because the disk may take its moment.
                if self.config.mode == Mode::Enforce {
                    crash::point("journal-before");
                    self.journal.before(&record);
                    crash::point("journal-kept");
                }
                let thresholds = &self.config.engine.thresholds;
                fresh_check(&unit.handle, &victim, &verdict, latest.memory.oom_kills, thresholds)
                    .map(|()| (victim, method))
            }
        };
        // First the kill, then the words: the log waits for nobody, but its lines take time to write down.
        let outcome = match decision {
            Ok((victim, method)) => {
                crash::point("fresh-checked");
                let victim_name = CgroupName::new(self.tree.root(), victim.inode(), victim.path());
                let action = match self.config.mode {
                    Mode::Enforce => Either::Left(self.actions.end(victim, method, self.config.kill_patience)),
                    Mode::Observe => Either::Right(DryRun.end(victim, method, self.config.kill_patience)),
                };
                let verdict_to_action = decided.elapsed();
                crash::point("kill-written");
                unit.kill_under_way = true;
                self.budget.spend(now);
                if self.config.mode == Mode::Enforce {
                    self.suspects.forget(id);
                }
                let on_behalf_of = on_behalf_of.clone();
                self.actions_under_way.spawn(async move {
                    let result = action.await;
                    Outcome {
                        unit: id,
                        incident: record,
                        victim: victim_name,
                        on_behalf_of,
                        method,
                        verdict_to_action,
                        result,
                    }
                });
                None
            }
            Err(reason) => {
                record.stage = Stage::Suppressed { why: escaped(&reason.to_string()) };
                record.follow_ups.clear();
                self.journal.after(&record);
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
                mode: self.config.mode,
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
        if self.config.mode == Mode::Enforce {
            self.engine.acted(id, verdict.at);
            if let Some(recorder) = &mut self.recorder {
                recorder.acted(id, verdict.at);
            }
        }
        emit(&Event::Verdict(Box::new(VerdictEvent {
            incident: incident.clone(),
            mode: self.config.mode,
            unit: on_behalf_of.clone(),
            suspect_for_s: verdict.at.saturating_sub(verdict.suspect_since).as_secs_f64(),
            verdict,
            memory: latest.memory,
            tracer: latest.tracer,
            signals_from: self.level,
        })));
        if let Some(reason) = outcome {
            self.summary.suppressed(&incident, &escaped(&reason.to_string()));
            emit(&Event::Suppressed(Box::new(SuppressedAction { incident, unit: on_behalf_of, reason })));
        }
    }

    pub(super) fn finished(&mut self, outcome: Outcome) {
        if let Some(unit) = self.units.get_mut(&outcome.unit) {
            unit.kill_under_way = false;
        }
        let (ended, error) = match outcome.result {
            Ok(ended) => (Some(ended), None),
            Err(error) => (None, Some(escaped(&error.to_string()))),
        };
        let mut record = outcome.incident;
        record.stage = match (ended, &error) {
            (Some(ended), _) => Stage::Done { ended },
            (None, error) => Stage::Failed { error: error.clone().unwrap_or_default() },
        };
        crash::point("confirmed");
        self.journal.after(&record);
        crash::point("outcome-kept");
        let incident = record.id.clone();
        if let Some(remote) = &self.remote {
            remote.follow(record);
        }
        let action = Action {
            incident,
            victim: outcome.victim,
            on_behalf_of: outcome.on_behalf_of,
            method: outcome.method,
            verdict_to_action_ms: outcome.verdict_to_action.as_secs_f64() * 1e3,
            ended,
            error,
        };
        self.summary.action(&action);
        emit(&Event::Action(Box::new(action)));
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
