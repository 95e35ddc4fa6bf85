//! The connection to a broker that hooks publish to: opened when it is wanted, and again when it is lost.
//!
//! A channel publishes one message at a time. So what the broker says of one is never taken for another (lapin pairs
//! returned messages with confirms by their order), and a message for an exchange that does not exist, which costs the
//! channel, costs nobody else anything. A connection of which most channels are used up is left for another, and nothing is
//! sent that would cost the connection.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{Channel, Confirmation, Connection, Error, ErrorKind};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use super::Guard;
use crate::amqp::connection::{connect, connect_at};
use crate::amqp::on_demand::{OnDemand, Usable};
use crate::amqp::{convert, size, tls};
use crate::broker::PublishError;
use crate::config::BrokerServer;
use crate::domain::message::{Destination, Message, Outgoing};
use crate::domain::secret::Secret;
use crate::domain::tls::Credentials;

/// Messages under way at a time on one connection: no more than half of its channels either.
const UNDER_WAY_MAX: usize = 256;
/// A connection that confirms nothing for this long is left, unless the broker has said that it takes nothing for now.
const CONFIRM_TIMEOUT: Duration = Duration::from_mins(1);
/// A connection that could not be opened is not tried again any sooner: whoever wants it meanwhile is told why.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
const NAME: &str = "hookfleet hooks";
const ENDING: &str = "this process is ending";

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
    link: OnDemand<Link, PublishError>,
}

impl Peer {
    pub(super) const fn new(dial: Dial) -> Self {
        Self { dial, link: OnDemand::new(REPEAT_AFTER) }
    }

    /// Publishes a message and waits for its confirm. If this is dropped the message may be there or not.
    pub(super) async fn publish(&self, outgoing: Outgoing, mandatory: bool) -> Result<(), PublishError> {
        let ending = || PublishError::Away(ENDING.to_owned());
        let (link, room) = loop {
            let link = self.link().await?;
            let room = Arc::clone(&link.room).acquire_owned().await.map_err(|_| ending())?;
            if !link.connection.status().connected() {
                return Err(PublishError::Away("the connection was lost".to_owned()));
            }
            if link.is_of_use() {
                break (link, room); // those who waited for room may find it worn out by others
            }
        };
        link.check(&outgoing.message)?;
        if link.connection.status().blocked() {
            return Err(PublishError::Away("the broker takes no messages at present".to_owned())); // an alarm
        }
        // Whoever waits may leave; a channel that is closed with a message on it costs the connection at times.
        let sending = tokio::spawn(async move {
            let sent = link.send(&outgoing, mandatory).await;
            drop(room);
            sent
        });
        sending.await.map_err(|_| ending())?
    }

    /// Whether it is not there, or takes nothing: an answer that has not come says nothing of the message then.
    pub(super) fn is_away(&self) -> bool {
        self.link.is_away(|link| {
            let status = link.connection.status();
            status.blocked() || !status.connected()
        })
    }

    async fn link(&self) -> Result<Arc<Link>, PublishError> {
        let opened = self.link.get(|| open(self.dial.clone())).await;
        opened.unwrap_or_else(|| Err(PublishError::Away(ENDING.to_owned())))
    }
}

async fn open(dial: Dial) -> Result<Link, PublishError> {
    let connection = match dial {
        Dial::Ours(server) => connect(&server, NAME).await.map_err(|error| PublishError::Away(error.to_string()))?,
        Dial::Theirs { url, tls, guard } => {
            let url = url.expose();
            let is_encrypted = url.scheme() == "amqps";
            let port = url.port().unwrap_or(if is_encrypted { 5671 } else { 5672 });
            // An address of version 6 stands in brackets.
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            let found = guard.addresses(host, port).await;
            let found =
                found.map_err(|error| PublishError::Away(format!("the name {host} has no address ({error})")))?;
            let addresses = found.map_err(|refused| PublishError::Forbidden(refused.to_string()))?;
            let config = if is_encrypted { Some(encryption(tls).await.map_err(PublishError::Invalid)?) } else { None };
            connect_at(url, addresses, config, NAME).await.map_err(PublishError::Away)?
        }
    };
    Ok(Link::new(connection))
}

async fn encryption(tls: Option<Arc<Credentials>>) -> Result<rustls::ClientConfig, String> {
    let text = |secret: &Option<Secret<String>>| secret.as_ref().map(|secret| secret.expose().clone());
    let (ca, identity) = tls.map_or((None, None), |tls| (text(&tls.ca), text(&tls.identity)));
    tls::client_config_of(ca, identity).await
}

