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
mod repository;
mod runs;
mod session;
mod settings;
mod transport;

use std::{fmt, sync::Arc};

pub(crate) use self::settings::{api_address, looks_secret, proxy_address, web_address};
pub use self::{
    checks::{CheckRun, Conclusion, Told},
    doctor::{Check, Verdict},
    repository::{BadRepository, Repository},
    runs::{Cancelled, Run, RunJob},
    settings::{Settings, SetupError, Source},
};
use self::{session::Session, transport::Transport};
use crate::{remote::Failure, telemetry::escaped};

/// The way to one GitHub, with one set of credentials.
#[derive(Clone)]
pub struct GitHub(Arc<Inner>);

struct Inner {
    /// Host and port of the web address, which is what runners are configured with.
    host: String,
    source: Source,
    transport: Transport,
    session: Session,
}

impl GitHub {
    /// Reads the credentials and prepares the way. Nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let web = web_address(&settings.url).map_err(|what| SetupError::Setting {
            name: "url",
            value: escaped(&settings.url),
            what,
        })?;
        let transport = Transport::new(settings, &web, transport::Environment::read())?;
        let session = Session::new(settings.source.clone())?;
        Ok(Self(Arc::new(Inner { host: web.host, source: settings.source.clone(), transport, session })))
    }

    /// Whether a runner's `githubConfigUrl` belongs to the GitHub that these credentials are for. A token is never sent
    /// anywhere else, and a run of the same number somewhere else is another run.
    pub fn serves(&self, config_url: &str) -> Result<(), Failure> {
        let theirs = settings::host_of(config_url);
        if theirs.as_deref() == Some(self.0.host.as_str()) {
            return Ok(());
        }
        let theirs = theirs.unwrap_or_else(|| config_url.to_owned());
        let why = format!(
            "the runner belongs to {}, and memguard's credentials are for {}; name the right one as github.url",
            crate::remote::server_text(&theirs),
            self.0.host
        );
        Err(Failure::Final { why })
    }
}

/// Without anything that is secret.
impl fmt::Debug for GitHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { host, source, transport, .. } = &*self.0;
        f.debug_struct("GitHub")
            .field("host", host)
            .field("source", source)
            .field("transport", transport)
            .finish_non_exhaustive()
    }
}
