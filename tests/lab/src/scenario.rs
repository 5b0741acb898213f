//! A scenario: one TOML file that says which machine to boot, which cgroups to make, what to run in them, and what
//! should come of it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What is expected of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Hangs without memguard, and is ended by it.
    Livelock,
    /// Works, and must be left alone.
    Healthy,
    /// The kernel's own OOM killer ends it, and memguard stays out of it.
    Oom,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Livelock => "livelock",
            Self::Healthy => "healthy",
            Self::Oom => "oom",
        })
    }
}

/// A size in bytes, written as `"512M"`, `"8G"`, `"100K"` or `"max"` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub Option<u64>);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self(None));
        }
        let wrong = || format!("expected a size such as \"512M\", or \"max\", found {text:?}");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match &text[digits.len()..] {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        count.checked_mul(1 << shift).map(|bytes| Self(Some(bytes))).ok_or_else(wrong)
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.0.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string())
    }
}

impl Size {
    /// What is written to memory.max.
    #[must_use]
    pub fn file_text(self) -> String {
        self.into()
    }
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without `.toml`.
    #[serde(default)]
    pub name: String,
    /// One sentence.
    pub summary: String,
    pub kind: Kind,
    #[serde(default)]
    pub vm: Vm,
    #[serde(default)]
    pub kernel: KernelSwitches,
    pub time: Time,
    pub pod: Vec<Pod>,
    #[serde(default)]
    pub expect: Expect,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vm {
    pub cpus: u32,
    pub memory_mib: u32,
    pub disk: Disk,
}

impl Default for Vm {
    fn default() -> Self {
        Self { cpus: 2, memory_mib: 2048, disk: Disk::default() }
    }
}

/// How fast the root disk may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    pub iops: u32,
    pub mib_per_s: u32,
    /// `None` leaves the kernel's default, which differs between kernels.
    pub readahead_kib: Option<u32>,
}

impl Default for Disk {
    /// What an EBS gp3 volume gives without extra charge.
    fn default() -> Self {
        Self { iops: 3000, mib_per_s: 125, readahead_kib: Some(128) }
    }
}

/// Kernel settings; `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelSwitches {
    /// The multi-gen LRU.
    pub mglru: Option<bool>,
}

/// How long things take, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// From the start of the workloads that begin at once to the trouble, which starts the workloads with
    /// `at = "trouble"`. The last ten seconds of it are what progress is compared with.
    pub warm_up_s: u32,
    /// From the moment at the limit, or from the trouble if the limit is never reached, to the end of the run.
    pub run_s: u32,
}

/// A pod, as the kubelet lays one out: a slice with a pause container and others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    pub name: String,
    pub memory_max: Option<Size>,
    #[serde(default)]
    pub container: Vec<Container>,
}

/// A container: a scope in the pod's slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    pub name: String,
    pub memory_max: Option<Size>,
    pub memory_high: Option<Size>,
    /// memory.oom.group, which the kubelet sets since Kubernetes 1.28.
    #[serde(default)]
    pub oom_group: bool,
    #[serde(default)]
    pub workload: Vec<Workload>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub name: String,
    /// A cgroup below the container's, as Docker in Docker makes them. A container with nested cgroups runs all of its
    /// workloads in them.
    pub nested: Option<String>,
    #[serde(default)]
    pub at: Start,
    pub run: Program,
}

/// When a workload is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    #[default]
    Beginning,
    Trouble,
}

/// What a process does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "program", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Program {
    /// Does nothing, as the pause container.
    Pause,
    /// Computes a little and reports progress: a neighbour that must not be touched.
    Steady,
    /// Executes code all over the shared objects of /text, as a managed runtime does with its assemblies. Progress is
    /// requests served.
    Listener {
        threads: u32,
        /// Of the text, how much most requests run through.
        hot_mib: u32,
        /// Functions, each a page of code, that a request calls.
        calls: u32,
        /// What each thread rests between two requests, in milliseconds.
        pause_ms: u32,
    },
    /// Takes anonymous or shared memory, and keeps it. Progress is MiB taken.
    Hog {
        memory: HogMemory,
        /// Where it stops; without, it never does.
        stop: Option<Size>,
        mib_per_s: u32,
    },
    /// Reads the big file from the disk from end to end, again and again. Progress is MiB read.
    Stream { seconds: u32 },
    /// Reads the same part of the big file again and again. Progress is MiB read.
    Reread { seconds: u32, mib: u32 },
    /// Maps the big file and touches page after page. Progress is pages touched.
    MmapScan { seconds: u32 },
    /// Takes anonymous memory up to a size, keeps it for a moment, gives it back, and reads files in between. Progress
    /// is bursts.
    Burst { seconds: u32, size: Size, keep_ms: u32 },
    /// A program of the root disk.
    Exec { argv: Vec<String> },
}

