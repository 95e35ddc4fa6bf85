//! Publishing with confirms, over a connection of its own that comes back by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::super::PublishError;
use super::{Dial, PUBLISH};
use crate::amqp::connection::call;
use crate::amqp::convert;
use crate::amqp::size::Limit;
use crate::amqp::supervised::{Session, SessionEnd, Supervisor};
use crate::domain::message::Outgoing;

/// Unconfirmed messages at a time: the library scans all of them at every cumulative confirm.
const WINDOW: usize = 512;
/// How long a publish waits for a connection before it says that there is none.
const CONNECTION_WAIT: Duration = Duration::from_secs(2);
/// A channel on which everything is refused for longer is given up for another.
const REFUSED_MAX: Duration = Duration::from_secs(3);
/// How long a confirm may take, unless the broker has blocked the connection.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// The publishing half of the broker.
pub(super) struct Publisher {
    dial: Arc<Dial>,
    link: watch::Receiver<Option<Arc<Link>>>,
    window: Semaphore,
    limit: Arc<Limit>,
}

struct Link {
    connection: Arc<Connection>,
    channel: Channel,
    /// Since when everything is refused.
    refused_since: Mutex<Option<Instant>>,
    /// Everything has been refused for long.
    stale: Notify,
}

impl Link {
    fn accepted(&self) {
        *self.refused_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A channel that has seen the leader of a quorum queue die may refuse everything from then on, for ever, while a new
    /// one is served (seen with RabbitMQ 3.10.8).
    fn refused(&self) {
        let since = *self.refused_since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        if since.elapsed() > REFUSED_MAX {
            self.stale.notify_one();
        }
    }
}

impl Publisher {
    /// Starts the supervisor, with a connection on which everything is declared.
    pub(super) fn start(supervisor: Supervisor, first: Connection, dial: Arc<Dial>, limit: Arc<Limit>) -> Self {
        let (sender, link) = watch::channel(None);
        let mut session = Publishing { dial: Arc::clone(&dial), first: Some(first), link: sender };
        tokio::spawn(async move { supervisor.run(&mut session).await });
        Self { dial, link, window: Semaphore::new(WINDOW), limit }
    }

    pub(super) async fn publish(&self, outgoing: &Outgoing) -> Result<(), PublishError> {
        let Ok(_permit) = self.window.acquire().await else {
            return Err(PublishError::Away("closed".to_owned()));
        };
        let link = self.link().await?;
        let (exchange, key) = convert::route(&self.dial.names, outgoing);
        let properties = convert::properties_of(outgoing);
        let body = &outgoing.message.body;
        self.limit.check(&outgoing.message).map_err(PublishError::TooLarge)?;
        let options = BasicPublishOptions::default();
        let sent = link.channel.basic_publish(exchange.as_str().into(), key.as_str().into(), options, body, properties);
        let confirmation = async { sent.await?.await };
        tokio::pin!(confirmation);
        loop {
            match timeout(CONFIRM_TIMEOUT, &mut confirmation).await {
                Ok(Ok(Confirmation::Ack(_))) => {
                    link.accepted();
                    return Ok(());
                }
                Ok(Ok(Confirmation::Nack(_))) => {
                    link.refused();
                    return Err(PublishError::Refused("nack".to_owned()));
                }
                Ok(Err(error)) => {
                    let error = error.to_string();
                    self.limit.learn(&error);
                    return Err(PublishError::Away(error));
                }
                // A blocked broker will take what waits: publishing it again would only double it.
                Err(_) if link.connection.status().blocked() => {}
                Ok(Ok(Confirmation::NotRequested)) | Err(_) => return Err(PublishError::Unconfirmed),
            }
        }
    }

    /// Waits until there is a connection, or will be none any more.
    pub(super) async fn ready(&self) {
        let _ = self.link.clone().wait_for(Option::is_some).await;
    }

    async fn link(&self) -> Result<Arc<Link>, PublishError> {
        let mut link = self.link.clone();
        let ready = async { link.wait_for(Option::is_some).await.ok().and_then(|link| link.clone()) };
        match timeout(CONNECTION_WAIT, ready).await {
            Ok(Some(link)) => Ok(link),
            Ok(None) => Err(PublishError::Away("closed".to_owned())),
            Err(_) => Err(PublishError::Away("no connection".to_owned())),
        }
    }
}

/// Offers a channel with confirms, for as long as it is of use.
struct Publishing {
    dial: Arc<Dial>,
    /// The connection that was there before the first session.
    first: Option<Connection>,
    link: watch::Sender<Option<Arc<Link>>>,
}

#[async_trait]
impl Session for Publishing {
    type Work = Arc<Link>;

    async fn connect(&mut self) -> Result<Connection, String> {
        match self.first.take() {
            Some(connection) => Ok(connection),
            None => self.dial.connect(PUBLISH).await,
        }
    }

    async fn begin(&mut self, connection: &Arc<Connection>) -> Result<(Channel, Arc<Link>), String> {
        let channel = call("open a channel", connection.create_channel()).await?;
        call("confirm mode", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let link = Arc::new(Link {
            connection: Arc::clone(connection),
            channel: channel.clone(),
            refused_since: Mutex::default(),
            stale: Notify::new(),
        });
        let _ = self.link.send(Some(Arc::clone(&link)));
        Ok((channel, link))
    }

    async fn run(&mut self, link: Arc<Link>) -> SessionEnd {
        link.stale.notified().await;
        SessionEnd::Lost(format!("the broker has refused everything for {REFUSED_MAX:?}"))
    }

    fn ended(&mut self, _: &SessionEnd) {
        let _ = self.link.send(None);
    }
}
