//! A store of claims in memory: [`crate::domain::claim::step`] on a map.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::chance::{Chance, Fate};
use super::process::Life;
use crate::domain::claim::{Answer, Claim, Found, Request, Write};
use crate::domain::dedup_window::{Taken, Window};
use crate::domain::id::{EventDigest, InvocationKey};
use crate::domain::mutation::Mutation;
use crate::domain::time::millis;
use crate::idempotency::{Idempotency, StoreError};

/// How long a call waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The store itself.
pub(super) struct Shelf {
    claims: Mutex<BTreeMap<InvocationKey, (Claim, Instant)>>,
    /// Whose a window is, and until when.
    windows: Mutex<BTreeMap<EventDigest, (EventDigest, Instant)>>,
    /// Which events have taken which windows, and until when that is remembered.
    have_taken: Mutex<BTreeMap<(EventDigest, EventDigest), Instant>>,
    away_until: Mutex<Instant>,
    chance: Arc<Chance>,
    mutation: Mutation,
}

impl Shelf {
    pub(super) fn new(chance: Arc<Chance>, mutation: Mutation) -> Arc<Self> {
        let (claims, windows, have_taken) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { claims, windows, have_taken, away_until: Mutex::new(Instant::now()), chance, mutation })
    }

    pub(super) fn leave(&self, time: Duration) {
        *lock(&self.away_until) = Instant::now() + time;
    }

    pub(super) fn forget(&self) {
        lock(&self.claims).clear();
        lock(&self.windows).clear();
        lock(&self.have_taken).clear();
    }

    /// What is in force.
    pub(super) fn claims(&self) -> Vec<(InvocationKey, Claim)> {
        let now = Instant::now();
        let claims = lock(&self.claims);
        claims
            .iter()
            .filter(|(_, (_, until))| *until > now)
            .map(|(key, (claim, _))| (key.clone(), claim.clone()))
            .collect()
    }

    fn apply(&self, key: &InvocationKey, request: &Request) -> Answer {
        let (now, mut claims) = (Instant::now(), lock(&self.claims));
        let found = claims.get(key).filter(|(_, until)| *until > now).map(|(claim, until)| {
            let left = match claim {
                Claim::Held { floor_ms, .. } => millis(*until - now).saturating_sub(*floor_ms),
                Claim::Settled { .. }
                | Claim::Out { .. }
                | Claim::Done { .. }
                | Claim::Buried { .. }
                | Claim::Decided { .. } => 0,
            };
            Found { claim: claim.clone(), lease_left_ms: left }
        });
        let step = self.mutation.step(found.as_ref(), request);
        if let Some(Write { claim, ttl_ms }) = step.write {
            claims.insert(key.clone(), (claim, now + Duration::from_millis(ttl_ms)));
        }
        step.answer
    }
}

impl Shelf {
    fn take(&self, window: &Window, owner: EventDigest, keep_ms: u64) -> Taken {
        let (now, mut windows) = (Instant::now(), lock(&self.windows));
        let mut have_taken = lock(&self.have_taken);
        if have_taken.get(&(window.digest, owner)).is_some_and(|until| *until > now) {
            return Taken::Ours;
        }
        match windows.get(&window.digest).filter(|(_, until)| *until > now) {
            Some((found, _)) if *found == owner => Taken::Ours,
            Some(_) => Taken::Anothers,
            None => {
                windows.insert(window.digest, (owner, now + Duration::from_millis(window.length_ms)));
                have_taken.insert((window.digest, owner), now + Duration::from_millis(keep_ms));
                Taken::Ours
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One process's way to it.
pub(super) struct Claims {
    pub(super) shelf: Arc<Shelf>,
    pub(super) life: Life,
}

impl Claims {
    fn is_away(&self) -> Result<(), StoreError> {
        if *lock(&self.shelf.away_until) > Instant::now() {
            return Err(StoreError::Away("simulated".to_owned()));
        }
        Ok(())
    }

    /// A call that may be lost on its way there or back.
    async fn call<T>(&self, call: impl FnOnce(&Shelf) -> T + Send) -> Result<T, StoreError> {
        self.life.check().await;
        let chance = &self.shelf.chance;
        chance.travel().await;
        self.life.check().await;
        self.is_away()?;
        let fate = chance.of_store();
        let answer = (fate != Fate::Lost).then(|| call(&self.shelf));
        chance.travel().await;
        self.life.check().await;
        if let Some(answer) = answer.filter(|_| fate == Fate::Good) {
            return Ok(answer);
        }
        sleep(TIMEOUT).await;
        self.life.check().await;
        Err(StoreError::Timeout)
    }
}

#[async_trait]
impl Idempotency for Claims {
    async fn ask(&self, key: &InvocationKey, request: &Request) -> Result<Answer, StoreError> {
        self.call(|shelf| shelf.apply(key, request)).await
    }

    async fn look(&self, _: &InvocationKey) -> Result<Option<Found>, StoreError> {
        unreachable!("nobody looks here")
    }

    async fn take(&self, window: &Window, owner: EventDigest, keep_ms: u64) -> Result<Taken, StoreError> {
        self.call(|shelf| shelf.take(window, owner, keep_ms)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.life.check().await;
        self.is_away()
    }
}
