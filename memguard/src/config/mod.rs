//! The configuration file: TOML, read whole, with every mistake in it listed at once.
//!
//! ```toml
//! [engine]
//! profile = "default"
//! hold_s = 10
//!
//! [engine.thresholds]
//! lost = { from = 0.85, sure = 0.95 }
//!
//! [policy]
//! mode = "enforce"
//!
//! [[policy.rules]]
//! name = "databases"
//! namespaces = ["db-*"]
//! mode = "off"
//!
//! [github]
//! credentials = "/etc/memguard/github"
//! ```

mod engine;
mod github;
mod kubernetes;
mod policy;
mod reference;
mod setting;

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use toml::{Table, Value};

pub(crate) use self::policy::pattern;
pub use self::{
    github::GitHubSettings,
    kubernetes::KubernetesSettings,
    reference::{Key, Section, markdown, reference},
};
use crate::{engine::Settings, github::looks_secret, remote::without_tokens, respond::Policy};

/// With every setting explained a configuration has some 20 KiB. A file or a device that is named by mistake has to end.
const LARGEST: u64 = 1 << 20;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("can't read the configuration {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no TOML: {what}", path.display())]
    Syntax { path: PathBuf, what: String },
    #[error("{} has {} mistake{}:\n  {}", path.display(), problems.len(), if problems.len() == 1 { "" } else { "s" }, problems.join("\n  "))]
    Wrong { path: PathBuf, problems: Vec<String> },
}

/// All that can be set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    pub engine: Settings,
    pub policy: Policy,
    pub kubernetes: KubernetesSettings,
    /// `None`: GitHub is asked for nothing.
    pub github: Option<GitHubSettings>,
}

/// Reads a configuration. What the file does not say is as in [`Settings::profile`] and [`Policy::default`].
pub fn read(path: &Path) -> Result<Configuration, ConfigError> {
    let text = text(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        // It shows the line, and somebody may have written a token there.
        what: without_tokens(error.to_string().trim()),
    })?;
    configuration(&table).map_err(|problems| ConfigError::Wrong { path: path.to_owned(), problems })
}

/// A file, or what comes out of a pipe (`memguard config check <(...)`), up to [`LARGEST`].
fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it has more than {} MiB, and no configuration has", LARGEST >> 20)));
    }
    Ok(text)
}

/// Collects what is wrong.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, name: &str, value: &Value, remedy: &str) {
        // Somebody may have written a token there.
        self.0.push(if value.as_str().is_some_and(looks_secret) {
            let what = "this looks like a secret itself, so it is not repeated here; write it into a file of its own";
            format!("{name}: {what}; {remedy}")
        } else {
            format!("{name} = {}: {remedy}", without_tokens(&value.to_string()))
        });
    }

    fn unknown(&mut self, name: &str, known: &[&str]) {
        self.0.push(format!("{name}: there is no such setting; there are: {}", known.join(", ")));
    }
}

pub(crate) fn configuration(table: &Table) -> Result<Configuration, Vec<String>> {
    let mut problems = Problems::default();
    let mut result = Configuration::default();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("engine", Value::Table(engine)) => {
                result.engine = engine::read(engine, &mut problems);
                problems.0.extend(result.engine.contradiction().map(|what| format!("engine: {what}")));
            }
            ("policy", Value::Table(policy)) => result.policy = policy::read(policy, &mut problems),
            ("kubernetes", Value::Table(table)) => result.kubernetes = kubernetes::read(table, &mut problems),
            ("github", Value::Table(github)) => result.github = github::read(github, &mut problems),
            ("engine" | "policy" | "kubernetes" | "github", other) => {
                problems.add(key, other, &format!("write it as a table, [{key}]"));
            }
            _ => problems.unknown(key, &["engine", "policy", "kubernetes", "github"]),
        }
    }
    if problems.0.is_empty() { Ok(result) } else { Err(problems.0) }
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64)).filter(|number| number.is_finite())
}

/// A configuration as a file, each setting with what it is for.
#[must_use]
pub fn written(configuration: &Configuration) -> String {
    [
        engine::written(&configuration.engine),
        policy::written(&configuration.policy),
        kubernetes::written(&configuration.kubernetes),
        github::written(configuration.github.as_ref()),
    ]
    .join("\n")
}

