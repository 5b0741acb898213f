//! What remains to be done about an incident elsewhere, after its container was ended: at GitHub and at the Kubernetes API.
//!
//! Each *follow-up* stands in its incident in the journal, before the container is ended ([`follow_ups()`]), is tried by a
//! worker in a thread of its own until it is done or has a final answer ([`start`]), and can be tried again after a crash
//! at any point. The detection loop waits for none of it.

mod change;
mod failure;
mod follow_up;
mod login;
mod look;
mod outside;
mod outward;
mod plan;
mod pulse;
mod real;
mod steps;
#[cfg(test)]
mod tests;
mod thread;
mod waiting;
mod words;
mod worker;
mod workload;

pub use self::{
    failure::Failure,
    follow_up::{FollowUp, GIVE_UP_AFTER, Kind, Open, Progress, Refused},
    login::{ArcLogins, Login},
    look::look_at_arc_secrets,
    outside::{Cancelled, Check, Outside, Run, RunJob, RunRef},
    outward::Outward,
    plan::{Reach, Wishes, adapt, follow_ups},
    pulse::Pulse,
    real::Real,
    thread::{Remote, Setup, SetupError, start},
    waiting::{OfKind, Waiting},
    workload::Workload,
};
pub(crate) use failure::{chain, server_text, without_tokens};
