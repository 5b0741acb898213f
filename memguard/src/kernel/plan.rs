//! The plan: for each signal the best source that the facts allow. Pure.

use serde::Serialize;

use super::support::Facts;

/// What memguard wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    ReclaimCycles,
    LimitOwner,
    FileFaults,
    Refaults,
    Stalls,
    OomVictims,
    CgroupLifecycle,
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::ReclaimCycles => "reclaim cycles",
            Self::LimitOwner => "owner of the limit",
            Self::FileFaults => "file faults",
            Self::Refaults => "refaults",
            Self::Stalls => "time lost to memory",
            Self::OomVictims => "OOM victims",
            Self::CgroupLifecycle => "cgroups removed",
        })
    }
}

/// One way to get a signal from the tracer.
struct Source {
    /// In the order in which they are attached: the end of a span of time before its begin, because a begin whose end is
    /// not seen leaves its task in that state for good, and an end without a begin does no harm.
    programs: &'static [&'static str],
    /// What it does not tell, compared with the best one.
    lost: Option<&'static str>,
}

struct Ladder {
    signal: Signal,
    /// Best first.
    sources: &'static [Source],
    /// What stands in when none of them can be had.
    fallback: &'static str,
}

const fn best(programs: &'static [&'static str]) -> Source {
    Source { programs, lost: None }
}

const LADDERS: &[Ladder] = &[
    Ladder {
        signal: Signal::ReclaimCycles,
        sources: &[best(&["reclaim_end", "reclaim_begin"])],
        fallback: "memory.events and memory.stat, polled every second; the time of cycles is lost",
    },
    Ladder {
        signal: Signal::LimitOwner,
        sources: &[best(&["limit_owner_fentry"]), best(&["limit_owner_kprobe"])],
        fallback: "memory.events.local: the nearest cgroup whose limit was hit",
    },
    Ladder {
        signal: Signal::FileFaults,
        sources: &[
            best(&["fault_fexit", "fault_fentry"]),
            Source { programs: &["fault_fexit"], lost: Some("how long tasks wait for the pages of mapped files") },
            Source {
                programs: &["fault_kretprobe", "fault_kprobe"],
                lost: Some(
                    "which of the faults on program text were major ones, and which text came back: all of them count",
                ),
            },
            Source {
                programs: &["fault_kprobe"],
                lost: Some(
                    "which of the faults on program text were major ones, and which text came back: all of them count; \
                     and how long tasks wait for the pages of mapped files",
                ),
            },
            Source {
                programs: &["fault_tracepoint"],
                lost: Some("which faults were on program text: pgmajfault of memory.stat stands in"),
            },
        ],
        fallback: "pgmajfault of memory.stat; which faults were on program text is lost",
    },
    Ladder {
        signal: Signal::Refaults,
        sources: &[best(&["refault_fentry"]), best(&["refault_kprobe"])],
        fallback: "workingset_refault_file of memory.stat",
    },
    Ladder {
        signal: Signal::Stalls,
        sources: &[
            best(&["stall_leave_fentry", "stall_enter_fentry"]),
            best(&["stall_leave_kprobe", "stall_enter_kprobe"]),
        ],
        fallback: "memory.pressure of PSI, where it is on",
    },
    Ladder { signal: Signal::OomVictims, sources: &[best(&["oom_victim"])], fallback: "oom_kill of memory.events" },
    Ladder {
        signal: Signal::CgroupLifecycle,
        sources: &[best(&["cgroup_removed"])],
        fallback: "the tree is walked again; counters of removed cgroups stay until the table is full",
    },
];

/// Where one signal comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignalPlan {
    pub signal: Signal,
    /// Programs to load; none means the fallback.
    pub programs: &'static [&'static str],
    /// What is lost, or what stands in.
    pub lost: Option<&'static str>,
}

/// How much of the tracer is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// No eBPF: cgroup files only.
    Files,
    /// The tracer runs, some signals come from a lesser source.
    Degraded,
    /// Every signal from its best source.
    Full,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Files => "files",
            Self::Degraded => "degraded",
            Self::Full => "full",
        })
    }
}

/// What to load, and what is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub level: Level,
    pub signals: Vec<SignalPlan>,
    /// Why there is no tracer at all, with the remedy.
    pub no_tracer: Option<String>,
}

/// Which members of a snapshot mean something under a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one for each kind of counter")]
pub struct Coverage {
    pub reclaim: bool,
    pub limit_owner: bool,
    pub faults: bool,
    pub text_faults: bool,
    pub major_faults: bool,
    pub fault_time: bool,
    pub refaults: bool,
    pub stalls: bool,
    pub oom_victims: bool,
}

#[cfg(test)]
impl Coverage {
    /// That of a full plan.
    pub(crate) const ALL: Self = Self {
        reclaim: true,
        limit_owner: true,
        faults: true,
        text_faults: true,
        major_faults: true,
        fault_time: true,
        refaults: true,
        stalls: true,
        oom_victims: true,
    };
}

