//! The connection to a broker that hooks publish to: opened when it is wanted, and again when it is lost.
//!
//! A channel publishes one message at a time. So what the broker says of one is never taken for another (lapin pairs
//! returned messages with confirms by their order), and a message for an exchange that does not exist, which costs the
//! channel, costs nobody else anything.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{Channel, Confirmation, Connection, Error, ErrorKind};
use tokio::time::Instant;
use url::Url;

use super::Guard;
use crate::amqp::connection::{connect, connect_at};
use crate::amqp::{convert, tls};
use crate::config::BrokerServer;
use crate::domain::hook::Secret;
use crate::domain::message::Message;
use crate::domain::tls::Credentials;

/// Channels that are kept open for the next messages.
const IDLE_MAX: usize = 128;
/// A connection that could not be opened is not tried again any sooner: whoever wants it meanwhile is told why.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
const NAME: &str = "hookfleet hooks";

/// Why a message is not known to be safe.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Unsent {
    /// The guard, or the fleet, lets no hook publish there.
    #[error("{0}")]
    Blocked(String),
    /// It will be the same every time.
    #[error("{0}")]
    Unusable(String),
    #[error("{0}")]
    Away(String),
    #[error("the broker refused the message: {0}")]
    Refused(String),
    #[error("the broker will never take the message: {0}")]
    TooLarge(String),
    #[error("no queue got the message: none is bound for its routing key (with `mandatory: false` that is no failure)")]
    Unroutable,
}

/// How a broker is reached.
#[derive(Clone)]
pub(super) enum Dial {
    /// The fleet's own.
    Ours(Box<BrokerServer>),
    Theirs {
        url: Box<Secret<Url>>,
        tls: Option<Arc<Credentials>>,
        guard: Guard,
    },
}

/// A broker. To be shared.
pub(super) struct Peer {
    dial: Dial,
    opening: Mutex<Option<Opening>>,
}

/// A connection that is being opened, for all who wait for it.
type Opening = Shared<BoxFuture<'static, Result<Arc<Link>, Failed>>>;

#[derive(Clone)]
struct Failed {
    why: Unsent,
    at: Instant,
}

struct Link {
    connection: Connection,
    /// Not in use.
    idle: Mutex<Vec<Channel>>,
}

impl Peer {
    pub(super) const fn new(dial: Dial) -> Self {
        Self { dial, opening: Mutex::new(None) }
    }

    /// Publishes a message and waits for its confirm. If this is dropped the message may be there or not.
    pub(super) async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        mandatory: bool,
        message: &Message,
    ) -> Result<(), Unsent> {
        let link = self.opening().await.map_err(|failed| failed.why)?;
        if link.connection.status().blocked() {
            return Err(Unsent::Away("the broker takes no messages at present".to_owned())); // an alarm
        }
        let channel = link.channel().await.map_err(|error| Unsent::of(&error))?;
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let properties = convert::properties(message);
        let confirmed = async {
            let (exchange, routing_key) = (exchange.into(), routing_key.into());
            channel.basic_publish(exchange, routing_key, options, &message.body, properties).await?.await
        };
        let confirmation = confirmed.await.map_err(|error| Unsent::of(&error))?;
        link.keep(channel);
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(Unsent::Unroutable),
            Confirmation::Nack(_) => Err(Unsent::Refused("it did not keep it".to_owned())),
            Confirmation::NotRequested => Err(Unsent::Away("the broker confirms nothing".to_owned())),
        }
    }

    fn opening(&self) -> Opening {
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = opening.as_ref().filter(|current| is_of_use(current)) {
            return current.clone();
        }
        // A task, since whoever waits may leave, and half a connection is no good to the next one.
        let opened = tokio::spawn(open(self.dial.clone()));
        let opened = opened.map(|opened| {
            let opened = opened.unwrap_or_else(|_| Err(Unsent::Away("this process is ending".to_owned())));
            opened.map_err(|why| Failed { why, at: Instant::now() })
        });
        opening.insert(opened.boxed().shared()).clone()
    }
}

fn is_of_use(opening: &Opening) -> bool {
    match opening.peek() {
        None => true, // under way
        Some(Ok(link)) => link.connection.status().connected(),
        Some(Err(failed)) => failed.at.elapsed() < REPEAT_AFTER,
    }
}

async fn open(dial: Dial) -> Result<Arc<Link>, Unsent> {
    let connection = match dial {
        Dial::Ours(server) => connect(&server, NAME).await.map_err(|error| Unsent::Away(error.to_string()))?,
        Dial::Theirs { url, tls, guard } => {
            let url = url.expose();
            let is_encrypted = url.scheme() == "amqps";
            let port = url.port().unwrap_or(if is_encrypted { 5671 } else { 5672 });
            // An address of version 6 stands in brackets.
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            let found = guard.addresses(host, port).await;
            let found = found.map_err(|error| Unsent::Away(format!("the name {host} has no address ({error})")))?;
            let addresses = found.map_err(|refused| Unsent::Blocked(refused.to_string()))?;
            let config = if is_encrypted { Some(encryption(tls).await.map_err(Unsent::Unusable)?) } else { None };
            connect_at(url, addresses, config, NAME).await.map_err(Unsent::Away)?
        }
    };
    Ok(Arc::new(Link { connection, idle: Mutex::default() }))
}

async fn encryption(tls: Option<Arc<Credentials>>) -> Result<rustls::ClientConfig, String> {
    let text = |secret: &Option<Secret<String>>| secret.as_ref().map(|secret| secret.expose().clone());
    let (ca, identity) = tls.map_or((None, None), |tls| (text(&tls.ca), text(&tls.identity)));
    tls::client_config_of(ca, identity).await
}

impl Link {
    async fn channel(&self) -> lapin::Result<Channel> {
        while let Some(channel) = self.idle().pop() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    fn keep(&self, channel: Channel) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(channel);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unsent {
    fn of(error: &Error) -> Self {
        let ErrorKind::ProtocolError(said) = error.kind() else { return Self::Away(error.to_string()) };
        let words = said.get_message().to_string();
        match said.kind() {
            // The limit on a message's size; nothing else of a publish has a precondition.
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => Self::TooLarge(words),
            AMQPErrorKind::Soft(_) => Self::Refused(words),
            AMQPErrorKind::Hard(_) => Self::Away(words),
        }
    }
}
