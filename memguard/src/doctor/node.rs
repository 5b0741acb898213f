//! Facts about this machine.

use super::{Finding, Grade};
use crate::kernel::{Facts, HookState, Level, Plan};

/// What this machine offers. Pure.
#[must_use]
pub fn node(facts: &Facts, plan: &Plan, swap: Option<bool>) -> Vec<Finding> {
    let mut findings = vec![cgroups(facts)];
    // Of a tree that is not one of cgroup v2, what is not there says nothing about the kernel.
    let usable = facts.root.obstacle().is_none();
    findings.extend(usable.then(|| kill(facts)));
    findings.extend([kernel(facts), pages(facts), signals(facts, plan)]);
    findings.extend(usable.then(|| pressure(facts)));
    findings.extend(privileges(facts));
    findings.extend(swap.map(self::swap));
    findings
}

/// Whether swap is on, as /proc/swaps says: its first line is a heading.
#[must_use]
pub fn swap_is_on(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

fn cgroups(facts: &Facts) -> Finding {
    let path = facts.root.path.display();
    match facts.root.obstacle() {
        None => Finding::good("cgroups", format!("cgroup v2 with the memory controller at {path}"), "can be watched"),
        Some(obstacle) => {
            let (fact, remedy) = obstacle.split_once(": ").unwrap_or((&obstacle, "use a machine with cgroup v2"));
            Finding::of("cgroups", Grade::Bad, fact, "memguard can't work here", remedy)
        }
    }
}

fn kill(facts: &Facts) -> Finding {
    match (facts.root.kill, facts.privileges.kill) {
        (true, true) => Finding::good("kill", "cgroup.kill is there, and may be written", "livelocks can be ended"),
        (false, _) => Finding::of(
            "kill",
            Grade::Lesser,
            "there is no cgroup.kill",
            "memguard can only observe",
            "use a kernel from 5.14 on",
        ),
        (true, false) => Finding::of(
            "kill",
            Grade::Lesser,
            "cgroup.kill may not be written",
            "memguard can only observe",
            format!("{}, and mount /sys/fs/cgroup writable", give(facts, "CAP_DAC_OVERRIDE")),
        ),
    }
}

fn kernel(facts: &Facts) -> Finding {
    let release = &facts.kernel.release;
    if panics_in_reclaim(release) {
        return Finding::of(
            "kernel",
            Grade::Lesser,
            format!("Linux {release}"),
            "this build of Amazon Linux panics in memory reclaim (awslabs/amazon-eks-ami#2845); memguard has no part in it",
            "update the node's AMI: 6.12.111 has the fix",
        );
    }
    Finding::good("kernel", format!("Linux {release} on {}", facts.kernel.machine), "nothing known against it")
}

/// Everything is computed with the size that the kernel tells; whether the thresholds are right for another one than that
/// of the kernels which they were measured on is another matter.
fn pages(facts: &Facts) -> Finding {
    let size = facts.kernel.page_size;
    let fact = format!("pages of {} KiB", size / 1024);
    if size == MEASURED_PAGE_SIZE {
        Finding::good("pages", fact, "as it was measured")
    } else {
        Finding::of(
            "pages",
            Grade::Lesser,
            fact,
            "the rule was measured with pages of 4 KiB only",
            "observe for a while before you enforce, or use a kernel with pages of 4 KiB",
        )
    }
}

/// In bytes, on all kernels that the lab boots.
const MEASURED_PAGE_SIZE: u64 = 4096;

/// Amazon Linux 6.12.110, and no other build of that number.
fn panics_in_reclaim(release: &str) -> bool {
    release.starts_with("6.12.110-") && release.contains(".amzn2023")
}

/// How memguard comes by a capability.
fn give(facts: &Facts, capability: &str) -> String {
    if facts.privileges.root {
        format!("give it {capability}: root lacks it here, as in a container that was not given it")
    } else {
        format!("run it as root, or give it {capability}")
    }
}

/// The first program that the kernel has a place for and did not take, and what it said.
fn refusal(facts: &Facts) -> Option<(&'static str, &str)> {
    facts.hooks.iter().find_map(|fact| match &fact.state {
        HookState::Refused(why) => Some((fact.hook.program, why.as_str())),
        HookState::Available | HookState::Missing(_) => None,
    })
}

const FORBIDDEN: &str = "something other than capabilities forbids it: seccomp, a security module (SELinux, AppArmor), the kernel's lockdown";

fn signals(facts: &Facts, plan: &Plan) -> Finding {
    let refusal = refusal(facts);
    let with_refusal = |fact: &str| match refusal {
        Some((program, why)) => format!("{fact}: the kernel refuses {program} ({why})"),
        None => fact.to_owned(),
    };
    let forbidden = refusal.filter(|(_, why)| why.contains("not permitted") || why.contains("ermission denied"));
    let remedy = |other: &str| forbidden.map_or(other, |_| FORBIDDEN).to_owned();
    match plan.level {
        Level::Full => Finding::good("signals", "all from their best sources", "hangs are seen as soon as they can be"),
        Level::Degraded => {
            let lost: Vec<String> =
                plan.signals.iter().filter_map(|signal| Some(format!("{}: {}", signal.signal, signal.lost?))).collect();
            Finding::of(
                "signals",
                Grade::Lesser,
                with_refusal("some from lesser sources"),
                lost.join("; "),
                remedy("docs/kernel-support.md says which kernels have them all"),
            )
        }
        Level::Files => Finding::of(
            "signals",
            Grade::Lesser,
            with_refusal("from cgroup files alone"),
            "hangs are seen later, and some not at all (docs/detection.md)",
            remedy(plan.no_tracer.as_deref().unwrap_or("see the hooks below")),
        ),
    }
}

fn pressure(facts: &Facts) -> Finding {
    if facts.root.pressure {
        Finding::good("pressure", "PSI is on for cgroups", "tasks that wait for the disk are seen")
    } else {
        Finding::of(
            "pressure",
            Grade::Lesser,
            "PSI is off for cgroups",
            "a hang on a slow disk can be missed: that tasks wait for the disk is seen by PSI alone",
            "boot with psi=1 (Bottlerocket: settings.boot.kernel-parameters)",
        )
    }
}

fn privileges(facts: &Facts) -> Vec<Finding> {
    let each = [
        (facts.privileges.tracing, "tracing", "CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN", "no eBPF: files alone"),
        (
            facts.privileges.lock_memory,
            "memory lock",
            "CAP_IPC_LOCK",
            "memguard's own text can be reclaimed, and then it stalls with its patient",
        ),
        (
            facts.privileges.oom_score,
            "OOM score",
            "CAP_SYS_RESOURCE",
            "the OOM killer may choose memguard when the whole node is out of memory",
        ),
    ];
    each.into_iter()
        .map(|(has, name, capability, without)| {
            if has {
                Finding::good(name, format!("has {capability}"), "as it should be")
            } else {
                let fact = format!("lacks {capability}");
                Finding::of(name, Grade::Lesser, fact, without, give(facts, capability))
            }
        })
        .collect()
}

fn swap(on: bool) -> Finding {
    if on {
        Finding::of(
            "swap",
            Grade::Lesser,
            "swap is on",
            "anonymous memory can be reclaimed then: the rule was measured without swap",
            "observe for a while before you enforce, or switch it off",
        )
    } else {
        Finding::good("swap", "swap is off", "as it was measured")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cgroup::{CgroupRoot, RootFacts},
        doctor::worst,
        kernel::{Kernel, Privileges, plan},
    };

    fn facts(release: &str) -> Facts {
        let (mut facts, _) = Facts::gather(&CgroupRoot::new("/nowhere"), false);
        facts.kernel =
            Kernel { release: release.to_owned(), machine: "x86_64".to_owned(), page_size: 4096, mglru: None };
        facts.privileges = Privileges { root: true, tracing: true, kill: true, lock_memory: true, oom_score: true };
        facts
    }

    fn grade(findings: &[Finding], name: &str) -> Grade {
        findings.iter().find(|finding| finding.name == name).unwrap().grade
    }

    #[test]
    fn what_is_in_the_way_is_bad_and_everything_that_is_not_good_has_a_remedy() {
        let mut facts = facts("6.12.73");
        let findings = node(&facts, &plan(&facts), Some(true));
        assert_eq!((grade(&findings, "cgroups"), worst(&findings)), (Grade::Bad, Grade::Bad));
        assert_eq!((grade(&findings, "signals"), grade(&findings, "swap")), (Grade::Lesser, Grade::Lesser));
        facts.privileges =
            Privileges { root: false, tracing: false, kill: false, lock_memory: false, oom_score: false };
        facts.root = usable(&facts.root);
        let findings = node(&facts, &plan(&facts), None);
        assert_eq!(grade(&findings, "kill"), Grade::Lesser);
        for finding in findings {
            assert_eq!(finding.grade != Grade::Good, finding.remedy.is_some(), "{finding:?}");
            assert!(!finding.fact.is_empty() && !finding.means.is_empty());
        }
    }

    /// A tree that memguard can work on.
    fn usable(root: &RootFacts) -> RootFacts {
        RootFacts { path: "/".into(), v2: true, memory: true, kill: true, ..root.clone() }
    }

    fn remedy(findings: &[Finding], name: &str) -> String {
        findings.iter().find(|finding| finding.name == name).unwrap().remedy.clone().unwrap()
    }

    #[test]
    fn what_a_tree_that_is_none_lacks_is_not_put_down_to_the_kernel() {
        let mut facts = facts("6.18.1");
        let findings = node(&facts, &plan(&facts), None);
        assert!(findings.iter().all(|finding| !matches!(finding.name, "kill" | "pressure")), "{findings:#?}");
        facts.root = RootFacts { kill: false, ..usable(&facts.root) };
        assert!(remedy(&node(&facts, &plan(&facts), None), "kill").contains("5.14"));
    }

    #[test]
    fn root_is_not_told_to_become_root() {
        let mut facts = facts("6.12.73");
        facts.root = usable(&facts.root);
        facts.privileges = Privileges { root: true, tracing: false, kill: false, lock_memory: false, oom_score: false };
        let findings = node(&facts, &plan(&facts), None);
        for (name, capability) in
            [("kill", "CAP_DAC_OVERRIDE"), ("OOM score", "CAP_SYS_RESOURCE"), ("tracing", "CAP_BPF")]
        {
            let remedy = remedy(&findings, name);
            assert!(remedy.contains(capability) && !remedy.contains("as root"), "{name}: {remedy}");
        }
        facts.privileges.root = false;
        assert!(remedy(&node(&facts, &plan(&facts), None), "OOM score").contains("run it as root"));
    }

    #[test]
    fn what_the_kernel_said_to_a_program_that_it_refused_is_in_the_finding() {
        let mut facts = facts("6.12.73");
        facts.object = true;
        facts.btf = Ok(());
        facts.hooks.iter_mut().for_each(|fact| fact.state = HookState::Available);
        facts.refuse("reclaim_begin", "Operation not permitted".to_owned());
        let signals = |facts: &Facts| {
            let findings = node(facts, &plan(facts), None);
            findings.into_iter().find(|finding| finding.name == "signals").unwrap()
        };
        let files = signals(&facts);
        assert!(files.fact.contains("reclaim_begin (Operation not permitted)"), "{files:?}");
        assert!(files.remedy.unwrap().contains("seccomp"));
        facts.hooks.iter_mut().for_each(|fact| fact.state = HookState::Available);
        facts.refuse("fault_fexit", "Invalid argument".to_owned());
        let degraded = signals(&facts);
        assert!(degraded.fact.contains("fault_fexit (Invalid argument)"), "{degraded:?}");
        assert!(degraded.remedy.unwrap().contains("docs/kernel-support.md"));
    }

    #[test]
    fn one_build_of_amazon_linux_is_warned_of() {
        let of = |release: &str| {
            let facts = facts(release);
            grade(&node(&facts, &plan(&facts), None), "kernel")
        };
        assert_eq!(of("6.12.110-133.205.amzn2023.x86_64"), Grade::Lesser);
        for fine in
            ["6.12.111-1.amzn2023.x86_64", "6.12.110+deb13-amd64", "6.12.73+deb12-cloud-amd64", "6.1.110-1.amzn2023"]
        {
            assert_eq!(of(fine), Grade::Good, "{fine}");
        }
    }

    #[test]
    fn pages_of_another_size_are_named() {
        let mut facts = facts("6.12.73");
        let of = |facts: &Facts| {
            let findings = node(facts, &plan(facts), None);
            findings.into_iter().find(|finding| finding.name == "pages").unwrap()
        };
        assert_eq!((of(&facts).grade, of(&facts).fact.as_str()), (Grade::Good, "pages of 4 KiB"));
        facts.kernel.page_size = 65_536;
        assert_eq!((of(&facts).grade, of(&facts).fact.as_str()), (Grade::Lesser, "pages of 64 KiB"));
    }

    #[test]
    fn swap_is_told_from_the_heading_alone() {
        assert!(!swap_is_on("Filename\tType\tSize\tUsed\tPriority\n"));
        assert!(swap_is_on("Filename\tType\tSize\tUsed\tPriority\n/dev/vda2 partition 1 0 -2\n"));
        assert!(!swap_is_on(""));
    }
}
