//! What memguard tells Prometheus, and whether it is well.
//!
//! What happens is counted as it is told ([`Metrics`]). What is so now ([`Present`]) the detection loop is asked for at each
//! scrape ([`Asker`]), so that it is right on an idle node too, where nothing ticks, and so that an answer means that the
//! loop is alive. All requests are served by a thread of its own: a slow scraper holds up nobody else.
//!
//! The number of series is bounded whatever pods do: values of labels are `&'static str`, but for memguard's version and
//! the kernel's.

mod ask;
mod counts;
mod format;
mod health;
mod labels;
mod page;
mod present;
mod process;
mod server;

pub use self::{
    ask::{Asker, Question, Questions, questions},
    counts::Metrics,
    page::About,
    present::{Outside, Present, Totals},
    server::{Listener, Served, Server, ServerError, listen},
};
#[cfg(test)]
mod fixture;
