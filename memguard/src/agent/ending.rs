//! What is under way: who is being ended, that a kill is out, and memguard's own end meanwhile.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, task::JoinError, time::timeout};

use super::{Agent, respond::Outcome};
use crate::{
    journal::{Incident, Pen, Stage},
    respond::{Actions, Ended, Out},
};

/// How long memguard's own end waits for what it has begun: what remains to be done elsewhere needs some of the time that
/// it is given as well (`terminationGracePeriodSeconds` of the chart).
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

/// ms since 1970.
pub(super) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Keeps that a kill is out as soon as that is seen, on whatever thread that is: should memguard end now, its next start has
/// to know that there is no way back.
#[derive(Clone, Debug)]
pub(super) struct OutNote(Arc<Mutex<Noted>>);

#[derive(Debug)]
struct Noted {
    /// `None` once it is known what came of it: what is said later must not overwrite that.
    pen: Option<Pen>,
    incident: Incident,
    out: Option<(u64, Ended)>,
}

impl OutNote {
    pub(super) fn new(pen: Pen, incident: Incident) -> Self {
        Self(Arc::new(Mutex::new(Noted { pen: Some(pen), incident, out: None })))
    }

    /// To be called by who sees that it is out.
    pub(super) fn out(&self) -> Out {
        let note = self.clone();
        Arc::new(move |so_far| {
            let mut noted = note.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Noted { pen: Some(pen), incident, out } = &mut *noted else { return };
            let at = unix_ms();
            incident.stage = Stage::Out { at, so_far };
            pen.after(incident);
            *out = Some((at, so_far));
        })
    }

    /// Notes nothing any more. What it has noted, over which what comes of the incident now is newer.
    pub(super) fn close(&self, incident: &mut Incident) -> Option<Ended> {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.pen = None;
        incident.revision = noted.incident.revision;
        noted.out.map(|(at, so_far)| so_far.waited(unix_ms().saturating_sub(at)))
    }
}

/// Until memguard ends and nothing is waited for any more.
pub(super) async fn told(mut ending: watch::Receiver<bool>) {
    // An agent that is gone waits for nobody either.
    let _ = ending.wait_for(|ending| *ending).await;
}

impl<A: Actions> Agent<A> {
    /// Sees through what was begun, for a moment; then what is known of it by now counts.
    pub(super) async fn settle(&mut self) {
        if timeout(SETTLE_PATIENCE, self.join_all()).await.is_err() {
            self.ending.send_replace(true);
            self.join_all().await;
        }
    }

    pub(super) fn joined(&mut self, outcome: Result<Outcome, JoinError>) {
        match outcome {
            Ok(outcome) => self.finished(outcome),
            Err(error) => tracing::error!(%error, "an action was lost"),
        }
    }

    async fn join_all(&mut self) {
        loop {
            tokio::select! {
                Some(outcome) = self.actions_under_way.join_next() => self.joined(outcome),
                Some(incident) = self.taken_over.join_next() => self.took_over(incident),
                else => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        agent::{JOURNAL_PATIENCE, REMOTE_PATIENCE, REPORT_PATIENCE},
        journal::{Copies, Journal, example},
    };

    #[test]
    fn the_kubelet_gives_memguard_more_time_than_it_takes_to_end() {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests/memguard.yaml");
        let manifests = fs::read_to_string(manifests).unwrap();
        let grace = manifests.lines().find_map(|line| line.trim().strip_prefix("terminationGracePeriodSeconds: "));
        let grace = Duration::from_secs(grace.unwrap().parse().unwrap());
        let most = SETTLE_PATIENCE + REMOTE_PATIENCE + JOURNAL_PATIENCE + REPORT_PATIENCE;
        assert_eq!(most, Duration::from_secs(14), "as the chart's values and deploy/README.md have it");
        assert!(grace >= most * 2, "{grace:?} for {most:?}");
    }

    #[test]
    fn that_it_is_out_is_kept_at_once_and_not_over_what_came_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("state"), dir.path()).unwrap().journal;
        let stage = || Copies::below(dir.path()).all().pop().map(|incident| incident.stage);
        let so_far = Ended::Lingering { write_us: 5, waited_ms: 0 };
        let mut incident = example("mg-1-1", 1);
        let note = OutNote::new(journal.pen(), incident.clone());
        note.out()(so_far);
        assert!(matches!(stage(), Some(Stage::Out { so_far: kept, .. }) if kept == so_far));
        assert!(matches!(note.close(&mut incident), Some(Ended::Lingering { write_us: 5, .. })));
        assert_eq!(incident.revision, 1, "what came of it is newer than the note");

        let note = OutNote::new(journal.pen(), incident.clone());
        let out = note.out();
        assert_eq!(note.close(&mut incident), None);
        let done = Stage::Done { ended: so_far };
        incident.stage = done.clone();
        journal.after(&mut incident);
        out(Ended::Lingering { write_us: 9, waited_ms: 0 });
        assert_eq!((stage(), note.close(&mut incident)), (Some(done), None), "a write that returns late");
        assert!(journal.close(Duration::from_secs(10)), "nobody holds a pen any more");
    }
}
