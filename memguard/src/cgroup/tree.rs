//! Which cgroup has which id, whose limit it is under, and what a kill may hit.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::workload::is_above_pods;

/// Paths of cgroups by id, as of the last walk.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    paths: HashMap<u64, PathBuf>,
    left_out: u64,
}

/// A walk gives up behind so many cgroups. Nodes have some thousand.
const MOST_CGROUPS: usize = 65_536;
/// So many of them below one container or service, at any depth: a job makes cgroups in its own alone, and one that makes
/// a million must not hide those of others. Docker or a whole kubelet in a container makes some hundred.
const MOST_BELOW_ONE: usize = 4096;

impl Tree {
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), paths: HashMap::new(), left_out: 0 }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Walks the tree anew, level by level: slices, pods and containers come before what is made in containers. Folders
    /// that vanish on the way are left out.
    pub fn walk(&mut self) {
        self.walk_within(MOST_CGROUPS, MOST_BELOW_ONE);
    }

    fn walk_within(&mut self, most: usize, most_below_one: usize) {
        let knew = self.left_out > 0;
        self.paths.clear();
        let mut cut = 0;
        // How many there are below each container or service.
        let mut below_one: Vec<usize> = Vec::new();
        let mut open = VecDeque::from([(self.root.clone(), None)]);
        while let Some((path, one)) = open.pop_front() {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            for below in folders(&path) {
                let one = match one {
                    None if is_grouping(&below) => None,
                    None => {
                        below_one.push(0);
                        Some(below_one.len() - 1)
                    }
                    Some(one) => {
                        if below_one[one] >= most_below_one {
                            cut += 1;
                            break;
                        }
                        below_one[one] += 1;
                        Some(one)
                    }
                };
                // What waits is bounded too, for it is memory that is locked.
                if self.paths.len() + open.len() + 1 >= most {
                    cut += 1;
                    break;
                }
                open.push_back((below, one));
            }
            self.paths.insert(metadata.ino(), path);
        }
        // The rest of a folder was not even read, so the kernel has to say how much it is.
        self.left_out = if cut > 0 {
            cut.max(self.descendants().saturating_add(1).saturating_sub(self.paths.len() as u64))
        } else {
            0
        };
        if self.left_out > 0 && !knew {
            tracing::warn!(
                left_out = self.left_out,
                most,
                most_below_one,
                "there are more cgroups than are looked at, at all or below one container or service"
            );
        }
    }

    fn descendants(&self) -> u64 {
        let text = fs::read_to_string(self.root.join("cgroup.stat")).unwrap_or_default();
        super::parse::descendants(&text).unwrap_or(0)
    }

    /// Cgroups that the last walk did not get to, because there are too many.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
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
    /// pod or a slice of services, the one that holds most of what can't be reclaimed. None for a limit above pods.
    ///
    /// A pod or a slice groups things that have nothing to do with the livelock (the pause container, sidecars), and
    /// killing a whole pod from outside breaks the container runtime's bookkeeping. Above pods the one with the most is as
    /// likely a database at work as whatever it is that takes the node's memory, and one pod is never ended for another.
    #[must_use]
    pub fn victim(&self, owner: &Path) -> Option<PathBuf> {
        if !is_grouping(owner) {
            return Some(owner.to_owned());
        }
        let mut most: Option<(u64, PathBuf)> = None;
        let mut open = vec![owner.to_owned()];
        while let Some(group) = open.pop() {
            if is_above_pods(&group) {
                return None;
            }
            for below in folders(&group) {
                if is_grouping(&below) {
                    open.push(below);
                    continue;
                }
                // Each by itself, and not by the sums of what groups them: many small ones are none that is large.
                let holds = unreclaimable(&below);
                if most.as_ref().is_none_or(|(most, _)| holds >= *most) {
                    most = Some((holds, below));
                }
            }
        }
        most.map(|(_, victim)| victim)
    }
}

/// The folders in a folder, as far as it can be read.
fn folders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
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
    fn above_pods_nobody_is_ended_and_below_slices_each_counts_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        for kubepods in
            ["kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice", "kubepods/burstable/pod1"]
        {
            let pod = dir.path().join(kubepods);
            cgroup(&pod.join("aa"), "max", 0, 9000);
            let tree = Tree::new(dir.path());
            for above in pod.ancestors().skip(1).take(2) {
                assert_eq!(tree.victim(above), None, "{}", above.display());
            }
            assert_eq!(tree.victim(&pod), Some(pod.join("aa")));
        }
        let ci = dir.path().join("ci.slice");
        for small in 0..9 {
            cgroup(&ci.join(format!("ci-small.slice/{small}.service")), "max", 0, 200);
        }
        cgroup(&ci.join("ci-small.slice"), "max", 0, 1800);
        cgroup(&ci.join("ci-big.slice"), "max", 0, 900);
        cgroup(&ci.join("ci-big.slice/big.service"), "max", 0, 900);
        assert_eq!(Tree::new(dir.path()).victim(&ci), Some(ci.join("ci-big.slice/big.service")));
    }

    #[test]
    fn who_makes_cgroups_without_end_hides_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let scope = |name: &str| dir.path().join(format!("kubepods.slice/kubepods-pod{name}.slice/{name}.scope"));
        for flood in 0..300 {
            fs::create_dir_all(scope("a").join(format!("x/{flood}/y"))).unwrap();
        }
        let mut others = Vec::new();
        for name in ["b", "c", "d"] {
            others.push(scope(name).join("docker/1"));
            fs::create_dir_all(&others[others.len() - 1]).unwrap();
        }
        let mut tree = Tree::new(dir.path());
        tree.walk();
        assert_eq!((tree.left_out(), tree.iter().count()), (0, 617));
        let sees = |tree: &Tree, path: &Path| tree.iter().any(|(_, seen)| seen == path);
        tree.walk_within(1000, 50);
        assert!(tree.left_out() > 0);
        assert!(others.iter().all(|other| sees(&tree, other)) && sees(&tree, &scope("a").join("x")));
        fs::write(dir.path().join("cgroup.stat"), "nr_descendants 70000\nnr_dying_descendants 3\n").unwrap();
        // Level by level: containers come before what is in them, whatever the order of the folders.
        tree.walk_within(12, 1000);
        assert_eq!((tree.iter().count(), tree.left_out()), (12, 69_989));
        assert!(["a", "b", "c", "d"].iter().all(|name| sees(&tree, &scope(name))));
        tree.walk();
        assert_eq!(tree.left_out(), 0);
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
