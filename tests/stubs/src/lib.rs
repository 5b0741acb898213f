//! Servers for tests, on loopback: they keep state as the real ones do, note every request, and fail on demand.
//!
//! Real counterparts check what these can't: that each request is one that GitHub's description and a real API server take.

pub mod captured;
pub mod gate;
pub mod github;
pub mod kubernetes;
