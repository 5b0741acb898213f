//! memguard: finds containers that hang in memcg reclaim instead of running out of memory, and ends them.
//!
//! Kernel hooks count for each cgroup ([`tracer`]); user space joins that with the cgroup's files ([`cgroup`]), decides
//! ([`engine`], pure), plans and acts ([`respond`]), and tells ([`telemetry`]). [`agent`] is the loop that joins them.

pub mod agent;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod crash;
pub mod doctor;
pub mod engine;
#[doc(hidden)]
pub mod fuzzing;
pub mod github;
pub mod journal;
pub mod kernel;
pub mod kubernetes;
pub mod metrics;
pub mod protect;
pub mod remote;
pub mod report;
pub mod respond;
pub mod status;
pub mod telemetry;
pub mod top;
pub mod trace;
pub mod tracer;
pub mod workload;
