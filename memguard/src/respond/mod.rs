//! From a verdict to its end: what to do is planned from facts alone, and done behind one trait.

mod actions;
mod check;
mod kill;
mod life;
mod lowered;
mod oom;
mod planner;
mod policy;
mod suppressed;

pub use actions::{ActionError, Actions, DryRun, Ended, KernelActions, Method, Out};
pub use check::fresh_check;
#[cfg(test)]
pub(crate) use life::tests::fake_thread;
pub use life::{Left, Life, aside, life};
pub use lowered::{Notes, Restored};
pub use planner::{Decision, PlanFacts, Planned, plan};
pub use policy::{
    Applies, Because, Ledger, Limit, Matches, Mode, NEVER_IN, OwnPod, Policy, Rule, Selectors, Sick, Spent, Subject,
    Suspects,
};
pub use suppressed::Suppressed;
