//! Keeping a claim while its run goes on.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::store::Store;
use crate::domain::claim::{Answer, Request, Token};
use crate::domain::invocation::InvocationKey;
use crate::domain::settle::millis;

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
                    answer = self.store.ask(self.key, &request) => answer,
                    () = sleep_until(stop_at) => return Gone::Ending,
                };
                match answer {
                    Some(Answer::Ok) => break asked_at,
                    Some(_) => return Gone::Taken,
                    None if Instant::now() >= stop_at => return Gone::Ending,
                    None => sleep(REPEAT_AFTER).await,
                }
            };
        }
    }
}
