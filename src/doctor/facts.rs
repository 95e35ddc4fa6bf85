//! What a doctor can know. Data only; what could not be found out is a sentence instead.

use std::time::Duration;

use crate::flow::Card;

/// A part that was asked, or why it could not be.
pub type Gathered<T> = Result<T, String>;

/// Everything that is looked at.
#[derive(Debug, Clone)]
pub struct Facts {
    pub servers: Servers,
    /// Or every problem of the hooks, or why they could not be asked for.
    pub catalog: Gathered<CatalogFacts>,
}

/// Where the fleet works.
#[derive(Debug, Clone)]
pub enum Servers {
    Fleet(Box<Fleet>),
    File(Gathered<FileFacts>),
}

/// The servers of a fleet.
#[derive(Debug, Clone)]
pub struct Fleet {
    pub broker: Gathered<BrokerFacts>,
    pub redis: Gathered<RedisFacts>,
    pub crew: Gathered<CrewFacts>,
}

/// A RabbitMQ, as far as AMQP tells.
#[derive(Debug, Clone)]
pub struct BrokerFacts {
    pub product: String,
    /// Such as `3.10.8`; empty if it does not say.
    pub version: String,
    /// Largest frame, in bytes; headers have to fit one. 0: no limit.
    pub frame_max: u32,
    /// Whether it takes messages now.
    pub blocked: bool,
    /// What differs from the topology, one sentence each.
    pub topology: Vec<String>,
    /// Messages that the broker could hand to nobody, and the queue that they lie in. None where there is no such queue
    /// yet.
    pub unreadable: Option<(u64, String)>,
    /// Of the queues that work comes from, those in which something waits.
    pub backlogs: Vec<Backlog>,
    /// What the fleet takes of an event, in bytes.
    pub body_bytes_max: usize,
    /// What only the management API tells, or why it was not asked.
    pub management: Gathered<ManagementFacts>,
}

/// A RabbitMQ, as its management API tells.
#[derive(Debug, Clone, Default)]
pub struct ManagementFacts {
    pub nodes: Vec<NodeFacts>,
    /// What is missing or different of the policies that a fleet wants, one sentence each.
    pub policies: Vec<String>,
    /// Policies that cost work, and what they cost, one sentence each.
    pub harms: Vec<String>,
    /// Queues of which it is not known yet what holds for them.
    pub untold: usize,
    /// How long a delivery may be unacked, if the broker bounds it.
    pub consumer_timeout: Option<Duration>,
    /// The largest message, in bytes, if known.
    pub message_bytes_max: Option<u64>,
}

/// One node of a cluster.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    pub name: String,
    pub running: bool,
    pub memory_alarm: bool,
    pub disk_alarm: bool,
}

/// A Redis server.
#[derive(Debug, Clone)]
pub struct RedisFacts {
    /// What INFO tells, or what this user may not do.
    pub server: Gathered<ServerFacts>,
    /// What a finished invocation takes, measured; bytes. None where this user may not measure it.
    pub invocation_bytes: Option<u64>,
    /// Of a call, the median.
    pub latency: Duration,
    /// This machine's clock against Redis's.
    pub ahead_ms: i64,
}

/// What a Redis says of itself.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// Redis, or Valkey.
    pub product: &'static str,
    /// Its own version: Valkey tells that of a Redis that it is compatible with, too.
    pub version: String,
    pub is_replica: bool,
    pub append_only: bool,
    /// `appendfsync`, if it could be read.
    pub fsync: Option<String>,
    /// What went wrong at the last write to disk, if anything.
    pub write_error: bool,
    pub policy: String,
    /// 0: no limit.
    pub memory_max: u64,
    pub memory_used: u64,
    pub replicas: u64,
}

/// What waits in a queue that work comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    pub queue: String,
    /// Messages that wait, each time it was looked: oldest look first.
    pub counts: Vec<u64>,
    /// For how long the oldest one has waited, where that can be known.
    pub oldest: Option<Duration>,
}

/// The workers that are there.
#[derive(Debug, Clone, Default)]
pub struct CrewFacts {
    /// The revision that all should have, where the fleet shares one.
    pub current: Option<String>,
    /// What each said last.
    pub workers: Vec<Card>,
    /// When they were asked, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The hooks, of a file or of the whole fleet.
#[derive(Debug, Clone, Default)]
pub struct CatalogFacts {
    pub revision: String,
    pub hooks: usize,
    /// Hooks whose target the egress guard refuses, with its reason.
    pub refused: Vec<(String, String)>,
    /// Hooks whose target's name has no address here.
    pub unresolved: Vec<(String, String)>,
}

/// Where the embedded file lies.
#[derive(Debug, Clone)]
pub struct FileFacts {
    /// As the settings name it.
    pub path: String,
    pub is_there: bool,
    /// Where the process that has it open serves HTTP.
    pub owner: Option<String>,
    /// Bytes that this user may still write.
    pub free: u64,
    /// What waits in it, as for a broker.
    pub backlogs: Vec<Backlog>,
    /// The file system, such as `ext4`.
    pub system: String,
}
