//! AMQP 0-9-1 as this crate uses it: how to connect, which exchanges and queues there are, how messages translate,
//! and what the broker's management API says and sets.
//! Shared by `broker/amqp` and `dead_letters/stream`; knows nothing of either.

pub mod arrival;
pub mod connection;
pub mod convert;
pub mod declare;
mod lifecycle;
pub mod management;
pub mod on_demand;
pub mod policy;
pub mod size;
pub mod supervised;
pub mod tls;
pub mod topology;
