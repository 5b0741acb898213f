//! Names of repositories. They become parts of a path, so they are held to what GitHub allows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::telemetry::escaped;

/// More than GitHub allows for either part (39 and 100 characters).
const LONGEST: usize = 100;

/// `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    owner: String,
    name: String,
}

/// What is no name of a repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no repository; it is owner/name, of letters, digits, '-', '_' and '.'")]
pub struct BadRepository {
    /// Escaped and cut.
    text: String,
}

impl Repository {
    /// From both parts.
    pub fn new(owner: &str, name: &str) -> Result<Self, BadRepository> {
        let good = |part: &str| {
            !part.is_empty()
                && part.len() <= LONGEST
                // These two change the path; "a..b" does not, and is a name that GitHub allows.
                && part != "."
                && part != ".."
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        if good(owner) && good(name) {
            Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
        } else {
            let start: String = format!("{owner}/{name}").chars().take(LONGEST).collect();
            Err(BadRepository { text: escaped(&start) })
        }
    }

    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Repository {
    type Err = BadRepository;

    fn from_str(text: &str) -> Result<Self, BadRepository> {
        let (owner, name) = text.split_once('/').unwrap_or((text, ""));
        Self::new(owner, name)
    }
}

impl TryFrom<String> for Repository {
    type Error = BadRepository;

    fn try_from(text: String) -> Result<Self, BadRepository> {
        text.parse()
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.to_string()
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_github_allows_are_read_and_written_back() {
        for text in ["octo-org/hello.world", "user_corp/.github", "a/a..b", &format!("o/{}", "n".repeat(100))] {
            let repository: Repository = text.parse().unwrap();
            assert_eq!(repository.to_string(), text);
            let json = serde_json::to_string(&repository).unwrap();
            assert_eq!(serde_json::from_str::<Repository>(&json).unwrap(), repository);
        }
    }

    #[test]
    fn what_would_change_the_path_is_no_repository() {
        for text in [
            "",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "./b",
            "a/.",
            "a b/c",
            "a/b?x",
            "a/b#c",
            "a/%2e%2e",
            "a/b\n",
            "ä/b",
            &format!("o/{}", "n".repeat(101)),
        ] {
            assert!(text.parse::<Repository>().is_err(), "{text:?}");
            assert!(serde_json::from_value::<Repository>(text.into()).is_err(), "{text:?}");
        }
        let error = "a/b\u{1b}[2K".parse::<Repository>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}') && error.contains("owner/name"), "{error}");
        assert!("x".repeat(10_000).parse::<Repository>().unwrap_err().to_string().len() < 300);
    }
}
