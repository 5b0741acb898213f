//! The configuration and the flags over it, at the start and whenever the file changes.

use std::{io, path::Path};

use anyhow::{Context as _, bail};

use super::run::Args;
use crate::{
    agent::{InForce, Reload},
    config::Configuration,
    engine::Settings,
    remote::Outward,
};

/// What the file says, and what the flags say over it. `can_kill`: there is a `cgroup.kill`.
pub(super) fn in_force(args: &Args, can_kill: bool) -> anyhow::Result<InForce> {
    let Configuration { engine, mut policy, kubernetes, github } = args.engine.configuration()?;
    if let Some(mode) = args.mode {
        // Whoever says `observe` on the command line means it, whatever rules the file has.
        (policy.mode, policy.ceiling) = (mode, mode);
    }
    policy.method = args.action.unwrap_or(policy.method);
    policy.only.extend(args.only.iter().cloned());
    policy.protect.extend(args.protect.iter().cloned());
    if policy.can_enforce() && !can_kill {
        bail!("there is no cgroup.kill here: mode enforce needs kernel 5.14 or newer (mode observe works)");
    }
    let engine = Settings { page_size: rustix::param::page_size() as u64, ..engine };
    Ok(InForce { engine, policy, outward: Outward { kubernetes, github } })
}

/// Reads it again; `None` without a file.
pub(super) fn reload(args: &Args, can_kill: bool) -> anyhow::Result<Option<Reload>> {
    let reload = reader(args, can_kill).map(Reload::new).transpose();
    reload.context("can't start the thread that reads the configuration again")
}

fn reader(args: &Args, can_kill: bool) -> Option<impl FnMut(bool) -> anyhow::Result<Option<InForce>> + Send + 'static> {
    let path = args.engine.config.clone()?;
    let args = args.clone();
    let mut last = content(&path);
    Some(move |asked: bool| {
        let now = content(&path);
        if now == last && !asked {
            return Ok(None);
        }
        last = now;
        let new = in_force(&args, can_kill)?;
        args.reach.complain(&new.outward);
        Ok(Some(new))
    })
}

/// Errors are told apart too: a file that is gone is told once, and not every time.
fn content(path: &Path) -> Result<Vec<u8>, io::ErrorKind> {
    std::fs::read(path).map_err(|error| error.kind())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::respond::{Method, Mode, Rule};

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_file_that_changes_is_read_flags_stay_over_it_and_mistakes_are_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memguard.toml");
        std::fs::write(&path, "").unwrap();
        let line = ["memguard", "--config", path.to_str().unwrap(), "--action", "oom", "--only", "x/*"];
        let args = Line::try_parse_from(line).unwrap().args;
        let mut reload = reader(&args, true).unwrap();
        assert_eq!(reload(false).unwrap(), None);
        std::fs::write(&path, "[policy]\nmode = \"enforce\"\naction = \"kill\"\n").unwrap();
        let new = reload(false).unwrap().unwrap();
        assert_eq!((new.policy.mode, new.policy.method, new.policy.only.len()), (Mode::Enforce, Method::Oom, 1));
        assert_eq!(reload(false).unwrap(), None);
        assert!(reload(true).unwrap().is_some(), "asked for");
        std::fs::write(&path, "[kubernetes]\nevents = false\n[github]\ntoken_file = \"/t\"\n").unwrap();
        let new = reload(false).unwrap().unwrap().outward;
        assert!(!new.kubernetes.events && new.github.is_some(), "{new:?}");
        std::fs::write(&path, "[policy]\nmode = 3\n").unwrap();
        let error = reload(false).unwrap_err().to_string();
        assert!(error.contains("policy.mode = 3"), "{error}");
        assert_eq!(reload(false).unwrap(), None, "told once");
        std::fs::remove_file(&path).unwrap();
        assert!(reload(false).unwrap_err().to_string().contains("memguard.toml"));
        assert_eq!(reload(false).unwrap(), None);
        std::fs::write(&path, "").unwrap();
        assert_eq!(reload(false).unwrap().unwrap().policy.mode, Mode::Observe);
    }

    #[test]
    fn a_flag_that_says_observe_is_over_all_rules() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memguard.toml");
        std::fs::write(&path, "[[policy.rules]]\nname = \"ci\"\nrunners = true\nmode = \"enforce\"\n").unwrap();
        let policy = |mode: &[&str], can_kill| {
            let line = ["memguard", "--config", path.to_str().unwrap()].into_iter().chain(mode.iter().copied());
            in_force(&Line::try_parse_from(line).unwrap().args, can_kill).map(|new| new.policy)
        };
        assert!(policy(&[], true).unwrap().can_enforce());
        assert!(policy(&[], false).unwrap_err().to_string().contains("cgroup.kill"));
        assert!(!policy(&["--mode", "observe"], false).unwrap().can_enforce());
        assert!(!policy(&["--mode", "off"], false).unwrap().can_enforce());
        let enforce = policy(&["--mode", "enforce"], true).unwrap();
        assert_eq!(enforce.mode, Mode::Enforce);
        assert!(matches!(&enforce.rules[..], [Rule { mode: Some(Mode::Enforce), .. }]));
    }

    #[test]
    fn enforcing_needs_the_kernels_help_and_without_a_file_there_is_nothing_to_read() {
        let args = Line::try_parse_from(["memguard", "--mode", "enforce"]).unwrap().args;
        assert!(in_force(&args, false).unwrap_err().to_string().contains("5.14"));
        assert!(in_force(&args, true).is_ok() && reload(&args, true).unwrap().is_none());
    }
}
