//! The thread that talks to Kubernetes and GitHub, from the outside: against servers with state, with settings that change
//! while it works, and with ARC's own credentials.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[cfg(test)]
mod arc;
#[cfg(test)]
mod cancel;
mod change;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod secrets;
