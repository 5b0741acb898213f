//! Requests that came to nothing: whether another try can help, and what to say of it.

use std::{error::Error as StdError, time::Duration};

use crate::telemetry::escaped;

/// Characters of a text that a server wrote. A proxy answers with pages of HTML.
const SERVER_TEXT: usize = 300;

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The same request can succeed later.
    #[error("{why}")]
    Later {
        /// How long the server wants to be left alone.
        after: Option<Duration>,
        why: String,
    },
    /// Another try changes nothing.
    #[error("{why}")]
    Final { why: String },
}

/// An error with everything that led to it.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

/// A text from outside, fit for a log line: escaped, short, without tokens.
pub(crate) fn server_text(text: &str) -> String {
    // A page of any length is not gone through for three hundred characters of it.
    let start: String = text.chars().take(4 * SERVER_TEXT).collect();
    let shown = escaped(without_tokens(&start).trim());
    match shown.char_indices().nth(SERVER_TEXT) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// How tokens begin: JSON web tokens, as those of service accounts are, with `{"` in base64, and GitHub's, each kind with a
/// prefix of its own.
const TOKENS: [&str; 7] = ["eyJ", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"];

/// A server that repeats a request's headers in its answer would bring its token into the log.
pub(crate) fn without_tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = TOKENS.iter().filter_map(|start| rest.find(start)).min() {
        let (before, token) = rest.split_at(at);
        let end = token.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c)).unwrap_or(token.len());
        out.push_str(before);
        out.push_str("[token]");
        rest = &token[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_servers_are_escaped_cut_and_without_tokens() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJr_dWJl-cm5ldGVz.c2ln";
        let shown = server_text(&format!("a\nb\x1b[2K Authorization: Bearer {token}; c"));
        assert_eq!(shown, "a\\nb\\u{1b}[2K Authorization: Bearer [token]; c");
        let shown = server_text("is ghs_0123456789abcdefABCDEF or github_pat_11AA_bb.");
        assert_eq!(shown, "is [token] or [token]");
        assert_eq!(server_text(&"ü".repeat(100_000)).matches('ü').count(), SERVER_TEXT);
        assert!(!server_text(&format!("{}{token}", "x".repeat(4 * SERVER_TEXT - 9))).contains("eyJ"));
    }
}
