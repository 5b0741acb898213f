//! The way to the API: TLS, proxy, timeouts, and no more of an answer than is good.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::{
            Client,
            connect::{HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioIo},
};
use octocrab::{
    AuthState, OctoBody, Octocrab, OctocrabBuilder,
    service::middleware::{base_uri::BaseUriLayer, extra_headers::ExtraHeadersLayer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use secrecy::SecretString;
use serde_json::Value;
use tokio::net::TcpStream;
use tower::Service;

use super::{
    answer::{Answer, without},
    settings::{self, Address, Settings, SetupError},
};
use crate::remote::chain;

/// A page of jobs has some hundred kilobytes.
const LARGEST_ANSWER: usize = 4 << 20;
/// A repository that was renamed is one step away.
const REDIRECTS: usize = 3;
const IDLE: Duration = Duration::from_secs(20);
const USER_AGENT: &str = concat!("memguard/", env!("CARGO_PKG_VERSION"));

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connections to one API.
pub(super) struct Transport {
    api: Uri,
    proxy: Option<Uri>,
    timeout: Duration,
    connector: HttpsConnector<Way>,
    /// Made with the first request: it needs a runtime.
    crab: OnceLock<Octocrab>,
}

/// A request as it goes out.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    /// Its bearer's token.
    pub(super) secret: &'a SecretString,
    pub(super) method: &'a Method,
    /// Below the API's address, with the query.
    pub(super) path: &'a str,
    pub(super) body: Option<&'a Value>,
}

/// What the environment says of proxies; the usual names.
#[derive(Default)]
pub(super) struct Environment {
    proxy: Option<(&'static str, String)>,
    no_proxy: String,
}

impl Environment {
    pub(super) fn read() -> Self {
        Self::from(|name| std::env::var(name).ok())
    }

    fn from(get: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| Some((*name, get(name).filter(|value| !value.is_empty())?)))
        };
        Self {
            proxy: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            no_proxy: first(&["NO_PROXY", "no_proxy"]).map(|(_, value)| value).unwrap_or_default(),
        }
    }
}

/// Why there is no answer. Another try can help.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection failed, the server took too long, or its answer has no end.
    Cut(String),
    /// The answer points elsewhere, where no token is sent.
    Elsewhere { status: u16, host: String },
}

impl Transport {
    pub(super) fn new(settings: &Settings, web: &Address, environment: Environment) -> Result<Self, SetupError> {
        let api = match &settings.api_url {
            None => settings::api_of(web).map_err(|what| setting("url", &settings.url, what))?,
            Some(api) => settings::api_address(api).map_err(|what| setting("api_url", api, what))?,
        };
        let tls = tls(settings)?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        // With several addresses behind a name, the second is tried when there is still time.
        http.set_connect_timeout(Some(settings.timeout / 2));
        let matcher = matcher(settings, environment)?;
        // Plain http is for this machine alone, which no proxy can reach.
        let through = matcher.intercept(&api).filter(|_| api.scheme_str() == Some("https"));
        let way = match &through {
            None => Way::Direct(http),
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), https(http, tls.clone()));
                if let Some(auth) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(auth.clone());
                }
                Way::Proxy(Box::new(tunnel))
            }
        };
        Ok(Self {
            api,
            proxy: through.map(|proxy| proxy.uri().clone()),
            timeout: settings.timeout,
            connector: https(way, tls),
            crab: OnceLock::new(),
        })
    }

    pub(super) fn api(&self) -> &Uri {
        &self.api
    }

    pub(super) fn proxy(&self) -> Option<&Uri> {
        self.proxy.as_ref()
    }

    fn crab(&self) -> &Octocrab {
        self.crab.get_or_init(|| {
            let client = Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(1)
                .build::<_, OctoBody>(self.connector.clone());
            let headers: Vec<(HeaderName, HeaderValue)> = vec![
                (header::USER_AGENT, HeaderValue::from_static(USER_AGENT)),
                (header::ACCEPT, HeaderValue::from_static("application/vnd.github+json")),
            ];
            let built = OctocrabBuilder::new_empty()
                .with_service(client)
                .with_layer(&ExtraHeadersLayer::new(Arc::new(headers)))
                .with_layer(&BaseUriLayer::new(self.api.clone()))
                .with_auth(AuthState::None)
                .build();
            match built {
                Ok(crab) => crab,
                Err(never) => match never {},
            }
        })
    }

    /// Sends a request with its token and reads the whole answer, whatever it is.
    ///
    /// A redirection is followed on the same host, with the same method: that is how GitHub leads to a repository that was
    /// renamed.
    pub(super) async fn send(&self, request: Sent<'_>) -> Result<Answer, Broken> {
        let mut target = request.path.to_owned();
        for _ in 0..=REDIRECTS {
            let once = self.once(Sent { path: &target, ..request });
            let answer = match tokio::time::timeout(self.timeout, once).await {
                Ok(answer) => answer?,
                Err(_) => {
                    return Err(Broken::Cut(format!("no whole answer within {} s", self.timeout.as_secs_f64())));
                }
            };
            if !matches!(answer.status, 301 | 302 | 307 | 308) {
                return Ok(answer);
            }
            target = self.redirection(&answer)?;
        }
        Err(Broken::Cut("the server sends from one address to the next and on".to_owned()))
    }

    /// Where an answer leads, as a path on the same host.
    fn redirection(&self, answer: &Answer) -> Result<String, Broken> {
        let location = answer.header(&header::LOCATION).unwrap_or_default();
        let Ok(uri) = location.parse::<Uri>() else {
            return Err(Broken::Cut(format!("the server sends elsewhere ({}) and does not say where", answer.status)));
        };
        let same = uri.authority().is_none() || {
            uri.scheme() == self.api.scheme() && settings::host_of(location) == settings::host_of(&self.api.to_string())
        };
        // Two slashes would begin with a host for others that read the path.
        match uri.path_and_query().filter(|path| same && !path.as_str().starts_with("//")) {
            Some(path) => Ok(path.to_string()),
            None => Err(Broken::Elsewhere {
                status: answer.status,
                // Not its whole authority, which can have a password.
                host: answer.shown(&match (uri.host(), uri.port_u16()) {
                    (None, _) => "an address without a host".to_owned(),
                    (Some(host), None) => host.to_owned(),
                    (Some(host), Some(port)) => format!("{host}:{port}"),
                }),
            }),
        }
    }

    async fn once(&self, Sent { secret, method, path, body }: Sent<'_>) -> Result<Answer, Broken> {
        let cut = |error: &octocrab::Error| {
            // Its own words ("Service Error") say nothing.
            let error: &dyn std::error::Error = std::error::Error::source(error).unwrap_or(error);
            Broken::Cut(without(secret, &chain(error)))
        };
        let crab = self.crab().user_access_token(secret.clone()).map_err(|error| cut(&error))?;
        let request = Request::builder().method(method.clone()).uri(path);
        let request = crab.build_request(request, body).map_err(|error| cut(&error))?;
        let answer = crab.execute(request).await.map_err(|error| cut(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return Broken::Cut(format!("the answer has more than {} MiB", LARGEST_ANSWER >> 20));
            }
            match error.downcast_ref::<octocrab::Error>() {
                Some(error) => cut(error),
                None => Broken::Cut(without(secret, &chain(&*error))),
            }
        })?;
        Ok(Answer::new(parts.status.as_u16(), parts.headers, body.to_bytes().to_vec(), secret.clone()))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api, proxy, timeout, .. } = self;
        let proxy = proxy.as_ref().map(ToString::to_string);
        f.debug_struct("Transport")
            .field("api", &api.to_string())
            .field("proxy", &proxy)
            .field("timeout", timeout)
            .finish_non_exhaustive()
    }
}