struct Link {
    connection: Connection,
    /// Channels that are not in use.
    idle: Mutex<Vec<Channel>>,
    /// Channels opened so far. A number that the broker has closed is of no use to lapin any more: none is taken twice.
    opened: AtomicUsize,
    opened_max: usize,
    /// For the messages under way.
    room: Arc<Semaphore>,
    is_worn: AtomicBool,
}

impl Link {
    fn new(connection: Connection) -> Self {
        let channels = match connection.configuration().channel_max() {
            0 => usize::from(u16::MAX), // no limit
            channels => usize::from(channels),
        };
        let room = (channels / 2).clamp(1, UNDER_WAY_MAX);
        Self {
            connection,
            idle: Mutex::default(),
            opened: AtomicUsize::new(0),
            opened_max: (channels - room).max(1), // those under way may open one each
            room: Arc::new(Semaphore::new(room)),
            is_worn: AtomicBool::new(false),
        }
    }

    /// What would cost the connection is not sent.
    fn check(&self, message: &Message) -> Result<(), PublishError> {
        size::check_headers(message, self.connection.configuration().frame_max()).map_err(PublishError::TooLarge)
    }

    /// Ends with the confirm, or with the connection.
    async fn send(&self, outgoing: &Outgoing, mandatory: bool) -> Result<(), PublishError> {
        let channel = self.channel().await.map_err(|error| {
            self.is_worn.store(true, Ordering::Relaxed);
            PublishError::Away(error.to_string()) // whatever it says is not of this message
        })?;
        let confirmation = self.confirmation(&channel, outgoing, mandatory).await?;
        match confirmation {
            Confirmation::Ack(returned) => {
                self.keep(channel);
                if returned.is_some() { Err(PublishError::Unroutable) } else { Ok(()) }
            }
            // A channel may refuse everything from now on (RabbitMQ 3.10, after a queue has lost its leader): not kept.
            Confirmation::Nack(_) => Err(PublishError::Refused("it did not keep it".to_owned())),
            Confirmation::NotRequested => Err(PublishError::Away("the broker confirms nothing".to_owned())),
        }
    }

    async fn confirmation(
        &self,
        channel: &Channel,
        outgoing: &Outgoing,
        mandatory: bool,
    ) -> Result<Confirmation, PublishError> {
        let Outgoing { to, message, .. } = outgoing;
        let Destination::Exchange(to) = to else {
            return Err(PublishError::Invalid("hooks publish to exchanges only".to_owned()));
        };
        let exchange = to.name.as_deref().unwrap_or_default().into();
        let routing_key = to.routing_key.as_str().into();
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let properties = convert::properties(message);
        let confirmed =
            async { channel.basic_publish(exchange, routing_key, options, &message.body, properties).await?.await };
        tokio::pin!(confirmed);
        loop {
            match timeout(CONFIRM_TIMEOUT, &mut confirmed).await {
                Ok(confirmation) => return confirmation.map_err(|error| refusal(&error)),
                Err(_) if self.connection.status().blocked() => {} // it will take what waits
                Err(_) => {
                    self.is_worn.store(true, Ordering::Relaxed);
                    return Err(PublishError::Away("the broker did not confirm".to_owned()));
                }
            }
        }
    }

    async fn channel(&self) -> lapin::Result<Channel> {
        while let Some(channel) = self.idle().pop() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    fn keep(&self, channel: Channel) {
        self.idle().push(channel); // no more of them than messages were ever under way
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usable for Link {
    fn is_of_use(&self) -> bool {
        let is_fresh = !self.is_worn.load(Ordering::Relaxed) && self.opened.load(Ordering::Relaxed) < self.opened_max;
        is_fresh && self.connection.status().connected()
    }
}

/// What the broker said of a message.
fn refusal(error: &Error) -> PublishError {
    let ErrorKind::ProtocolError(said) = error.kind() else { return PublishError::Away(error.to_string()) };
    let words = said.get_message().to_string();
    match said.kind() {
        // The limit on a message's size; nothing else of a publish has a precondition.
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => PublishError::TooLarge(words),
        AMQPErrorKind::Soft(_) => PublishError::Refused(words),
        AMQPErrorKind::Hard(_) => PublishError::Away(words),
    }
}
