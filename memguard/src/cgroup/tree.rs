//! Which cgroup has which id, whose limit it is under, and what a kill may hit.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Paths of cgroups by id, as of the last walk.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    paths: HashMap<u64, PathBuf>,
}

/// A walk gives up behind so many cgroups. Nodes have some thousand; a job that makes a million must not stop the rest.
const MOST_CGROUPS: usize = 65_536;

impl Tree {
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), paths: HashMap::new() }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Walks the tree anew. Folders that vanish on the way are left out.
    pub fn walk(&mut self) {
        self.paths.clear();
        let mut open = vec![self.root.clone()];
        while let Some(path) = open.pop() {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let below = fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(
                below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
            );
            self.paths.insert(metadata.ino(), path);
            if self.paths.len() >= MOST_CGROUPS {
                tracing::warn!(most = MOST_CGROUPS, "there are more cgroups than are looked at");
                break;
            }
        }
    }

    /// The path of a cgroup, as far as it was there at the last walk.
    #[must_use]
    pub fn path(&self, id: u64) -> Option<&Path> {
        self.paths.get(&id).map(PathBuf::as_path)
    }

    pub fn remove(&mut self, id: u64) {
        self.paths.remove(&id);
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Path)> {
        self.paths.iter().map(|(id, path)| (*id, path.as_path()))
    }

    /// The cgroup whose limit the tasks of `cgroup` are up against.
    ///
    /// `told` is what the tracer saw in `try_to_free_mem_cgroup_pages()`, and wins where it is the cgroup itself or one
    /// above it. Otherwise it is the nearest one, from the cgroup upwards, that has a limit (memory.max or memory.high)
    /// and was hit at it (memory.events.local `max`, `high`), else the nearest that has a limit at all.
    #[must_use]
    pub fn limit_owner(&self, cgroup: u64, told: Option<u64>) -> Option<(u64, PathBuf)> {
        let path = self.path(cgroup)?;
        if let Some(told) = told
            && let Some(owner) = self.path(told)
            && path.starts_with(owner)
        {
            return Some((told, owner.to_owned()));
        }
        let mut nearest = None;
        for ancestor in path.ancestors().take_while(|ancestor| ancestor.starts_with(&self.root)) {
            let limited = ["memory.max", "memory.high"]
                .iter()
                .any(|name| fs::read_to_string(ancestor.join(name)).is_ok_and(|limit| limit.trim() != "max"));
            if !limited {
                continue;
            }
            let hit = limit_hits(ancestor).is_some_and(|hits| hits > 0);
            let Ok(metadata) = fs::metadata(ancestor) else { continue };
            let this = (metadata.ino(), ancestor.to_owned());
            if hit {
                return Some(this);
            }
            nearest.get_or_insert(this);
        }
        nearest
    }

    /// The cgroup that a kill on behalf of `owner` should hit: itself if it is a container or a service, else, below a
    /// slice or a pod, the member that holds most of what can't be reclaimed.
    ///
    /// A pod or a slice groups things that have nothing to do with the livelock (the pause container, sidecars), and
    /// killing a whole pod from outside breaks the container runtime's bookkeeping.
    #[must_use]
    pub fn victim(&self, owner: &Path) -> Option<PathBuf> {
        let mut path = owner.to_owned();
        while is_grouping(&path) {
            path = fs::read_dir(&path)
                .ok()?
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .max_by_key(|below| unreclaimable(below))?;
        }
        Some(path)
    }
}

/// How often the limits of this very cgroup were hit: `max` and `high` of memory.events.local. `None` where that can't
/// be read.
pub(crate) fn limit_hits(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path.join("memory.events.local")).ok()?;
    super::parse::local_events(&text).map(|local| local.limit_hits())
}

fn unreclaimable(path: &Path) -> u64 {
    let text = fs::read_to_string(path.join("memory.stat")).unwrap_or_default();
    super::parse::unreclaimable(&text)
}

