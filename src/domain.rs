//! The pure layer: every decision, no I/O.
//!
//! Invariants: nothing here names another module of the crate or an I/O crate, reads a clock, or rolls a die; time and
//! chance are arguments. So nothing here can fail for outside reasons, and all of it runs in tables and in the model.

pub mod access;
pub mod address;
pub mod aggregation;
pub mod asking;
pub mod at_hook;
pub mod browse;
pub mod carry;
pub mod claim;
pub mod coding;
pub mod contract;
pub mod dead_letter;
pub mod decision;
pub mod dedup_window;
pub mod dialect;
pub mod edit;
pub mod escape;
pub mod event;
pub mod event_type;
pub mod excerpt;
pub mod expression;
pub mod failure;
pub mod flow;
pub mod fold;
pub mod headers;
pub mod health;
pub mod hook;
pub mod id;
pub mod invocation;
pub mod json;
pub mod matching;
pub mod message;
#[cfg(test)]
mod model;
#[cfg(test)]
pub mod mutation;
pub mod oauth;
pub mod outcome;
pub mod pattern;
pub mod publication;
pub mod pulse;
pub mod redaction;
pub mod replay;
pub mod request;
pub mod retry;
pub mod reuse;
pub mod revision;
pub mod secret;
pub mod selection;
pub mod settle;
pub mod signature;
pub mod template;
pub mod text_error;
pub mod time;
pub mod tls;
pub mod trace;
