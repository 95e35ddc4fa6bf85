//! How long servers that are away are waited for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long something is waited for, and who hears what is waited for meanwhile.
#[derive(Debug, Clone)]
pub struct Patience {
    give_up_at: Instant,
    /// What is waited for, and why it is not there: one sentence.
    waiting: Arc<watch::Sender<Option<String>>>,
}

impl Patience {
    /// From now on, for so long.
    #[must_use]
    pub fn of(limit: Duration) -> Self {
        let now = Instant::now();
        let give_up_at = now.checked_add(limit).unwrap_or(now + Duration::from_hours(24 * 365));
        Self { give_up_at, waiting: Arc::new(watch::Sender::new(None)) }
    }

    /// What is waited for, while it is.
    #[must_use]
    pub fn waiting(&self) -> watch::Receiver<Option<String>> {
        self.waiting.subscribe()
    }

    /// Whether to try again, now that `what` is away for this reason. The log has a line when a wait begins.
    #[must_use]
    pub fn goes_on(&self, what: &str, reason: &str) -> bool {
        let is_first = !self.waiting.borrow().as_ref().is_some_and(|waiting| waiting.starts_with(what));
        if Instant::now() >= self.give_up_at {
            return false;
        }
        if is_first {
            let left = self.give_up_at.saturating_duration_since(Instant::now());
            tracing::warn!(reason, "waiting for {what}, for {} s at most", left.as_secs());
        }
        self.waiting.send_replace(Some(format!("{what}: {reason}")));
        true
    }

    /// It is there. The log has a line if it was waited for.
    pub fn is_there(&self, what: &str) {
        if self.waiting.send_replace(None).is_some() {
            tracing::info!("{what} is there");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_says_what_is_waited_for() {
        let patience = Patience::of(Duration::from_secs(10));
        let waiting = patience.waiting();
        let said = || waiting.borrow().clone();
        assert!(patience.goes_on("the broker", "refused"));
        assert_eq!(said().as_deref(), Some("the broker: refused"));
        advance(Duration::from_secs(9)).await;
        assert!(patience.goes_on("the broker", "no answer"));
        patience.is_there("the broker");
        assert_eq!(said(), None);
        advance(Duration::from_secs(1)).await;
        assert!(!patience.goes_on("Redis", "refused"));
        assert!(!Patience::of(Duration::ZERO).goes_on("Redis", "refused"));
        assert!(Patience::of(Duration::MAX).goes_on("Redis", "refused"));
    }
}
