//! The hooks that the eBPF object has a program for.

use memguard_common::globals as g;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Attach {
    /// BTF-typed raw tracepoint (`tp_btf`): the cheapest.
    Tracepoint,
    /// Trampoline at a function's entry.
    Fentry,
    /// Trampoline at a function's exit.
    Fexit,
    /// Breakpoint or ftrace call at a function's entry: dearer, but possible where trampolines are not.
    Kprobe,
    /// The same at its return. The kernel follows as many calls at once as it has CPUs, twice, or ten: others it misses.
    Kretprobe,
}

impl std::fmt::Display for Attach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
        })
    }
}

/// One program of the object and what it needs from the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program in the object.
    pub program: &'static str,
    pub attach: Attach,
    /// The tracepoint or function.
    pub target: &'static str,
    /// Arguments that the program reads: a kernel whose prototype has fewer does not fit.
    pub arguments: usize,
    /// Load-time constants without which the program would read nonsense.
    pub needs: &'static [&'static str],
}

/// All programs of the object.
pub const HOOKS: &[Hook] = &[
    Hook {
        program: "reclaim_begin",
        attach: Attach::Tracepoint,
        target: "mm_vmscan_memcg_reclaim_begin",
        arguments: 0,
        needs: &[],
    },
    Hook {
        program: "reclaim_end",
        attach: Attach::Tracepoint,
        target: "mm_vmscan_memcg_reclaim_end",
        arguments: 1,
        needs: &[],
    },
    Hook {
        program: "limit_owner_fentry",
        attach: Attach::Fentry,
        target: "try_to_free_mem_cgroup_pages",
        arguments: 1,
        needs: MEMCG,
    },
    Hook {
        program: "limit_owner_kprobe",
        attach: Attach::Kprobe,
        target: "try_to_free_mem_cgroup_pages",
        arguments: 1,
        needs: MEMCG,
    },
    Hook {
        program: "fault_fexit",
        attach: Attach::Fexit,
        target: "filemap_fault",
        arguments: 1,
        needs: &[
            g::VM_FAULT_VMA,
            g::VM_FAULT_PGOFF,
            g::VMA_FLAGS,
            g::VMA_FILE,
            g::FILE_INODE,
            g::INODE_NUMBER,
            g::INODE_SB,
            g::SB_DEV,
            g::FAULT_MAJOR,
            g::FAULT_RETRY,
        ],
    },
    Hook { program: "fault_fentry", attach: Attach::Fentry, target: "filemap_fault", arguments: 0, needs: &[] },
    Hook {
        program: "fault_kprobe",
        attach: Attach::Kprobe,
        target: "filemap_fault",
        arguments: 1,
        needs: &[g::VM_FAULT_VMA, g::VM_FAULT_FLAGS, g::VMA_FLAGS, g::FAULT_TRIED],
    },
    Hook { program: "fault_kretprobe", attach: Attach::Kretprobe, target: "filemap_fault", arguments: 0, needs: &[] },
    Hook {
        program: "fault_tracepoint",
        attach: Attach::Tracepoint,
        target: "mm_filemap_fault",
        arguments: 0,
        needs: &[],
    },
    Hook {
        program: "refault_fentry",
        attach: Attach::Fentry,
        target: "workingset_refault",
        arguments: 1,
        needs: REFAULT,
    },
    Hook {
        program: "refault_kprobe",
        attach: Attach::Kprobe,
        target: "workingset_refault",
        arguments: 1,
        needs: REFAULT,
    },
    Hook {
        program: "stall_enter_fentry",
        attach: Attach::Fentry,
        target: "psi_memstall_enter",
        arguments: 0,
        needs: &[],
    },
    Hook {
        program: "stall_leave_fentry",
        attach: Attach::Fentry,
        target: "psi_memstall_leave",
        arguments: 0,
        needs: &[],
    },
    Hook {
        program: "stall_enter_kprobe",
        attach: Attach::Kprobe,
        target: "psi_memstall_enter",
        arguments: 0,
        needs: &[],
    },
    Hook {
        program: "stall_leave_kprobe",
        attach: Attach::Kprobe,
        target: "psi_memstall_leave",
        arguments: 0,
        needs: &[],
    },
    Hook { program: "oom_victim", attach: Attach::Tracepoint, target: "mark_victim", arguments: 1, needs: &[] },
    Hook {
        program: "cgroup_removed",
        attach: Attach::Tracepoint,
        target: "cgroup_rmdir",
        arguments: 1,
        needs: &[g::CGROUP_KN, g::KERNFS_ID, g::CGROUP_ROOT, g::ROOT_HIERARCHY],
    },
];

const REFAULT: &[&str] =
    &[g::FOLIO_FLAGS, g::PG_SWAPBACKED, g::FOLIO_MAPPING, g::MAPPING_HOST, g::INODE_NUMBER, g::INODE_SB, g::SB_DEV];
const MEMCG: &[&str] = &[g::MEMCG_CGROUP, g::CGROUP_KN, g::KERNFS_ID];

/// The hook with this program.
#[must_use]
pub fn hook(program: &str) -> Option<&'static Hook> {
    HOOKS.iter().find(|hook| hook.program == program)
}
