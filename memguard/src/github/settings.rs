//! Which GitHub, with whose credentials, and by which way.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::Uri;

/// How GitHub is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The address in a browser: `https://github.com`, `https://example.ghe.com`, or that of a GitHub Enterprise Server.
    pub url: String,
    /// The REST API's, where it is not what follows from `url`.
    pub api_url: Option<String>,
    pub source: Source,
    /// Certificates (PEM) to trust besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// `http://host:port` or `https://host:port`; with none, what the environment says.
    pub proxy: Option<String>,
    /// For one request with its whole answer.
    pub timeout: Duration,
}

impl Settings {
    pub const URL: &str = "https://github.com";
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// github.com, directly.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { url: Self::URL.to_owned(), api_url: None, source, ca_file: None, proxy: None, timeout: Self::TIMEOUT }
    }
}

/// Where the credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder with files as a Secret of ARC is mounted: `github_token`, or `github_app_id`,
    /// `github_app_installation_id` and `github_app_private_key`.
    Folder(PathBuf),
    /// A file with a token.
    Token(PathBuf),
    App {
        /// The number of the App, or its client id.
        id: String,
        installation: u64,
        /// A file with the App's private key, PEM.
        key: PathBuf,
    },
    /// Those of ARC itself: the secret that a runner's object names, read when it is needed.
    Arc,
}

/// Why GitHub can't be used as it is set up. Never holds what stands in a file.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("github.{name} = {value:?}: {what}")]
    Setting { name: &'static str, value: String, what: &'static str },
    #[error("can't use {} for GitHub: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("can't use {name} for GitHub: {what}")]
    Kept { name: String, what: String },
    #[error("{variable} in the environment: {what}")]
    Environment { variable: &'static str, what: &'static str },
    #[error(
        "this system has no certificates to trust ({why}); install ca-certificates, or name a file with them as github.ca_file"
    )]
    NoRoots { why: String },
    #[error("can't set up TLS for GitHub: {why}")]
    Tls { why: String },
}

impl SetupError {
    pub(super) fn file(path: &Path, what: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), what: what.into() }
    }
}

/// An address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The host in lower case, with its port unless that is the scheme's own.
    pub(crate) host: String,
    pub(crate) uri: Uri,
}

const ADDRESS: &str = "write an address as https://github.com; http only for this machine itself";

/// The address of a GitHub in a browser.
pub(crate) fn web_address(text: &str) -> Result<Address, &'static str> {
    let address = address(text)?;
    if address.uri.path().len() > 1 {
        return Err("write the address of the whole GitHub, without an organisation or a repository");
    }
    Ok(address)
}

/// The address of a REST API.
pub(crate) fn api_address(text: &str) -> Result<Uri, &'static str> {
    address(text).map(|address| address.uri)
}

/// The address of the REST API that follows from a web address, as ARC derives it.
pub(super) fn api_of(web: &Address) -> Result<Uri, &'static str> {
    let Address { host, uri } = web;
    let api = match host.as_str() {
        "github.com" => "https://api.github.com".to_owned(),
        host if host.ends_with(".ghe.com") => format!("https://api.{host}"),
        host => format!("{}://{host}/api/v3", uri.scheme_str().unwrap_or("https")),
    };
    api_address(&api)
}

/// The address of a proxy. With a password it has no place in a file that others read.
pub(crate) fn proxy_address(text: &str) -> Result<Uri, &'static str> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = text.parse().map_err(|_| "write a proxy as http://proxy.example:3128")?;
    if has_user(&uri) {
        return Err("a proxy with user and password belongs into the environment, as HTTPS_PROXY from a Secret");
    }
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        _ => Err("write a proxy as http://proxy.example:3128; others than http and https are not supported"),
    }
}

fn has_user(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
}

fn address(text: &str) -> Result<Address, &'static str> {
    let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| ADDRESS)?;
    if has_user(&uri) {
        return Err("an address with a user or password in it is not used; credentials belong into files of their own");
    }
    if uri.query().is_some() {
        return Err("write it without a query");
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(ADDRESS)?;
    match uri.scheme_str() {
        Some("https") => {}
        // Whoever listens on the way would have the token.
        Some("http") if is_loopback(host) => {}
        _ => return Err(ADDRESS),
    }
    let host = host_and_port(&uri).ok_or(ADDRESS)?;
    Ok(Address { host, uri })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The host that an address names, as [`Address::host`].
pub(super) fn host_of(text: &str) -> Option<String> {
    let uri: Uri = text.trim().parse().ok()?;
    uri.scheme()?;
    if has_user(&uri) { None } else { host_and_port(&uri) }
}

fn host_and_port(uri: &Uri) -> Option<String> {
    let usual = match uri.scheme_str()? {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = uri.host()?.to_ascii_lowercase();
    let host = if host == "www.github.com" { "github.com".to_owned() } else { host };
    Some(match uri.port_u16() {
        Some(port) if port != usual => format!("{host}:{port}"),
        _ => host,
    })
}

/// Whether a text that should be a path or an address is a secret instead, put into the wrong place: then it may not be
/// repeated.
pub(crate) fn looks_secret(text: &str) -> bool {
    let authority =
        || text.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().unwrap_or("").contains('@'));
    text.contains("-----BEGIN") || crate::remote::without_tokens(text) != text || authority()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_follows_from_the_address_as_for_arc() {
        for (web, api) in [
            ("https://github.com", "https://api.github.com/"),
            ("https://www.GitHub.com/", "https://api.github.com/"),
            ("https://octo.ghe.com", "https://api.octo.ghe.com/"),
            ("https://github.example.org:8443/", "https://github.example.org:8443/api/v3"),
            ("http://127.0.0.1:4010", "http://127.0.0.1:4010/api/v3"),
            ("http://[::1]:4010", "http://[::1]:4010/api/v3"),
        ] {
            let address = web_address(web).unwrap();
            assert_eq!(api_of(&address).unwrap().to_string(), api, "{web}");
        }
    }

    #[test]
    fn addresses_that_would_give_a_token_away_are_refused() {
        for web in [
            "http://github.com",
            "http://10.0.0.1",
            "http://localhost.example.org",
            "ftp://github.com",
            "github.com",
            "",
            "https://",
            "https://user:secret@github.com",
            "https://github.com/octo",
            "https://github.com?x=1",
            "https://git hub",
        ] {
            assert!(web_address(web).is_err(), "{web}");
        }
        assert!(api_address("https://x.example.org/api/v3").is_ok());
    }

    #[test]
    fn proxies_are_http_and_without_a_password() {
        for proxy in ["http://proxy:3128", "https://proxy.example:3128", "proxy:3128", "10.0.0.1:8080"] {
            assert!(proxy_address(proxy).is_ok(), "{proxy}");
        }
        for proxy in ["http://u:p@proxy:3128", "socks5://proxy:1080", "", "http://", "a b"] {
            assert!(proxy_address(proxy).is_err(), "{proxy}");
        }
        assert!(looks_secret("http://u:p@proxy:3128") && !looks_secret("http://proxy:3128"));
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_recognised() {
        for text in
            ["ghp_0123456789abcdef0123456789abcdef0123", "github_pat_11AAAA_bb", "-----BEGIN RSA PRIVATE KEY-----\nx"]
        {
            assert!(looks_secret(text), "{text}");
        }
        assert!(!looks_secret("/etc/memguard/github"));
    }
}
