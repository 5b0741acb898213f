//! Facts about this machine.

use super::{Finding, Grade};
use crate::kernel::{Facts, Level, Plan};

/// What this machine offers. Pure.
#[must_use]
pub fn node(facts: &Facts, plan: &Plan, swap: Option<bool>) -> Vec<Finding> {
    let mut findings = vec![cgroups(facts), kill(facts), kernel(facts), pages(facts), signals(plan), pressure(facts)];
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
            "run it as root, or give it CAP_DAC_OVERRIDE, and mount /sys/fs/cgroup writable",
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

fn signals(plan: &Plan) -> Finding {
    match plan.level {
        Level::Full => Finding::good("signals", "all from their best sources", "hangs are seen as soon as they can be"),
        Level::Degraded => {
            let lost: Vec<String> =
                plan.signals.iter().filter_map(|signal| Some(format!("{}: {}", signal.signal, signal.lost?))).collect();
            Finding::of(
                "signals",
                Grade::Lesser,
                "some from lesser sources",
                lost.join("; "),
                "docs/kernel-support.md says which kernels have them all",
            )
        }
        Level::Files => Finding::of(
            "signals",
            Grade::Lesser,
            "from cgroup files alone",
            "hangs are seen later, and some not at all (docs/detection.md)",
            plan.no_tracer.clone().unwrap_or_else(|| "see the hooks below".to_owned()),
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
                Finding::of(name, Grade::Lesser, fact, without, "run it as root, or give it that")
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
        cgroup::CgroupRoot,
        doctor::worst,
        kernel::{Kernel, Privileges, plan},
    };

    fn facts(release: &str) -> Facts {
        let (mut facts, _) = Facts::gather(&CgroupRoot::new("/nowhere"), false);
        facts.kernel =
            Kernel { release: release.to_owned(), machine: "x86_64".to_owned(), page_size: 4096, mglru: None };
        facts.privileges = Privileges { tracing: true, kill: true, lock_memory: true, oom_score: true };
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
        facts.privileges = Privileges { tracing: false, kill: false, lock_memory: false, oom_score: false };
        facts.root.kill = true;
        for finding in node(&facts, &plan(&facts), None) {
            assert_eq!(finding.grade != Grade::Good, finding.remedy.is_some(), "{finding:?}");
            assert!(!finding.fact.is_empty() && !finding.means.is_empty());
        }
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