fn comment(text: &str) -> Vec<String> {
    wrapped(text).into_iter().map(|line| format!("# {line}")).collect()
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
            } else if line.len() + word.len() < 110 {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::{KNOBS, Profile, Ramp};

    fn parse(text: &str) -> Result<Settings, Vec<String>> {
        configuration(&text.parse::<Table>().unwrap()).map(|configuration| configuration.engine)
    }

    #[test]
    fn what_is_written_is_read_back() {
        for profile in [Profile::Fast, Profile::Default, Profile::Careful] {
            let configuration = Configuration { engine: Settings::profile(profile), ..Configuration::default() };
            let table = written(&configuration).parse::<Table>().unwrap();
            assert_eq!(super::configuration(&table), Ok(configuration));
        }
    }

    #[test]
    fn what_is_said_overrides_the_profile_in_any_order() {
        let settings = parse("[engine]\nhold_s = 20\nprofile = \"fast\"\n[engine.thresholds]\nlost = 0.9").unwrap();
        assert_eq!(settings.hold, Duration::from_secs(20));
        assert_eq!(settings.thresholds.lost, Ramp { from: 0.9, sure: 0.9 });
        assert_eq!(settings.window, Settings::profile(Profile::Fast).window);
        assert_eq!(parse(""), Ok(Settings::default()));
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_value_and_remedy() {
        let problems = parse(
            "color = 1\n[engine]\nprofile = \"brave\"\nhold_s = 0\nwindow_s = 2.5\nwindows = 3\ngrace_ticks = -1\n\
             [engine.thresholds]\nlost = { from = 0.9, sure = 0.8 }\nat_limit = 3\nrefault_share = nan\n\
             unreclaimable = { from = 0.1 }\nluck = 1\nlost_frantic = { from = 0.1, sure = 0.2, x = 1 }\n\
             crowded = { from = 0.1, sure = 0.2 }",
        )
        .unwrap_err();
        for (name, remedy) in [
            ("color", "there are: engine, policy, kubernetes, github"),
            ("engine.profile = \"brave\"", "careful"),
            ("engine.hold_s = 0", "1 to 3600"),
            ("engine.window_s = 2.5", "2 to 60"),
            ("engine.windows", "window_s"),
            ("engine.grace_ticks = -1", "1 to 60"),
            ("engine.thresholds.lost", "above `sure`"),
            ("engine.thresholds.at_limit = 3", "0.5 to 1"),
            ("engine.thresholds.refault_share = nan", "from 0 to 2"),
            ("engine.thresholds.unreclaimable", "sure = B"),
            ("engine.thresholds.luck", "text_returns_per_s"),
            ("engine.thresholds.lost_frantic", "sure = B"),
            ("engine.thresholds.crowded", "one number"),
        ] {
            assert!(problems.iter().any(|p| p.starts_with(name) && p.contains(remedy)), "{name}: {problems:#?}");
        }
        assert_eq!(problems.len(), 13, "{problems:#?}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let problems = parse("[engine]\nhold_s = 5").unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains("window_s"), "{problems:?}");
        assert!(parse("[engine]\nhold_s = 5\nwindow_s = 3").is_ok());
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memguard.toml");
        assert!(read(&path).unwrap_err().to_string().contains("memguard.toml"));
        std::fs::write(&path, "[engine\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("memguard.toml") && error.contains("no TOML"), "{error}");
        std::fs::write(&path, "[engine]\nhold_s = 0\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("1 mistake:") && error.contains("hold_s"), "{error}");
    }

    #[test]
    fn a_device_and_a_file_that_is_too_large_are_refused_and_a_pipe_is_read() {
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("/dev/zero") && error.contains("1 MiB"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memguard.toml");
        std::fs::write(&path, "#".repeat(1 << 20)).unwrap();
        assert!(read(&path).is_ok());
        std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("1 MiB"));
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"[engine]\nhold_s = 20\n").unwrap();
        drop(writer);
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let read = read(Path::new(&format!("/proc/self/fd/{descriptor}"))).unwrap();
        assert_eq!(read.engine.hold, Duration::from_secs(20));
    }

    #[test]
    fn every_default_is_within_its_own_range() {
        let defaults = Settings::default();
        for knob in KNOBS {
            let Ramp { from, sure } = knob.get(&defaults.thresholds);
            assert!(knob.range.0 <= from && from <= sure && sure <= knob.range.1, "{}", knob.name);
        }
    }
}
