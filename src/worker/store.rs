//! The store of claims as the pipeline sees it: counted, and with its health known to everyone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::domain::claim::{Answer, Request, Token};
use crate::domain::dedup_window::{Taken, Window};
use crate::domain::id::{EventDigest, InvocationKey};
use crate::idempotency::{Idempotency, StoreError};
use crate::telemetry::{Metric, Told};

/// Between two pings of a store that is away.
const PING_EVERY: Duration = Duration::from_millis(500);

/// So many requests, of so many bytes together, are remembered for a store that is away. Beyond that, an abandoned claim
/// counts as a death, as it would after a crash, and who asks again may be told another decision.
const UNSAID_MAX: usize = 16_384;
const UNSAID_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Requests for later, in their order.
#[derive(Default)]
struct Unsaid {
    requests: VecDeque<(InvocationKey, Request)>,
    bytes: usize,
}

impl Unsaid {
    fn bytes_of(request: &Request) -> usize {
        if let Request::Decide { decision, .. } = request { decision.len() } else { 0 }
    }

    fn push(&mut self, key: &InvocationKey, request: Request) -> bool {
        let bytes = self.bytes + Self::bytes_of(&request);
        let has_room = self.requests.len() < UNSAID_MAX && bytes <= UNSAID_BYTES_MAX;
        if has_room {
            self.requests.push_back((key.clone(), request));
            self.bytes = bytes;
        }
        has_room
    }

    fn pop(&mut self) -> Option<(InvocationKey, Request)> {
        let next = self.requests.pop_front();
        self.bytes -= next.as_ref().map_or(0, |(_, request)| Self::bytes_of(request));
        next
    }

    fn put_back(&mut self, next: (InvocationKey, Request)) {
        self.bytes += Self::bytes_of(&next.1);
        self.requests.push_front(next);
    }
}

/// The facade of the idempotency seam.
pub struct Store {
    claims: Arc<dyn Idempotency>,
    away: watch::Sender<Option<String>>,
    /// It is back. Wakes in the order of those who wait, which a watch does not: a simulation has to be the same twice.
    returned: Notify,
    /// What it is told as soon as it is back.
    unsaid: Mutex<Unsaid>,
    /// Keys that cannot be read, and that were told.
    unreadable: Told,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// The store is away; it may answer later.
    Away,
    /// What it keeps under this key cannot be read, which time alone does not mend.
    Unreadable,
}

impl Store {
    /// The store, taken to be there until a call says otherwise.
    #[must_use]
    pub fn new(claims: Arc<dyn Idempotency>) -> Self {
        let (away, returned, unsaid) = (watch::Sender::new(None), Notify::new(), Mutex::default());
        Self { claims, away, returned, unsaid, unreadable: Told::default() }
    }

    /// Why the store is away, while it is.
    #[must_use]
    pub fn away(&self) -> watch::Receiver<Option<String>> {
        self.away.subscribe()
    }

    /// Takes the store to be away before anybody has asked it.
    pub fn begin_away(&self, reason: &str) {
        self.away.send_replace(Some(reason.to_owned()));
    }

    /// One request. The call may have run although it was not answered.
    pub async fn ask(&self, key: &InvocationKey, request: &Request) -> Result<Answer, Unanswered> {
        self.claims.ask(key, request).await.map_err(|error| self.unanswered(&error, key))
    }

    /// Takes a window for an event. The call may have run although it was not answered.
    pub async fn take(&self, window: &Window, owner: EventDigest, keep_ms: u64) -> Result<Taken, Unanswered> {
        self.claims.take(window, owner, keep_ms).await.map_err(|error| self.unanswered(&error, &window.digest))
    }

    /// What is decided on an event.
    pub async fn decided(&self, event: EventDigest) -> Result<Option<String>, Unanswered> {
        Ok(match self.ask(&InvocationKey::of_request(event), &Request::Recall).await? {
            Answer::Decided { decision, .. } => Some(decision),
            _ => None,
        })
    }

    fn unanswered(&self, error: &StoreError, key: &dyn std::fmt::Display) -> Unanswered {
        Metric::StoreUnanswered.count(&[]);
        if matches!(error, StoreError::Unreadable(_)) {
            let key = key.to_string();
            if self.unreadable.is_first(&key) {
                tracing::error!(%error, key, "a claim cannot be read: its messages go round until it can");
            }
            return Unanswered::Unreadable;
        }
        self.is_away(&error.to_string());
        Unanswered::Away
    }

