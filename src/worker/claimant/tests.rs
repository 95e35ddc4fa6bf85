use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;

use super::*;
use crate::domain::claim::Found;
use crate::domain::dedup_window::{Taken, Window};
use crate::domain::id::{EventDigest, HookId};
use crate::idempotency::{Idempotency, StoreError};

/// Answers the first calls like this, then like that; `None` is no answer.
struct Script {
    first: Option<Answer>,
    times: AtomicU32,
    then: Option<Answer>,
    releases: AtomicU32,
}

impl Script {
    fn new(times: u32, first: Option<Answer>, then: Option<Answer>) -> Arc<Self> {
        Arc::new(Self { first, times: times.into(), then, releases: 0.into() })
    }

    fn store(self: &Arc<Self>) -> Arc<Store> {
        Arc::new(Store::new(Arc::clone(self) as Arc<dyn Idempotency>))
    }
}

#[async_trait]
impl Idempotency for Script {
    async fn ask(&self, _: &InvocationKey, request: &Request) -> Result<Answer, StoreError> {
        if let Request::Release { keep_ms, .. } = request {
            assert_eq!(*keep_ms, 60_000);
            self.releases.fetch_add(1, Ordering::Relaxed);
            return Ok(Answer::Ok);
        }
        let is_first =
            self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let answer = if is_first { &self.first } else { &self.then };
        answer.clone().ok_or(StoreError::Timeout)
    }

    async fn look(&self, _: &InvocationKey) -> Result<Option<Found>, StoreError> {
        unreachable!("nobody looks here")
    }

    async fn take(&self, _: &Window, _: EventDigest, _: u64) -> Result<Taken, StoreError> {
        Ok(Taken::Ours)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn key() -> InvocationKey {
    InvocationKey { event: EventDigest([0; 16]), hook: HookId::new("h").unwrap() }
}

fn request() -> ClaimRequest {
    let token = Token { run: 1, body: 0 };
    ClaimRequest::alone(token, 3, Duration::from_secs(30), Duration::from_mins(1))
}

async fn keeps(good: u32, then: Option<Answer>, expected: Lost, after_s: u64) {
    let store = Script::new(good, Some(Answer::Ok), then).store();
    let since = Instant::now();
    let lost = Lease::new(&request(), since).keep(&store, &key()).await;
    assert_eq!((lost, since.elapsed().as_secs()), (expected, after_s));
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_every_third_of_it() {
    keeps(0, Some(Answer::NotYours), Lost::TakenOver, 10).await;
    keeps(5, Some(Answer::NotYours), Lost::TakenOver, 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_stops_two_seconds_before_a_lease_that_could_not_be_renewed_ends() {
    keeps(0, None, Lost::Ending, 28).await;
    keeps(2, None, Lost::Ending, 48).await;
}

const WON: Answer = Answer::Won { deaths: 1, taken_over: true };

/// What comes of a claim of which `lost` calls are not answered, with so much patience; and how often it is given back.
async fn claims(lost: u32, then: Option<Answer>, patience: Option<u64>) -> (Claimed, u32) {
    let script = Script::new(lost, None, then);
    let store = script.store();
    let watching = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.watch().await }
    });
    let until = patience.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let claimed = store.claim(&key(), &request(), until).await;
    sleep(Duration::from_secs(2)).await; // what is said later is said by now
    watching.abort();
    (claimed, script.releases.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_asked_for_until_patience_ends() {
    for patience in [None, Some(5)] {
        let (claimed, releases) = claims(0, Some(WON), patience).await;
        assert!(matches!(claimed, Claimed::Won { deaths: 1, taken_over: true, .. }), "{claimed:?}");
        assert_eq!(releases, 0);
        let superseded = Some(Answer::Superseded);
        assert_eq!(claims(0, superseded, patience).await, (Claimed::Known(Answer::Superseded), 0));
    }
    let (claimed, releases) = claims(3, Some(WON), Some(5)).await;
    assert!(matches!(claimed, Claimed::Won { .. }), "{claimed:?}");
    assert_eq!(releases, 0, "the same token claims again");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_may_have_been_made_is_given_back() {
    assert_eq!(claims(1, Some(WON), None).await, (Claimed::StoreAway, 1));
    assert_eq!(claims(u32::MAX, None, Some(5)).await, (Claimed::StoreAway, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_known_to_be_away_is_not_asked() {
    let script = Script::new(0, None, Some(WON));
    let store = script.store();
    store.begin_away("not yet there");
    assert_eq!(store.claim(&key(), &request(), None).await, Claimed::StoreAway);
    let until = Instant::now() + Duration::from_secs(5);
    assert_eq!(store.claim(&key(), &request(), Some(until)).await, Claimed::StoreAway);
    assert_eq!(Instant::now(), until);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_released_at_once_or_later() {
    let script = Script::new(0, None, None);
    let store = script.store();
    Lease::new(&request(), Instant::now()).release(&store, &key()).await;
    assert_eq!(script.releases.load(Ordering::Relaxed), 1);
}
