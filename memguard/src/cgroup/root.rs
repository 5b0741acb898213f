//! The root that memguard watches, and whether it can.

use std::path::{Path, PathBuf};

use crate::telemetry::shown;

/// `CGROUP2_SUPER_MAGIC` of include/uapi/linux/magic.h.
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// A folder in a cgroup v2 file system: its root, or the top of the part that is watched.
#[derive(Clone, Debug)]
pub struct CgroupRoot {
    path: PathBuf,
}

/// What there is at a root.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct RootFacts {
    /// Any name that Unix allows, which JSON does not.
    #[serde(serialize_with = "as_shown")]
    pub path: PathBuf,
    /// Whether this is cgroup v2 at all.
    pub v2: bool,
    /// Whether the memory controller is there: its files are, in the cgroups below. (/proc/cgroups does not tell on new
    /// kernels.)
    pub memory: bool,
    /// Whether cgroup.kill is there (5.14 and newer).
    pub kill: bool,
    /// Whether PSI is there for cgroups.
    pub pressure: bool,
}

fn as_shown<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(path))
}

impl CgroupRoot {
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the file system.
    #[must_use]
    pub fn facts(&self) -> RootFacts {
        #[expect(clippy::allow_attributes, reason = "the type of f_type depends on the architecture")]
        #[allow(
            clippy::cast_sign_loss,
            clippy::unnecessary_cast,
            reason = "the type of f_type depends on the architecture"
        )]
        let v2 = rustix::fs::statfs(&self.path).is_ok_and(|fs| fs.f_type as u64 == CGROUP2_SUPER_MAGIC);
        let controllers = std::fs::read_to_string(self.path.join("cgroup.controllers")).unwrap_or_default();
        // The root itself has no cgroup.kill, no memory.max and, before 5.19, no pressure files of its own: one cgroup
        // below tells.
        let below = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.join("cgroup.procs").exists());
        let has =
            |name: &str| self.path.join(name).exists() || below.as_ref().is_some_and(|below| below.join(name).exists());
        RootFacts {
            path: self.path.clone(),
            v2,
            memory: controllers.split_whitespace().any(|controller| controller == "memory"),
            kill: has("cgroup.kill"),
            pressure: has("memory.pressure"),
        }
    }
}

impl RootFacts {
    /// Why nothing can be watched here, and the remedy.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let path = self.path.display();
        if !self.path.is_dir() {
            Some(format!("{path} is not a folder: name the cgroup v2 mount with --cgroup-root"))
        } else if !self.v2 {
            Some(format!(
                "{path} is not cgroup v2: memguard needs the unified hierarchy (boot with systemd.unified_cgroup_hierarchy=1, \
                 or name its mount with --cgroup-root)"
            ))
        } else if !self.memory {
            Some(format!(
                "{path} has no memory controller: it is disabled (cgroup_disable=memory on the kernel's command line) or \
                 taken by cgroup v1 (boot with systemd.unified_cgroup_hierarchy=1), or the cgroup above does not pass it \
                 on (cgroup.subtree_control)"
            ))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn says_what_is_in_the_way_and_what_to_do() {
        let facts = CgroupRoot::new("/nowhere/at/all").facts();
        assert!(facts.obstacle().unwrap().contains("--cgroup-root"));
        let dir = tempfile::tempdir().unwrap();
        let facts = CgroupRoot::new(dir.path()).facts();
        assert!(!facts.v2);
        assert!(facts.obstacle().unwrap().contains("not cgroup v2"));
        assert!(RootFacts { v2: true, ..facts.clone() }.obstacle().unwrap().contains("no memory controller"));
        assert_eq!(RootFacts { v2: true, memory: true, ..facts }.obstacle(), None);
        let odd = std::ffi::OsStr::from_bytes(b"/nowhere\xff");
        let facts = serde_json::to_value(CgroupRoot::new(odd).facts()).unwrap();
        assert_eq!(facts["path"], "/nowhere\u{fffd}", "it is told all the same");
    }
}
