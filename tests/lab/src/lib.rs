//! What the two sides of the lab share: scenarios, which are data, and the records that a guest sends while it runs one.

pub mod chain;
pub mod containers;
pub mod place;
pub mod record;
pub mod recording;
pub mod scenario;

pub use record::{Job, Line, MemguardMode, Record};
pub use scenario::{Scenario, ScenarioError};
