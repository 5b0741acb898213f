//! The fresh check: what is looked at once more right before an action.

use super::Suppressed;
use crate::{
    cgroup::{CgroupError, CgroupHandle},
    engine::{Thresholds, Verdict},
};

/// The last look before a kill: the same cgroups as judged, still at the limit, still full of processes, and the
/// kernel's own OOM killer has not begun meanwhile.
pub fn fresh_check(
    owner: &CgroupHandle,
    victim: &CgroupHandle,
    verdict: &Verdict,
    ooms_then: u64,
    thresholds: &Thresholds,
) -> Result<(), Suppressed> {
    let changed = |why: String| Err(Suppressed::Changed { why });
    let gone = |error: CgroupError| match error {
        CgroupError::Gone { .. } => Suppressed::Gone,
        other => Suppressed::Changed { why: other.to_string() },
    };
    if owner.inode() != verdict.unit.0 {
        return changed(format!("cgroup {} was judged, and this is {}", verdict.unit, owner.inode()));
    }
    owner.check_identity().map_err(gone)?;
    victim.check_identity().map_err(gone)?;
    if !victim.populated().map_err(gone)? {
        return changed("no process is left in it".to_owned());
    }
    let memory = owner.memory().map_err(gone)?;
    let Some((limit, which)) = memory.limit() else { return changed("its limit was lifted".to_owned()) };
    if (limit, which) != (verdict.signals.limit, verdict.signals.limited_by) {
        return changed(format!(
            "its limit was changed from {} of {} to {which} of {limit} bytes",
            verdict.signals.limited_by, verdict.signals.limit
        ));
    }
    if (memory.current as f64) < limit as f64 * thresholds.at_limit.from {
        return changed(format!("it uses {} of {limit} bytes now", memory.current));
    }
    if memory.ooms() != ooms_then {
        return changed("the kernel's OOM killer has acted".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
        time::Duration,
    };

    use super::*;
    use crate::{
        cgroup::fake_cgroup,
        engine::{Cpu, Engine, Memory, Pressure, Sample, Settings, Stall, State, UnitId},
    };

    /// A verdict on the cgroup at `path`, from the engine itself.
    fn verdict(path: &Path) -> (CgroupHandle, Verdict) {
        let handle = CgroupHandle::open(path).unwrap();
        let mut engine = Engine::new(Settings::default());
        for second in 0..60 {
            let time = Duration::from_secs(second);
            let stall = Some(Stall { some: time, full: time });
            let memory = Memory {
                current: 1990,
                max: Some(2000),
                anon: 1900,
                file: 80,
                steals: 100 * second,
                refaults: 100 * second,
                major_faults: 50 * second,
                max_events: 50 * second,
                ..Memory::default()
            };
            let sample = Sample {
                at: time,
                memory,
                pressure: Pressure { memory: stall, io: stall, cpu: None },
                cpu: Some(Cpu { user: Duration::ZERO, system: time, ..Cpu::default() }),
                tracer: None,
                hung_below: false,
            };
            let observation = engine.observe(UnitId(handle.inode()), sample);
            if let Some(verdict) = observation.verdict {
                assert_eq!(observation.state, State::Livelock);
                return (handle, verdict);
            }
        }
        panic!("no verdict");
    }

    fn setup() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.scope");
        fake_cgroup(&path);
        fs::write(path.join("memory.current"), "1995\n").unwrap();
        (dir, path)
    }

    fn check(path: &Path, handle: &CgroupHandle, verdict: &Verdict) -> Result<(), Suppressed> {
        let victim = CgroupHandle::open(path).map_err(|_| Suppressed::Gone)?;
        fresh_check(handle, &victim, verdict, 7, &Thresholds::default())
    }

    #[test]
    fn passes_while_nothing_changed() {
        let (_dir, path) = setup();
        let (handle, verdict) = verdict(&path);
        assert_eq!(check(&path, &handle, &verdict), Ok(()));
    }

    #[test]
    fn stops_for_each_change() {
        let changes: [(&str, &str, &str); 5] = [
            ("memory.current", "1000\n", "uses 1000"),
            ("memory.max", "max\n", "lifted"),
            ("memory.max", "4000\n", "changed"),
            ("memory.events", "max 9\noom_kill 5\n", "OOM killer"),
            ("cgroup.events", "populated 0\n", "no process"),
        ];
        for (file, text, why) in changes {
            let (_dir, path) = setup();
            let (handle, verdict) = verdict(&path);
            fs::write(path.join(file), text).unwrap();
            let reason = check(&path, &handle, &verdict).unwrap_err().to_string();
            assert!(reason.contains(why), "{file}: {reason}");
        }
    }

    #[test]
    fn an_oom_at_a_smaller_limit_below_is_no_change() {
        let (_dir, path) = setup();
        fs::write(path.join("memory.events.local"), "max 2\noom 3\noom_kill 4\n").unwrap();
        let (handle, verdict) = verdict(&path);
        fs::write(path.join("memory.events"), "max 9\noom 8\noom_kill 9\n").unwrap();
        assert_eq!(check(&path, &handle, &verdict), Ok(()));
        fs::write(path.join("memory.events.local"), "max 2\noom 4\noom_kill 4\n").unwrap();
        assert!(check(&path, &handle, &verdict).unwrap_err().to_string().contains("OOM killer"));
    }

    #[test]
    fn stops_for_another_cgroup_in_its_place_and_for_none() {
        let (dir, path) = setup();
        let (handle, verdict) = verdict(&path);
        fs::rename(&path, dir.path().join("old")).unwrap();
        assert_eq!(check(&path, &handle, &verdict), Err(Suppressed::Gone));
        fake_cgroup(&path);
        let reason = check(&path, &handle, &verdict).unwrap_err().to_string();
        assert!(reason.contains("in its place"), "{reason}");
    }
}
