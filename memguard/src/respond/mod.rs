//! From a verdict to its end: what to do is planned from facts alone, and done behind one trait.

mod actions;
mod oom;
mod planner;
mod policy;

pub use actions::{ActionError, Actions, DryRun, Ended, KernelActions, Method};
pub use oom::{Notes, Restored};
pub use planner::{Decision, PlanFacts, Suppressed, fresh_check, plan};
pub use policy::{Budget, Limit, Mode, Policy, Sick, Suspects};
