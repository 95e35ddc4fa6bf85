//! Runs a hook by publishing a message, persistent and confirmed: to the fleet's own broker, or to another one.
//!
//! A message whose confirm was not seen may be there all the same, and goes out again with the next attempt, under the same
//! `message_id`. To the fleet's own queues nobody publishes but by its exchange for events: what arrives in a lane is
//! believed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep, timeout_at};

use super::egress::Guard;
use super::{Attempt, secrets, shortage};
use crate::amqp::topology::Names;
use crate::broker::{Broker, PublishError};
use crate::config::BrokerServer;
use crate::domain::contract::{Raw, Reply};
use crate::domain::excerpt::excerpt;
use crate::domain::failure::Class;
use crate::domain::hook::{PublishAction, Server};
use crate::domain::message::{Destination, Outgoing};
use crate::domain::outcome::{Again, Failure, NO_ROUTE, Outcome};
use crate::domain::publication;
use crate::domain::secret::Secret;
use crate::domain::tls::Tls;
use link::{Dial, Peer};

mod link;

/// A broker that no hook has published to for this long belongs to a revision that is gone.
const UNUSED_AFTER: Duration = Duration::from_mins(10);
/// Before the fleet's own broker is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Where hooks publish to that name no broker.
#[derive(Clone, Default)]
pub enum Home {
    /// Nowhere: this process is no worker.
    #[default]
    None,
    /// The fleet's broker, and the namespace of its exchanges.
    Server(Box<BrokerServer>, String),
    /// The broker inside of this process, which has the exchange for events alone.
    Embedded(Arc<dyn Broker>),
}

/// The publish executor: a connection to each broker, which hooks share.
pub(super) struct Publishing {
    pub(super) home: Home,
    guard: Guard,
    peers: Mutex<HashMap<Option<[u8; 32]>, Used>>,
}

/// A broker, and when it was last published to.
type Used = (Arc<Peer>, Instant);

impl std::fmt::Debug for Publishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publishing").finish_non_exhaustive()
    }
}

impl Publishing {
    pub(super) fn new(guard: Guard) -> Self {
        Self { home: Home::None, guard, peers: Mutex::default() }
    }

    /// Publishes the message. Ends at the attempt's deadline.
    pub(super) async fn run(&self, action: &PublishAction, attempt: &Attempt<'_>) -> Result<Reply, Outcome> {
        let outgoing = publication::outgoing(action, attempt.hook, attempt.invocation, attempt.key)
            .map_err(|error| Outcome::never(Class::Invalid, error))?; // it would be the same next time
        let is_short = AtomicBool::new(false);
        let sent = async {
            loop {
                match self.send(action, outgoing.clone()).await {
                    // The fleet's own: nothing can be settled meanwhile either.
                    Err(PublishError::Away(_) | PublishError::Unconfirmed) if action.server.is_none() => {
                        sleep(AGAIN_AFTER).await;
                    }
                    Err(PublishError::Away(_)) if shortage::has_no_handle() => {
                        is_short.store(true, Ordering::Relaxed);
                        sleep(AGAIN_AFTER).await;
                    }
                    sent => return sent,
                }
            }
        };
        let error = match timeout_at(attempt.deadline, sent).await {
            Ok(Ok(())) => return attempt.read(Raw::Value(None), Vec::new),
            Ok(Err(error)) => error,
            Err(_) if is_short.load(Ordering::Relaxed) => {
                tracing::warn!(hook = %attempt.hook.id, "this process is short of file handles; no attempt is spent");
                return Err(Outcome::Interrupted);
            }
            Err(_) if action.server.is_none() && self.is_home_away() => {
                let hook = attempt.hook.id.as_str();
                tracing::warn!(hook, "the fleet's broker takes no messages of hooks; no attempt is spent");
                return Err(Outcome::Interrupted); // trouble of our own
            }
            Err(_) => return Err(attempt.timed_out("")),
        };
        let said = match &error {
            PublishError::Away(why) => why.clone(),
            error => error.to_string(),
        };
        let said = excerpt(said.as_bytes(), known_secrets(action));
        Err(match error {
            PublishError::Forbidden(_) => Outcome::never(Class::TargetBlocked, said),
            PublishError::Unroutable => {
                let again = Again::Later(None);
                Outcome::Failed(Failure::new(again, Some(NO_ROUTE), said))
            }
            error if error.is_permanent() => Outcome::never(Class::Rejected, said),
            _ => Outcome::later(said),
        })
    }

