//! What a kernel gives now beside what it gave when that was last written down. Pure, but for the reading.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path};

use anyhow::Context as _;

use super::{AVAILABLE, Support};

/// A verifier that looks at so much more than before has met a new loop or branch, and may give up on the next kernel.
const GROWTH: f64 = 1.25;

/// What was written down last. What is to be held against it has to be there.
pub(super) fn before(data: &Path, needed: bool) -> anyhow::Result<Vec<Support>> {
    match fs::read(data) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", data.display())),
        Err(error) if error.kind() == ErrorKind::NotFound && !needed => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| {
            format!("can't read {}, which tells what each kernel did before: take it from git again", data.display())
        }),
    }
}

/// Plans, the best first.
const LEVELS: [&str; 3] = ["full", "degraded", "files"];

/// All that is worse than it was, with the kernel.
pub(super) fn worse(before: &[Support], now: &[Support]) -> Vec<String> {
    let mut worse = Vec::new();
    let rank = |level: &str| LEVELS.iter().position(|known| *known == level).unwrap_or(LEVELS.len());
    for (old, new) in before.iter().filter_map(|old| Some((old, now.iter().find(|new| new.is_of(old))?))) {
        let on = format!("on {}, {}", new.line, new.machine);
        if rank(&new.level) > rank(&old.level) {
            worse.push(format!("the plan {on}: {} -> {}", old.level, new.level));
        }
        for signal in old.signals.iter().filter(|signal| signal.lost.is_none()) {
            let lost = new.signals.iter().find(|now| now.name == signal.name).and_then(|now| now.lost.as_deref());
            worse.extend(lost.map(|lost| format!("{} {on}: now lost: {lost}", signal.name)));
        }
        for hook in old.hooks.iter().filter(|hook| hook.state == AVAILABLE) {
            // One that is not there any more was taken out of memguard on purpose.
            let Some(now) = new.hooks.iter().find(|now| now.program == hook.program) else { continue };
            if now.state != AVAILABLE {
                let why = now.why.as_deref().unwrap_or("no reason told");
                worse.push(format!("{} {on}: {} -> {} ({why})", hook.program, hook.state, now.state));
            }
        }
    }
    worse.extend(grown(before, now));
    worse
}

/// Programs that have grown, with the kernel, and from what to what.
fn grown(before: &[Support], now: &[Support]) -> Vec<String> {
    let counts = |supports: &[Support]| -> BTreeMap<(String, String, String), u32> {
        supports
            .iter()
            .flat_map(|support| support.hooks.iter().map(move |hook| (support, hook)))
            .filter_map(|(support, hook)| {
                let key = (support.machine.clone(), support.line.clone(), hook.program.clone());
                Some((key, hook.verified_instructions?))
            })
            .collect()
    };
    let old = counts(before);
    counts(now)
        .into_iter()
        .filter_map(|(key, count)| {
            let was = *old.get(&key)?;
            let (machine, line, program) = key;
            (f64::from(count) > f64::from(was) * GROWTH)
                .then(|| format!("{program} on {line}, {machine}: {was} -> {count}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::support::{
        files,
        tests::{support, support_on},
    };

    #[test]
    fn what_grows_by_more_than_a_quarter_is_named() {
        let before = [support("6.1", 100), support("6.12", 100)];
        assert!(grown(&before, &[support("6.1", 125)]).is_empty());
        assert_eq!(grown(&before, &[support("6.12", 126)]), ["reclaim_end on 6.12, x86_64: 100 -> 126"]);
        assert!(grown(&[], &[support("6.12", 9999)]).is_empty(), "nothing to compare with");
        assert!(grown(&before, &[support_on("aarch64", "6.12", 9999)]).is_empty(), "other processors");
    }

    #[test]
    fn a_plan_or_a_hook_that_is_lost_is_named() {
        let before = [support("6.1", 100), support("6.12", 100)];
        let change = |to: &dyn Fn(&mut Support)| {
            let mut now = support("6.12", 100);
            to(&mut now);
            worse(&before, &[now])
        };
        assert!(change(&|_| {}).is_empty());
        assert_eq!(change(&|now| now.level = "files".to_owned()), ["the plan on 6.12, x86_64: degraded -> files"]);
        assert!(change(&|now| now.level = "full".to_owned()).is_empty(), "that is better");
        let with_all = |lost: Option<&str>| {
            let mut support = support("6.12", 100);
            support.signals[0].lost = lost.map(str::to_owned);
            support
        };
        let lost = worse(&[with_all(None)], &[with_all(Some("which were major"))]);
        assert_eq!(lost, ["file_faults on 6.12, x86_64: now lost: which were major"]);
        assert_eq!(
            change(&|now| {
                now.hooks[0].state = "refused".to_owned();
                now.hooks[0].why = Some("EACCES".to_owned());
            }),
            ["reclaim_end on 6.12, x86_64: available -> refused (EACCES)"]
        );
        assert!(change(&|now| now.hooks[1].state = "missing".to_owned()).is_empty(), "it was refused before");
        assert!(worse(&before, &[support("7", 100)]).is_empty(), "nothing to compare with");
    }

    #[test]
    fn what_is_held_against_has_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("kernel-support.json");
        assert!(before(&data, false).unwrap().is_empty());
        assert!(before(&data, true).unwrap_err().to_string().contains("kernel-support.json"));
        fs::write(&data, "[").unwrap();
        before(&data, false).unwrap_err();
        let (_, real) = files();
        assert!(!before(&real, true).unwrap().is_empty(), "what is committed is understood");
    }
}
