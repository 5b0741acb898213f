//! Credentials: a token, or a GitHub App, from files. They are read again when the files change, as a mounted Secret does.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use serde::Serialize;

use super::settings::{SetupError, Source};

/// A token or a key is far smaller; a file that is not was named by mistake.
const LARGEST: u64 = 64 << 10;
/// GitHub takes ten minutes at most, by its clock.
const JWT_LIFE_S: i64 = 540;
/// GitHub advises to begin a minute in the past, for clocks that differ.
const JWT_EARLIER_S: i64 = 60;

const TOKEN: &str = "github_token";
const APP_ID: &str = "github_app_id";
const INSTALLATION: &str = "github_app_installation_id";
const KEY: &str = "github_app_private_key";

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
        Source::Folder(folder) => [TOKEN, APP_ID, INSTALLATION, KEY].map(|name| folder.join(name)).into(),
        Source::Token(path) | Source::App { key: path, .. } => vec![path.clone()],
    }
}

pub(super) fn load(source: &Source) -> Result<Credentials, SetupError> {
    match source {
        Source::Token(path) => token(path),
        Source::App { id, installation, key } => app(
            app_id(id).ok_or(SetupError::Setting {
                name: "app_id",
                value: crate::telemetry::escaped(id),
                what: "write the App's number or its client id",
            })?,
            *installation,
            key,
        ),
        Source::Folder(folder) => from_folder(folder),
    }
}

fn from_folder(folder: &Path) -> Result<Credentials, SetupError> {
    // Otherwise a folder that is not there would be told as one that lacks files.
    fs::read_dir(folder).map_err(|error| SetupError::file(folder, unreadable(&error)))?;
    let [token_file, id, installation, key] = [TOKEN, APP_ID, INSTALLATION, KEY].map(|name| folder.join(name));
    let files = [&id, &installation, &key];
    let missing: Vec<_> = files.iter().filter(|path| !path.exists()).filter_map(|path| path.file_name()).collect();
    match (token_file.exists(), missing.as_slice()) {
        (true, missing) if missing.len() == files.len() => token(&token_file),
        (true, _) => {
            Err(SetupError::file(folder, format!("it has both {TOKEN} and files of an App; leave one of them out")))
        }
        (false, []) => {
            let text = content(&id)?;
            let id_is =
                app_id(text.trim()).ok_or_else(|| SetupError::file(&id, "it holds no App's number or client id"))?;
            let text = content(&installation)?;
            let number = text.trim().parse().ok().filter(|number| *number > 0);
            let number = number.ok_or_else(|| SetupError::file(&installation, "it holds no installation's number"))?;
            app(id_is, number, &key)
        }
        (false, missing) if missing.len() == files.len() => {
            Err(SetupError::file(folder, format!("it has neither {TOKEN} nor {APP_ID}, {INSTALLATION} and {KEY}")))
        }
        (false, missing) => {
            let missing: Vec<_> = missing.iter().map(|name| name.to_string_lossy()).collect();
            Err(SetupError::file(folder, format!("of an App's files it lacks {}", missing.join(" and "))))
        }
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
        fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| SetupError::file(path, unreadable(&error)))?;
    if bytes.len() as u64 > LARGEST {
        return Err(SetupError::file(path, "it is too large for a token or a key"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(SetupError::file(path, "it is no text"))
        }
    }
}

fn token(path: &Path) -> Result<Credentials, SetupError> {
    let text = content(path)?;
    let token = text.trim();
    // It is sent as a header: anything else than visible ASCII is a file that was damaged, or is another one.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = if token.is_empty() { "it is empty" } else { "it holds more than one word" };
        return Err(SetupError::file(path, format!("{what}; write the token alone into it")));
    }
    Ok(Credentials::Token(SecretString::from(token)))
}

fn app_id(text: &str) -> Option<String> {
    let good = !text.is_empty() && text.len() <= 64;
    (good && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))).then(|| text.to_owned())
}

fn app(id: String, installation: u64, path: &Path) -> Result<Credentials, SetupError> {
    let text = content(path)?;
    let bad = || {
        SetupError::file(
            path,
            "it holds no RSA private key in PEM; download one from the App's settings (\"Private keys\")",
        )
    };
    let key = EncodingKey::from_rsa_pem(text.trim().as_bytes()).map_err(|_| bad())?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let app = App { id, installation, key, fingerprint: hasher.finish() };
    // What parses can still be unfit to sign.
    match app.jwt(0) {
        Some(_) => Ok(Credentials::App(app)),
        None => Err(bad()),
    }
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
