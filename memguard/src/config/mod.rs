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
//! ```

mod kubernetes;
mod policy;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{Table, Value};

pub use self::kubernetes::KubernetesSettings;
use crate::{
    engine::{KNOBS, Ramp, Settings},
    respond::Policy,
};

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("can't read the configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
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
}

/// Reads a configuration. What the file does not say is as in [`Settings::profile`] and [`Policy::default`].
pub fn read(path: &Path) -> Result<Configuration, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        what: error.to_string().trim().to_owned(),
    })?;
    configuration(&table).map_err(|problems| ConfigError::Wrong { path: path.to_owned(), problems })
}

/// A time of the engine as an operator sees it.
struct Time {
    name: &'static str,
    range: (u32, u32),
    why: &'static str,
    get: fn(&Settings) -> Duration,
    set: fn(&mut Settings, Duration),
}

const TIMES: &[Time] = &[
    Time {
        name: "window_s",
        range: (2, 60),
        why: "Length of the sliding window over which signals are computed. Shorter ones flap on bursts.",
        get: |settings| settings.window,
        set: |settings, time| settings.window = time,
    },
    Time {
        name: "hold_s",
        range: (1, 3600),
        why: "Evidence that makes a livelock: for how long the rule has to hold beyond doubt.",
        get: |settings| settings.hold,
        set: |settings, time| settings.hold = time,
    },
    Time {
        name: "post_action_delay_s",
        range: (0, 3600),
        why: "After an action on a cgroup nothing is decided about it for this long.",
        get: |settings| settings.post_action_delay,
        set: |settings, time| settings.post_action_delay = time,
    },
];

/// Collects what is wrong.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, name: &str, value: &Value, remedy: &str) {
        self.0.push(format!("{name} = {value}: {remedy}"));
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
                result.engine = self::engine(engine, &mut problems);
                problems.0.extend(result.engine.contradiction().map(|what| format!("engine: {what}")));
            }
            ("policy", Value::Table(policy)) => result.policy = policy::read(policy, &mut problems),
            ("kubernetes", Value::Table(table)) => result.kubernetes = kubernetes::read(table, &mut problems),
            ("engine" | "policy" | "kubernetes", other) => {
                problems.add(key, other, &format!("write it as a table, [{key}]"));
            }
            _ => problems.unknown(key, &["engine", "policy", "kubernetes"]),
        }
    }
    if problems.0.is_empty() { Ok(result) } else { Err(problems.0) }
}

fn engine(table: &Table, problems: &mut Problems) -> Settings {
    let mut settings = Settings::default();
    // First the profile, whatever the order in the file: what else is said overrides it.
    if let Some(value) = table.get("profile") {
        match value.as_str().map(|name| clap::ValueEnum::from_str(name, false)) {
            Some(Ok(profile)) => settings = Settings::profile(profile),
            _ => problems.add("engine.profile", value, r#"write "fast", "default" or "careful""#),
        }
    }
    for (key, value) in table {
        let name = format!("engine.{key}");
        if let Some(time) = TIMES.iter().find(|time| time.name == key) {
            let seconds = value.as_integer().and_then(|seconds| u32::try_from(seconds).ok());
            match seconds.filter(|seconds| (time.range.0..=time.range.1).contains(seconds)) {
                Some(seconds) => (time.set)(&mut settings, Duration::from_secs(u64::from(seconds))),
                None => problems.add(
                    &name,
                    value,
                    &format!("write a whole number of seconds from {} to {}", time.range.0, time.range.1),
                ),
            }
        } else if key == "grace_ticks" {
            match value
                .as_integer()
                .and_then(|ticks| u32::try_from(ticks).ok())
                .filter(|ticks| (1..=60).contains(ticks))
            {
                Some(ticks) => settings.grace_ticks = ticks,
                None => problems.add(&name, value, "write a whole number from 1 to 60"),
            }
        } else if key == "thresholds" {
            match value.as_table() {
                Some(table) => thresholds(table, &mut settings, problems),
                None => problems.add(&name, value, "write it as a table, [engine.thresholds]"),
            }
        } else if key != "profile" {
            let known: Vec<_> = ["profile", "grace_ticks", "thresholds"]
                .into_iter()
                .chain(TIMES.iter().map(|time| time.name))
                .collect();
            problems.unknown(&name, &known);
        }
    }
    settings
}

fn thresholds(table: &Table, settings: &mut Settings, problems: &mut Problems) {
    for (key, value) in table {
        let name = format!("engine.thresholds.{key}");
        let Some(knob) = KNOBS.iter().find(|knob| knob.name == key) else {
            let known: Vec<_> = KNOBS.iter().map(|knob| knob.name).collect();
            problems.unknown(&name, &known);
            continue;
        };
        let (least, most) = knob.range;
        let within = |number: f64| (least..=most).contains(&number);
        match ramp(value) {
            Some(ramp) if !knob.graded && ramp.from.to_bits() != ramp.sure.to_bits() => {
                problems.add(&name, value, "it is met or not: write one number");
            }
            Some(ramp) if within(ramp.from) && within(ramp.sure) && ramp.from <= ramp.sure => {
                knob.set(&mut settings.thresholds, ramp);
            }
            Some(ramp) if ramp.from > ramp.sure => problems.add(&name, value, "`from` may not be above `sure`"),
            _ => problems.add(
                &name,
                value,
                &format!(
                    "write {{ from = A, sure = B }}, or one number for both, from {least} to {most} ({})",
                    knob.unit
                ),
            ),
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64)).filter(|number| number.is_finite())
}

/// `{ from = A, sure = B }` with nothing else in it, or a number.
fn ramp(value: &Value) -> Option<Ramp> {
    match value {
        Value::Table(table) if table.len() == 2 => {
            Some(Ramp { from: number(table.get("from")?)?, sure: number(table.get("sure")?)? })
        }
        other => number(other).map(|both| Ramp { from: both, sure: both }),
    }
}

/// A configuration as a file, each setting with what it is for.
#[must_use]
pub fn written(configuration: &Configuration) -> String {
    [
        written_engine(&configuration.engine),
        policy::written(&configuration.policy),
        kubernetes::written(&configuration.kubernetes),
    ]
    .join("\n")
}

fn written_engine(settings: &Settings) -> String {
    let mut lines = vec!["[engine]".to_owned()];
    for time in TIMES {
        lines.extend(comment(time.why));
        lines.push(format!("{} = {}", time.name, (time.get)(settings).as_secs()));
    }
    lines.extend(comment("So many ticks of a second in a row without evidence end a suspicion."));
    lines.push(format!("grace_ticks = {}\n\n[engine.thresholds]", settings.grace_ticks));
    for knob in KNOBS {
        lines.extend(comment(&format!("{} ({})", knob.why, knob.unit)));
        let Ramp { from, sure } = knob.get(&settings.thresholds);
        lines.push(if knob.graded {
            format!("{} = {{ from = {from}, sure = {sure} }}", knob.name)
        } else {
            format!("{} = {from}", knob.name)
        });
    }
    lines.join("\n") + "\n"
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
    use super::*;
    use crate::engine::Profile;

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
            ("color", "there are: engine, policy, kubernetes"),
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
    fn every_default_is_within_its_own_range() {
        let defaults = Settings::default();
        for knob in KNOBS {
            let Ramp { from, sure } = knob.get(&defaults.thresholds);
            assert!(knob.range.0 <= from && from <= sure && sure <= knob.range.1, "{}", knob.name);
        }
    }
}
