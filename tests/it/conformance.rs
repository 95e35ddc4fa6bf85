//! One suite a seam, for every implementation of it.
//!
//! The suites open what they check by name. The same name later is the same thing again, with what survived; another
//! name is another one, and empty. What is opened is up and ready.

pub(crate) mod broker;
pub(crate) mod dead_letters;
pub(crate) mod flow;
pub(crate) mod idempotency;
pub(crate) mod revisions;