impl Plan {
    /// The programs to load, in order.
    pub fn programs(&self) -> impl Iterator<Item = &'static str> {
        self.signals.iter().flat_map(|signal| signal.programs.iter().copied())
    }

    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let has = |program: &str| self.programs().any(|planned| planned == program);
        Coverage {
            reclaim: has("reclaim_end"),
            limit_owner: has("limit_owner_fentry") || has("limit_owner_kprobe"),
            faults: has("fault_fexit") || has("fault_kprobe") || has("fault_tracepoint"),
            text_faults: has("fault_fexit") || has("fault_kprobe"),
            major_faults: has("fault_fexit"),
            fault_time: has("fault_fentry") || has("fault_kretprobe"),
            refaults: has("refault_fentry") || has("refault_kprobe"),
            stalls: has("stall_leave_fentry") || has("stall_leave_kprobe"),
            oom_victims: has("oom_victim"),
        }
    }
}

/// Makes the plan.
#[must_use]
pub fn plan(facts: &Facts) -> Plan {
    let mut no_tracer = obstacle(facts);
    let mut signals: Vec<SignalPlan> = LADDERS
        .iter()
        .map(|ladder| {
            let source = ladder
                .sources
                .iter()
                .filter(|_| no_tracer.is_none())
                .find(|source| source.programs.iter().all(|program| facts.available(program)));
            SignalPlan {
                signal: ladder.signal,
                programs: source.map_or(&[], |source| source.programs),
                lost: source.map_or(Some(ladder.fallback), |source| source.lost),
            }
        })
        .collect();
    // Snapshots are sent at the end of a reclaim cycle. Without that hook nothing would ever reach user space, so
    // counting the rest would only cost.
    if no_tracer.is_none() && signals.iter().any(|s| s.signal == Signal::ReclaimCycles && s.programs.is_empty()) {
        no_tracer = Some("the tracepoints of memcg reclaim can't be used, and all else hangs on them".to_owned());
        for (signal, ladder) in signals.iter_mut().zip(LADDERS) {
            signal.programs = &[];
            signal.lost = Some(ladder.fallback);
        }
    }
    let level = match &no_tracer {
        Some(_) => Level::Files,
        None if signals.iter().any(|signal| signal.lost.is_some()) => Level::Degraded,
        None => Level::Full,
    };
    Plan { level, signals, no_tracer }
}

