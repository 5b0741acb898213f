//! The real program, run: its exit statuses, its answers, and every command of the documents. What can't be run here (it
//! takes root, a cluster or minutes) is parsed by the definition of the command line.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
#[path = "../../../tests/docs/console.rs"]
mod console;
mod documents;
mod fixture;
mod foreign;
mod links;
mod statuses;
mod terminal;
