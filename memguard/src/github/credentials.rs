//! Credentials: a token, or a GitHub App, from files or from who keeps them. Files are read again when they change, as a
//! mounted Secret does.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use serde::Serialize;

use super::{
    keeper::Kept,
    settings::{SetupError, Source},
};

/// A token or a key is far smaller; a file that is not was named by mistake.
const LARGEST: usize = 64 << 10;
/// GitHub takes ten minutes at most, by its clock.
const JWT_LIFE_S: i64 = 540;
/// GitHub advises to begin a minute in the past, for clocks that differ.
const JWT_EARLIER_S: i64 = 60;

const TOKEN: &str = "github_token";
const APP_ID: &str = "github_app_id";
const INSTALLATION: &str = "github_app_installation_id";
const KEY: &str = "github_app_private_key";
/// As ARC has them in its Secret.
pub(super) const NAMES: [&str; 4] = [TOKEN, APP_ID, INSTALLATION, KEY];

#[derive(Clone)]
pub(super) enum Credentials {
    Token(SecretString),
    App(App),
}

#[derive(Clone)]
pub(super) struct App {
    /// The App's number or its client id.
    id: String,
    pub(super) installation: u64,
    key: EncodingKey,
    /// Of the key's text, to tell whether it is another one.
    fingerprint: u64,
}

/// What tells that files were replaced: when they were changed, which they are, and how long.
pub(super) type Stamp = Vec<Option<(i64, i64, u64, u64)>>;

pub(super) fn stamp(source: &Source) -> Stamp {
    files(source)
        .iter()
        .map(|path| fs::metadata(path).ok().map(|file| (file.mtime(), file.mtime_nsec(), file.ino(), file.len())))
        .collect()
}

fn files(source: &Source) -> Vec<PathBuf> {
    match source {
        Source::Folder(folder) => NAMES.map(|name| folder.join(name)).into(),
        Source::Token(path) | Source::App { key: path, .. } => vec![path.clone()],
        Source::Arc => Vec::new(),
    }
}

pub(super) fn load(source: &Source) -> Result<Credentials, SetupError> {
    match source {
        Source::Token(path) => token(&content(path)?).map_err(|what| SetupError::file(path, what)),
        Source::App { id, installation, key } => {
            let id = app_id(id).ok_or(SetupError::Setting {
                name: "app_id",
                value: crate::telemetry::escaped(id),
                what: "write the App's number or its client id",
            })?;
            app(id, *installation, &content(key)?).map_err(|what| SetupError::file(key, what))
        }
        Source::Folder(folder) => {
            // Otherwise a folder that is not there would be told as one that lacks files.
            fs::read_dir(folder).map_err(|error| SetupError::file(folder, unreadable(&error)))?;
            from_names(&Place::Folder(folder))
        }
        Source::Arc => Err(SetupError::Setting {
            name: "arc_secret",
            value: "true".to_owned(),
            what: "ARC's secret is known only once a runner is; there is none to read before",
        }),
    }
}

/// From what somebody else keeps.
pub(super) fn from_kept(name: &str, kept: &Kept) -> Result<Credentials, SetupError> {
    from_names(&Place::Kept { name, kept })
}

/// Where there are values under the names of ARC's Secret.
enum Place<'a> {
    Folder(&'a Path),
    Kept { name: &'a str, kept: &'a Kept },
}

impl Place<'_> {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).exists(),
            Self::Kept { kept, .. } => kept.value(name).is_some(),
        }
    }

    fn text(&self, name: &'static str) -> Result<Zeroizing<String>, SetupError> {
        match self {
            Self::Folder(folder) => content(&folder.join(name)),
            Self::Kept { kept, .. } => {
                text(kept.value(name).unwrap_or_default().to_vec()).map_err(|what| self.wrong(Some(name), what))
            }
        }
    }

    /// What is wrong with one of its values, or with all of it.
    fn wrong(&self, value: Option<&'static str>, what: impl Into<String>) -> SetupError {
        match self {
            Self::Folder(folder) => {
                SetupError::file(&value.map_or_else(|| (*folder).to_owned(), |value| folder.join(value)), what)
            }
            Self::Kept { name, .. } => {
                let of = value.map(|value| format!("{value} of ")).unwrap_or_default();
                SetupError::Kept { name: format!("{of}{name}"), what: what.into() }
            }
        }
    }
}

