//! `[kubernetes]`: what is done at the API after a kill. Whether there is one is a matter of flags.

use std::time::Duration;

use toml::Table;

use super::{
    Problems,
    setting::{self, Kind, Setting},
};

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

pub(super) const SETTINGS: &[Setting<KubernetesSettings>] = &[
    Setting {
        name: "events",
        kind: Kind::Switch { place: |settings| &mut settings.events },
        why: "Tell on the pod and on its runner's object, by an Event, why the container ended; in mode observe, that it \
              would have.",
    },
    Setting {
        name: "delete_runner",
        kind: Kind::Switch { place: |settings| &mut settings.delete_runner },
        why: "Delete the runner's object (EphemeralRunner, Runner) after a kill, so that a new runner comes at once. ARC \
              from 0.13 on does that itself for a runner with a job, and is given half a minute for it.",
    },
    Setting {
        name: "timeout_s",
        kind: Kind::Seconds { range: (1, 120), place: |settings| &mut settings.timeout },
        why: "For a connection to the API server, and for the beginning of each answer.",
    },
];

pub(super) fn read(table: &Table, problems: &mut Problems) -> KubernetesSettings {
    let mut settings = KubernetesSettings::default();
    setting::read("kubernetes", SETTINGS, table, &mut settings, problems);
    settings
}

/// The settings as a part of a configuration file.
pub(super) fn written(settings: &KubernetesSettings) -> String {
    format!("[kubernetes]\n{}\n", setting::written(SETTINGS, settings).join("\n"))
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
