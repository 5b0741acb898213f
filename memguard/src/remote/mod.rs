//! What remains to be done about an incident elsewhere, after its container was ended: at GitHub and at the Kubernetes API.

mod failure;

pub use failure::Failure;
pub(crate) use failure::{chain, server_text, without_tokens};
