//! The state of the fleet as a server sees it, for probes and the status.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::process::STOPPING;
use crate::broker::Health;
use crate::catalog::watch::Followed;
use crate::flow::Flow;
use crate::operations::Operations;

/// The fleet, as a process without workers sees it.
#[derive(Clone)]
pub struct Fleet {
    /// The connection over which events are published and gates are asked.
    pub broker: watch::Receiver<Health>,
    /// Why Redis is away, while it is.
    pub redis_away: watch::Receiver<Option<String>>,
    pub catalog: Followed,
    /// Why the fleet is paused, while it is.
    pub paused: watch::Receiver<Option<String>>,
    pub flow: Arc<dyn Flow>,
    pub operations: Operations,
    /// Cancelled when the process begins to stop.
    pub stop: CancellationToken,
}

impl Fleet {
    /// Whether events can be taken. That takes no Redis: a catalog that is not known checks no types, and the workers check
    /// again.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.stop.is_cancelled() && !matches!(*self.broker.borrow(), Health::Down(_))
    }

    /// What cannot be done now, and why.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        if self.stop.is_cancelled() {
            return vec![STOPPING.to_owned()];
        }
        let mut troubles = Vec::new();
        if let Health::Down(reason) = &*self.broker.borrow() {
            troubles.push(format!("broker: {reason}"));
        }
        if let Some(reason) = &*self.redis_away.borrow() {
            troubles.push(format!("redis: {reason}"));
        }
        if let Some(reason) = &*self.catalog.halt.borrow() {
            troubles.push(format!("catalog: {reason}"));
        }
        troubles
    }
}
