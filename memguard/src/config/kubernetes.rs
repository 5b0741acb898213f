//! `[kubernetes]`: what is done at the API after a kill. Whether there is one is a matter of flags.

use std::time::Duration;

use toml::{Table, Value};

use super::{Problems, comment};

/// What the file says about Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// Make Events on the pod and on the runner's object.
    pub events: bool,
    /// Delete the runner's object where ARC does not do it itself.
    pub delete_runner: bool,
    /// For a connection, and for the beginning of each answer.
    pub timeout: Duration,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self { events: true, delete_runner: true, timeout: Duration::from_secs(10) }
    }
}

const EVENTS: (&str, &str) = (
    "events",
    "Tell on the pod and on its runner's object, by an Event, why the container ended; in mode observe, that it would have.",
);
const DELETE_RUNNER: (&str, &str) = (
    "delete_runner",
    "Delete the runner's object (EphemeralRunner, Runner) after a kill, so that a new runner comes at once. ARC from 0.13 on \
     does that itself for a runner with a job, and is given half a minute for it.",
);
const TIMEOUT: (&str, u32, u32, &str) =
    ("timeout_s", 1, 120, "For a connection to the API server, and for the beginning of each answer.");

pub(super) fn read(table: &Table, problems: &mut Problems) -> KubernetesSettings {
    let mut settings = KubernetesSettings::default();
    for (key, value) in table {
        let name = format!("kubernetes.{key}");
        match key.as_str() {
            "events" => switch(&name, value, problems, &mut settings.events),
            "delete_runner" => switch(&name, value, problems, &mut settings.delete_runner),
            "timeout_s" => {
                let mut seconds = 0;
                super::policy::whole(&name, value, TIMEOUT, problems, &mut seconds);
                settings.timeout = Duration::from_secs(seconds.into());
            }
            _ => problems.unknown(&name, &[EVENTS.0, DELETE_RUNNER.0, TIMEOUT.0]),
        }
    }
    settings
}

pub(super) fn switch(name: &str, value: &Value, problems: &mut Problems, into: &mut bool) {
    match value.as_bool() {
        Some(on) => *into = on,
        None => problems.add(name, value, "write true or false"),
    }
}

/// The settings as a part of a configuration file.
pub(super) fn written(settings: &KubernetesSettings) -> String {
    let mut lines = vec!["[kubernetes]".to_owned()];
    for (name, value, why) in [
        (EVENTS.0, settings.events.to_string(), EVENTS.1),
        (DELETE_RUNNER.0, settings.delete_runner.to_string(), DELETE_RUNNER.1),
        (TIMEOUT.0, settings.timeout.as_secs().to_string(), TIMEOUT.3),
    ] {
        lines.extend(comment(why));
        lines.push(format!("{name} = {value}"));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KubernetesSettings, Vec<String>> {
        crate::config::configuration(&text.parse().unwrap()).map(|configuration| configuration.kubernetes)
    }

    #[test]
    fn what_is_said_is_read_and_what_is_written_is_read_back() {
        let settings = parse("[kubernetes]\nevents = false\ndelete_runner = false\ntimeout_s = 3").unwrap();
        let expected = KubernetesSettings { events: false, delete_runner: false, timeout: Duration::from_secs(3) };
        assert_eq!(settings, expected);
        assert_eq!(parse(&written(&settings)).unwrap(), settings);
        assert_eq!(parse("").unwrap(), KubernetesSettings::default());
    }

    #[test]
    fn mistakes_are_told_with_value_and_remedy() {
        let problems = parse("kubernetes = { events = 1, timeout_s = 0, api = 3 }").unwrap_err();
        for (name, remedy) in [
            ("kubernetes.events = 1", "true or false"),
            ("kubernetes.timeout_s = 0", "from 1 to 120"),
            ("kubernetes.api", "timeout_s"),
        ] {
            assert!(problems.iter().any(|p| p.starts_with(name) && p.contains(remedy)), "{name}: {problems:#?}");
        }
        assert!(parse("kubernetes = 1").unwrap_err()[0].contains("[kubernetes]"));
    }
}
