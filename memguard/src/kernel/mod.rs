//! What this kernel offers, and what memguard makes of it: facts, then a plan from the facts alone.

pub mod btf;
mod hooks;
mod layout;
mod plan;
mod support;

pub use hooks::{Attach, HOOKS, Hook, hook};
pub use layout::Layout;
pub use plan::{Coverage, Level, Plan, Signal, SignalPlan, plan};
pub use support::{Facts, HookFact, HookState, Kernel, Privileges};