    async fn send(&self, action: &PublishAction, mut outgoing: Outgoing) -> Result<(), PublishError> {
        let peer = match (&action.server, &self.home) {
            (Some(server), _) => self.theirs(server)?,
            (None, Home::Server(server, namespace)) => {
                outgoing.to = at_home(&Names::new(namespace), outgoing.to)?;
                self.peer(None, || Dial::Ours(server.clone()))
            }
            (None, Home::Embedded(broker)) => return broker.publish(outgoing).await,
            (None, Home::None) => {
                return Err(PublishError::Invalid("only a worker publishes to the broker of the fleet".to_owned()));
            }
        };
        peer.publish(outgoing, action.mandatory).await
    }

    fn is_home_away(&self) -> bool {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(&None).is_some_and(|(peer, _)| peer.is_away())
    }

    fn theirs(&self, server: &Server) -> Result<Arc<Peer>, PublishError> {
        let tls = match &server.tls {
            Tls::Usual => None,
            Tls::Own(credentials) => Some(Arc::clone(credentials)),
            Tls::Unknown(_) => {
                let error = "the certificates of the hook's `tls` are not known to this process";
                return Err(PublishError::Invalid(error.to_owned()));
            }
        };
        let url = server.url.expose().clone();
        let mut digest = Sha256::new_with_prefix(url.as_str());
        digest.update([0]);
        digest.update(tls.as_ref().map(|tls| tls.id).unwrap_or_default());
        let guard = self.guard.clone();
        Ok(self.peer(Some(digest.finalize().into()), || Dial::Theirs { url: Box::new(Secret::new(url)), tls, guard }))
    }

    fn peer(&self, key: Option<[u8; 32]>, dial: impl FnOnce() -> Dial) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        peers.retain(|other, (_, used)| *other == key || now - *used < UNUSED_AFTER);
        if let Some((peer, used)) = peers.get_mut(&key) {
            *used = now;
            return Arc::clone(peer);
        }
        let peer = Arc::new(Peer::new(dial()));
        peers.insert(key, (Arc::clone(&peer), now));
        peer
    }
}

/// Where a hook publishes to on the fleet's broker, unless that is not for hooks.
fn at_home(names: &Names, to: Destination) -> Result<Destination, PublishError> {
    let Destination::Exchange(mut exchange) = to else { return Ok(to) };
    let name = exchange.name.unwrap_or_else(|| names.events());
    if name.is_empty() && names.is_ours(&exchange.routing_key) || names.is_ours(&name) && name != names.events() {
        let error = "exchanges and queues of the fleet are its own, but the one for events";
        return Err(PublishError::Forbidden(error.to_owned()));
    }
    exchange.name = Some(name);
    Ok(Destination::Exchange(exchange))
}

/// What a broker could repeat to us and no error may show.
fn known_secrets(action: &PublishAction) -> Vec<String> {
    let hidden = secrets::of_texts(action.texts()).map(str::to_owned);
    let password = action.server.iter().filter_map(|server| server.url.expose().password().map(str::to_owned));
    secrets::long_enough(hidden.chain(password)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Exchange;

    #[test]
    fn what_is_the_fleets_own() {
        let check = |exchange: Option<&str>, key: &str, expected: Option<&str>| {
            let exchange = Exchange { name: exchange.map(str::to_owned), routing_key: key.to_owned() };
            let to = |exchange: Exchange| Destination::Exchange(Box::new(exchange));
            let expected = expected.map(|name| to(Exchange { name: Some(name.to_owned()), ..exchange.clone() }));
            let found = at_home(&Names::new("shop"), to(exchange.clone())).ok();
            assert_eq!(found, expected, "{exchange:?}");
        };
        check(None, "a", Some("shop.events"));
        check(Some("shop.events"), "a", Some("shop.events"));
        check(Some("orders"), "shop.lane.default", Some("orders"));
        check(Some("shopping.lane"), "a", Some("shopping.lane"));
        check(Some(""), "my-queue", Some(""));
        for exchange in ["shop.lane", "shop.delay", "shop.dead", "shop.park.1", "shop."] {
            check(Some(exchange), "a", None);
        }
        check(Some(""), "shop.lane.default", None);
    }
}
