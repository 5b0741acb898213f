//! The way to Kubernetes and GitHub, from flags and configuration.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::{
    config::{GitHubSettings, KubernetesSettings},
    doctor::{self, Finding, Grade},
    github::GitHub,
    journal::Pen,
    kubernetes,
    remote::{self, Reach, Remote, Setup, Wishes},
};

/// Whether there is a Kubernetes API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Kubernetes {
    /// On in a pod with a service account, or with a kubeconfig.
    #[default]
    Auto,
    On,
    Off,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReachArgs {
    /// Ask the Kubernetes API whose containers these are, and see there and at GitHub to what remains after a kill.
    /// `auto`: in a pod with a service account, or where a kubeconfig is named.
    #[arg(long, value_enum, default_value_t)]
    kubernetes: Kubernetes,

    /// How to reach the API [default: by the service account of memguard's own pod].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The name of this node in Kubernetes, whose pods are watched [default: the hostname].
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: Option<String>,
}

impl ReachArgs {
    fn on(&self) -> bool {
        match self.kubernetes {
            Kubernetes::On => true,
            Kubernetes::Off => false,
            Kubernetes::Auto => self.kubeconfig.is_some() || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        }
    }

    pub(super) fn node(&self) -> anyhow::Result<String> {
        if let Some(name) = &self.node_name {
            return Ok(name.clone());
        }
        let uname = rustix::system::uname();
        let name = uname.nodename().to_str().context("the hostname is no text; give --node-name")?;
        if name.is_empty() {
            bail!("this machine has no hostname; give --node-name");
        }
        Ok(name.to_owned())
    }

    /// For the doctor: whether the API can be reached, and what memguard may do there.
    pub(super) async fn look(&self, findings: &mut Vec<Finding>) {
        if !self.on() {
            return;
        }
        let remedy = "--kubernetes off leaves it out";
        let node = match self.node() {
            Ok(node) => node,
            Err(error) => {
                findings.push(Finding::of("node", Grade::Bad, error.to_string(), "its pods are not known", remedy));
                return;
            }
        };
        match kubernetes::client(self.kubeconfig.as_deref(), KubernetesSettings::default().timeout).await {
            Ok(client) => findings.extend(doctor::cluster(&kubernetes::check(&client, &node).await)),
            Err(error) => {
                let means = "whose containers these are is not known";
                findings.push(Finding::of("kubernetes", Grade::Bad, error.to_string(), means, remedy));
            }
        }
    }

    /// Starts what talks to the outside; `None` where there is no Kubernetes.
    pub(super) fn start(
        &self,
        kubernetes: KubernetesSettings,
        github: Option<&GitHubSettings>,
        pen: Pen,
    ) -> anyhow::Result<Option<Remote>> {
        if !self.on() {
            if github.is_some() {
                tracing::warn!(
                    "[github] has no effect without Kubernetes: only a runner's object says which run is whose"
                );
            }
            return Ok(None);
        }
        let client = github.map(|settings| GitHub::new(&settings.connection)).transpose()?;
        let setup = Setup {
            kubeconfig: self.kubeconfig.clone(),
            node: self.node()?,
            timeout: kubernetes.timeout,
            reach: Reach {
                events: kubernetes.events,
                delete_runner: kubernetes.delete_runner,
                github: client.is_some(),
                cancel: github.is_some_and(|github| github.cancel),
                check_run: github.is_some_and(|github| github.check_run),
            },
            wishes: github.map_or_else(Wishes::default, |github| Wishes {
                force_cancel: github.force_cancel,
                watch_s: github.force_cancel_after.as_secs(),
                ..Wishes::default()
            }),
            github: client,
        };
        let remote = remote::start(setup, pen).context("--kubernetes off goes on without Kubernetes")?;
        Ok(Some(remote))
    }
}
