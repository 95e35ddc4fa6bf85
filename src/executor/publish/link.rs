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
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use url::Url;

use super::Guard;
use crate::amqp::connection::{connect, connect_at};
use crate::amqp::{convert, size, tls};
use crate::broker::PublishError;
use crate::config::BrokerServer;
use crate::domain::message::Message;
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

/// A message on its way.
pub(super) struct Parcel {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) mandatory: bool,
    pub(super) message: Message,
}

/// A broker. To be shared.
pub(super) struct Peer {
    dial: Dial,
    /// The connection of now, or that which is being opened, for all who wait for it.
    current: Mutex<Option<watch::Receiver<Option<Opened>>>>,
}

type Opened = Result<Arc<Link>, Failed>;

#[derive(Clone)]
struct Failed {
    why: PublishError,
    at: Instant,
}

impl Peer {
    pub(super) const fn new(dial: Dial) -> Self {
        Self { dial, current: Mutex::new(None) }
    }

    /// Publishes a message and waits for its confirm. If this is dropped the message may be there or not.
    pub(super) async fn publish(&self, parcel: Parcel) -> Result<(), PublishError> {
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
        link.check(&parcel.message)?;
        if link.connection.status().blocked() {
            return Err(PublishError::Away("the broker takes no messages at present".to_owned())); // an alarm
        }
        // Whoever waits may leave; a channel that is closed with a message on it costs the connection at times.
        let sending = tokio::spawn(async move {
            let sent = link.send(&parcel).await;
            drop(room);
            sent
        });
        sending.await.map_err(|_| ending())?
    }

    /// Whether it is not there, or takes nothing: an answer that has not come says nothing of the message then.
    pub(super) fn is_away(&self) -> bool {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(current) = current.as_ref() else { return false };
        match &*current.borrow() {
            Some(Ok(link)) => link.connection.status().blocked() || !link.connection.status().connected(),
            Some(Err(_)) | None => true,
        }
    }

    async fn link(&self) -> Result<Arc<Link>, PublishError> {
        let mut current = self.current();
        let opened = current.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone());
        match opened {
            Some(opened) => opened.map_err(|failed| failed.why),
            None => Err(PublishError::Away(ENDING.to_owned())),
        }
    }

    fn current(&self) -> watch::Receiver<Option<Opened>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = current.as_ref().filter(|current| is_of_use(current)) {
            return current.clone();
        }
        // A task, since whoever waits may leave, and half a connection is no good to the next one.
        let (sender, opened) = watch::channel(None);
        let opening = open(self.dial.clone());
        tokio::spawn(async move {
            let opened = opening.await.map_err(|why| Failed { why, at: Instant::now() });
            let _ = sender.send(Some(opened)); // nobody may be left
        });
        current.insert(opened).clone()
    }
}

fn is_of_use(current: &watch::Receiver<Option<Opened>>) -> bool {
    match &*current.borrow() {
        None => current.has_changed().is_ok(), // under way, unless its task has died
        Some(Ok(link)) => link.is_of_use(),
        Some(Err(failed)) => failed.at.elapsed() < REPEAT_AFTER,
    }
}

async fn open(dial: Dial) -> Result<Arc<Link>, PublishError> {
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
    Ok(Arc::new(Link::new(connection)))
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

    fn is_of_use(&self) -> bool {
        let is_fresh = !self.is_worn.load(Ordering::Relaxed) && self.opened.load(Ordering::Relaxed) < self.opened_max;
        is_fresh && self.connection.status().connected()
    }

    /// What would cost the connection is not sent.
    fn check(&self, message: &Message) -> Result<(), PublishError> {
        size::check_headers(message, self.connection.configuration().frame_max()).map_err(PublishError::TooLarge)
    }

    /// Ends with the confirm, or with the connection.
    async fn send(&self, parcel: &Parcel) -> Result<(), PublishError> {
        let channel = self.channel().await.map_err(|error| {
            self.is_worn.store(true, Ordering::Relaxed);
            PublishError::Away(error.to_string()) // whatever it says is not of this message
        })?;
        let confirmation = self.confirmation(&channel, parcel).await?;
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

    async fn confirmation(&self, channel: &Channel, parcel: &Parcel) -> Result<Confirmation, PublishError> {
        let Parcel { exchange, routing_key, mandatory, message } = parcel;
        let options = BasicPublishOptions { mandatory: *mandatory, ..BasicPublishOptions::default() };
        let properties = convert::properties(message);
        let (exchange, routing_key) = (exchange.as_str().into(), routing_key.as_str().into());
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
