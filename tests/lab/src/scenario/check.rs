//! What a scenario has to fulfil beyond its syntax.

use std::collections::BTreeSet;

use super::{Container, Kind, Pod, Program, Scenario, Size, Start, Workload};

impl Scenario {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.vm.cpus == 0 || self.vm.memory_mib < 256 {
            return Err("vm: needs at least 1 CPU and 256 MiB".to_owned());
        }
        if self.time.warm_up_s < 12 {
            return Err("time.warm_up_s: progress needs ten seconds, and two to begin".to_owned());
        }
        if let Some(family) = &self.family
            && !is_name(family)
        {
            return Err(format!("family {family:?}: a name has lower case letters, digits and -"));
        }
        let containers = self.check_names()?;
        self.check_expectation(&containers)?;
        self.workloads().try_for_each(|(.., workload)| self.check_workload(workload, &containers))
    }

    /// The containers, as `pod/container`.
    fn check_names(&self) -> Result<BTreeSet<String>, String> {
        let mut containers = BTreeSet::new();
        let mut workloads = BTreeSet::new();
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
        Ok(containers)
    }

    fn check_expectation(&self, containers: &BTreeSet<String>) -> Result<(), String> {
        let expect = &self.expect;
        if expect.container.is_none() && (self.kind != Kind::Healthy || !expect.also.is_empty()) {
            return Err(format!("expect.container: a {} needs one", self.kind));
        }
        let mut seen = BTreeSet::new();
        for name in expect.containers() {
            if !containers.contains(name) {
                return Err(format!("expect: there is no container {name:?}"));
            }
            if !seen.insert(name) {
                return Err(format!("expect: {name} is named twice"));
            }
            if self.kind != Kind::Healthy && !self.limited(name) {
                return Err(format!("expect: neither {name} nor its pod has a memory limit that it could reach"));
            }
            let victim = |(pod, container, workload): (&Pod, &Container, &Workload)| {
                format!("{}/{}", pod.name, container.name) == name && workload.is_victim()
            };
            if self.kind == Kind::Livelock && !self.workloads().any(victim) {
                return Err(format!("expect: nothing in {name} reports progress from the beginning on"));
            }
        }
        if self.kind == Kind::Livelock && (expect.hang_s.is_none() || expect.dead_within_s.is_none()) {
            return Err("expect: a livelock needs hang_s and dead_within_s".to_owned());
        }
        if let Some(hang_s) = expect.hang_s
            && hang_s > self.time.run_s
        {
            return Err(format!("expect.hang_s: {hang_s} s of hanging do not fit into {} s", self.time.run_s));
        }
        if let Some(share) = expect.works_at
            && !(share > 0.0 && share <= 1.0 && self.kind == Kind::Healthy)
        {
            return Err(format!("expect.works_at: {share} is not a share of what healthy work did before"));
        }
        Ok(())
    }

    fn limited(&self, name: &str) -> bool {
        self.pod.iter().flat_map(|pod| pod.container.iter().map(move |container| (pod, container))).any(
            |(pod, container)| {
                let set = [pod.memory_max, container.memory_max, container.memory_high];
                name == format!("{}/{}", pod.name, container.name)
                    && set.into_iter().flatten().any(|size| size.0.is_some())
            },
        )
    }

    fn check_workload(&self, workload: &Workload, containers: &BTreeSet<String>) -> Result<(), String> {
        let name = &workload.name;
        if workload.limits.address_space == Some(Size(None)) {
            return Err(format!("workload {name}: limits.address_space needs a size"));
        }
        if let Program::PsiWatch { container, .. } = &workload.run
            && !containers.contains(container)
        {
            return Err(format!("workload {name}: there is no container {container:?} to watch"));
        }
        // Work that is still under way at the end of a run says nothing.
        let until = match workload.at {
            Start::Beginning => self.time.warm_up_s + self.time.run_s,
            Start::Trouble => self.time.run_s,
        };
        if self.kind == Kind::Healthy
            && let Some(Some(seconds)) = workload.run.ends()
            && seconds + 4 > until
        {
            return Err(format!("workload {name}: {seconds} s and a few to end in do not fit into {until} s"));
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;
    use crate::scenario::{Half, Vm};

    const GOOD: &str = r#"
        summary = "x"
        kind = "livelock"
        half = "tuning"
        time = { warm_up_s = 20, run_s = 120 }
        expect = { container = "runner/main", hang_s = 120, dead_within_s = 60 }
        [[pod]]
        name = "runner"
        [[pod.container]]
        name = "main"
        memory_max = "512M"
        cpu_max = 0.25
        [[pod.container.workload]]
        name = "listener"
        run = { program = "listener", threads = 4, hot_mib = 48, calls = 200, pause_ms = 2 }
        [[pod.container.workload]]
        name = "hog"
        at = "trouble"
        run = { program = "hog", memory = "anon", stop = "480M", mib_per_s = 64 }
    "#;

    const HOG: &str = "run = { program = \"hog\", memory = \"anon\", stop = \"480M\", mib_per_s = 64 }";

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
        let container = &scenario.pod[0].container[0];
        assert_eq!(container.memory_max, Some(Size(Some(512 << 20))));
        assert_eq!(container.cpu_max.unwrap().file_text(), "25000 100000");
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
            ("cpu_max = 0.25", "cpu_max = 0.005", "0.005"),
            ("cpu_max = 0.25", "cpu_max = nan", "number of CPUs"),
            ("name = \"hog\"", "name = \"listener\"", "two workloads"),
            ("runner/main", "runner/other", "runner/other"),
            ("warm_up_s = 20", "warm_up_s = 5", "warm_up_s"),
            ("run_s = 120", "run_s = 60", "hang_s"),
            ("name = \"runner\"", "name = \"../x\"", "../x"),
            ("name = \"hog\"", "name = \"hog\"\nnested = \"docker/x\"", "not both"),
            ("hang_s = 120, ", "", "hang_s"),
            ("half = \"tuning\"", "", "half"),
            ("half = \"tuning\"", "half = \"tuning\"\nfamily = \"Ä\"", "family"),
            ("hang_s = 120", "hang_s = 120, also = [\"runner/main\"]", "twice"),
            ("hang_s = 120", "hang_s = 120, also = [\"runner/b\"]", "runner/b"),
            ("hang_s = 120", "hang_s = 120, works_at = 0.5", "works_at"),
            ("name = \"listener\"", "name = \"listener\"\nat = \"trouble\"", "progress from the beginning"),
            ("name = \"hog\"", "name = \"hog\"\nlimits = { address_space = \"max\" }", "address_space"),
            (HOG, "run = { program = \"psi-watch\", container = \"a/b\", full_avg10 = 60.0 }", "to watch"),
        ] {
            let error = read(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains("example.toml") && error.contains(complaint), "{to}: {error}");
        }
    }

    #[test]
    fn healthy_work_has_to_come_to_its_end() {
        let healthy = GOOD.replacen("\"livelock\"", "\"healthy\"", 1).replacen(
            HOG,
            "run = { program = \"stream\", seconds = 116 }",
            1,
        );
        read(&healthy).unwrap();
        let error = read(&healthy.replacen("116", "118", 1)).unwrap_err();
        assert!(error.contains("workload hog: 118 s"), "{error}");
    }

    #[test]
    fn several_containers_can_be_in_trouble() {
        let second = r#"
            [[pod]]
            name = "other"
            memory_max = "256M"
            [[pod.container]]
            name = "main"
            [[pod.container.workload]]
            name = "shell"
            run = { program = "repeat", argv = ["/bin/true"] }
        "#;
        let text = GOOD.replacen("hang_s", "also = [\"other/main\"], hang_s", 1) + second;
        let scenario = read(&text).unwrap();
        assert_eq!(scenario.expect.containers().collect::<Vec<_>>(), ["runner/main", "other/main"]);
    }

    #[test]
    fn all_scenarios_of_the_lab_are_sound_and_split_in_even_halves() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let scenarios = Scenario::read_all(&folder).unwrap();
        for (kind, least) in [(Kind::Livelock, 12), (Kind::Healthy, 20), (Kind::Oom, 3)] {
            let of_kind: Vec<_> = scenarios.iter().filter(|scenario| scenario.kind == kind).collect();
            assert!(of_kind.len() >= least, "{kind}: {}", of_kind.len());
            let held_out = of_kind.iter().filter(|scenario| scenario.half == Half::HeldOut).count();
            let off = (2 * held_out).abs_diff(of_kind.len());
            assert!(off <= of_kind.len().div_ceil(5), "{kind}: {held_out} of {} are held out", of_kind.len());
        }
        let mut families: BTreeMap<&str, BTreeMap<Half, usize>> = BTreeMap::new();
        for scenario in &scenarios {
            let family = scenario.family.as_deref().unwrap_or_else(|| panic!("{} has no family", scenario.name));
            *families.entry(family).or_default().entry(scenario.half).or_default() += 1;
        }
        for (family, halves) in families {
            assert!(halves.len() == 2 || halves.values().sum::<usize>() == 1, "{family} is in one half: {halves:?}");
        }
        let wide = scenarios.iter().filter(|scenario| scenario.vm.cpus > 1).count();
        assert!(wide <= 8, "{wide} scenarios take two processors, so that nothing runs beside them");
    }
}