/// Whether a cgroup only groups others: a systemd slice, or a pod or `QoS` class of the kubelet's cgroupfs driver.
///
/// The names are those of the kubelet (`pkg/kubelet/cm`) and of systemd.slice(5). A job can make cgroups only below its
/// own container's, where it cannot hide anything from a kill of the container.
#[must_use]
pub fn is_grouping(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return true };
    let parent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let in_kubepods =
        parent == "kubepods" || path.parent().is_some_and(|p| p.parent().is_some_and(|g| g.ends_with("kubepods")));
    name.strip_suffix(".slice").is_some()
        || name == "kubepods"
        || (parent == "kubepods" && matches!(name, "burstable" | "besteffort"))
        || (in_kubepods && name.starts_with("pod"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(path: &Path, max: &str, hits: u64, anon: u64) -> u64 {
        crate::cgroup::handle::tests::fake(path);
        fs::write(path.join("memory.max"), format!("{max}\n")).unwrap();
        fs::write(path.join("memory.events.local"), format!("low 0\nhigh 0\nmax {hits}\noom 0\n")).unwrap();
        fs::write(
            path.join("memory.stat"),
            format!("anon {anon}\nfile 0\nshmem 1\npgsteal 0\nworkingset_refault_file 0\n"),
        )
        .unwrap();
        fs::metadata(path).unwrap().ino()
    }

    struct Fixture {
        _dir: tempfile::TempDir,
        tree: Tree,
        pod: PathBuf,
        scope: (u64, PathBuf),
        nested: u64,
    }

    fn fixture(scope_max: &str, scope_hits: u64, pod_max: &str, pod_hits: u64) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice");
        let scope = pod.join("cri-containerd-aa.scope");
        cgroup(&pod, pod_max, pod_hits, 900);
        cgroup(&pod.join("cri-containerd-pause.scope"), "max", 0, 1);
        let scope_id = cgroup(&scope, scope_max, scope_hits, 800);
        let nested = cgroup(&scope.join("docker/bb"), "max", 0, 700);
        let mut tree = Tree::new(dir.path());
        tree.walk();
        Fixture { _dir: dir, tree, pod, scope: (scope_id, scope), nested }
    }

    #[test]
    fn the_owner_of_the_limit_is_the_nearest_that_is_hit() {
        let f = fixture("100", 5, "200", 0);
        assert_eq!(f.tree.limit_owner(f.nested, None), Some(f.scope.clone()), "above nested dind cgroups");
        let f = fixture("100", 0, "200", 3);
        assert_eq!(
            f.tree.limit_owner(f.nested, None).unwrap().1,
            f.pod,
            "the pod's limit, though the container has one"
        );
        let f = fixture("100", 0, "200", 0);
        assert_eq!(f.tree.limit_owner(f.nested, None), Some(f.scope.clone()), "the nearest while none was hit");
        let f = fixture("max", 0, "max", 0);
        assert_eq!(f.tree.limit_owner(f.nested, None), None, "no limit at all");
    }

    #[test]
    fn what_the_tracer_saw_wins_if_it_is_above() {
        let f = fixture("100", 5, "200", 5);
        let pod_id = fs::metadata(&f.pod).unwrap().ino();
        assert_eq!(f.tree.limit_owner(f.nested, Some(pod_id)).unwrap().0, pod_id);
        let pause = fs::metadata(f.pod.join("cri-containerd-pause.scope")).unwrap().ino();
        assert_eq!(f.tree.limit_owner(f.nested, Some(pause)), Some(f.scope.clone()), "not above");
        assert_eq!(f.tree.limit_owner(f.nested, Some(1)), Some(f.scope.clone()), "not known");
        assert_eq!(f.tree.limit_owner(99, None), None, "gone");
    }

    #[test]
    fn a_container_is_its_own_victim_and_a_pod_gives_its_hungriest() {
        let f = fixture("100", 5, "200", 5);
        assert_eq!(f.tree.victim(&f.scope.1), Some(f.scope.1.clone()), "not the nested one: the container as a whole");
        assert_eq!(f.tree.victim(&f.pod), Some(f.scope.1.clone()), "not the pod, not pause");
        let empty = f.pod.join("empty.slice");
        fs::create_dir(&empty).unwrap();
        assert_eq!(f.tree.victim(&empty), None);
    }

    #[test]
    fn grouping_is_told_by_the_names_of_systemd_and_the_kubelet() {
        for grouping in [
            "/sys/fs/cgroup/system.slice",
            "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice",
            "/sys/fs/cgroup/kubepods",
            "/sys/fs/cgroup/kubepods/burstable",
            "/sys/fs/cgroup/kubepods/burstable/pod8a",
            "/sys/fs/cgroup/kubepods/pod8a",
            "/k3s/kubepods/besteffort/pod8a",
            "/",
        ] {
            assert!(is_grouping(Path::new(grouping)), "{grouping}");
        }
        for single in [
            "/sys/fs/cgroup/system.slice/actions.runner.service",
            "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/crio-aa.scope",
            "/sys/fs/cgroup/kubepods/burstable/pod8a/0f3d",
            "/sys/fs/cgroup/podman",
            "/sys/fs/cgroup/burstable",
        ] {
            assert!(!is_grouping(Path::new(single)), "{single}");
        }
    }
}
