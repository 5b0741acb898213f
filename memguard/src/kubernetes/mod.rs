//! What the Kubernetes API knows of the node's pods, and what memguard asks of it.
//!
//! Facts come in by a watch ([`watch()`]) and are read without waiting ([`Pods`]): the detection loop never depends on the
//! network. Everything else is asked for after a kill, by whoever can wait: which job it was ([`job`]), the deletion of its
//! runner ([`delete_runner`]), the event that explains it ([`tell`]). All of them say in the same way whether to try again
//! ([`crate::remote::Failure`]). No pod is ever deleted: ARC would make one again with a runner configuration that is used up.

mod access;
mod delete;
mod events;
mod failure;
#[cfg(test)]
mod fixture;
mod list;
mod pieces;
mod pods;
mod runner;
mod secret;
mod watch;

pub use access::{ConnectError, Right, check, client};
pub use delete::{Deleted, delete_runner};
pub use events::{Notice, NoticeAction, Regarding, tell};
pub use pods::{ContainerFacts, Known, Owner, PodFacts, Pods};
pub use runner::{Generation, JobFacts, RunnerFacts, RunnerRef, job, runners_on};
pub use secret::{ArcSecret, SecretRef};
pub use watch::watch;
