//! Made-up pages, for tests.

use std::{collections::BTreeMap, time::SystemTime};

use super::{
    counts::Metrics,
    format::Format,
    page::{About, Page},
    present::{Outside, Present, Totals},
    process::Process,
};
use crate::{
    journal::Disk,
    kernel::{Facts, HOOKS, HookFact, HookState, Kernel, Layout, Plan, Privileges, plan},
    remote::{Pulse, Waiting},
    tracer::{ProgramCost, Table, TracerCost},
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
        root: crate::cgroup::RootFacts {
            path: "/sys/fs/cgroup".into(),
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

pub(super) fn files_plan() -> Plan {
    Plan { no_tracer: Some("--no-tracer was given".to_owned()), ..plan(&Facts { object: false, ..facts() }) }
}

pub(super) fn degraded_plan() -> Plan {
    let mut facts = facts();
    facts.refuse("fault_fexit", "EPERM".to_owned());
    plan(&facts)
}

pub(super) fn about() -> About {
    About { kernel: facts().kernel, plan: plan(&facts()), memory_locked: true }
}

fn tracer() -> TracerCost {
    let plan = plan(&facts());
    let programs = plan.programs().map(|program| ProgramCost {
        program: program.to_owned(),
        verified_instructions: Some(100),
        jited_bytes: 1000,
        runs: 7,
        run_ns: 7000,
    });
    TracerCost {
        programs: programs.collect(),
        ring_full: 1,
        cgroups_left_out: 2,
        cycles_untimed: 3,
        ends_lost: 4,
        stalls_untimed: 5,
        undecodable: 6,
    }
}

/// With everything that there can be. Needs a runtime.
pub(super) fn whole() -> Present {
    let outside = Outside { pods: 12, stale_since: None, waiting: Waiting::default(), pulse: Pulse::here() };
    Present { outside: Some(outside), ..present() }
}

/// With everything but Kubernetes.
pub(super) fn present() -> Present {
    Present {
        states: [4, 3, 2, 1],
        watched: 10,
        suspected: 3,
        totals: Totals {
            cycles: Some(100),
            empty_cycles: Some(1),
            pages_reclaimed: Some(3200),
            reclaim_ns: Some(1_500_000_000),
            stall_ns: Some(2_500_000_000),
            refaults: 3000,
            text_returns: Some(50),
            oom_victims: Some(0),
        },
        tracer: Some(tracer()),
        table: Some(Table { slots: 8192, used: Some(40) }),
        journal: Disk::Works,
        ..Present::default()
    }
}

pub(super) fn text(metrics: &Metrics, present: Option<&Present>, format: Format) -> String {
    let process =
        Process { cpu_s: 1.5, resident_bytes: 9 << 20, open_fds: 30, max_fds: 1024, started: SystemTime::UNIX_EPOCH };
    let page = Page { metrics, about: &about(), present, process: &process, lost_lines: 0, now: SystemTime::now() };
    page.write(format).unwrap()
}

/// A family as a page in `OpenMetrics` describes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) kind: String,
    pub(super) unit: String,
    pub(super) help: String,
    /// Names of labels, but for `le`, in the order of their first appearance.
    pub(super) labels: Vec<String>,
    pub(super) series: usize,
}

/// Reads a page, and panics for what is not as it should be.
pub(super) fn families(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            if comment == "EOF" {
                continue;
            }
            let (what, rest) = comment.split_once(' ').unwrap();
            let (name, said) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            let family = families.entry(name.to_owned()).or_default();
            match what {
                "TYPE" => said.clone_into(&mut family.kind),
                "UNIT" => said.clone_into(&mut family.unit),
                "HELP" => said.clone_into(&mut family.help),
                other => panic!("{other}"),
            }
            continue;
        }
        let family = families.get_mut(&current).unwrap();
        assert!(line.starts_with(&current), "{line} below {current}");
        family.series += 1;
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        for label in labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name) {
            if label != "le" && !family.labels.iter().any(|known| known == label) {
                family.labels.push(label.to_owned());
            }
        }
    }
    families
}
