//! What an operator should know before memguard is relied on: each fact, what it means, and what to do about it.

mod cluster;
mod node;

use serde::Serialize;

pub use self::{
    cluster::cluster,
    node::{node, swap_is_on},
};

/// How good a fact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Good,
    /// memguard works, with less than it could have.
    Lesser,
    /// Something that was asked for does not work.
    Bad,
}

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: &'static str,
    pub grade: Grade,
    pub fact: String,
    /// What follows for memguard.
    pub means: String,
    /// What to do about it; `None` where nothing is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    pub(crate) fn good(name: &'static str, fact: impl Into<String>, means: impl Into<String>) -> Self {
        Self { name, grade: Grade::Good, fact: fact.into(), means: means.into(), remedy: None }
    }

    pub(crate) fn of(
        name: &'static str,
        grade: Grade,
        fact: impl Into<String>,
        means: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, grade, fact: fact.into(), means: means.into(), remedy: Some(remedy.into()) }
    }
}

/// The worst of them.
#[must_use]
pub fn worst(findings: &[Finding]) -> Grade {
    findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Good)
}
