//! Keeping a claim while its run goes on.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::store::Store;
use crate::domain::claim::{Answer, Request, Token};
use crate::domain::id::InvocationKey;
use crate::domain::time::millis;

/// A run stops this long before the end of a lease that could not be renewed.
const MARGIN: Duration = Duration::from_secs(2);
/// Between two tries of a renewal that was not answered.
const REPEAT_AFTER: Duration = Duration::from_millis(250);

/// Why a claim is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// Another run has it.
    Taken,
    /// The store did not answer, and the lease is about to end.
    Ending,
}

/// The claim of one run.
pub(super) struct Lease<'a> {
    pub(super) store: &'a Store,
    pub(super) key: &'a InvocationKey,
    pub(super) token: Token,
    pub(super) length: Duration,
    /// When the claim was asked for, by this process's own clock.
    pub(super) since: Instant,
}

impl Lease<'_> {
    /// Renews every third of the lease. Returns only when the claim is lost.
    pub(super) async fn keep(self) -> Gone {
        let margin = MARGIN.min(self.length / 3);
        let request = Request::Renew { token: self.token, lease_ms: millis(self.length) };
        let mut since = self.since;
        loop {
            sleep_until(since + self.length / 3).await;
            let stop_at = since + self.length - margin;
            since = loop {
                let asked_at = Instant::now();
                let answer = tokio::select! {
                    biased;
                    answer = self.store.ask(self.key, &request) => answer,
                    () = sleep_until(stop_at) => return Gone::Ending,
                };
                match answer {
                    Ok(Answer::Ok) => break asked_at,
                    Ok(_) => return Gone::Taken,
                    Err(_) if Instant::now() >= stop_at => return Gone::Ending,
                    Err(_) => sleep(REPEAT_AFTER).await,
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::domain::dedup_window::{Taken, Window};
    use crate::domain::id::{EventDigest, HookId};
    use crate::idempotency::{Idempotency, StoreError};

    /// Renews so many times, then answers like this.
    struct Renewing {
        good: AtomicU32,
        then: Option<Answer>,
    }

    #[async_trait]
    impl Idempotency for Renewing {
        async fn ask(&self, _: &InvocationKey, request: &Request) -> Result<Answer, StoreError> {
            assert!(matches!(request, Request::Renew { lease_ms: 30_000, .. }));
            if self.good.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                return Ok(Answer::Ok);
            }
            self.then.clone().ok_or(StoreError::Timeout)
        }

        async fn take(&self, _: &Window, _: EventDigest) -> Result<Taken, StoreError> {
            Ok(Taken::Ours)
        }

        async fn ping(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    async fn check(good: u32, then: Option<Answer>, expected: Gone, after_s: u64) {
        let store = Store::new(Arc::new(Renewing { good: AtomicU32::new(good), then }));
        let key = InvocationKey { event: EventDigest([0; 16]), hook: HookId::new("h").unwrap() };
        let since = Instant::now();
        let token = Token { run: 1, body: 0 };
        let gone = Lease { store: &store, key: &key, token, length: Duration::from_secs(30), since }.keep().await;
        assert_eq!((gone, since.elapsed().as_secs()), (expected, after_s));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_every_third_of_it() {
        check(0, Some(Answer::NotYours), Gone::Taken, 10).await;
        check(5, Some(Answer::NotYours), Gone::Taken, 60).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_stops_two_seconds_before_a_lease_that_could_not_be_renewed_ends() {
        check(0, None, Gone::Ending, 28).await;
        check(2, None, Gone::Ending, 48).await;
    }
}
