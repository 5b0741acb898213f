//! What to do about a verdict. Pure: facts, the time among them, in; a decision out.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Suppressed,
    actions::Method,
    policy::{Applies, Because, Ledger, Mode, Policy, Subject, any_path},
};
use crate::{cgroup::is_grouping, engine::UnitId, telemetry::shown};

/// All that the plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct PlanFacts<'a> {
    /// Of the clock that the ledger has.
    pub now: Duration,
    pub root: &'a Path,
    /// The cgroup whose limit is hit.
    pub owner: &'a Path,
    /// The cgroup to kill on its behalf, and its id.
    pub victim: Option<(UnitId, &'a Path)>,
    /// Whose it is: the victim, or where there is none the owner.
    pub subject: Subject<'a>,
    /// memguard's own cgroup and all above it.
    pub own: &'a [u64],
    /// A kill of this cgroup is still under way.
    pub under_way: bool,
    pub ledger: &'a Ledger,
    /// Cgroups that look hung now, this one among them, of so many that are under reclaim.
    pub suspects: usize,
    pub under_reclaim: usize,
}

/// What to do, and by what right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub applies: Applies,
    pub decision: Decision,
}

/// What to do. In mode observe it is what would be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    End {
        victim: PathBuf,
        method: Method,
    },
    Suppress(Suppressed),
    /// Mode off: it is not even told.
    Ignore,
}

/// Makes the plan.
#[must_use]
pub fn plan(facts: &PlanFacts<'_>, policy: &Policy) -> Planned {
    let applies = policy.applies(&facts.subject);
    let decision = if applies.mode == Mode::Off {
        Decision::Ignore
    } else {
        match may_end(facts, policy, &applies) {
            Ok(victim) => Decision::End { victim: victim.to_owned(), method: applies.method },
            Err(reason) => Decision::Suppress(reason),
        }
    };
    Planned { applies, decision }
}

