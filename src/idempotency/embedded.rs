//! Claims in the SQLite file of a fleet of one process: one row a key, one transaction of [`step`] a request.
//!
//! A claim that a former owner of the file held has no lease left: that process is gone.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use rusqlite::{CachedStatement, OptionalExtension as _, params};

use crate::domain::claim::{Answer, Claim, Found, Request, Write, step};
use crate::domain::dedup_window::{Taken, Window};
use crate::domain::id::{EventDigest, InvocationKey};
use crate::embedded::{Batch, Store, WriteError};
use crate::telemetry::now_ms;

use super::{Idempotency, StoreError, value};

/// Every so many requests, rows that have expired are deleted.
const SWEEP_EVERY: u32 = 64;
/// Rows deleted at a time: more than that many requests can add.
const SWEEP_ROWS: u32 = 128;

/// The claims in a [`Store`].
#[derive(Debug)]
pub struct EmbeddedClaims {
    store: Store,
    asked: AtomicU32,
}

impl EmbeddedClaims {
    /// The claims in `store`.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store, asked: AtomicU32::new(0) }
    }

    /// Whether it is time to delete what has expired.
    fn sweeps(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY)
    }
}

#[async_trait]
impl Idempotency for EmbeddedClaims {
    async fn ask(&self, key: &InvocationKey, request: &Request) -> Result<Answer, StoreError> {
        let (key, request) = (key.to_string(), request.clone());
        let sweeps = self.sweeps();
        let work = move |batch: &mut Batch<'_>| {
            if sweeps {
                sweep(batch)?;
            }
            answer(batch, &key, &request)
        };
        self.store.write(work).await?
    }

    async fn look(&self, key: &InvocationKey) -> Result<Option<Found>, StoreError> {
        let (key, owner, now_ms) = (key.to_string(), self.store.queues().owner(), now_ms());
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let found = self.store.read(move |conn| find(&mut conn.prepare_cached(FIND)?, &key, now_ms, owner)).await;
        found.map_err(|error| StoreError::Away(error.to_string()))?
    }

    async fn take(&self, window: &Window, owner: EventDigest, keep_ms: u64) -> Result<Taken, StoreError> {
        let window = window.clone();
        let sweeps = self.sweeps();
        let work = move |batch: &mut Batch<'_>| {
            if sweeps {
                sweep(batch)?;
            }
            take(batch, &window, &owner.to_string(), keep_ms)
        };
        Ok(self.store.write(work).await?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.store.ping().await?)
    }
}

/// The two kinds of failure are kept apart: the outer undoes the job, the inner is its result.
type Answered = Result<Answer, StoreError>;

