//! Puts another `[kubernetes]` and `[github]` in force while the thread works.
//!
//! Requests under way end as they were begun; whatever is tried next is tried with the new settings, also what was planned
//! before: what remains to be done about an incident stands in the journal, and how it is done does not.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::Client;
use tokio::{
    runtime::Handle,
    sync::watch::{Receiver, Sender},
    task::spawn_blocking,
    time::sleep,
};

use super::{
    Real,
    login::Login,
    outward::Outward,
    plan::{Reach, Wishes},
};
use crate::kubernetes;

/// Settings that could not be used are tried again so often: what they lack (a file) may come.
pub(super) const TRY_AGAIN: Duration = Duration::from_mins(1);

/// What the agent wants to be in force.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) outward: Outward,
    /// Counts how often somebody asked for all to be read again, changed or not.
    pub(super) asked: u64,
}

/// What is in force, for the agent, which never waits.
#[derive(Clone, Debug, Default)]
pub(super) struct InForce(Arc<Mutex<Now>>);

#[derive(Debug, Default)]
struct Now {
    reach: Reach,
    wishes: Wishes,
    /// What came of the latest change, until somebody took note.
    outcome: Option<bool>,
}

impl InForce {
    pub(super) fn new(outward: &Outward) -> Self {
        let this = Self::default();
        this.put(outward, None);
        this
    }

    pub(super) fn reach(&self) -> Reach {
        self.with(|now| now.reach)
    }

    pub(super) fn wishes(&self) -> Wishes {
        self.with(|now| now.wishes)
    }

    pub(super) fn take_outcome(&self) -> Option<bool> {
        self.with(|now| now.outcome.take())
    }

    fn put(&self, outward: &Outward, outcome: Option<bool>) {
        self.with(|now| {
            (now.reach, now.wishes) = (outward.reach(), outward.wishes());
            now.outcome = outcome.or(now.outcome);
        });
    }

    fn with<T>(&self, with: impl FnOnce(&mut Now) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Both ways out.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    pub(super) kubernetes: Way,
    pub(super) login: Login,
}

/// A client; kube's own can't be shown.
#[derive(Clone)]
pub(super) struct Way(pub(super) Client);

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Way").finish_non_exhaustive()
    }
}

pub(super) struct Changes {
    /// Without one, the service account of memguard's own pod.
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) outward: Outward,
    pub(super) ways: Ways,
    pub(super) in_force: InForce,
    /// For the worker's next attempts.
    pub(super) outside: Sender<Real>,
    /// For the watch of pods, which begins anew with it.
    pub(super) watching: Sender<Client>,
    pub(super) try_again: Duration,
}

impl Changes {
    /// For ever: takes what is wanted, and tries again what could not be used.
    pub(super) async fn run(mut self, mut wanted: Receiver<Wanted>) {
        let (mut asked, mut anew, mut trouble) = (0, false, None::<String>);
        loop {
            let retry = async {
                match trouble {
                    Some(_) => sleep(self.try_again).await,
                    None => std::future::pending().await,
                }
            };
            let is_new = tokio::select! {
                changed = wanted.changed() => {
                    if changed.is_err() {
                        // Nobody will want anything any more; the worker ends what is under way.
                        std::future::pending::<()>().await;
                    }
                    true
                }
                () = retry => false,
            };
            let Wanted { outward, asked: now } = wanted.borrow_and_update().clone();
            anew |= now != asked;
            asked = now;
            let before = trouble.take();
            trouble = self.put_in_force(outward, anew).await.err();
            anew &= trouble.is_some();
            if trouble.is_none() && before.is_none() || trouble == before && !is_new {
                continue;
            }
            if let Some(why) = &trouble {
                tracing::error!("{why}");
            } else {
                tracing::info!("[github] and [kubernetes] are in force as they were read last");
            }
            self.in_force.put(&self.outward, Some(trouble.is_none()));
        }
    }

