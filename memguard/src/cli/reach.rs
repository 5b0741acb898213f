//! The way to Kubernetes and GitHub, from flags and configuration.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::{
    config::{Configuration, GitHubSettings},
    doctor::{self, Finding, Grade},
    github::{GitHub, Source},
    journal::Pen,
    kubernetes,
    remote::{self, Outward, Remote, Setup, SetupError},
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

    /// For the doctor: whether the API and GitHub can be reached, and what memguard may do there.
    pub(super) async fn look(&self, configured: &Configuration, findings: &mut Vec<Finding>) {
        let kubernetes = self.look_at_kubernetes(configured, findings).await;
        let Some(GitHubSettings { connection, .. }) = &configured.github else { return };
        if !self.on() {
            // `run` starts all the same, and looks at no credentials.
            findings.push(Finding::of(
                "github",
                Grade::Lesser,
                NO_EFFECT,
                NOT_ASKED,
                "--kubernetes on, or --kubeconfig",
            ));
            return;
        }
        let looked = match (&connection.source, kubernetes) {
            (Source::Arc, Some((client, node))) => remote::look_at_arc_secrets(&client, &node, connection).await,
            (Source::Arc, None) => {
                let fact = "github.arc_secret is on, and there is no Kubernetes API in reach to read the secret from";
                findings.push(Finding::of(
                    "github",
                    Grade::Bad,
                    fact.to_owned(),
                    NOT_ASKED,
                    "put Kubernetes right first",
                ));
                return;
            }
            (_, _) => match GitHub::new(connection) {
                Ok(client) => Ok(client.doctor().await),
                Err(error) => Err(error),
            },
        };
        match looked {
            Ok(checks) => findings.extend(doctor::github(checks)),
            Err(error) => findings.push(Finding::of(
                "github",
                Grade::Bad,
                error.to_string(),
                "memguard would not start with it",
                "put the credentials right",
            )),
        }
    }

    async fn look_at_kubernetes(
        &self,
        configured: &Configuration,
        findings: &mut Vec<Finding>,
    ) -> Option<(kube::Client, String)> {
        if !self.on() {
            return None;
        }
        let remedy = "--kubernetes off leaves it out";
        let node = match self.node() {
            Ok(node) => node,
            Err(error) => {
                findings.push(Finding::of("node", Grade::Bad, error.to_string(), "its pods are not known", remedy));
                return None;
            }
        };
        match kubernetes::client(self.kubeconfig.as_deref(), configured.kubernetes.timeout).await {
            Ok(client) => {
                findings.extend(doctor::cluster(&kubernetes::check(&client, &node).await, configured));
                Some((client, node))
            }
            Err(error) => {
                let means = "whose containers these are is not known";
                findings.push(Finding::of("kubernetes", Grade::Bad, error.to_string(), means, remedy));
                None
            }
        }
    }

    /// Says if the file asks for what can't be without Kubernetes.
    pub(super) fn complain(&self, outward: &Outward) {
        if outward.github.is_some() && !self.on() {
            tracing::warn!("{NO_EFFECT}");
        }
    }

    /// Starts what talks to the outside; `None` where there is no Kubernetes.
    pub(super) fn start(&self, outward: Outward, pen: Pen) -> anyhow::Result<Option<Remote>> {
        self.complain(&outward);
        if !self.on() {
            return Ok(None);
        }
        let setup = Setup { kubeconfig: self.kubeconfig.clone(), node: self.node()?, outward };
        match remote::start(setup, pen) {
            Ok(remote) => Ok(Some(remote)),
            // Its own remedy is another one.
            Err(error @ SetupError::GitHub(_)) => Err(error.into()),
            Err(error) => Err(error).context("--kubernetes off goes on without Kubernetes"),
        }
    }
}

const NO_EFFECT: &str = "[github] has no effect without Kubernetes: only a runner's object says which run is whose";
const NOT_ASKED: &str = "runs of killed jobs are not cancelled, and nobody is told";