/// What a hog takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HogMemory {
    Anon,
    /// `MAP_SHARED | MAP_ANONYMOUS`, which is shmem.
    Shmem,
}

/// What should come of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The container that gets into trouble, as `pod/container`. Required, but for healthy scenarios.
    pub container: Option<String>,
    /// Without memguard: for how many seconds, from the limit on, the listener stays below a fifth of its progress.
    pub hang_s: Option<u32>,
    /// With memguard enforcing: within how many seconds of reaching the limit it is dead.
    pub dead_within_s: Option<u32>,
    /// Compare the tracer's counts with the kernel's own.
    pub counts: bool,
    /// Healthy: the limit has to be hit, or the scenario proves nothing.
    pub at_limit: bool,
}

/// What is wrong with a scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("can't read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}", path.display())]
    Syntax { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{}: {what}", path.display())]
    Nonsense { path: PathBuf, what: String },
}

impl Scenario {
    /// Reads one file.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        let mut scenario: Self = toml::from_str(&text)
            .map_err(|source| ScenarioError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        scenario.check().map_err(|what| ScenarioError::Nonsense { path: path.to_owned(), what })?;
        Ok(scenario)
    }

    /// All scenarios of a folder, by name.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, ScenarioError> {
        let wrong = |source| ScenarioError::Read { path: folder.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn check(&self) -> Result<(), String> {
        let mut containers = BTreeSet::new();
        let mut workloads = BTreeSet::new();
        if self.vm.cpus == 0 || self.vm.memory_mib < 256 {
            return Err("vm: needs at least 1 CPU and 256 MiB".to_owned());
        }
        if self.time.warm_up_s < 12 {
            return Err("time.warm_up_s: progress needs ten seconds, and two to begin".to_owned());
        }
        for pod in &self.pod {
            if !is_name(&pod.name) {
                return Err(format!("pod {:?}: a name has lower case letters, digits and -", pod.name));
            }
            for container in &pod.container {
                let full = format!("{}/{}", pod.name, container.name);
                if !is_name(&container.name) {
                    return Err(format!("container {full:?}: a name has lower case letters, digits and -"));
                }
                let nested = container.workload.iter().filter(|workload| workload.nested.is_some()).count();
                if nested != 0 && nested != container.workload.len() {
                    return Err(format!(
                        "container {full}: cgroup v2 allows processes in a cgroup or below it, not both: give all of \
                         its workloads a `nested`, or none"
                    ));
                }
                for workload in &container.workload {
                    if !workloads.insert(workload.name.clone()) {
                        return Err(format!("two workloads are called {:?}", workload.name));
                    }
                    if let Some(nested) = &workload.nested
                        && (nested.is_empty() || nested.split('/').any(|part| !is_name(part)))
                    {
                        return Err(format!("workload {}: `nested` {nested:?} is not a path of names", workload.name));
                    }
                }
                if !containers.insert(full.clone()) {
                    return Err(format!("two containers are called {full}"));
                }
            }
        }
        match (&self.expect.container, self.kind) {
            (None, Kind::Livelock | Kind::Oom) => return Err(format!("expect.container: a {} needs one", self.kind)),
            (Some(name), _) if !containers.contains(name) => {
                return Err(format!("expect.container: there is no container {name:?}"));
            }
            _ => {}
        }
        let limited = self.pod.iter().flat_map(|pod| pod.container.iter().map(move |container| (pod, container))).any(
            |(pod, container)| {
                let set = [pod.memory_max, container.memory_max, container.memory_high];
                self.expect.container == Some(format!("{}/{}", pod.name, container.name))
                    && set.into_iter().flatten().any(|size| size.0.is_some())
            },
        );
        if self.kind != Kind::Healthy && !limited {
            return Err("expect.container: neither it nor its pod has a memory limit that it could reach".to_owned());
        }
        if self.kind == Kind::Livelock && (self.expect.hang_s.is_none() || self.expect.dead_within_s.is_none()) {
            return Err("expect: a livelock needs hang_s and dead_within_s".to_owned());
        }
        if let Some(hang_s) = self.expect.hang_s
            && hang_s > self.time.run_s
        {
            return Err(format!("expect.hang_s: {hang_s} s of hanging do not fit into {} s", self.time.run_s));
        }
        Ok(())
    }

    /// All workloads with the pod and the container that they are in.
    pub fn workloads(&self) -> impl Iterator<Item = (&Pod, &Container, &Workload)> {
        self.pod.iter().flat_map(|pod| {
            pod.container
                .iter()
                .flat_map(move |container| container.workload.iter().map(move |workload| (pod, container, workload)))
        })
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        summary = "x"
        kind = "livelock"
        time = { warm_up_s = 20, run_s = 120 }
        expect = { container = "runner/main", hang_s = 120, dead_within_s = 60 }
        [[pod]]
        name = "runner"
        [[pod.container]]
        name = "main"
        memory_max = "512M"
        [[pod.container.workload]]
        name = "listener"
        run = { program = "listener", threads = 4, hot_mib = 48, calls = 200, pause_ms = 2 }
        [[pod.container.workload]]
        name = "hog"
        at = "trouble"
        run = { program = "hog", memory = "anon", stop = "480M", mib_per_s = 64 }
    "#;

    fn read(text: &str) -> Result<Scenario, String> {
        let dir = std::env::temp_dir().join(format!("memguard-scenario-{}-{:p}", std::process::id(), &raw const text));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("example.toml");
        std::fs::write(&path, text).unwrap();
        let result = Scenario::read(&path).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error}: {cause}")
        });
        std::fs::remove_dir_all(&dir).unwrap();
        result
    }

    #[test]
    fn reads_a_scenario_and_sends_it_as_json_unharmed() {
        let scenario = read(GOOD).unwrap();
        assert_eq!((scenario.name.as_str(), scenario.kind), ("example", Kind::Livelock));
        assert_eq!(scenario.vm, Vm::default());
        assert_eq!(scenario.pod[0].container[0].memory_max, Some(Size(Some(512 << 20))));
        let sent: Scenario = serde_json::from_str(&serde_json::to_string(&scenario).unwrap()).unwrap();
        assert_eq!(sent, scenario);
    }

    #[test]
    fn complains_with_the_file_and_the_field() {
        for (from, to, complaint) in [
            ("kind = \"livelock\"", "kind = \"hang\"", "hang"),
            ("hot_mib = 48,", "", "hot_mib"),
            ("memory_max", "memory_maximum", "memory_maximum"),
            ("\"512M\"", "\"512 MB\"", "512 MB"),
            ("\"512M\"", "\"max\"", "memory limit"),
            ("\"512M\"", "\"99999999999G\"", "99999999999G"),
            ("name = \"hog\"", "name = \"listener\"", "two workloads"),
            ("runner/main", "runner/other", "runner/other"),
            ("warm_up_s = 20", "warm_up_s = 5", "warm_up_s"),
            ("run_s = 120", "run_s = 60", "hang_s"),
            ("name = \"runner\"", "name = \"../x\"", "../x"),
            ("name = \"hog\"", "name = \"hog\"\nnested = \"docker/x\"", "not both"),
            ("hang_s = 120, ", "", "hang_s"),
        ] {
            let error = read(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains("example.toml") && error.contains(complaint), "{to}: {error}");
        }
    }

    #[test]
    fn all_scenarios_of_the_lab_are_sound() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let scenarios = Scenario::read_all(&folder).unwrap();
        assert!(scenarios.len() >= 9);
        for kind in [Kind::Livelock, Kind::Healthy, Kind::Oom] {
            assert!(scenarios.iter().any(|scenario| scenario.kind == kind), "{kind}");
        }
    }
}
