//! The keeper of the log: one process of all. It makes letters of what the broker dead-letters, writes open letters again
//! before they age out, lets go what has aged out, and says in metrics how it stands with the letters.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{OperationError, Operations};
use crate::dead_letters::{Keeping, Upkeep};
use crate::domain::carry::Carry;
use crate::domain::failure::Class;
use crate::domain::fold::Standing;
use crate::failpoint;
use crate::flow::Kept;
use crate::telemetry::{Metric, now_ms};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(30);
/// Between two tries to be the keeper, about: what the broker dead-letters waits while there is none.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Of how long letters are kept, the part after which they are written again: the rest is there for a keeper that is away.
const CARRY_AFTER: f64 = 0.5;

/// Keeps the log, whenever this process is the one to do so; ends with its caller.
pub async fn keep(operations: &Operations, retention: Duration) {
    let mut told = Told::default();
    loop {
        match operations.letters.log.keep().await {
            Ok(Some(keeping)) => {
                tracing::info!("keeper of the dead letters now");
                tokio::select! {
                    () = rounds(operations, retention, keeping.as_ref(), &mut told) => {}
                    () = operations.letters.log.collect() => {}
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "nobody can be made keeper of the dead letters now"),
        }
        told.tell(&Standing::default(), &Kept::default()); // it is another one's to say
        operations.kept.send_replace(None);
        operations.letters.forget().await;
        sleep(ASK_EVERY.mul_f64(0.5 + fastrand::f64())).await;
    }
}

/// One round after the other, for as long as this process is the keeper.
async fn rounds(operations: &Operations, retention: Duration, keeping: &dyn Keeping, told: &mut Told) {
    let mut kept = Kept::default();
    while keeping.is_held() {
        match round(operations, retention).await {
            Ok((standing, _, upkeep)) => {
                kept = self::kept(&standing, retention, upkeep);
                told.tell(&standing, &kept);
            }
            Err(error) => {
                tracing::warn!(%error, "the dead letters could not be looked after; trying again");
                kept.error = Some(error.to_string());
            }
        }
        operations.kept.send_replace(Some(kept.clone()));
        let _ = timeout(failpoint::keeper_every().unwrap_or(EVERY), operations.letters.log.stirred()).await;
    }
}

/// One round; answers how it stands with the letters, how many records were written again, and what was found beside the
/// log.
///
/// # Errors
/// The log cannot be read or written: the next round does it.
pub async fn round(operations: &Operations, retention: Duration) -> Result<(Standing, usize, Upkeep), OperationError> {
    let upkeep = operations.letters.log.upkeep().await?;
    if upkeep.unbound {
        tracing::warn!(
            "an older version had bound the dead-letter stream to what the broker dead-letters, where a message that the \
             broker cannot convert would end its dead-lettering; it is unbound. A worker of that version binds it again \
             whenever it connects: finish the upgrade"
        );
    }
    if upkeep.retries_still_ms > 0 {
        tracing::error!(
            seconds = upkeep.retries_still_ms / 1000,
            "retries do not come back: the broker's dead-lettering stands still; `hookfleet doctor` says what to do"
        );
    }
    let now = now_ms();
    let kept_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
    let aged_ms = u64::try_from(retention.mul_f64(CARRY_AFTER).as_millis()).unwrap_or(u64::MAX);
    let (carry, standing) = {
        let fold = operations.letters.now().await?;
        (fold.carry(now.saturating_sub(aged_ms), now), fold.standing())
    };
    let carried = carry_on(operations, carry).await?;
    // Only now: what was not kept in time, by a keeper that was away, is kept before anything goes.
    let first = operations.letters.log.trim(now.saturating_sub(kept_ms)).await?;
    operations.letters.forget_before(first).await;
    Ok((standing, carried, upkeep))
}

async fn carry_on(operations: &Operations, mut carry: Carry) -> Result<usize, OperationError> {
    let mut carried = 0;
    for mark in std::mem::take(&mut carry.marks) {
        operations.letters.log.append(&mark).await?;
        carried += 1;
    }
    let Some(start) = carry.start() else { return Ok(carried) };
    let mut reading = operations.letters.log.open(start).await?;
    while let Some(items) = reading.next().await? {
        for record in items.into_iter().flat_map(|item| carry.records(item)) {
            operations.letters.log.append(&record).await?;
            carried += 1;
        }
        if carry.letters.is_empty() {
            break;
        }
    }
    tracing::info!(carried, "letters that are open were written again before they age out");
    Ok(carried)
}

fn kept(standing: &Standing, retention: Duration, upkeep: Upkeep) -> Kept {
    let since = |at_ms: Option<u64>| at_ms.map_or(0, |at_ms| now_ms().saturating_sub(at_ms));
    let aged = Duration::from_millis(since(standing.oldest_kept_ms));
    Kept {
        unresolved: standing.unresolved,
        oldest_ms: since(standing.oldest_unresolved_ms),
        retention_used: aged.as_secs_f64() / retention.as_secs_f64(),
        unreadable: upkeep.unreadable,
        retries_still_ms: upkeep.retries_still_ms,
        error: None,
    }
}

/// What the metrics say.
#[derive(Default)]
struct Told {
    causes: HashSet<(Class, Option<Arc<str>>)>,
}

impl Told {
    fn tell(&mut self, standing: &Standing, kept: &Kept) {
        let gauge = |(class, hook): &(Class, Option<Arc<str>>), count: u64| {
            let labels = [("class", class.name()), ("hook", hook.as_deref().unwrap_or_default().to_owned())];
            Metric::LettersOpen.gauge(&labels).set(number(count));
        };
        for gone in self.causes.iter().filter(|cause| !standing.by_cause.contains_key(*cause)) {
            gauge(gone, 0);
        }
        for (cause, count) in &standing.by_cause {
            gauge(cause, *count);
        }
        self.causes = standing.by_cause.keys().cloned().collect();
        Metric::LettersOldest.gauge(&[]).set(number(kept.oldest_ms) / 1000.0);
        Metric::LettersAged.gauge(&[]).set(kept.retention_used);
        Metric::UnreadableByBroker.gauge(&[]).set(number(kept.unreadable));
        Metric::RetriesStill.gauge(&[]).set(number(kept.retries_still_ms) / 1000.0);
    }
}

/// Exact up to 2^53, which no count here comes near.
#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn number(count: u64) -> f64 {
    count as f64
}
