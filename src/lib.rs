//! A fleet of stateless workers that run hooks.
//!
//! Systems publish lifecycle events to a broker. A worker takes an event, looks up the hooks that want it, runs each of
//! them under an idempotency key, and hands what cannot be delivered to a dead-letter log, from which an operator replays
//! it. Delivery is at least once; the claim protocol makes an action happen once per key, as far as anyone can who is not
//! the receiver.
//!
//! Most people use the program `hookfleet`, which README is about. Programs in Rust publish with a [`Publisher`], which
//! answers once the broker has an [`Event`] for good:
//!
//! ```no_run
//! use hookfleet::{Event, Publisher};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let publisher = Publisher::connect("amqp://hookfleet:hookfleet@127.0.0.1:5672", "hookfleet").await?;
//! let event = Event::builder("order.paid").source("/shop").id("order-17-paid").data(&[17]).build()?;
//! publisher.publish(&event).await?;
//! # Ok(())
//! # }
//! ```
//!
//! and are workers themselves with a [`Fleet`], whose hooks may call their functions:
//!
//! ```no_run
//! use hookfleet::{Failed, Fleet, Settings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let fleet = Fleet::builder(Settings::of_process()?).callback("audit", |call| async move {
//!     let total: u64 = call.data().map_err(Failed::never)?;
//!     println!("{} of {total}, under {}", call.kind(), call.key);
//!     Ok(())
//! });
//! fleet.run(async { drop(tokio::signal::ctrl_c().await) }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Inside
//!
//! What follows is for those who work on it. The modules are no part of the library's promise: they are public for its own
//! program, tests and benchmarks, hidden here, and may change with any version.
//!
//! ## The way of an event
//!
//! ```text
//! broker -> decode -> match -> claim -> execute -> settle -> apply
//! ```
//!
//! `worker` is that line. What follows from an outcome is applied in one fixed order: **1** write the settlement into
//! the claim by compare-and-set on the run's token, **2** publish what follows and await the confirm, **3** mark exactly
//! that settlement as out, **4** ack. A worker that finds a settlement publishes it again without a run. The crash table in
//! `worker` says what a death in each gap costs.
//!
//! These types carry an event from socket to ack, in this order:
//!
//! | | type | is |
//! |---|---|---|
//! | 1 | `broker::Delivery` | a message in hand, and the receipt that it is acked by |
//! | 2 | `domain::invocation::Envelope` | what the message is: a whole event, or one invocation of it |
//! | 3 | `domain::invocation::EventMessage` | an event with the decision of its gates and the letter that it replays |
//! | 4 | `domain::event::Event` | the event itself, in CloudEvents' structured form |
//! | 5 | `domain::matching::HookSet` | the hooks of one catalog revision, of which it picks those that want the event |
//! | 6 | `domain::invocation::Invocation` | one event for one hook, at one attempt |
//! | 7 | `worker::context::InvocationContext` | the invocation and what surrounds it, unchanged on its way |
//! | 8 | `worker::invocation::InvocationRun` | how far it is; carries out one stage after the other |
//! | 9 | `worker::admission::Permit` | the right to run now |
//! | 10 | `worker::claimant::Lease` | the claim under the invocation's key, renewed while it runs |
//! | 11 | `domain::contract::Exchange` | what the target gets, as the hook's dialect has it |
//! | 12 | `domain::contract::Raw` | what the target gave back |
//! | 13 | `domain::outcome::Outcome` | what the attempt came to |
//! | 14 | `domain::settle::Settlement` | what follows from it: finish, retry, dead letter, release |
//! | 15 | `domain::settle::Stage` | what is being done about it; `next_effect` says which stage is next |
//! | 16 | `domain::message::Outgoing` | a message that follows, on its way out |
//!
//! ## Code map
//!
//! A `use` goes only to a line further down; a test enforces it.
//!
//! | module | what it is for |
//! |---|---|
//! | `main`, `cli` | the program: commands, what they print |
//! | `app` | the composition root: the only place that names every adapter |
//! | `doctor` | what is wrong around a fleet: facts gathered, findings judged |
//! | `fleet` | one process: takes deliveries while it may, stops in order |
//! | `http`, `catalog` | HTTP for people, programs and probes; hooks from files or the fleet's revisions in Redis, followed and changed |
//! | `worker` | the pipeline, and one invocation's way through it; `worker::gates`: hooks that decide, for who waits |
//! | `operations`, `publish` | what operators do with letters, and the keeper of their log; publishing events, for the gateway, the command line and the library |
//! | `executor` | the transports that run a hook once: http, command, callback, publish |
//! | `broker`, `idempotency`, `dead_letters`, `flow` | the seams: a trait with its contract, and an adapter a file |
//! | `amqp`, `redis`, `embedded` | what adapters share: AMQP connections, topology, management; the way to Redis; the one SQLite file |
//! | `config`, `telemetry`, `failpoint` | settings; metric names and logs; points where tests kill the process |
//! | `dialect` | the wire contracts of hook systems: what targets get, how their answers are read, and how their definitions are imported |
//! | `domain`, `yaml`, `error_chain` | every decision, pure; YAML with positions; walking the sources of an error |
//!
//! ## Invariants
//!
//! - Nothing in `domain` does I/O, reads a clock or rolls a die. The model, the stores and the pipeline drive the same
//!   `domain::claim::step` and `domain::settle::next_effect`.
//! - A delivery is acked only when everything that follows from it is confirmed; the answer to a request, which nothing
//!   confirms, goes before its ack by the same channel. Nothing is nacked, ever: what cannot be done now goes round the
//!   delay ladder, and what is handed back is published again.
//! - An exchange that is published to has the dead letters as its alternate, since returns cannot be relied on. One that
//!   queues dead-letter to has none: they keep what has no way on, as everything where a broker starts.
//! - Nothing that a client wrote gets into a stream by the broker's hand, which may be unable to convert it: records are
//!   published by this program only. A message that the broker cannot hand out is set apart alone, and nobody stands still.
//! - No delivery is held longer than `worker.hold`: a longer run leaves a guard (the same message, due when its lease
//!   ends) and goes on under its claim.
//! - Headers named `hookfleet-*` are believed on lane queues only, but for the count of hops, which can only end a way
//!   sooner, and the deadline of a request, which is that of who asks. No hook can set them, and none publishes into a lane by the fleet's own connection. Properties are built afresh on every publish.
//! - An executor answers with a `domain::outcome::Outcome`, never an error, and knows nothing of retries, claims or
//!   brokers. What a target gets and how its answer is read is the dialect's to say. Error texts carry no secrets.
//! - Nobody who asks about one event is told two decisions: the first that is kept is everybody's. While the store is away
//!   nothing can be kept, and two workers can differ.
//! - Workers see one whole revision of the catalog after the other. A hook is taken to be removed only at the revision
//!   that named it or a newer one; who knows of a newer one and cannot load it takes no work after ten seconds.
//! - The dead-letter log alone says what is open: its fold is a maximum, so records may come twice and in any order, and
//!   every index of it can be built anew. A replay is published first and marked after its confirm; its generation is a
//!   function of the letter.
//! - Trouble of our own (broker, store) spends no attempt and buries nothing.

