//! The contract of Kheish, an agent daemon.

pub use event_name::{EventName, TYPE_PREFIX};

mod event_name;
pub(super) mod import;
pub mod settings;
