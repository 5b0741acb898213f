//! What is asked of GitHub's REST API: a run and its jobs, the run's cancellation, and a word to the developer whose job
//! died. Nothing in here knows of incidents; each request can be made again without harm, and says in the same way as the
//! others whether that helps ([`crate::remote::Failure`]).
//!
//! octocrab carries the requests: base address, headers, the bearer's token that goes to no other host. Its models are not
//! used (they refuse answers that GitHub gives: a run with a conclusion that is new, a job without `run_attempt`), nor is
//! its login (it takes no client id, and its errors have lost `retry-after`).

mod answer;
mod call;
mod checks;
mod credentials;
mod doctor;
mod keeper;
mod repository;
mod runs;
mod session;
mod settings;
mod transport;

use std::{fmt, sync::Arc};

use secrecy::SecretString;

pub(crate) use self::settings::{api_address, looks_secret, proxy_address, web_address};
use self::{
    answer::Answer,
    call::Call,
    session::Session,
    transport::{Broken, Sent, Transport},
};
pub use self::{
    checks::{CheckRun, Conclusion, Told},
    doctor::{Check, Verdict},
    keeper::{Keeper, Kept},
    repository::{BadRepository, Repository},
    runs::{Cancelled, Run, RunJob},
    settings::{Settings, SetupError, Source},
};
use crate::{remote::Failure, telemetry::escaped};

/// One GitHub and the way to it, without credentials.
#[derive(Clone)]
pub struct Server {
    /// Host and port of the web address, which is what runners are configured with.
    host: String,
    transport: Arc<Transport>,
    /// What to add where no connection comes about.
    hint: Option<&'static str>,
}

/// The way to one GitHub, with one set of credentials.
#[derive(Clone)]
pub struct GitHub(Arc<Inner>);

struct Inner {
    server: Server,
    session: Session,
}

impl Server {
    /// Prepares the way. Nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let web = web_address(&settings.url).map_err(|what| SetupError::Setting {
            name: "url",
            value: escaped(&settings.url),
            what,
        })?;
        let transport = Transport::new(settings, &web, transport::Environment::read())?;
        Ok(Self { host: web.host, transport: Arc::new(transport), hint: None })
    }

    /// With credentials that are read when they are needed.
    pub fn with(&self, keeper: impl Keeper) -> GitHub {
        let hint = keeper.hint().filter(|_| self.transport.proxy().is_none());
        GitHub(Arc::new(Inner { server: Self { hint, ..self.clone() }, session: Session::kept(Box::new(keeper)) }))
    }

    /// Whether a runner's `githubConfigUrl` belongs to this GitHub, which the configuration names. A token is never sent
    /// anywhere else, and a run of the same number somewhere else is another run.
    pub fn serves(&self, config_url: &str) -> Result<(), Failure> {
        let theirs = settings::host_of(config_url);
        if theirs.as_deref() == Some(self.host.as_str()) {
            return Ok(());
        }
        // It may have been kept by an older memguard, which left a password in it.
        let theirs = theirs.unwrap_or_else(|| config_url.rsplit('@').next().unwrap_or_default().to_owned());
        let why = format!(
            "the runner belongs to {}, and memguard's credentials are for {}; name the right one as github.url",
            crate::remote::server_text(&theirs),
            self.host
        );
        Err(Failure::Final { why })
    }

    /// Sends a request once, with this token.
    async fn send(&self, secret: &SecretString, call: &Call) -> Result<Answer, Failure> {
        let Call { method, path, body, .. } = call;
        let answer = self.transport.send(Sent { secret, method, path, body: body.as_ref() }).await;
        answer.map_err(|broken| match (&broken, self.hint, call.broken(&broken)) {
            (Broken::Cut(_), Some(hint), Failure::Later { after, why }) => {
                Failure::Later { after, why: format!("{why}; {hint}") }
            }
            (_, _, failure) => failure,
        })
    }
}

impl GitHub {
    /// Reads the credentials and prepares the way. Nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let server = Server::new(settings)?;
        let session = Session::new(settings.source.clone())?;
        Ok(Self(Arc::new(Inner { server, session })))
    }

    /// [`Server::serves`].
    pub fn serves(&self, config_url: &str) -> Result<(), Failure> {
        self.0.server.serves(config_url)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("host", &self.host).field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// Without anything that is secret.
impl fmt::Debug for GitHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { server, session } = &*self.0;
        f.debug_struct("GitHub").field("server", server).field("credentials", &session.whose()).finish_non_exhaustive()
    }
}
