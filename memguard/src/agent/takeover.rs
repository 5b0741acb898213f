//! What an agent takes over from the one before it.

use std::time::Duration;

use super::Agent;
use crate::{
    cgroup::{CgroupHandle, Tree},
    journal::{Found, Incident, Stage},
    respond::{Actions, Ledger, Spent},
};

impl<A: Actions> Agent<A> {
    /// Goes on with what an earlier memguard left.
    #[must_use]
    pub fn continuing(mut self, incidents: Vec<Incident>) -> Self {
        self.go_on_with(incidents);
        self
    }

    /// Kills of before count against the budget, or a crash loop would begin a new one each time. What was about to be
    /// done when the last memguard ended is looked at, and not done again; what remained to be done elsewhere is gone on
    /// with.
    pub(super) fn go_on_with(&mut self, incidents: Vec<Incident>) {
        for mut incident in incidents {
            if incident.stage == Stage::Planned {
                incident.stage = Stage::Interrupted { found: found(&self.tree, &self.boot_id, &incident) };
                tracing::warn!(incident = incident.id, "{}: {}", incident.cgroup, incident.outcome());
                self.journal.after(&mut incident);
            }
            if let Some(remote) = self.remote.as_ref().filter(|_| incident.is_open()) {
                remote.follow(incident.clone());
            }
            recall(&mut self.ledger, &incident, super::unix_seconds(), super::now(), self.config.policy.budget.per);
        }
    }
}

/// Whether anything is left of the cgroup that was to be ended.
fn found(tree: &Tree, boot_id: &str, incident: &Incident) -> Found {
    // After another start of the machine the id may be anybody's.
    let path = incident.victim.filter(|_| incident.boot_id == boot_id).and_then(|id| tree.path(id));
    let alive = path
        .and_then(|path| CgroupHandle::open(path).ok())
        .is_some_and(|handle| Some(handle.inode()) == incident.victim && handle.populated().unwrap_or(false));
    if alive { Found::Alive } else { Found::Gone }
}

/// Counts a kill of before. `seconds` since 1970 and `now` of the monotonic clock are the same moment.
fn recall(ledger: &mut Ledger, incident: &Incident, seconds: u64, now: Duration, per: Duration) {
    let age = Duration::from_secs(seconds.saturating_sub(incident.decided_at));
    if incident.spent() && age < per {
        let at = now.saturating_sub(age);
        let workload = incident.workload.as_ref();
        let namespace = workload.map(|workload| workload.namespace.clone());
        let pod_uid = workload.map(|workload| workload.pod_uid.clone());
        ledger.spend(Spent { at, mode: incident.mode, namespace, pod_uid });
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        agent::Config,
        cgroup::{CgroupRoot, fake_cgroup},
        journal::{Copies, Journal, Opened},
        kernel::{Facts, plan},
        remote::Wishes,
        respond::{DryRun, Limit, Method, Mode},
    };

    fn incident(victim: u64) -> Incident {
        Incident {
            id: "mg-1-1".to_owned(),
            revision: 0,
            decided_at: 1000,
            boot_id: "this".to_owned(),
            mode: Mode::Enforce,
            unit: victim,
            cgroup: "a.scope".to_owned(),
            victim: Some(victim),
            method: Some(Method::Kill),
            rule: "default".to_owned(),
            evidence: String::new(),
            workload: None,
            stage: Stage::Planned,
            follow_ups: Vec::new(),
            wishes: Wishes::default(),
        }
    }

    fn tree(root: &Path) -> Tree {
        let mut tree = Tree::new(root);
        tree.walk();
        tree
    }

    #[test]
    fn what_was_about_to_be_ended_is_found_alive_or_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.scope");
        fake_cgroup(&path);
        let id = CgroupHandle::open(&path).unwrap().inode();
        assert_eq!(found(&tree(dir.path()), "this", &incident(id)), Found::Alive);
        assert_eq!(found(&tree(dir.path()), "another start", &incident(id)), Found::Gone);
        assert_eq!(found(&tree(dir.path()), "this", &incident(id + 1_000_000)), Found::Gone);
        assert_eq!(found(&tree(dir.path()), "this", &Incident { victim: None, ..incident(id) }), Found::Gone);
        fs::write(path.join("cgroup.events"), "populated 0\n").unwrap();
        assert_eq!(found(&tree(dir.path()), "this", &incident(id)), Found::Gone);
    }

    #[tokio::test]
    async fn what_the_journal_could_not_say_at_the_start_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let [state, away, run, root] = ["state", "away", "run", "cgroup"].map(|name| dir.path().join(name));
        let mut before = Journal::open(&away, &dir.path().join("run-of-before")).unwrap().journal;
        before.before(&mut incident(1));
        assert!(before.close(Duration::from_secs(5)));
        // Something is in the way of the folder, until the disk is mounted.
        fs::write(&state, "").unwrap();
        let Opened { journal, incidents } = Journal::open(&state, &run).unwrap();
        assert_eq!(incidents, []);
        let pen = journal.pen();
        fs::create_dir(&root).unwrap();
        let root = CgroupRoot::new(&root);
        let (facts, _) = Facts::gather(&root, false);
        let config = Config { duration: Some(Duration::from_secs(2)), ..Config::default() };
        let agent = Agent::new(config, DryRun, journal, &root, None, &plan(&facts), None).continuing(incidents);
        fs::remove_file(&state).unwrap();
        fs::rename(&away, &state).unwrap();
        // Whatever is to be written has it look sooner than by itself.
        let why = String::new();
        pen.after(&mut Incident { id: "mg-2-2".to_owned(), stage: Stage::Suppressed { why }, ..incident(2) });
        drop(pen);
        agent.run(None).await.unwrap();
        let interrupted = Stage::Interrupted { found: Found::Gone };
        let copies = Copies::below(&run).all();
        assert!(copies.iter().any(|kept| kept.id == "mg-1-1" && kept.stage == interrupted), "{copies:?}");
    }

    #[test]
    fn kills_of_before_count_for_as_long_as_the_budget_says() {
        let limit = Limit { kills: 1, kills_per_namespace: 1, per: Duration::from_mins(10) };
        let now = Duration::from_secs(30);
        let allows = |incident: &Incident, seconds| {
            let mut ledger = Ledger::default();
            recall(&mut ledger, incident, seconds, now, limit.per);
            ledger.allows(now, Mode::Enforce, None, limit).is_ok()
        };
        let killed = Incident { stage: Stage::Interrupted { found: Found::Gone }, ..incident(1) };
        assert!(!allows(&killed, 1010), "just now");
        assert!(!allows(&killed, 1599), "before the machine's start");
        assert!(allows(&killed, 1600), "long ago");
        assert!(!allows(&killed, 900), "the clock was set back");
        assert!(allows(&Incident { stage: Stage::Interrupted { found: Found::Alive }, ..incident(1) }, 1010));
    }
}