/// The victim, if nothing stands against ending it.
fn may_end<'a>(facts: &PlanFacts<'a>, policy: &Policy, applies: &Applies) -> Result<&'a Path, Suppressed> {
    if facts.owner == facts.root {
        return Err(Suppressed::Root);
    }
    let (id, victim) = facts.victim.ok_or(Suppressed::NoVictim)?;
    if facts.own.contains(&id.0) {
        return Err(Suppressed::Own);
    }
    if is_grouping(victim) || !victim.starts_with(facts.owner) {
        return Err(Suppressed::NoVictim);
    }
    let subject = &facts.subject;
    if let Some(never) = subject.never() {
        return Err(never);
    }
    let below = victim.strip_prefix(facts.root).unwrap_or(victim);
    if let Some(pattern) = any_path(&policy.protect, below) {
        return Err(Suppressed::Protected { victim: shown(below), pattern: pattern.to_string() });
    }
    if !policy.only.is_empty() && any_path(&policy.only, below).is_none() {
        return Err(Suppressed::NotSelected { victim: shown(below) });
    }
    if applies.because == Because::PodUnknown {
        let depends_on = applies.rule.clone();
        return Err(Suppressed::PodUnknown { depends_on, kubernetes: subject.kubernetes, facts_stale: subject.stale });
    }
    if facts.under_way {
        return Err(Suppressed::UnderWay);
    }
    let PlanFacts { now, ledger, suspects, under_reclaim, .. } = *facts;
    if policy.sick.stops(suspects, under_reclaim) {
        return Err(Suppressed::ManyAtOnce { suspects, under_reclaim });
    }
    let pod_uid = subject.place.map(|place| place.pod_uid.as_str());
    ledger.delay_is_over(now, applies.mode, pod_uid, policy.pod_delay)?;
    let namespace = subject.pod.map(|pod| pod.namespace.as_str());
    ledger.allows(now, applies.mode, namespace, policy.budget)?;
    Ok(victim)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Spent,
            policy::fixture::{Thing, patterns, pod, runner, unknown_pod},
        },
        *,
    };

    const ROOT: &str = "/sys/fs/cgroup";
    const POD: &str = "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice";
    const SCOPE: &str = "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/cri-containerd-aa.scope";
    const NONE: &Ledger = &Ledger::new();

    fn host() -> &'static Thing {
        static HOST: std::sync::OnceLock<Thing> = std::sync::OnceLock::new();
        HOST.get_or_init(|| Thing { kubernetes: false, place: None, ..unknown_pod() })
    }

    fn facts<'a>(owner: &'a str, victim: Option<&'a str>) -> PlanFacts<'a> {
        PlanFacts {
            now: Duration::from_secs(1000),
            root: Path::new(ROOT),
            owner: Path::new(owner),
            victim: victim.map(|victim| (UnitId(9), Path::new(victim))),
            subject: host().subject(),
            own: &[1, 2, 3],
            under_way: false,
            ledger: NONE,
            suspects: 1,
            under_reclaim: 1,
        }
    }

    fn enforcing() -> Policy {
        Policy { mode: Mode::Enforce, ..Policy::default() }
    }

    fn reason(decision: Decision) -> Option<Suppressed> {
        match decision {
            Decision::Suppress(reason) => Some(reason),
            Decision::End { .. } | Decision::Ignore => None,
        }
    }

    fn suppressed(facts: &PlanFacts<'_>) -> Suppressed {
        let decision = plan(facts, &enforcing()).decision;
        reason(decision.clone()).unwrap_or_else(|| panic!("{decision:?}"))
    }

    /// About a pod's container.
    fn decided(thing: &Thing, policy: &Policy) -> Decision {
        plan(&PlanFacts { subject: thing.subject(), ..facts(SCOPE, Some(SCOPE)) }, policy).decision
    }

    #[test]
    fn a_container_is_killed() {
        let end = Decision::End { victim: PathBuf::from(SCOPE), method: Method::Kill };
        for policy in [enforcing(), Policy::default()] {
            assert_eq!(plan(&facts(SCOPE, Some(SCOPE)), &policy).decision, end, "or would be");
            assert_eq!(plan(&facts(POD, Some(SCOPE)), &policy).decision, end, "on behalf of its pod");
        }
        let service = "/sys/fs/cgroup/system.slice/actions.runner.service";
        assert!(matches!(plan(&facts(service, Some(service)), &enforcing()).decision, Decision::End { .. }));
    }

    #[test]
    fn it_is_done_as_the_rule_says_and_off_is_not_even_told() {
        let rules = |mode| {
            vec![super::super::Rule {
                name: "x".to_owned(),
                mode: Some(mode),
                method: Some(Method::Oom),
                ..Default::default()
            }]
        };
        let planned = plan(&facts(SCOPE, Some(SCOPE)), &Policy { rules: rules(Mode::Enforce), ..Policy::default() });
        assert_eq!((planned.applies.mode, planned.applies.rule.as_str()), (Mode::Enforce, "x"));
        assert!(matches!(planned.decision, Decision::End { method: Method::Oom, .. }));
        let off = Policy { rules: rules(Mode::Off), ..enforcing() };
        assert_eq!(plan(&facts(ROOT, None), &off).decision, Decision::Ignore);
    }

    #[test]
    fn never_the_root_a_slice_a_pod_or_oneself() {
        assert_eq!(suppressed(&facts(ROOT, Some(SCOPE))), Suppressed::Root);
        assert_eq!(suppressed(&facts(POD, Some(POD))), Suppressed::NoVictim);
        assert_eq!(suppressed(&facts(POD, None)), Suppressed::NoVictim);
        assert_eq!(suppressed(&facts(SCOPE, Some(POD))), Suppressed::NoVictim, "nothing above the owner");
        let own = PlanFacts { own: &[9], ..facts(SCOPE, Some(SCOPE)) };
        assert_eq!(suppressed(&own), Suppressed::Own);
    }

    #[test]
    fn what_is_never_ended_is_told_as_that_in_any_mode() {
        let kube_system = pod("kube-system", &[]);
        for policy in [enforcing(), Policy::default()] {
            assert_eq!(reason(decided(&kube_system, &policy)).map(|reason| reason.label()), Some("kube_system"));
        }
    }

    #[test]
    fn a_pod_that_is_not_known_is_not_guessed_at() {
        let reason = reason(decided(&unknown_pod(), &enforcing()));
        let depends_on = "default".to_owned();
        assert_eq!(reason, Some(Suppressed::PodUnknown { depends_on, kubernetes: true, facts_stale: false }));
        assert!(matches!(decided(&unknown_pod(), &Policy::default()), Decision::End { .. }), "only observed anyway");
    }

    #[test]
    fn facts_that_are_old_are_facts() {
        assert!(matches!(decided(&Thing { stale: true, ..runner() }, &enforcing()), Decision::End { .. }));
    }

    #[test]
    fn never_what_a_node_cannot_do_without() {
        for name in
            ["kubelet.service", "containerd.service", "systemd-journald.service", "dbus-broker.service", "sshd.service"]
        {
            let path = format!("{ROOT}/system.slice/{name}");
            assert!(matches!(suppressed(&facts(&path, Some(&path))), Suppressed::Protected { .. }), "{name}");
        }
        let init = format!("{ROOT}/init.scope");
        assert!(matches!(suppressed(&facts(&init, Some(&init))), Suppressed::Protected { .. }));
    }

    #[test]
    fn one_kill_at_a_time() {
        assert_eq!(suppressed(&PlanFacts { under_way: true, ..facts(SCOPE, Some(SCOPE)) }), Suppressed::UnderWay);
    }

    #[test]
    fn only_what_was_selected_and_never_what_is_protected() {
        let policy = Policy { only: patterns(&["system.slice/*", "**/crio-*.scope"]), ..enforcing() };
        let of = |path: &str| reason(plan(&facts(path, Some(path)), &policy).decision);
        assert_eq!(of(&format!("{ROOT}/system.slice/actions.runner.service")), None);
        assert!(matches!(of(SCOPE), Some(Suppressed::NotSelected { victim }) if victim.contains("cri-containerd")));
        let kubelet = format!("{ROOT}/system.slice/kubelet.service");
        assert!(matches!(of(&kubelet), Some(Suppressed::Protected { .. })));
    }

    #[test]
    fn spent_budgets_the_delay_of_a_pod_and_a_sick_machine_stop_kills_and_say_so() {
        let spent = |ago, namespace: &str, pod_uid: &str| Spent {
            at: Duration::from_secs(1000 - ago),
            mode: Mode::Enforce,
            namespace: Some(namespace.to_owned()),
            pod_uid: Some(pod_uid.to_owned()),
        };
        let thing = runner();
        let with = |policy: &Policy, all: Vec<Spent>| {
            let mut ledger = Ledger::new();
            for spent in all {
                ledger.spend(spent);
            }
            let facts = PlanFacts { subject: thing.subject(), ledger: &ledger, ..facts(SCOPE, Some(SCOPE)) };
            reason(plan(&facts, policy).decision)
        };
        let kills = |count: u64, namespace: &str| (0..count).map(|i| spent(500 - i, namespace, "another")).collect();
        assert_eq!(with(&enforcing(), kills(9, "ci")), None);
        let all = with(&enforcing(), kills(10, "ci")).unwrap();
        assert_eq!(all, Suppressed::BudgetSpent { kills: 10, per_s: 600 });
        assert!(all.to_string().contains("10 kills in 600 s"), "{all}");
        let mut fewer = enforcing();
        fewer.budget.kills_per_namespace = 3;
        assert_eq!(with(&fewer, kills(3, "ci")).unwrap().label(), "namespace_budget_spent");
        assert_eq!(with(&fewer, kills(9, "web")), None);
        let uid = thing.place.as_ref().unwrap().pod_uid.clone();
        assert_eq!(with(&enforcing(), vec![spent(9, "ci", &uid)]).unwrap().label(), "pod_delay");
        assert_eq!(with(&enforcing(), vec![spent(10, "ci", &uid)]), None);

        let sick = suppressed(&PlanFacts { suspects: 6, under_reclaim: 7, ..facts(SCOPE, Some(SCOPE)) });
        assert!(sick.to_string().contains("6 of 7"), "{sick}");
        let two = PlanFacts { suspects: 2, under_reclaim: 2, ..facts(SCOPE, Some(SCOPE)) };
        assert!(matches!(plan(&two, &enforcing()).decision, Decision::End { .. }), "two hangs at once are just that");
    }
}
