//! With whose credentials GitHub is asked: memguard's own, or, where the configuration says so, those that ARC has for the
//! runner in question.

use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;

use super::{Failure, outside::RunRef};
use crate::{
    github::{GitHub, Server, Settings, SetupError, Source},
    kubernetes::{ArcSecret, SecretRef},
};

/// Secrets with which GitHub is asked at the same time. A cluster has one for each scale set at most, and a node runs few of
/// them; one more takes the place of the one that was not used for the longest time.
const MOST_SECRETS: usize = 16;

/// Who memguard is to GitHub.
#[derive(Clone, Debug)]
pub enum Login {
    /// Nobody: nothing is asked.
    None,
    Own(GitHub),
    Arc(ArcLogins),
}

impl Login {
    /// Reads what is in files: credentials, certificates. So it can wait for a disk.
    pub fn new(settings: Option<&Settings>, kubernetes: &Client) -> Result<Self, SetupError> {
        Ok(match settings {
            None => Self::None,
            Some(settings) if settings.source == Source::Arc => Self::Arc(ArcLogins {
                server: Server::new(settings)?,
                kubernetes: kubernetes.clone(),
                known: Arc::default(),
            }),
            Some(settings) => Self::Own(GitHub::new(settings)?),
        })
    }

    /// Whom to ask about a run: only the GitHub that the configuration names.
    pub(super) fn for_run(&self, run: &RunRef) -> Result<GitHub, Failure> {
        let never = |why: String| Failure::Final { why };
        // The older ARC has one GitHub for all its runners, and they don't name it: it is the one that is configured.
        let is_served = |serves: &dyn Fn(&str) -> Result<(), Failure>| match run.config_url.as_deref() {
            Some(url) => serves(url),
            None if run.older_arc => Ok(()),
            None => Err(never("the runner's object does not say which GitHub it is for".to_owned())),
        };
        match self {
            Self::None => Err(never("no credentials for GitHub are configured".to_owned())),
            Self::Own(github) => {
                is_served(&|url| github.serves(url))?;
                Ok(github.clone())
            }
            Self::Arc(logins) => {
                // What names no run says more of why there are no credentials.
                let secret = run.arc_secret.as_ref().map_err(|why| never(why.clone()))?;
                // Before anything is read.
                is_served(&|url| logins.server.serves(url))?;
                Ok(logins.with(secret, run.proxied))
            }
        }
    }
}

/// One login for each of ARC's secrets. Nothing of it is ever on a disk.
#[derive(Clone)]
pub struct ArcLogins {
    server: Server,
    kubernetes: Client,
    /// The one that was used last is the last.
    known: Arc<Mutex<Vec<(SecretRef, GitHub)>>>,
}

impl ArcLogins {
    fn with(&self, secret: &SecretRef, proxied: bool) -> GitHub {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.iter().position(|(other, _)| other == secret);
        let one = at.map(|at| known.remove(at));
        let one = one.unwrap_or_else(|| {
            let keeper = ArcSecret::new(self.kubernetes.clone(), secret.clone(), proxied);
            (secret.clone(), self.server.with(keeper))
        });
        let github = one.1.clone();
        if known.len() >= MOST_SECRETS {
            known.remove(0);
        }
        known.push(one);
        github
    }
}

impl std::fmt::Debug for ArcLogins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArcLogins").field("server", &self.server).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins() -> Login {
        let (service, _server) = tower_test::mock::pair::<http::Request<kube::client::Body>, http::Response<String>>();
        let settings = Settings { url: "http://127.0.0.1:1".to_owned(), ..Settings::new(Source::Arc) };
        Login::new(Some(&settings), &Client::new(service, "default")).unwrap()
    }

    fn run(config_url: Option<&str>, secret: Result<&str, &str>) -> RunRef {
        RunRef {
            config_url: config_url.map(str::to_owned),
            repository: "o/r".to_owned(),
            run_id: 1,
            arc_secret: secret
                .map(|name| SecretRef { namespace: "ci".to_owned(), name: name.to_owned() })
                .map_err(str::to_owned),
            proxied: false,
            older_arc: false,
        }
    }

    #[tokio::test]
    async fn a_secret_is_for_the_configured_github_alone() {
        let logins = logins();
        assert!(logins.for_run(&run(Some("http://127.0.0.1:1/o"), Ok("s"))).is_ok());
        for (run, why) in [
            (run(Some("https://github.com/o"), Ok("s")), "github.url"),
            (run(Some("http://127.0.0.1:2/o"), Ok("s")), "github.url"),
            (run(Some("http://127.0.0.1:1@evil.example/o"), Ok("s")), "github.url"),
            (run(None, Ok("s")), "which GitHub"),
            (RunRef { older_arc: true, ..run(None, Err("name no secret")) }, "name no secret"),
            (run(Some("http://127.0.0.1:1/o"), Err("in a vault")), "in a vault"),
        ] {
            let error = logins.for_run(&run).err().unwrap();
            assert!(matches!(&error, Failure::Final { why: told } if told.contains(why)), "{error}");
        }
    }

    #[test]
    fn the_older_arc_names_no_github_and_is_taken_for_the_configured_ones() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "a-token").unwrap();
        let source = Source::Token(dir.path().join("token"));
        let settings = Settings { url: "http://127.0.0.1:1".to_owned(), ..Settings::new(source) };
        let own = Login::Own(GitHub::new(&settings).unwrap());
        assert!(own.for_run(&RunRef { older_arc: true, ..run(None, Err("none")) }).is_ok());
        assert!(own.for_run(&run(None, Err("none"))).is_err());
        let elsewhere = RunRef { older_arc: true, ..run(Some("https://github.com/o"), Err("none")) };
        assert!(own.for_run(&elsewhere).is_err());
    }

    #[tokio::test]
    async fn there_is_a_bounded_number_of_logins_and_each_secret_has_one() {
        let Login::Arc(logins) = logins() else { panic!() };
        let with = |name: &str| logins.with(&SecretRef { namespace: "ci".to_owned(), name: name.to_owned() }, false);
        let count = || logins.known.lock().unwrap().len();
        with("a");
        with("a");
        assert_eq!(count(), 1);
        for i in 0..MOST_SECRETS - 1 {
            with(&i.to_string());
        }
        with("a");
        with("new");
        assert_eq!(count(), MOST_SECRETS);
        let known = logins.known.lock().unwrap();
        assert!(
            known.iter().any(|(secret, _)| secret.name == "a") && known.iter().all(|(secret, _)| secret.name != "0")
        );
    }
}