fn from_names(place: &Place<'_>) -> Result<Credentials, SetupError> {
    let of_app = [APP_ID, INSTALLATION, KEY];
    let missing: Vec<_> = of_app.into_iter().filter(|name| !place.has(name)).collect();
    match (place.has(TOKEN), missing.as_slice()) {
        (true, missing) if missing.len() == of_app.len() => {
            token(&place.text(TOKEN)?).map_err(|what| place.wrong(Some(TOKEN), what))
        }
        (true, _) => Err(place.wrong(None, format!("it has both {TOKEN} and those of an App; leave one of them out"))),
        (false, []) => {
            let id = app_id(place.text(APP_ID)?.trim());
            let id = id.ok_or_else(|| place.wrong(Some(APP_ID), "it holds no App's number or client id"))?;
            let number = place.text(INSTALLATION)?.trim().parse().ok().filter(|number| *number > 0);
            let number = number.ok_or_else(|| place.wrong(Some(INSTALLATION), "it holds no installation's number"))?;
            app(id, number, &place.text(KEY)?).map_err(|what| place.wrong(Some(KEY), what))
        }
        (false, missing) if missing.len() == of_app.len() => {
            Err(place.wrong(None, format!("it has neither {TOKEN} nor {APP_ID}, {INSTALLATION} and {KEY}")))
        }
        (false, missing) => Err(place.wrong(None, format!("of what an App takes it lacks {}", missing.join(" and ")))),
    }
}

fn unreadable(error: &std::io::Error) -> String {
    format!("{error}; look at its path and its rights")
}

/// A small file of text. Errors say nothing of what it holds.
fn content(path: &Path) -> Result<Zeroizing<String>, SetupError> {
    use std::io::Read as _;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| SetupError::file(path, unreadable(&error)))?;
    text(bytes).map_err(|what| SetupError::file(path, what))
}

fn text(bytes: Vec<u8>) -> Result<Zeroizing<String>, &'static str> {
    if bytes.len() > LARGEST {
        drop(Zeroizing::new(bytes));
        return Err("it is too large for a token or a key");
    }
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        "it is no text"
    })
}

fn token(text: &str) -> Result<Credentials, String> {
    let token = text.trim();
    // It is sent as a header: anything else than visible ASCII is a file that was damaged, or is another one.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = if token.is_empty() { "it is empty" } else { "it holds more than one word" };
        return Err(format!("{what}; write the token alone into it"));
    }
    Ok(Credentials::Token(SecretString::from(token)))
}

fn app_id(text: &str) -> Option<String> {
    let good = !text.is_empty() && text.len() <= 64;
    (good && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))).then(|| text.to_owned())
}

fn app(id: String, installation: u64, text: &str) -> Result<Credentials, &'static str> {
    const BAD: &str = "it holds no RSA private key in PEM; download one from the App's settings (\"Private keys\")";
    let key = EncodingKey::from_rsa_pem(text.trim().as_bytes()).map_err(|_| BAD)?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let app = App { id, installation, key, fingerprint: hasher.finish() };
    // What parses can still be unfit to sign.
    app.jwt(0).map(|_| Credentials::App(app.clone())).ok_or(BAD)
}

impl App {
    /// What proves to GitHub for some minutes that we are the App, at a time by GitHub's clock, in seconds since 1970.
    pub(super) fn jwt(&self, now: i64) -> Option<SecretString> {
        let iss = self.id.parse().map_or(Issuer::Client(&self.id), Issuer::Number);
        let claims = Claims { iat: now - JWT_EARLIER_S, exp: now + JWT_LIFE_S, iss };
        // Its errors are not shown: they could speak of the key.
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.key).ok().map(SecretString::from)
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iat: i64,
    exp: i64,
    iss: Issuer<'a>,
}

/// Numbers are sent as numbers, as GitHub's own libraries do.
#[derive(Serialize)]
#[serde(untagged)]
enum Issuer<'a> {
    Number(u64),
    Client(&'a str),
}

impl Credentials {
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(one), Self::Token(other)) => one.expose_secret() == other.expose_secret(),
            (Self::App(one), Self::App(other)) => {
                (&one.id, one.installation, one.fingerprint) == (&other.id, other.installation, other.fingerprint)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
