//! `memguard top`: what memguard sees, live or from a recording, in a terminal.
//!
//! Keys become actions ([`keys`]), actions change the state ([`state`]), and a snapshot with a state becomes a screen
//! ([`view`]): all pure. [`source`] brings snapshots, [`terminal`] has the real terminal, and [`run`] joins them.

pub mod keys;
mod run;
pub mod source;
pub mod state;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod view;

pub use run::run;
