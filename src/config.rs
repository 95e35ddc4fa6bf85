//! Settings: `config/hookfleet.yaml`, then `HOOKFLEET_*`, then flags; resolved and checked once, as a whole.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::domain::event::Reading;
use crate::domain::hook::Secret;

/// Everything a process needs to know, checked. Built by [`Settings::load`] only.
#[derive(Debug, Clone)]
pub struct Settings {
    /// First part of every queue, exchange and key name, so that two fleets can share a broker and a Redis.
    pub namespace: String,
    /// Where events and invocations travel, and where claims are kept.
    pub backend: Backend,
    /// Hooks file.
    pub hooks: PathBuf,
    /// Address of `/metrics`, `/healthz`, `/readyz` and, in `up`, the event gateway. Loopback only, until tokens exist.
    pub bind: SocketAddr,
    pub worker: Worker,
    pub claims: Claims,
    pub events: Reading,
    /// Longest `Retry-After` that is honoured.
    pub hint_max: Duration,
    pub egress: Egress,
    pub commands: Commands,
    /// How long the dead-letter log keeps records; replays are remembered as long.
    pub dead_letter_retention: Duration,
    pub log: Log,
}

/// Broker and claims together: a fleet has both on servers, a single process both in one file.
#[derive(Debug, Clone)]
pub enum Backend {
    Servers {
        /// `amqp://user:password@host:port/vhost`.
        broker: Secret<Url>,
        /// `redis://[user:password@]host:port[/db]`.
        redis: Secret<Url>,
    },
    Embedded {
        /// The SQLite file; one process owns it.
        path: PathBuf,
    },
}

/// How a worker takes and leaves work.
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    /// Unacked deliveries a queue.
    pub prefetch: u16,
    /// Runs at a time in this process, over all hooks.
    pub concurrency: usize,
    /// No delivery is held longer than this.
    pub hold_max: Duration,
    /// Time that runs get to finish at shutdown.
    pub grace: Duration,
}

/// How claims are kept.
#[derive(Debug, Clone, Copy)]
pub struct Claims {
    /// A run that is not renewed this long is taken over.
    pub lease: Duration,
    /// How long a finished invocation is remembered.
    pub window: Duration,
    pub when_away: WhenAway,
}

/// What to do while the store of claims is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAway {
    /// Take no new work until it is back: nothing runs twice.
    Hold,
    /// Run first attempts without a claim: nothing waits, redeliveries may run twice.
    Proceed,
}

/// Which targets beside public addresses may be called.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    pub allow: Vec<IpNet>,
}

/// Which programs command hooks may run.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// Program names or paths, as hooks write them in `argv[0]`. Empty: command hooks are off.
    pub allow: Vec<String>,
    /// Names of variables that programs inherit.
    pub env: Vec<String>,
}

/// Logging.
#[derive(Debug, Clone)]
pub struct Log {
    /// `tracing` filter, such as `info` or `hookfleet=debug`.
    pub filter: String,
    pub json: bool,
    /// Show payloads in debug lines.
    pub payloads: bool,
}
