//! What to do about a verdict. Pure, but for the fresh check right before a kill.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    actions::Method,
    policy::{Limit, Policy},
};
use crate::{
    cgroup::{CgroupError, CgroupHandle, is_grouping},
    engine::{Thresholds, UnitId, Verdict},
};

/// All that the plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct PlanFacts<'a> {
    pub root: &'a Path,
    /// The cgroup whose limit is hit.
    pub owner: &'a Path,
    /// The cgroup to kill on its behalf, and its id.
    pub victim: Option<(UnitId, &'a Path)>,
    /// memguard's own cgroup and all above it.
    pub own: &'a [u64],
    /// A kill of this cgroup is still under way.
    pub under_way: bool,
    /// Whether [`Policy::budget`] has room for one more.
    pub within_budget: bool,
    /// Cgroups that look hung now, this one among them, of so many that are under reclaim.
    pub suspects: usize,
    pub under_reclaim: usize,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    End { victim: PathBuf, method: Method },
    Suppress(Suppressed),
}

/// Why nothing is done about a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Suppressed {
    #[error("the root of the tree is never killed")]
    Root,
    #[error("it is memguard's own cgroup, or one above it")]
    Own,
    #[error("it only groups others, and none of them can be told to be the one")]
    NoVictim,
    #[error("{cgroup} is protected by the pattern {pattern}")]
    Protected { cgroup: String, pattern: String },
    #[error("{cgroup} is none of those that may be killed (policy.only)")]
    NotSelected { cgroup: String },
    #[error("a kill of it is still under way")]
    UnderWay,
    #[error(
        "{suspects} of {under_reclaim} cgroups under reclaim look hung at once: that is the machine, a disk perhaps, and not \
         a job (policy.sick_share)"
    )]
    ManyAtOnce { suspects: usize, under_reclaim: usize },
    #[error(
        "the budget of {kills} kill{} in {per_s} s is spent (policy.kills, policy.kills_per_s)",
        if *kills == 1 { "" } else { "s" }
    )]
    BudgetSpent { kills: u32, per_s: u64 },
    #[error("the check right before found it changed: {why}")]
    Changed { why: String },
    #[error("the cgroup is gone")]
    Gone,
}

/// Makes the plan.
#[must_use]
pub fn plan(facts: &PlanFacts<'_>, policy: &Policy) -> Decision {
    if facts.owner == facts.root {
        return Decision::Suppress(Suppressed::Root);
    }
    let Some((id, victim)) = facts.victim else { return Decision::Suppress(Suppressed::NoVictim) };
    if facts.own.contains(&id.0) {
        return Decision::Suppress(Suppressed::Own);
    }
    if is_grouping(victim) || !victim.starts_with(facts.owner) {
        return Decision::Suppress(Suppressed::NoVictim);
    }
    let below = victim.strip_prefix(facts.root).unwrap_or(victim);
    if let Some(pattern) = policy.protect.iter().find(|pattern| pattern.matches_path(below)) {
        return Decision::Suppress(Suppressed::Protected {
            cgroup: crate::telemetry::shown(below),
            pattern: pattern.to_string(),
        });
    }
    if !policy.only.is_empty() && !policy.only.iter().any(|pattern| pattern.matches_path(below)) {
        return Decision::Suppress(Suppressed::NotSelected { cgroup: crate::telemetry::shown(below) });
    }
    if facts.under_way {
        return Decision::Suppress(Suppressed::UnderWay);
    }
    let PlanFacts { suspects, under_reclaim, .. } = *facts;
    if policy.sick.stops(suspects, under_reclaim) {
        return Decision::Suppress(Suppressed::ManyAtOnce { suspects, under_reclaim });
    }
    if !facts.within_budget {
        let Limit { kills, per } = policy.budget;
        return Decision::Suppress(Suppressed::BudgetSpent { kills, per_s: per.as_secs() });
    }
    Decision::End { victim: victim.to_owned(), method: policy.method }
}

