//! Facts about this machine: nothing is decided here.

use std::{fs, path::Path};

use super::{
    btf::{Btf, VMLINUX},
    hooks::{Attach, HOOKS, Hook},
    layout::Layout,
};
use crate::cgroup::{CgroupRoot, RootFacts};

/// All that the plan is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    pub kernel: Kernel,
    pub privileges: Privileges,
    pub root: RootFacts,
    /// Whether this build of memguard carries the eBPF object.
    pub object: bool,
    /// `Err` says why BTF can't be used.
    pub btf: Result<(), String>,
    pub layout: Layout,
    pub hooks: Vec<HookFact>,
}

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Kernel {
    pub release: String,
    pub machine: String,
    /// In bytes: 4096 on x86-64; arm64 has kernels with 16 and 64 KiB too.
    pub page_size: u64,
    /// `/sys/kernel/mm/lru_gen/enabled`, the multi-gen LRU: `None` where the kernel has none.
    pub mglru: Option<bool>,
}

/// Effective capabilities that matter here (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Privileges {
    /// Effective uid 0. Root that lacks a capability is root in a container that was not given it.
    pub root: bool,
    /// `CAP_BPF` and `CAP_PERFMON`, or `CAP_SYS_ADMIN`: load and attach tracing programs.
    pub tracing: bool,
    /// `CAP_DAC_OVERRIDE`: write cgroup.kill of cgroups that were given to somebody, too.
    pub kill: bool,
    /// `CAP_IPC_LOCK`: lock memory.
    pub lock_memory: bool,
    /// `CAP_SYS_RESOURCE`: lower one's own `oom_score_adj`.
    pub oom_score: bool,
}

/// One hook and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookFact {
    pub hook: &'static Hook,
    pub state: HookState,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "why")]
pub enum HookState {
    /// The kernel has the target, with the arguments and members that the program reads.
    Available,
    /// The kernel does not have it.
    Missing(String),
    /// The kernel has it, and refused the program when it was loaded or attached.
    Refused(String),
}

impl Facts {
    /// Looks at this machine. Needs about 20 ms and 8 MB for the time of the look.
    #[must_use]
    pub fn gather(root: &CgroupRoot, object: bool) -> (Self, Option<Btf>) {
        let read = Btf::read(Path::new(VMLINUX), &Self::names());
        let layout = read.as_ref().map(Layout::from_btf).unwrap_or_default();
        let hooks = HOOKS
            .iter()
            .map(|hook| HookFact {
                hook,
                state: match &read {
                    Ok(btf) => state(hook, btf, &layout),
                    Err(_) => HookState::Missing("the kernel's BTF can't be read".to_owned()),
                },
            })
            .collect();
        let facts = Self {
            kernel: Kernel::gather(),
            privileges: Privileges::gather(),
            root: root.facts(),
            object,
            btf: read.as_ref().map(|_| ()).map_err(ToString::to_string),
            layout,
            hooks,
        };
        (facts, read.ok())
    }

    fn names() -> Vec<&'static str> {
        // Tracepoint typedefs carry a prefix in BTF; each target name is looked up as what it is.
        const TRACEPOINTS: &[&str] = &[
            "btf_trace_mm_vmscan_memcg_reclaim_begin",
            "btf_trace_mm_vmscan_memcg_reclaim_end",
            "btf_trace_mm_filemap_fault",
            "btf_trace_mark_victim",
            "btf_trace_cgroup_rmdir",
        ];
        let functions = HOOKS.iter().filter(|hook| hook.attach != Attach::Tracepoint).map(|hook| hook.target);
        Layout::names().chain(TRACEPOINTS.iter().copied()).chain(functions).collect()
    }

    /// Notes that the kernel refused a program.
    pub fn refuse(&mut self, program: &str, why: String) {
        if let Some(fact) = self.hooks.iter_mut().find(|fact| fact.hook.program == program) {
            fact.state = HookState::Refused(why);
        }
    }

    #[must_use]
    pub fn available(&self, program: &str) -> bool {
        self.hooks.iter().any(|fact| fact.hook.program == program && fact.state == HookState::Available)
    }
}

