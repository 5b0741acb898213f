//! From a verdict to its end: what to do is planned from facts alone, and done behind one trait.

mod actions;
mod planner;

pub use actions::{ActionError, Actions, DryRun, Ended, KernelActions, Method};
pub use planner::{Decision, Mode, PlanFacts, Policy, Suppressed, fresh_check, plan};
