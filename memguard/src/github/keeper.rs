//! Credentials that are kept elsewhere than in files.

use std::{collections::BTreeMap, fmt};

use futures_util::future::BoxFuture;
use secrecy::zeroize::Zeroizing;

use super::credentials::NAMES;
use crate::remote::Failure;

/// Who keeps them: asked when they are needed, and again when GitHub refuses them.
pub trait Keeper: Send + Sync + 'static {
    /// For people: "Secret ci/arc-github".
    fn name(&self) -> String;

    /// What to add where no connection comes about, if anything is known that could be the cause.
    fn hint(&self) -> Option<&'static str> {
        None
    }

    /// All of it as it is now. What fails for good takes credentials that were read before out of use.
    fn read(&self) -> BoxFuture<'_, Result<Kept, Failure>>;
}

/// What is kept, under the names of ARC's Secret.
#[derive(Clone)]
pub struct Kept {
    /// Another one if anything has changed.
    pub version: String,
    values: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl Kept {
    /// What has another name than ARC's is let go of at once.
    pub fn new(version: String, values: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let values = values.into_iter().map(|(name, value)| (name, Zeroizing::new(value)));
        Self { version, values: values.filter(|(name, _)| NAMES.contains(&name.as_str())).collect() }
    }

    pub(super) fn value(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name).map(|value| value.as_slice())
    }
}

/// Without the values.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("version", &self.version).finish_non_exhaustive()
    }
}