fn state(hook: &Hook, btf: &Btf, layout: &Layout) -> HookState {
    let target = match hook.attach {
        Attach::Tracepoint => btf.tracepoint(hook.target),
        Attach::Fentry | Attach::Fexit | Attach::Kprobe | Attach::Kretprobe => btf.function(hook.target),
    };
    let Some((_, arguments)) = target else {
        let what = if hook.attach == Attach::Tracepoint { "tracepoint" } else { "function" };
        return HookState::Missing(format!("this kernel has no {what} {}", hook.target));
    };
    // The return value of a function with another arity would be read from the wrong place.
    if arguments < hook.arguments || hook.attach == Attach::Fexit && arguments != hook.arguments {
        return HookState::Missing(format!("{} takes {arguments} arguments here, not {}", hook.target, hook.arguments));
    }
    if let Some(missing) = hook.needs.iter().find(|global| layout.get(global).is_none()) {
        return HookState::Missing(format!("this kernel's BTF does not tell {missing}"));
    }
    if matches!(hook.attach, Attach::Kprobe | Attach::Kretprobe)
        && !Path::new("/sys/bus/event_source/devices/kprobe").exists()
    {
        return HookState::Missing("this kernel has no kprobes (CONFIG_KPROBE_EVENTS)".to_owned());
    }
    HookState::Available
}

impl Kernel {
    fn gather() -> Self {
        let uname = rustix::system::uname();
        // A bit mask; bit 0 is the multi-gen LRU itself (Documentation/admin-guide/mm/multigen_lru.rst).
        let mglru = fs::read_to_string("/sys/kernel/mm/lru_gen/enabled").ok().and_then(|text| {
            u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok().map(|mask| mask & 1 == 1)
        });
        Self {
            release: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            page_size: rustix::param::page_size() as u64,
            mglru,
        }
    }
}

impl Privileges {
    fn gather() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or_default();
        Self { root: rustix::process::geteuid().is_root(), ..Self::from_mask(mask) }
    }

    /// Bit numbers of include/uapi/linux/capability.h.
    fn from_mask(mask: u64) -> Self {
        const DAC_OVERRIDE: u32 = 1;
        const IPC_LOCK: u32 = 14;
        const SYS_ADMIN: u32 = 21;
        const SYS_RESOURCE: u32 = 24;
        const PERFMON: u32 = 38;
        const BPF: u32 = 39;
        let has = |bit: u32| mask >> bit & 1 == 1;
        Self {
            root: false,
            tracing: has(SYS_ADMIN) || has(BPF) && has(PERFMON),
            kill: has(DAC_OVERRIDE),
            lock_memory: has(IPC_LOCK),
            oom_score: has(SYS_RESOURCE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tracepoint_is_looked_up() {
        let names = Facts::names();
        for hook in HOOKS {
            let name = match hook.attach {
                Attach::Tracepoint => format!("btf_trace_{}", hook.target),
                _ => hook.target.to_owned(),
            };
            assert!(names.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn capabilities_are_read_from_the_mask() {
        let none = Privileges::from_mask(0);
        assert!(!none.tracing && !none.kill && !none.lock_memory && !none.oom_score);
        let root = Privileges::from_mask(0x1ff_ffff_ffff);
        assert!(root.tracing && root.kill && root.lock_memory && root.oom_score);
        assert!(Privileges::from_mask(1 << 38 | 1 << 39).tracing);
        assert!(!Privileges::from_mask(1 << 39).tracing, "CAP_BPF alone does not attach tracing programs");
    }

    #[test]
    fn gathers_on_any_machine() {
        let (facts, btf) = Facts::gather(&CgroupRoot::new("/sys/fs/cgroup"), false);
        assert_eq!(facts.hooks.len(), HOOKS.len());
        assert_eq!(facts.btf.is_ok(), btf.is_some());
        assert!(!facts.kernel.release.is_empty());
    }
}
