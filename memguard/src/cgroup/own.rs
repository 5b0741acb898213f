//! Which cgroup memguard itself runs in.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Tree, parse};

/// The cgroup that process `pid` is in, as a path below `root`.
///
/// /proc/self/cgroup gives a path that is relative to the reader's cgroup namespace, which in a container is not the
/// tree that is watched. So the path counts only if its cgroup.procs lists the process; else the tree is searched. In
/// a PID namespace of its own, a process sees itself in cgroup.procs under the number that it knows itself by.
#[must_use]
pub fn own_cgroup(root: &Path, pid: u32) -> Option<PathBuf> {
    let lists_us = |path: &Path| {
        fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|procs| parse::lists_process(&procs, pid))
    };
    let told =
        fs::read_to_string(format!("/proc/{pid}/cgroup")).ok().and_then(|text| Some(root.join(parse::v2_path(&text)?)));
    if let Some(path) = told
        && lists_us(&path)
    {
        return Some(path);
    }
    let mut tree = Tree::new(root);
    tree.walk();
    tree.iter().map(|(_, path)| path).find(|path| lists_us(path)).map(Path::to_owned)
}

/// Inode numbers of `path` and of all folders above it up to `root`: cgroups whose end would be memguard's own.
#[must_use]
pub fn lineage(root: &Path, path: &Path) -> Vec<u64> {
    path.ancestors()
        .take_while(|ancestor| ancestor.starts_with(root))
        .filter_map(|ancestor| fs::metadata(ancestor).ok().map(|metadata| metadata.ino()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_found_where_procfs_does_not_lead() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("kubepods.slice/pod.slice/memguard.scope");
        fs::create_dir_all(&deep).unwrap();
        fs::write(dir.path().join("kubepods.slice/cgroup.procs"), "").unwrap();
        fs::write(deep.join("cgroup.procs"), "1\n4242424\n").unwrap();
        assert_eq!(own_cgroup(dir.path(), 4_242_424), Some(deep.clone()));
        assert_eq!(own_cgroup(dir.path(), 4_242_425), None);
        assert_eq!(lineage(dir.path(), &deep).len(), 4);
    }
}
