//! A fleet of stateless workers that run hooks.
//!
//! Systems publish lifecycle events to a broker. A worker takes an event, looks up the hooks that want it, runs each of
//! them under an idempotency key, and hands what cannot be delivered to a dead-letter log, from which an operator replays
//! it. Delivery is at least once; the claim protocol makes an action happen once per key, as far as anyone can who is not
//! the receiver.
//!
//! # The way through
//!
//! ```text
//! broker -> decode -> match -> claim -> execute -> settle -> apply
//! ```
//!
//! [`worker`] is that line. What follows from an outcome is applied in one fixed order: **1** write the settlement into
//! the claim by compare-and-set on the run's token, **2** publish what follows and await the confirm, **3** mark exactly
//! that settlement as out, **4** ack. Whoever finds a settlement publishes it again without a run. The crash table in
//! [`worker`] says what a death in each gap costs.
//!
//! # Code map
//!
//! A `use` goes only to a line further down; a test enforces it.
//!
//! | module | what it is for |
//! |---|---|
//! | `main`, [`cli`] | the program: commands, what they print |
//! | [`app`] | the composition root: the only place that names every adapter |
//! | [`doctor`] | what is wrong around a fleet: facts gathered, findings judged |
//! | [`fleet`] | one process: takes deliveries while it may, stops in order |
//! | [`admin`], [`catalog`] | HTTP for people and probes; hooks from files or the fleet's revisions in Redis, followed and changed |
//! | [`worker`] | the pipeline, and one invocation's way through it |
//! | [`desk`], [`publish`] | what operators do with letters, and the keeper of their log; publishing events, for the gateway, the command line and the library |
//! | [`executor`] | runs a hook once: http, command, callback, publish |
//! | [`broker`], [`idempotency`], [`dead_letters`], [`flow`] | the seams: a trait with its contract, and an adapter a file |
//! | [`amqp`], [`redis`], [`embedded`] | what adapters share: AMQP connections, topology, management; the way to Redis; the one SQLite file |
//! | [`config`], [`telemetry`], [`crash`] | settings; metric names and logs; places where tests kill the process, and flaws that they ask for |
//! | [`domain`], [`yaml`] | every decision, pure; YAML with positions |
//!
//! # Invariants
//!
//! - Nothing in [`domain`] does I/O, reads a clock or rolls a die. The model, the stores and the pipeline drive the same
//!   [`domain::claim::step`] and [`domain::settle::next_effect`].
//! - A delivery is acked only when everything that follows from it is confirmed. Nothing is nacked, ever: what cannot be
//!   done now goes round the delay ladder, and what is handed back is published again.
//! - An exchange that is published to has the dead letters as its alternate, since returns cannot be relied on. One that
//!   queues dead-letter to has none: they keep what has no way on, as everything where a broker starts.
//! - No delivery is held longer than `worker.hold`: a longer run leaves a guard (the same message, due when its lease
//!   ends) and goes on under its claim.
//! - Headers named `hookfleet-*` are believed on lane queues only, but for the count of hops, which can only end a way
//!   sooner. So nothing that a hook publishes gets into a lane. Properties are built afresh on every publish.
//! - An executor answers with an [`domain::outcome::Outcome`], never an error, and knows nothing of retries, claims or
//!   brokers. Its errors and letters carry no secrets.
//! - Workers see one whole revision of the catalog after the other. A hook is taken to be removed only at the revision
//!   that named it or a newer one; who knows of a newer one and cannot load it takes no work after ten seconds.
//! - The dead-letter log alone says what is open: its fold is a maximum, so records may come twice and in any order, and
//!   every index of it can be built anew. A replay is published first and marked after its confirm; its generation is a
//!   function of the letter.
//! - Trouble of our own (broker, store) spends no attempt and buries nothing.

pub mod domain;
pub mod yaml;

pub mod config;
pub mod crash;
pub mod telemetry;

pub mod amqp;
pub mod embedded;
pub mod redis;

pub mod broker;
pub mod dead_letters;
pub mod flow;
pub mod idempotency;

pub mod executor;

pub mod desk;
pub mod publish;
pub mod worker;

pub mod admin;
pub mod catalog;
pub mod fleet;

pub mod app;
pub mod doctor;

pub mod cli;

pub use app::embed::Fleet;
pub use executor::callback::{Call, Failed};

#[cfg(test)]
mod simulation;
