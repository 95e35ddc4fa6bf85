//! What adapters share of Redis 7.0 or newer, or Valkey: one server, a primary that sentinels watch, or a cluster.
//!
//! [`connection::Link`] is the way there. It heals by itself: after a failover it finds the new primary, and what it needs
//! (names, passwords, certificates) it looks up anew for every connection. Every command touches one key, so that a cluster
//! can keep it anywhere.

mod connect;
pub mod connection;
pub mod error;
pub mod script;
mod slots;