fn setting(name: &'static str, value: &str, what: &'static str) -> SetupError {
    let value = if settings::looks_secret(value) { "…".to_owned() } else { crate::telemetry::escaped(value) };
    SetupError::Setting { name, value, what }
}

fn matcher(settings: &Settings, environment: Environment) -> Result<Matcher, SetupError> {
    let Environment { proxy, no_proxy } = environment;
    if let Some(proxy) = &settings.proxy {
        let uri = settings::proxy_address(proxy).map_err(|what| setting("proxy", proxy, what))?;
        return Ok(Matcher::builder().all(uri.to_string()).no(no_proxy).build());
    }
    let Some((variable, proxy)) = proxy else { return Ok(Matcher::builder().build()) };
    let scheme = proxy.split_once("://").map_or("http", |(scheme, _)| scheme).to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(SetupError::Environment {
            variable,
            what: "only http and https proxies are supported; name one of them as github.proxy",
        });
    }
    Ok(Matcher::builder().all(proxy).no(no_proxy).build())
}

fn tls(settings: &Settings) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = &settings.ca_file {
        let bad = |what: &str| SetupError::file(path, what);
        let pem = std::fs::read(path).map_err(|error| bad(&format!("{error}; look at its path and its rights")))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = certificates.map_err(|_| bad("it holds no certificates in PEM"))?;
        if certificates.is_empty() {
            return Err(bad("it holds no certificates in PEM"));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| bad(&format!("a certificate in it can't be used: {error}")))?;
        }
    }
    // With plain http none is needed, and a test's machine may have none.
    if roots.is_empty() && !settings.url.starts_with("http://") {
        let why = system.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(SetupError::NoRoots { why });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Tls { why: error.to_string() })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn https<C>(inner: C, tls: ClientConfig) -> HttpsConnector<C> {
    HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(inner)
}

/// To the API itself, or through a proxy that is asked for a tunnel.
#[derive(Clone)]
enum Way {
    Direct(HttpConnector),
    Proxy(Box<Tunnel<HttpsConnector<HttpConnector>>>),
}

impl Service<Uri> for Way {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(http) => http.poll_ready(context).map_err(Into::into),
            Self::Proxy(tunnel) => tunnel.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        match self {
            Self::Direct(http) => {
                let connecting = http.call(target);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            Self::Proxy(tunnel) => {
                let connecting = tunnel.call(target);
                Box::pin(async move { Ok(connecting.await?) })
            }
        }
    }
}

#[cfg(test)]
mod tests;
