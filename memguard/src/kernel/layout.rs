//! Load-time constants for the eBPF object, from BTF: offsets of members, values of enumerators, arities.

use std::collections::BTreeMap;

use memguard_common::globals as g;

use super::btf::Btf;

/// Values by the name of the object's global; one that this kernel does not have is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    values: BTreeMap<&'static str, u32>,
}

/// Structure, member names in order of preference, and the global that takes the offset.
const MEMBERS: &[(&str, &str, &[&str])] = &[
    (g::VM_FAULT_VMA, "vm_fault", &["vma"]),
    (g::VM_FAULT_FLAGS, "vm_fault", &["flags"]),
    (g::VM_FAULT_PGOFF, "vm_fault", &["pgoff"]),
    (g::VMA_FILE, "vm_area_struct", &["vm_file"]),
    (g::FILE_INODE, "file", &["f_inode"]),
    (g::INODE_NUMBER, "inode", &["i_ino"]),
    (g::INODE_SB, "inode", &["i_sb"]),
    (g::SB_DEV, "super_block", &["s_dev"]),
    // In a union with the writable alias __vm_flags since 6.3 (kernel commit bc292ab00f6c).
    (g::VMA_FLAGS, "vm_area_struct", &["vm_flags"]),
    (g::FOLIO_FLAGS, "folio", &["flags"]),
    (g::FOLIO_MAPPING, "folio", &["mapping"]),
    (g::MAPPING_HOST, "address_space", &["host"]),
    // Renamed in 6.15 (kernel commit 4996fc547f5b).
    (g::FOLIO_NR_PAGES, "folio", &["_nr_pages", "_folio_nr_pages"]),
    // css is the first member; its `cgroup` is reached through it.
    (g::MEMCG_CGROUP, "cgroup_subsys_state", &["cgroup"]),
    (g::CGROUP_KN, "cgroup", &["kn"]),
    (g::CGROUP_ROOT, "cgroup", &["root"]),
    (g::ROOT_HIERARCHY, "cgroup_root", &["hierarchy_id"]),
    (g::KERNFS_ID, "kernfs_node", &["id"]),
    (g::TASK_CGROUPS, "task_struct", &["cgroups"]),
    (g::CSS_SET_DFL_CGRP, "css_set", &["dfl_cgrp"]),
];

const ENUMERATORS: &[(&str, &str)] = &[
    (g::PG_HEAD, "PG_head"),
    (g::PG_SWAPBACKED, "PG_swapbacked"),
    (g::FAULT_MAJOR, "VM_FAULT_MAJOR"),
    (g::FAULT_RETRY, "VM_FAULT_RETRY"),
    (g::FAULT_TRIED, "FAULT_FLAG_TRIED"),
];

impl Layout {
    /// Every name that [`Layout::from_btf`] looks up, but for the tracepoint `mark_victim`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let structures = MEMBERS.iter().map(|(_, structure, _)| *structure).chain(["mem_cgroup", "file_ra_state"]);
        structures.chain(ENUMERATORS.iter().map(|(_, name)| *name))
    }

    /// Takes the values from a kernel's BTF.
    #[must_use]
    pub fn from_btf(btf: &Btf) -> Self {
        let mut values = BTreeMap::new();
        for (global, structure, members) in MEMBERS {
            if let Some(offset) = members.iter().find_map(|member| btf.member_offset(structure, member)) {
                values.insert(*global, offset);
            }
        }
        for (global, name) in ENUMERATORS {
            if let Some(value) = btf.enumerator(name).and_then(|value| u32::try_from(value).ok()) {
                values.insert(*global, value);
            }
        }
        // A structure within a structure.
        if let (Some(ra), Some(pages)) =
            (btf.member_offset("file", "f_ra"), btf.member_offset("file_ra_state", "ra_pages"))
        {
            values.insert(g::FILE_RA_PAGES, ra + pages);
        }
        // The offset of `css` in mem_cgroup is 0 on every kernel so far; the sum holds on one where it is not.
        let css = btf.member_offset("mem_cgroup", "css");
        match (css, values.get(g::MEMCG_CGROUP).copied()) {
            (Some(css), Some(cgroup)) => values.insert(g::MEMCG_CGROUP, css + cgroup),
            _ => values.remove(g::MEMCG_CGROUP),
        };
        // mark_victim hands over the task, and its uid beside it, since 6.8 (kernel commit
        // 72ba14deb40a, which later stable releases of 6.1 and 6.6 have too). The task is
        // only of use if its cgroup can be found from it.
        let reachable = [g::TASK_CGROUPS, g::CSS_SET_DFL_CGRP, g::CGROUP_KN, g::KERNFS_ID];
        let has_task = btf.tracepoint("mark_victim").is_some_and(|(_, arguments)| arguments >= 2);
        let usable = has_task && reachable.iter().all(|name| values.contains_key(name));
        values.insert(g::MARK_VICTIM_HAS_TASK, u32::from(usable));
        Self { values }
    }

    #[must_use]
    pub fn get(&self, global: &str) -> Option<u32> {
        self.values.get(global).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.values.iter().map(|(name, value)| (*name, *value))
    }

    #[cfg(test)]
    pub(crate) fn complete() -> Self {
        let names = MEMBERS.iter().map(|(name, ..)| *name).chain(ENUMERATORS.iter().map(|(name, _)| *name));
        Self { values: names.map(|name| (name, 8)).collect() }
    }

    #[cfg(test)]
    pub(super) fn without(mut self, global: &str) -> Self {
        self.values.remove(global);
        self
    }
}
