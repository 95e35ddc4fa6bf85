//! Publishing with confirms, over a connection of its own that comes back by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, Event};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::PublishError;
use super::status::{Part, Status};
use super::{Dial, PUBLISH, Pace};
use crate::amqp::connection::call;
use crate::amqp::convert;
use crate::amqp::size::Limit;
use crate::domain::message::Outgoing;

/// Unconfirmed messages at a time: the library scans all of them at every cumulative confirm.
const WINDOW: usize = 512;
/// How long a publish waits for a connection before it says that there is none.
const CONNECTION_WAIT: Duration = Duration::from_secs(2);
/// Time to say goodbye to the broker.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
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
    connection: Connection,
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
    /// Starts the supervisor, with a connection on which everything is declared; it ends with `stop`.
    pub(super) fn start(
        first: Connection,
        dial: Arc<Dial>,
        status: Arc<Status>,
        limit: Arc<Limit>,
        stop: CancellationToken,
    ) -> Self {
        let (sender, link) = watch::channel(None);
        let supervised = Arc::clone(&dial);
        let mut first = Some(first);
        tokio::spawn(async move {
            let mut pace = Pace::new(Part::Publish);
            loop {
                let reason = tokio::select! {
                    reason = session(first.take(), &supervised, &status, &sender) => reason,
                    () = stop.cancelled() => "closed".to_owned(),
                };
                if !pace.ended(reason, &status, &stop).await {
                    break;
                }
            }
        });
        Self { dial, link, window: Semaphore::new(WINDOW), limit }
    }

    pub(super) async fn publish(&self, outgoing: &Outgoing) -> Result<(), PublishError> {
        let Ok(_permit) = self.window.acquire().await else {
            return Err(PublishError::Away("closed".to_owned()));
        };
        let link = self.link().await?;
        let (exchange, key) = convert::route(&self.dial.names, outgoing);
        let properties = convert::properties(&outgoing.message);
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

/// One connection, from opening to loss. Returns why it ended.
async fn session(
    ready: Option<Connection>,
    dial: &Dial,
    status: &Status,
    sender: &watch::Sender<Option<Arc<Link>>>,
) -> String {
    let opened = async {
        let connection = match ready {
            Some(connection) => connection,
            None => dial.connect(PUBLISH).await?,
        };
        let channel = call("open a channel", connection.create_channel()).await?;
        call("confirm mode", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok::<_, String>(Arc::new(Link { connection, channel, refused_since: Mutex::default(), stale: Notify::new() }))
    };
    let link = match opened.await {
        Ok(link) => link,
        Err(error) => return error,
    };
    let _ = sender.send(Some(Arc::clone(&link)));
    status.up(Part::Publish);
    let reason = tokio::select! {
        reason = until_lost(&link.connection, &link.channel, status, Part::Publish) => reason,
        () = link.stale.notified() => format!("the broker has refused everything for {REFUSED_MAX:?}"),
    };
    let _ = sender.send(None);
    // One lost channel ends the session, not the connection.
    let _ = timeout(CLOSE_TIMEOUT, link.connection.close(200, "bye".into())).await;
    reason
}

/// Waits until the connection or the channel is gone; reports blocking meanwhile.
pub(super) async fn until_lost(connection: &Connection, channel: &Channel, status: &Status, part: Part) -> String {
    let mut events = Box::pin(connection.events_listener());
    if connection.status().blocked() {
        // Before anybody listened.
        status.down(part, "the broker takes no messages".to_owned());
    }
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            // The library reports a closed channel to its users only.
            () = sleep(Duration::from_millis(500)) => {
                if connection.status().connected() && channel.status().connected() {
                    continue;
                }
                return "the connection was closed".to_owned();
            }
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                status.down(part, format!("the broker takes no messages: {reason}"));
            }
            Some(Event::ConnectionUnblocked) => status.up(part),
            Some(Event::Error(error)) => return error.to_string(),
            Some(_) => {}
            None => return "the connection was closed".to_owned(),
        }
    }
}