fn obstacle(facts: &Facts) -> Option<String> {
    if !facts.object {
        Some("this memguard was built without its eBPF object: build it with `cargo xtask build`".to_owned())
    } else if let Err(error) = &facts.btf {
        Some(error.clone())
    } else if !facts.privileges.tracing {
        Some("no permission to load eBPF: it takes CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        cgroup::RootFacts,
        kernel::{HOOKS, HookFact, HookState, Kernel, Layout, Privileges},
    };

    fn facts() -> Facts {
        Facts {
            kernel: Kernel {
                release: "6.12.73".to_owned(),
                machine: "x86_64".to_owned(),
                page_size: 4096,
                mglru: Some(true),
            },
            privileges: Privileges { root: true, tracing: true, kill: true, lock_memory: true, oom_score: true },
            root: RootFacts {
                path: PathBuf::from("/sys/fs/cgroup"),
                v2: true,
                memory: true,
                kill: true,
                pressure: true,
            },
            object: true,
            btf: Ok(()),
            layout: Layout::complete(),
            hooks: HOOKS.iter().map(|hook| HookFact { hook, state: HookState::Available }).collect(),
        }
    }

    fn without(programs: &[&str]) -> Facts {
        let mut facts = facts();
        for program in programs {
            facts.refuse(program, "EPERM".to_owned());
        }
        facts
    }

    fn signal(plan: &Plan, signal: Signal) -> &SignalPlan {
        plan.signals.iter().find(|s| s.signal == signal).unwrap()
    }

    #[test]
    fn with_everything_the_best_of_each_and_nothing_twice() {
        let plan = plan(&facts());
        assert_eq!(plan.level, Level::Full);
        let programs: Vec<_> = plan.programs().collect();
        assert_eq!(
            programs,
            [
                "reclaim_end",
                "reclaim_begin",
                "limit_owner_fentry",
                "fault_fexit",
                "fault_fentry",
                "refault_fentry",
                "stall_leave_fentry",
                "stall_enter_fentry",
                "oom_victim",
                "cgroup_removed"
            ]
        );
        let c = plan.coverage();
        assert!(
            c.reclaim && c.limit_owner && c.faults && c.text_faults && c.major_faults && c.refaults && c.oom_victims
        );
    }

    #[test]
    fn a_missing_tracepoint_that_is_not_needed_costs_nothing() {
        assert_eq!(plan(&without(&["fault_tracepoint"])).level, Level::Full, "6.1 has no mm_filemap_fault");
    }

    #[test]
    fn without_trampolines_kprobes_and_it_says_what_is_lost() {
        let plan = plan(&without(&["limit_owner_fentry", "fault_fexit", "refault_fentry", "stall_leave_fentry"]));
        assert_eq!(signal(&plan, Signal::Stalls).programs, ["stall_leave_kprobe", "stall_enter_kprobe"]);
        assert_eq!(plan.level, Level::Degraded);
        assert_eq!(signal(&plan, Signal::LimitOwner).programs, ["limit_owner_kprobe"]);
        assert_eq!(signal(&plan, Signal::FileFaults).programs, ["fault_kretprobe", "fault_kprobe"]);
        assert!(signal(&plan, Signal::FileFaults).lost.unwrap().contains("major"));
        assert_eq!(signal(&plan, Signal::Refaults).lost, None);
        assert!(plan.coverage().text_faults && plan.coverage().fault_time && !plan.coverage().major_faults);
    }

    #[test]
    fn without_the_begin_of_faults_their_time_is_lost_and_nothing_else() {
        let trampolines = plan(&without(&["fault_fentry"]));
        assert_eq!(signal(&trampolines, Signal::FileFaults).programs, ["fault_fexit"]);
        assert!(trampolines.coverage().major_faults && !trampolines.coverage().fault_time);
        assert_eq!(trampolines.level, Level::Degraded);
        let kprobes = plan(&without(&["fault_fexit", "fault_kretprobe"]));
        assert_eq!(signal(&kprobes, Signal::FileFaults).programs, ["fault_kprobe"]);
        assert!(signal(&kprobes, Signal::FileFaults).lost.unwrap().contains("how long"));
        assert!(kprobes.coverage().text_faults && !kprobes.coverage().fault_time);
    }

    #[test]
    fn without_kprobes_either_tracepoints_and_files() {
        let plan = plan(&without(&[
            "limit_owner_fentry",
            "limit_owner_kprobe",
            "fault_fexit",
            "fault_kprobe",
            "refault_fentry",
            "refault_kprobe",
        ]));
        assert_eq!(plan.level, Level::Degraded);
        assert_eq!(signal(&plan, Signal::FileFaults).programs, ["fault_tracepoint"]);
        assert!(signal(&plan, Signal::LimitOwner).lost.unwrap().contains("memory.events.local"));
        let coverage = plan.coverage();
        assert!(coverage.reclaim && coverage.faults && !coverage.text_faults && !coverage.refaults);
    }

    #[test]
    fn without_the_hook_that_hands_over_nothing_is_loaded() {
        for program in ["reclaim_begin", "reclaim_end"] {
            let plan = plan(&without(&[program]));
            assert_eq!((plan.level, plan.programs().count()), (Level::Files, 0), "{program}");
            assert!(plan.no_tracer.as_ref().unwrap().contains("reclaim"));
            assert!(plan.signals.iter().all(|signal| signal.lost.is_some()));
        }
    }

    #[test]
    fn each_obstacle_leaves_files_and_names_the_remedy() {
        type Change = fn(&mut Facts);
        let cases: [(Change, &str); 3] = [
            (|f| f.object = false, "cargo xtask build"),
            (|f| f.btf = Err("no CONFIG_DEBUG_INFO_BTF".to_owned()), "CONFIG_DEBUG_INFO_BTF"),
            (|f| f.privileges.tracing = false, "CAP_BPF"),
        ];
        for (change, remedy) in cases {
            let mut facts = facts();
            change(&mut facts);
            let plan = plan(&facts);
            assert_eq!((plan.level, plan.programs().count()), (Level::Files, 0));
            assert!(plan.no_tracer.unwrap().contains(remedy));
        }
    }

    #[test]
    fn what_sees_an_end_is_attached_before_what_sees_a_begin() {
        for (begin, end) in
            [("reclaim_begin", "reclaim_end"), ("stall_enter", "stall_leave"), ("fault_fentry", "fault_fexit")]
        {
            let programs = LADDERS.iter().flat_map(|ladder| ladder.sources).map(|source| source.programs);
            let pairs: Vec<_> = programs.filter(|programs| programs.iter().any(|p| p.starts_with(begin))).collect();
            assert!(!pairs.is_empty(), "{begin}");
            for pair in pairs {
                assert!(pair.len() == 2 && pair[0].starts_with(end) && pair[1].starts_with(begin), "{pair:?}");
            }
        }
    }

    #[test]
    fn every_program_of_a_ladder_is_a_hook() {
        for ladder in LADDERS {
            for program in ladder.sources.iter().flat_map(|source| source.programs) {
                assert!(crate::kernel::hook(program).is_some(), "{program}");
            }
        }
    }

    #[test]
    fn a_layout_without_a_member_is_not_whole() {
        let layout = Layout::complete().without("VMA_FLAGS");
        assert_eq!(layout.get("VMA_FLAGS"), None);
        assert!(layout.get("VM_FAULT_VMA").is_some());
    }
}
