//! AMQP 0-9-1 as this crate uses it: how to connect, which exchanges and queues there are, how messages translate.
//! Shared by `broker/amqp` and `dead_letters/stream`; knows nothing of either.

pub mod connection;
pub mod convert;
pub mod topology;