/// The last look before a kill: the same cgroups as judged, still at the limit, still full of processes, and the
/// kernel's own OOM killer has not begun meanwhile.
pub fn fresh_check(
    owner: &CgroupHandle,
    victim: &CgroupHandle,
    verdict: &Verdict,
    oom_kills_then: u64,
    thresholds: &Thresholds,
) -> Result<(), Suppressed> {
    let changed = |why: String| Err(Suppressed::Changed { why });
    let gone = |error: CgroupError| match error {
        CgroupError::Gone { .. } => Suppressed::Gone,
        other => Suppressed::Changed { why: other.to_string() },
    };
    if owner.inode() != verdict.unit.0 {
        return changed(format!("cgroup {} was judged, and this is {}", verdict.unit, owner.inode()));
    }
    owner.check_identity().map_err(gone)?;
    victim.check_identity().map_err(gone)?;
    if !victim.populated().map_err(gone)? {
        return changed("no process is left in it".to_owned());
    }
    let memory = owner.memory().map_err(gone)?;
    let Some((limit, which)) = memory.limit() else { return changed("its limit was lifted".to_owned()) };
    if (limit, which) != (verdict.signals.limit, verdict.signals.limited_by) {
        return changed(format!(
            "its limit was changed from {} of {} to {which} of {limit} bytes",
            verdict.signals.limited_by, verdict.signals.limit
        ));
    }
    if (memory.current as f64) < limit as f64 * thresholds.at_limit.from {
        return changed(format!("it uses {} of {limit} bytes now", memory.current));
    }
    if memory.oom_kills != oom_kills_then {
        return changed("the kernel's OOM killer has acted".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/sys/fs/cgroup";
    const POD: &str = "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice";
    const SCOPE: &str = "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/cri-containerd-aa.scope";

    fn facts<'a>(owner: &'a str, victim: Option<&'a str>) -> PlanFacts<'a> {
        PlanFacts {
            root: Path::new(ROOT),
            owner: Path::new(owner),
            victim: victim.map(|victim| (UnitId(9), Path::new(victim))),
            own: &[1, 2, 3],
            under_way: false,
            within_budget: true,
            suspects: 1,
            under_reclaim: 1,
        }
    }

    fn suppressed(facts: &PlanFacts<'_>) -> Suppressed {
        match plan(facts, &Policy::default()) {
            Decision::Suppress(reason) => reason,
            Decision::End { victim, .. } => panic!("would kill {}", victim.display()),
        }
    }

    #[test]
    fn a_container_is_killed() {
        let end = Decision::End { victim: PathBuf::from(SCOPE), method: Method::Kill };
        assert_eq!(plan(&facts(SCOPE, Some(SCOPE)), &Policy::default()), end);
        assert_eq!(plan(&facts(POD, Some(SCOPE)), &Policy::default()), end, "on behalf of its pod");
        let service = "/sys/fs/cgroup/system.slice/actions.runner.service";
        assert!(matches!(plan(&facts(service, Some(service)), &Policy::default()), Decision::End { .. }));
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
        let pattern = |text: &str| glob::Pattern::new(text).unwrap();
        let policy = Policy { only: vec![pattern("system.slice/*"), pattern("**/crio-*.scope")], ..Policy::default() };
        let of = |path: &str| match plan(&facts(path, Some(path)), &policy) {
            Decision::Suppress(reason) => Some(reason),
            Decision::End { .. } => None,
        };
        assert_eq!(of(&format!("{ROOT}/system.slice/actions.runner.service")), None);
        assert!(matches!(of(SCOPE), Some(Suppressed::NotSelected { cgroup }) if cgroup.contains("cri-containerd")));
        let kubelet = format!("{ROOT}/system.slice/kubelet.service");
        assert!(matches!(of(&kubelet), Some(Suppressed::Protected { .. })));
    }

    #[test]
    fn a_spent_budget_and_a_sick_machine_stop_kills_and_say_so() {
        let spent = suppressed(&PlanFacts { within_budget: false, ..facts(SCOPE, Some(SCOPE)) });
        assert_eq!(spent, Suppressed::BudgetSpent { kills: 10, per_s: 600 });
        assert!(spent.to_string().contains("10 kills in 600 s"), "{spent}");
        let sick = suppressed(&PlanFacts { suspects: 6, under_reclaim: 7, ..facts(SCOPE, Some(SCOPE)) });
        assert!(sick.to_string().contains("6 of 7"), "{sick}");
        let (two, policy) =
            (PlanFacts { suspects: 2, under_reclaim: 2, ..facts(SCOPE, Some(SCOPE)) }, Policy::default());
        assert!(matches!(plan(&two, &policy), Decision::End { .. }), "two hangs at once are just that");
    }

    mod fresh {
        use std::{fs, time::Duration};

        use super::*;
        use crate::{
            cgroup::fake_cgroup,
            engine::{Cpu, Engine, Memory, Pressure, Sample, Settings, Stall, State, Verdict},
        };

        /// A verdict on the cgroup at `path`, from the engine itself.
        fn verdict(path: &Path) -> (CgroupHandle, Verdict) {
            let handle = CgroupHandle::open(path).unwrap();
            let mut engine = Engine::new(Settings::default());
            for second in 0..60 {
                let time = Duration::from_secs(second);
                let stall = Some(Stall { some: time, full: time });
                let memory = Memory {
                    current: 1990,
                    max: Some(2000),
                    anon: 1900,
                    file: 80,
                    steals: 100 * second,
                    refaults: 100 * second,
                    major_faults: 50 * second,
                    max_events: 50 * second,
                    ..Memory::default()
                };
                let sample = Sample {
                    at: time,
                    memory,
                    pressure: Pressure { memory: stall, io: stall },
                    cpu: Some(Cpu { user: Duration::ZERO, system: time }),
                    tracer: None,
                };
                let observation = engine.observe(UnitId(handle.inode()), sample);
                if let Some(verdict) = observation.verdict {
                    assert_eq!(observation.state, State::Livelock);
                    return (handle, verdict);
                }
            }
            panic!("no verdict");
        }

        fn setup() -> (tempfile::TempDir, PathBuf) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.scope");
            fake_cgroup(&path);
            fs::write(path.join("memory.current"), "1995\n").unwrap();
            (dir, path)
        }

        fn check(path: &Path, handle: &CgroupHandle, verdict: &Verdict) -> Result<(), Suppressed> {
            let victim = CgroupHandle::open(path).map_err(|_| Suppressed::Gone)?;
            fresh_check(handle, &victim, verdict, 4, &Thresholds::default())
        }

        #[test]
        fn passes_while_nothing_changed() {
            let (_dir, path) = setup();
            let (handle, verdict) = verdict(&path);
            assert_eq!(check(&path, &handle, &verdict), Ok(()));
        }

        #[test]
        fn stops_for_each_change() {
            let changes: [(&str, &str, &str); 5] = [
                ("memory.current", "1000\n", "uses 1000"),
                ("memory.max", "max\n", "lifted"),
                ("memory.max", "4000\n", "changed"),
                ("memory.events", "max 9\noom_kill 5\n", "OOM killer"),
                ("cgroup.events", "populated 0\n", "no process"),
            ];
            for (file, text, why) in changes {
                let (_dir, path) = setup();
                let (handle, verdict) = verdict(&path);
                fs::write(path.join(file), text).unwrap();
                let reason = check(&path, &handle, &verdict).unwrap_err().to_string();
                assert!(reason.contains(why), "{file}: {reason}");
            }
        }

        #[test]
        fn stops_for_another_cgroup_in_its_place_and_for_none() {
            let (dir, path) = setup();
            let (handle, verdict) = verdict(&path);
            fs::rename(&path, dir.path().join("old")).unwrap();
            assert_eq!(check(&path, &handle, &verdict), Err(Suppressed::Gone));
            fake_cgroup(&path);
            let reason = check(&path, &handle, &verdict).unwrap_err().to_string();
            assert!(reason.contains("in its place"), "{reason}");
        }
    }
}
