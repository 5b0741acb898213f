//! The tracer: applies a plan to the kernel and reads what the hooks hand over.

mod cost;
mod debug_log;
mod details;
mod link;
mod loader;
mod record;
mod ring;
mod table;

pub use cost::{ProgramCost, TracerCost};
pub use details::Details;
pub use loader::{Limits, Tracer, TracerError, embedded_object, start, start_at};
pub use record::{DecodeError, decode};
pub use ring::Ring;
pub use table::Table;
