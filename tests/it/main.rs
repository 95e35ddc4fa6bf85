//! All integration tests, in one program: real servers, the real binary.
//!
//! What to know before you add one:
//!
//! - `servers/slots.rs` decides when a test begins. A test takes its share of the machine by itself when it starts its first
//!   server, sink or worker. One that needs more than a worker's share, or that is long, gets a line in `slots::PLAN`.
//! - `tiers.rs`: CI has 25 minutes for everything. What is long has two sizes in `tiers/sizes.rs`, or is marked
//!   `#[ignore = "left to tests/run --all"]` where CI tries another one of its kind.
//! - Take the shared servers (`servers::shared`) unless the test kills or configures them: a broker of its own costs five
//!   seconds of a core.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::duration_suboptimal_units,
    reason = "tests print their figures, fail loudly, and say seconds where they mean seconds"
)]

mod access;
mod aether;
mod backups;
mod bench;
mod bernstein;
mod brokers;
mod cancel;
mod catalog;
mod chaos;
mod clients;
mod commands;
mod compose;
mod conformance;
mod conforming;
mod crash;
mod docs;
mod doctor;
mod egress_proxy;
mod embedded;
mod event_types;
mod events;
mod faults;
mod fleet;
mod fuzz;
mod gates;
mod golden;
mod hostile;
mod https;
mod imports;
mod input;
mod kheish;
mod kheish_api;
mod kheish_daemon;
mod kheish_promises;
mod language;
mod letters;
mod library;
mod load;
mod logging;
mod neighbours;
mod oauth;
mod onward;
mod openapi;
mod outcomes;
mod pipeline;
mod places;
mod programs;
mod proxy;
mod publishing;
mod receivers;
mod recorded;
mod redaction;
mod replays;
mod saturation;
mod schema;
mod servers;
mod serving;
mod signatures;
mod sink;
mod starting;
mod stores;
mod storm;
mod tidy;
mod tiers;
mod tls;
mod unreadable;
mod verify;
mod ways;