#[doc(hidden)]
pub mod dialect;
#[doc(hidden)]
pub mod domain;
#[doc(hidden)]
pub mod error_chain;
#[doc(hidden)]
pub mod yaml;

#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod failpoint;
#[doc(hidden)]
pub mod telemetry;

#[doc(hidden)]
pub mod amqp;
#[doc(hidden)]
pub mod embedded;
#[doc(hidden)]
pub mod redis;

#[doc(hidden)]
pub mod broker;
#[doc(hidden)]
pub mod dead_letters;
#[doc(hidden)]
pub mod flow;
#[doc(hidden)]
pub mod idempotency;

#[doc(hidden)]
pub mod executor;

#[doc(hidden)]
pub mod operations;
#[doc(hidden)]
pub mod publish;
#[doc(hidden)]
pub mod worker;

#[doc(hidden)]
pub mod catalog;
#[doc(hidden)]
pub mod fleet;
#[doc(hidden)]
pub mod http;

#[doc(hidden)]
pub mod app;
#[doc(hidden)]
pub mod doctor;

#[doc(hidden)]
pub mod cli;

pub use amqp::connection::ConnectError;
pub use app::embed::{Fleet, FleetError};
pub use broker::PublishError;
pub use config::Settings;
pub use dialect::kheish::{EventName, HookInvocation};
pub use domain::decision::{Answer, Asked, Decision, Json, PermissionRule, Scope, Verdict};
pub use domain::message::Header;
pub use executor::callback::{Call, Failed};
pub use publish::{Event, EventBuilder, InvalidEvent};
pub use publish::{OnUnavailable, Publisher, PublisherOptions, Undecided, Unpublished};
pub use yaml::problem::Problems;

#[cfg(test)]
mod simulation;
