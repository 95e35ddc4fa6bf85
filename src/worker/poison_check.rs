//! Reads deliveries, and finds the messages that kill a worker that reads them.
//!
//! The broker counts deliveries, and a worker that dies takes with it all that it merely held: where workers die often,
//! that count would bury the innocent. So on lane `suspect` the reading itself is claimed, as a run is, and only workers
//! that died in the middle of it count. A message that was delivered before and is read without harm goes back to the lane
//! with its count at zero, so that the broker does not bury it either. A message that has come often because the broker ends
//! connections at another one does not go there at all.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::Worker;
use super::claimant::Claimed;
use super::set_aside::Aside;
use crate::broker::Delivery;
use crate::config::WhenAway;
use crate::domain::claim::{Answer, ClaimRequest, Token};
use crate::domain::event::Malformed;
use crate::domain::failure::Class;
use crate::domain::id::{EventDigest, HookId, InvocationKey};
use crate::domain::invocation::Envelope;
use crate::domain::message::{LADDER_UNIT, Lane, Queue, WAIT_AFTER};
use crate::domain::settle::STORE_AWAY_WAIT;
use crate::failpoint;

/// A delivery that the broker has made this often is run alone.
pub(super) const SUSPECT_DELIVERIES: u32 = 3;
/// A reading takes milliseconds; a worker that was frozen for this long in the middle of one counts as dead.
const LEASE: Duration = Duration::from_secs(5);
/// How long deaths are remembered.
const FLOOR: Duration = Duration::from_mins(10);
/// Workers that may die reading one message.
const DEATHS_MAX: u32 = 3;

impl Worker {
    /// Reads a delivery once it is due, or says where it goes instead.
    pub(super) async fn decode(&self, delivery: &Delivery) -> Result<Envelope, Aside> {
        let Delivery { queue, message, deliveries, .. } = delivery;
        let alone = *queue == Queue::Lane(Lane::Suspect);
        // A delivery from overflow is held for long, so that its count says less.
        let waited = matches!(queue, Queue::Lane(Lane::Overflow(_)));
        let came_often = !alone && !waited && *deliveries >= SUSPECT_DELIVERIES;
        if came_often && !self.broker.refuses_another(*queue).await {
            return Err(Aside::Suspect);
        }
        if matches!(queue, Queue::Lane(_)) {
            let wait = message.number(WAIT_AFTER).and_then(|wait| u64::try_from(wait).ok()).unwrap_or_default();
            match Duration::from_millis(wait) {
                wait if wait >= LADDER_UNIT => return Err(Aside::Later(wait)), // longer than the ladder is high
                wait if wait.is_zero() => {}
                wait => sleep(wait).await,
            }
        }
        if alone { self.decode_alone(delivery).await } else { self.read(delivery).map_err(Aside::Malformed) }
    }

    /// Reads a delivery.
    pub(super) fn read(&self, Delivery { queue, message, .. }: &Delivery) -> Result<Envelope, Malformed> {
        failpoint::Point::Received.reached(message.properties.message_id.as_deref().unwrap_or_default());
        Envelope::decode(*queue, message, &self.rules.reading)
    }

    /// Reads a delivery from lane `suspect` under a claim.
    async fn decode_alone(&self, delivery: &Delivery) -> Result<Envelope, Aside> {
        let Some(key) = reading_key(delivery) else { return self.read_once(delivery) };
        loop {
            let token = Token { run: fastrand::u64(..), body: crc32fast::hash(&delivery.message.body) };
            let request = ClaimRequest::alone(token, DEATHS_MAX, LEASE, FLOOR);
            // Not counted among the claims of invocations.
            match self.store.claim(&key, &request, None).await {
                Claimed::Known(Answer::Busy { lease_left_ms }) => sleep(Duration::from_millis(lease_left_ms)).await,
                Claimed::Known(Answer::Resume { deaths, .. }) => {
                    let error = format!("{deaths} workers died reading it, each alone with it");
                    return Err(Aside::Malformed(Malformed::new(Class::Poisoned, error)));
                }
                Claimed::Won { lease, .. } => {
                    let read = self.read_once(delivery);
                    lease.release(&self.store, &key).await;
                    return read;
                }
                Claimed::StoreAway if self.rules.when_away == WhenAway::Hold => {
                    return Err(Aside::Later(STORE_AWAY_WAIT));
                }
                Claimed::StoreAway | Claimed::Unreadable | Claimed::Known(_) => return self.read_once(delivery),
            }
        }
    }

    fn read_once(&self, delivery: &Delivery) -> Result<Envelope, Aside> {
        match self.read(delivery) {
            Ok(_) if delivery.deliveries > 0 => Err(Aside::Later(Duration::ZERO)),
            read => read.map_err(Aside::Malformed),
        }
    }
}

/// The key that a reading is claimed under: the same for every delivery of this message, and of no event, since no event has
/// this source.
fn reading_key(Delivery { message, .. }: &Delivery) -> Option<InvocationKey> {
    let body = hex::encode(Sha256::digest(&message.body));
    let id = message.properties.message_id.as_deref().unwrap_or_default();
    let event = EventDigest::of("hookfleet:reading", &format!("{body} {id}"));
    Some(InvocationKey { event, hook: HookId::new("reading").ok()? })
}
