//! The store of claims as the pipeline sees it: counted, and with its health known to everyone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::domain::claim::{Answer, Request};
use crate::domain::invocation::InvocationKey;
use crate::idempotency::{Idempotency, StoreError};
use crate::telemetry::Metric;

/// Between two pings of a store that is away.
const PING_EVERY: Duration = Duration::from_millis(500);

/// The facade of the idempotency seam.
pub struct Store {
    claims: Arc<dyn Idempotency>,
    away: watch::Sender<Option<String>>,
}

impl Store {
    /// The store, taken to be there until a call says otherwise.
    #[must_use]
    pub fn new(claims: Arc<dyn Idempotency>) -> Self {
        Self { claims, away: watch::Sender::new(None) }
    }

    /// Why the store is away, while it is.
    #[must_use]
    pub fn away(&self) -> watch::Receiver<Option<String>> {
        self.away.subscribe()
    }

    /// One request; `None` if the store did not answer. The call may have run.
    pub async fn ask(&self, key: &InvocationKey, request: &Request) -> Option<Answer> {
        match self.claims.ask(key, request).await {
            Ok(answer) => Some(answer),
            Err(error @ StoreError::Unreadable(_)) => {
                Metric::StoreUnanswered.count(&[]);
                tracing::error!(%error, %key, "a claim cannot be read: its messages go round until it can");
                None
            }
            Err(error) => {
                Metric::StoreUnanswered.count(&[]);
                let reason = error.to_string();
                self.away.send_if_modified(|away| {
                    let first = away.is_none();
                    if first {
                        tracing::warn!(reason, "the store of claims is away");
                    }
                    *away = Some(reason);
                    first
                });
                None
            }
        }
    }

    /// Waits until the store is taken to be there.
    pub async fn back(&self) {
        let _ = self.away.subscribe().wait_for(Option::is_none).await;
    }

    /// Pings a store that is away until it is back, for ever.
    pub async fn watch(&self) {
        let mut away = self.away.subscribe();
        loop {
            if away.wait_for(Option::is_some).await.is_err() {
                return;
            }
            if self.claims.ping().await.is_ok() {
                tracing::info!("the store of claims is back");
                self.away.send_replace(None);
            }
            sleep(PING_EVERY).await;
        }
    }
}