fn answer(batch: &Batch<'_>, key: &str, request: &Request) -> rusqlite::Result<Answered> {
    let now_ms = batch.now_ms();
    let found = match find(&mut batch.prepare(FIND)?, key, now_ms, batch.owner())? {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    let step = step(found.as_ref(), request);
    if let Some(Write { claim, ttl_ms }) = &step.write {
        let expires_ms = now_ms.saturating_add_unsigned(*ttl_ms);
        batch
            .prepare(
                "INSERT INTO claims VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE \
                 SET value = excluded.value, expires_ms = excluded.expires_ms, owner = excluded.owner",
            )?
            .execute(params![key, value::encode(claim), expires_ms, batch.owner()])?;
    }
    Ok(Ok(step.answer))
}

/// A window is a row like a claim, with its owner as the value. A second row remembers that this event has taken it.
fn take(batch: &Batch<'_>, window: &Window, owner: &str, keep_ms: u64) -> rusqlite::Result<Taken> {
    let key = format!("once/{}", window.digest);
    let had = format!("{key}/{owner}");
    let find = |key: &str| {
        let sql = "SELECT value FROM claims WHERE key = ?1 AND expires_ms > ?2";
        batch.prepare(sql)?.query_row(params![key, batch.now_ms()], |row| row.get::<_, String>(0)).optional()
    };
    let owner_now = find(&key)?;
    if owner_now.as_deref() == Some(owner) || find(&had)?.is_some() {
        return Ok(Taken::Ours);
    }
    if owner_now.is_some() {
        return Ok(Taken::Anothers);
    }
    for (key, value, keep_ms) in [(&key, owner, window.length_ms), (&had, "", keep_ms)] {
        let expires_ms = batch.now_ms().saturating_add_unsigned(keep_ms.max(1));
        let sql = "INSERT OR REPLACE INTO claims VALUES (?1, ?2, ?3, ?4)";
        batch.prepare(sql)?.execute(params![key, value, expires_ms, batch.owner()])?;
    }
    Ok(Taken::Ours)
}

/// The claim under a key, if it has not expired.
const FIND: &str = "SELECT value, expires_ms, owner FROM claims WHERE key = ?1 AND expires_ms > ?2";

/// What stands under the key, by a statement that is [`FIND`].
fn find(
    statement: &mut CachedStatement<'_>,
    key: &str,
    now_ms: i64,
    owner: i64,
) -> rusqlite::Result<Result<Option<Found>, StoreError>> {
    let row = statement
        .query_row(params![key, now_ms], |row| {
            let claim = value::decode(row.get_ref(0)?.as_str()?);
            Ok((claim, row.get::<_, i64>(1)? - now_ms, row.get::<_, i64>(2)? == owner))
        })
        .optional()?;
    Ok(row.map(|(claim, ttl_ms, own)| claim.map(|claim| in_force(claim, ttl_ms, own))).transpose())
}

/// A claim with what is left of its lease.
fn in_force(claim: Claim, ttl_ms: i64, own: bool) -> Found {
    let lease_left_ms = match &claim {
        Claim::Held { floor_ms, .. } if own => u64::try_from(ttl_ms).unwrap_or_default().saturating_sub(*floor_ms),
        Claim::Held { .. }
        | Claim::Settled { .. }
        | Claim::Out { .. }
        | Claim::Done { .. }
        | Claim::Buried { .. }
        | Claim::Decided { .. } => 0,
    };
    Found { claim, lease_left_ms }
}

/// Deletes a few rows that have expired.
fn sweep(batch: &Batch<'_>) -> rusqlite::Result<()> {
    let sql = "DELETE FROM claims WHERE key IN \
        (SELECT key FROM claims WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)";
    batch.prepare(sql)?.execute(params![batch.now_ms(), SWEEP_ROWS]).map(drop)
}

impl From<WriteError> for StoreError {
    fn from(error: WriteError) -> Self {
        Self::Away(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::claim::Token;
    use crate::domain::id::{EventDigest, HookId};

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).unwrap();
        (folder, store)
    }

    fn key(id: &str) -> InvocationKey {
        InvocationKey { event: EventDigest::of("/s", id), hook: HookId::new("h").unwrap() }
    }

    #[tokio::test]
    async fn a_claim_that_nobody_can_read_is_said_to_be_so() {
        let (_folder, store) = store();
        let text = key("1").to_string();
        let insert = store.write(move |batch| {
            let sql = "INSERT INTO claims VALUES (?1, 'z 1', 9000000000000, 1)";
            batch.prepare(sql)?.execute([text]).map(drop)
        });
        insert.await.unwrap();
        let request = Request::Release { token: Token { run: 1, body: 0 }, keep_ms: 1 };
        let found = EmbeddedClaims::new(store).ask(&key("1"), &request).await;
        assert!(matches!(&found, Err(StoreError::Unreadable(value)) if value == "z 1"), "{found:?}");
    }

    /// Rows that have expired go away while others are asked for, a few at a time.
    #[tokio::test]
    async fn expired_claims_are_swept() {
        let (_folder, store) = store();
        let claims = EmbeddedClaims::new(store.clone());
        for number in 0..600 {
            let request = Request::Cancel { generation: 0, keep_ms: 1 };
            claims.ask(&key(&number.to_string()), &request).await.unwrap();
        }
        let count = store.read(|conn| conn.query_row("SELECT count(*) FROM claims", [], |row| row.get::<_, u32>(0)));
        let rows = count.await.unwrap();
        assert!(rows < 200, "{rows}");
    }
}
