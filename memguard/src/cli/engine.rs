//! Options that say how the engine is set, common to several commands.

use std::{path::PathBuf, time::Duration};

use super::run::seconds_between;
use crate::{
    config::{self, Configuration},
    engine::{Profile, Settings},
};

/// How the engine is set: a configuration file or a profile, and single values over it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct EngineArgs {
    /// A configuration file, see `memguard config`.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// How much evidence is asked for.
    #[arg(long, value_enum, conflicts_with = "config")]
    pub(super) profile: Option<Profile>,

    /// Seconds over which signals are computed [default: the profile's, 5].
    #[arg(long, value_name = "SECONDS", value_parser = seconds_between(2, 60))]
    pub(super) window: Option<Duration>,

    /// Seconds of evidence that make a livelock; two more than the window at least [default: the profile's, 7].
    #[arg(long, value_name = "SECONDS", value_parser = seconds_between(1, 3600))]
    pub(super) hold: Option<Duration>,
}

impl EngineArgs {
    /// Whether anything was said.
    pub(super) const fn any(&self) -> bool {
        self.config.is_some() || self.profile.is_some() || self.window.is_some() || self.hold.is_some()
    }

    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        Ok(self.configuration()?.engine)
    }

    /// The whole configuration, for those who also act.
    pub(super) fn configuration(&self) -> anyhow::Result<Configuration> {
        let mut configuration = if let Some(path) = &self.config {
            config::read(path)?
        } else {
            let engine = Settings::profile(self.profile.unwrap_or_default());
            Configuration { engine, ..Configuration::default() }
        };
        let settings = &mut configuration.engine;
        settings.window = self.window.unwrap_or(settings.window);
        settings.hold = self.hold.unwrap_or(settings.hold);
        match settings.contradiction() {
            Some(what) if self.config.is_none() => Err(super::WrongUsage(what).into()),
            Some(what) => Err(anyhow::anyhow!(what)),
            None => Ok(configuration),
        }
    }
}
