//! All integration tests, in one program: real servers, the real binary.

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
mod bench;
mod brokers;
mod cancel;
mod catalog;
mod chaos;
mod commands;
mod conformance;
mod conforming;
mod crash;
mod docs;
mod doctor;
mod embedded;
mod event_types;
mod faults;
mod fleet;
mod fuzz;
mod gates;
mod golden;
mod hostile;
mod https;
mod input;
mod language;
mod letters;
mod library;
mod load;
mod onward;
mod openapi;
mod pipeline;
mod programs;
mod proxy;
mod publishing;
mod redaction;
mod replays;
mod saturation;
mod schema;
mod servers;
mod serving;
mod signatures;
mod sink;
mod stores;
mod storm;
mod tidy;
mod tls;
mod verify;
mod ways;