    /// As much of it as can be used; the error says what can't, and what to do. `anew`: files that it names are read again
    /// in any case.
    async fn put_in_force(&mut self, wanted: Outward, anew: bool) -> Result<(), String> {
        if wanted == self.outward && !anew {
            return Ok(());
        }
        let mut trouble = Vec::new();
        let timeout = wanted.kubernetes.timeout;
        let mut client = None;
        let mut next = Outward { kubernetes: wanted.kubernetes, ..self.outward.clone() };
        if timeout != self.outward.kubernetes.timeout {
            let kubeconfig = self.kubeconfig.clone();
            let made = aside(async move || kubernetes::client(kubeconfig.as_deref(), timeout).await).await;
            match made {
                Ok(new) => client = Some(new),
                Err(error) => {
                    next.kubernetes.timeout = self.outward.kubernetes.timeout;
                    trouble.push(format!("the way to Kubernetes stays as it was: {error}"));
                }
            }
        }
        let connection = |outward: &Outward| outward.github.as_ref().map(|github| github.connection.clone());
        let to_github = connection(&wanted);
        if anew || client.is_some() || to_github != connection(&self.outward) {
            let kubernetes = client.as_ref().unwrap_or(&self.ways.kubernetes.0).clone();
            match aside(async move || Login::new(to_github.as_ref(), &kubernetes)).await {
                Ok(login) => (self.ways.login, next.github) = (login, wanted.github),
                Err(error) => trouble.push(of_github(&self.outward, &error)),
            }
        } else {
            next.github = wanted.github;
        }
        if let Some(client) = client {
            self.ways.kubernetes = Way(client.clone());
            self.watching.send_replace(client);
        }
        self.outward = next;
        let Ways { kubernetes, login } = self.ways.clone();
        // First how it is done, then that it is to be done.
        self.outside.send_replace(Real::new(kubernetes.0, login));
        self.in_force.put(&self.outward, None);
        if trouble.is_empty() { Ok(()) } else { Err(trouble.join("; ")) }
    }
}

/// Reads files on a thread of its own: their disk may hang, and nothing else here should wait for it. The error in words.
async fn aside<T, E, W>(what: impl FnOnce() -> W + Send + 'static) -> Result<T, String>
where
    T: Send + 'static,
    E: std::fmt::Display,
    W: Future<Output = Result<T, E>>,
{
    let here = Handle::current();
    let done = spawn_blocking(move || here.block_on(what()).map_err(|error| error.to_string())).await;
    done.map_err(|error| error.to_string())?
}

fn of_github(before: &Outward, why: &str) -> String {
    let stays = match before.github {
        Some(_) => "the [github] of before stays in force",
        None => "nothing is asked of GitHub, as before",
    };
    format!("[github] can't be used as it is now, so {stays}: {why}")
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::github::Source;

    fn client() -> Client {
        let (service, _) = tower_test::mock::pair::<http::Request<kube::client::Body>, http::Response<String>>();
        Client::new(service, "default")
    }

    /// A GitHub with a token in this file.
    fn with_token(path: &std::path::Path) -> Outward {
        let table = format!("[github]\nurl = \"http://127.0.0.1:1\"\ntoken_file = {path:?}\n");
        let github = crate::config::configuration(&table.parse().unwrap()).unwrap().github;
        assert_eq!(github.as_ref().unwrap().connection.source, Source::Token(path.to_owned()));
        Outward { github, ..Outward::default() }
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        for _ in 0..2000 {
            if holds() {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("{what} does not come");
    }

    #[tokio::test]
    async fn what_could_not_be_used_is_tried_again_by_itself_and_told_once() {
        let outward = Outward::default();
        let in_force = InForce::new(&outward);
        let (outside, attempts) = watch::channel(Real::new(client(), Login::None));
        let (watching, clients) = watch::channel(client());
        let changes = Changes {
            kubeconfig: None,
            outward: outward.clone(),
            ways: Ways { kubernetes: Way(client()), login: Login::None },
            in_force: in_force.clone(),
            outside,
            watching,
            try_again: Duration::from_millis(10),
        };
        let (wants, wanted) = watch::channel(Wanted { outward, asked: 0 });
        let running = tokio::spawn(changes.run(wanted));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        wants.send_modify(|wanted| wanted.outward = with_token(&path));
        until("the failure", || in_force.take_outcome() == Some(false)).await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!((in_force.take_outcome(), in_force.reach().github), (None, false), "still, and told before");
        std::fs::write(&path, "a-token").unwrap();
        until("the end of it", || in_force.take_outcome() == Some(true)).await;
        assert!(in_force.reach().github);
        assert!(format!("{:?}", attempts.borrow()).contains("GitHub"), "the next attempts have it");
        assert!(!clients.has_changed().unwrap(), "the watch of pods goes on");
        running.abort();
    }

    #[test]
    fn an_error_says_what_stays() {
        let none = of_github(&Outward::default(), "x");
        let some = of_github(&with_token(std::path::Path::new("/t")), "x");
        assert!(none.contains("nothing is asked") && some.contains("stays in force"), "{none}; {some}");
    }
}