    fn is_away(&self, reason: &str) {
        self.away.send_if_modified(|away| {
            let first = away.is_none();
            if first {
                tracing::warn!(reason, "the store of claims is away");
            }
            *away = Some(reason.to_owned());
            first
        });
    }

    /// A claim that may have been made and that nobody will use: it is given back when the store is. A store that goes
    /// away time and again would else bury the innocent: a claim that just ends counts as a death.
    pub fn abandon(&self, key: &InvocationKey, token: Token, keep_ms: u64) {
        self.ask_later(key, Request::Release { token, keep_ms });
    }

    /// Something that is to be said to the store before it is taken to be back.
    pub fn ask_later(&self, key: &InvocationKey, request: Request) {
        if !self.unsaid().push(key, request) {
            tracing::warn!(%key, "too much waits for the store of claims: this is forgotten");
        }
        self.is_away("a call was not waited for to its end"); // else nobody says it
    }

    async fn say(&self) -> Result<(), Unanswered> {
        loop {
            let Some((key, request)) = self.unsaid().pop() else { return Ok(()) };
            if let Err(Unanswered::Away) = self.ask(&key, &request).await {
                self.unsaid().put_back((key, request));
                return Err(Unanswered::Away);
            }
        }
    }

    fn unsaid(&self) -> MutexGuard<'_, Unsaid> {
        self.unsaid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the store is taken to be there.
    pub async fn back(&self) {
        loop {
            let returned = self.returned.notified();
            if self.away.borrow().is_none() {
                return;
            }
            returned.await;
        }
    }

    /// Pings a store that is away until it is back, for ever.
    pub async fn watch(&self) {
        let mut away = self.away.subscribe();
        loop {
            if away.wait_for(Option::is_some).await.is_err() {
                return;
            }
            let is_back = self.claims.ping().await.is_ok();
            if is_back && self.say().await.is_ok() {
                tracing::info!("the store of claims is back");
                self.away.send_replace(None);
                self.returned.notify_waiters();
            }
            sleep(PING_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::domain::claim::{Claim, ClaimRequest, DeathLimits, Found, Point, Write, step};
    use crate::domain::id::{EventDigest, HookId};

    /// One key; makes what it is asked for and, while it is mute, says nothing of it.
    #[derive(Default)]
    struct Mute {
        mute: AtomicBool,
        claim: Mutex<Option<Claim>>,
    }

    #[async_trait]
    impl Idempotency for Mute {
        async fn ask(&self, _: &InvocationKey, request: &Request) -> Result<Answer, StoreError> {
            let mut claim = self.claim.lock().unwrap();
            let found = claim.clone().map(|claim| Found { claim, lease_left_ms: 1 });
            let step = step(found.as_ref(), request);
            if let Some(Write { claim: written, .. }) = step.write {
                *claim = Some(written);
            }
            if self.mute.load(Ordering::Relaxed) { Err(StoreError::Timeout) } else { Ok(step.answer) }
        }

        async fn look(&self, _: &InvocationKey) -> Result<Option<Found>, StoreError> {
            unreachable!("nobody looks here")
        }

        async fn take(&self, _: &Window, _: EventDigest, _: u64) -> Result<Taken, StoreError> {
            Ok(Taken::Ours)
        }

        async fn ping(&self) -> Result<(), StoreError> {
            if self.mute.load(Ordering::Relaxed) { Err(StoreError::Timeout) } else { Ok(()) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_nobody_will_use_is_given_back() {
        let claims = Arc::new(Mute::default());
        let store = Arc::new(Store::new(Arc::clone(&claims) as Arc<dyn Idempotency>));
        let watching = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.watch().await }
        });
        let key = InvocationKey { event: EventDigest([0; 16]), hook: HookId::new("h").unwrap() };
        let (at, token) = (Point::first(0), Token { run: 1, body: 0 });
        let claim = Request::Claim(ClaimRequest {
            at,
            token,
            deaths: 0,
            forced: 0,
            in_suspect: false,
            limits: DeathLimits::default(),
            lease_ms: 9,
            floor_ms: 9,
        });
        claims.mute.store(true, Ordering::Relaxed);
        assert_eq!(store.ask(&key, &claim).await, Err(Unanswered::Away));
        store.abandon(&key, token, 9);
        sleep(PING_EVERY * 4).await;
        assert!(matches!(*claims.claim.lock().unwrap(), Some(Claim::Held { .. })));
        claims.mute.store(false, Ordering::Relaxed);
        store.back().await;
        assert_eq!(*claims.claim.lock().unwrap(), Some(Claim::Out { at, deaths: 0 }));
        watching.abort();
    }
}
