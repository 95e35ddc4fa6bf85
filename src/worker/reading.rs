//! A message on lane `suspect`: does it kill whoever reads it, or was it only in hand?
//!
//! The broker counts deliveries, and a worker that dies takes with it all that it merely held: where workers die often,
//! the innocent would be buried by that count. So the reading itself is claimed, as a run is, and only workers that died
//! in the middle of it count. What was delivered before and read without harm goes back to the lane with its count at
//! zero, so that the broker does not bury it either.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::store::Unanswered;
use super::{Aside, Worker};
use crate::broker::Delivery;
use crate::config::WhenAway;
use crate::domain::claim::{Answer, ClaimRequest, Request, Token};
use crate::domain::event::Malformed;
use crate::domain::failure::Class;
use crate::domain::id::{EventDigest, HookId, InvocationKey};
use crate::domain::invocation::Envelope;
use crate::domain::settle::STORE_AWAY_WAIT;
use crate::domain::time::millis;

/// A reading takes milliseconds; a worker that was frozen for this long in the middle of one counts as dead.
const LEASE: Duration = Duration::from_secs(5);
/// How long deaths are remembered.
const FLOOR: Duration = Duration::from_mins(10);
/// Workers that may die reading one message.
const DEATHS_MAX: u32 = 3;

impl Worker {
    /// Reads the message under a claim.
    pub(super) async fn read_alone(&self, delivery: &Delivery) -> Result<Envelope, Aside> {
        let Some(key) = key(delivery) else { return self.read_once(delivery) };
        loop {
            let token = Token { run: fastrand::u64(..), body: crc32fast::hash(&delivery.message.body) };
            let release = Request::Release { token, keep_ms: millis(FLOOR) };
            let claim = Request::Claim(ClaimRequest::alone(token, DEATHS_MAX, LEASE, FLOOR));
            match self.store.ask(&key, &claim).await {
                Ok(Answer::Busy { lease_left_ms }) => sleep(Duration::from_millis(lease_left_ms)).await,
                Ok(Answer::Resume { deaths, .. }) => {
                    let error = format!("{deaths} workers died reading it, each alone with it");
                    return Err(Aside::Malformed(Malformed::new(Class::Poisoned, error)));
                }
                Ok(Answer::Won { .. }) => {
                    let read = self.read_once(delivery);
                    if self.store.ask(&key, &release).await.is_err() {
                        self.store.abandon(&key, token, millis(FLOOR));
                    }
                    return read;
                }
                Err(Unanswered::Away) if self.rules.when_away == WhenAway::Hold => {
                    self.store.abandon(&key, token, millis(FLOOR)); // it may have been made
                    return Err(Aside::Later(STORE_AWAY_WAIT));
                }
                Err(Unanswered::Away | Unanswered::Unreadable) | Ok(_) => return self.read_once(delivery),
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

/// The same for every delivery of this message, and of no event: no event has this source.
fn key(Delivery { message, .. }: &Delivery) -> Option<InvocationKey> {
    let body = hex::encode(Sha256::digest(&message.body));
    let id = message.properties.message_id.as_deref().unwrap_or_default();
    let event = EventDigest::of("hookfleet:reading", &format!("{body} {id}"));
    Some(InvocationKey { event, hook: HookId::new("reading").ok()? })
}
