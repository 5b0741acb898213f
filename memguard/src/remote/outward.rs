//! What the configuration says of the world outside this node. It can change while memguard runs.

use super::plan::{Reach, Wishes};
use crate::config::{GitHubSettings, KubernetesSettings};

/// `[kubernetes]` and `[github]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outward {
    pub kubernetes: KubernetesSettings,
    /// `None`: nothing is asked of GitHub.
    pub github: Option<GitHubSettings>,
}

impl Outward {
    /// What will be done elsewhere about the next incident.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let github = self.github.as_ref();
        Reach {
            events: self.kubernetes.events,
            delete_runner: self.kubernetes.delete_runner,
            github: github.is_some(),
            cancel: github.is_some_and(|github| github.cancel),
            check_run: github.is_some_and(|github| github.check_run),
        }
    }

    /// What is wanted of GitHub; a rule can say otherwise.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        self.github.as_ref().map_or_else(Wishes::default, |github| Wishes {
            force_cancel: github.force_cancel,
            watch_s: github.force_cancel_after.as_secs(),
            ..Wishes::default()
        })
    }
}
