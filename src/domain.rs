//! The pure layer: every decision, no I/O.
//!
//! Invariants: nothing here names another module of the crate or an I/O crate, reads a clock, or rolls a die; time and
//! chance are arguments. So nothing here can fail for outside reasons, and all of it runs in tables and in the model.

pub mod access;
pub mod address;
pub mod asking;
pub mod browse;
pub mod carry;
pub mod claim;
pub mod dead_letter;
pub mod decision;
pub mod edit;
pub mod event;
pub mod event_type;
pub mod expression;
pub mod flaw;
pub mod flow;
pub mod fold;
pub mod glob;
pub mod headers;
pub mod health;
pub mod hook;
pub mod invocation;
pub mod matching;
pub mod message;
#[cfg(test)]
mod model;
pub mod once;
pub mod outcome;
pub mod publication;
pub mod redaction;
pub mod refusal;
pub mod replay;
pub mod request;
pub mod retry;
pub mod revision;
pub mod selection;
pub mod settle;
pub mod shown;
pub mod signature;
pub mod template;
pub mod tls;
