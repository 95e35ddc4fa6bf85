//! Asking gates: requests go out and answers come in on one channel, of a connection that is opened when somebody asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::PublishError;
use super::Dial;
use crate::amqp::connection::{self, call};
use crate::amqp::convert;
use crate::amqp::on_demand::{OnDemand, Usable};
use crate::amqp::size::Limit;
use crate::domain::asking::DEADLINE;
use crate::domain::message::{Asking, Message};
use crate::telemetry::now_ms;

/// RabbitMQ's name for a reply queue that is none: answers go straight to the channel that has asked.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// The purpose of its connection.
const ASK: &str = "ask";
/// Before a request is sent again that a lost connection took with it.
const REPEAT_AFTER: Duration = Duration::from_millis(250);

/// Who waits, by correlation id.
#[derive(Default)]
struct Waiting(Mutex<HashMap<String, oneshot::Sender<Message>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that waits, until dropped.
struct Place<'a> {
    waiting: &'a Waiting,
    id: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
    }
}

struct Link {
    connection: Connection,
    channel: Channel,
    waiting: Arc<Waiting>,
}

/// The asking half of the broker.
pub(super) struct Asker {
    dial: Arc<Dial>,
    limit: Arc<Limit>,
    link: OnDemand<Link, String>,
    stop: CancellationToken,
}

impl Asker {
    /// Asks until `stop`. The topology is declared by then, on the connection that publishes.
    pub(super) fn new(dial: Arc<Dial>, limit: Arc<Limit>, stop: CancellationToken) -> Self {
        Self { dial, limit, link: OnDemand::new(Duration::ZERO), stop }
    }

    /// Sends a request until it is answered: a connection that is lost costs a repeat, which finds what was decided by then.
    pub(super) async fn ask(&self, request: &Message, within: Duration) -> Result<Option<Message>, PublishError> {
        let until = Instant::now() + within;
        let mut away = None;
        loop {
            // Each time: a refusal tells of the limit, by the end of the channel.
            self.limit.check(request).map_err(PublishError::TooLarge)?;
            let tried = tokio::select! {
                tried = timeout_at(until, self.once(request, until, &mut away)) => tried,
                () = self.stop.cancelled() => return Err(PublishError::Away("closed".to_owned())),
            };
            match tried {
                Ok(Ok(answer)) => return Ok(Some(answer)),
                Ok(Err(reason)) => away = Some(reason),
                Err(_) => return away.map_or(Ok(None), |reason| Err(PublishError::Away(reason))),
            }
            sleep_until(until.min(Instant::now() + REPEAT_AFTER)).await;
        }
    }

    /// After `stop`.
    pub(super) async fn close(&self) {
        if let Some(link) = self.link.take() {
            connection::close(&link.connection).await;
        }
    }

    /// Forgets why it was `away` once the request is on its way.
    async fn once(&self, request: &Message, until: Instant, away: &mut Option<String>) -> Result<Message, String> {
        let link = self.link().await?;
        let place = Place { waiting: &link.waiting, id: format!("{:032x}", fastrand::u128(..)) };
        let (sender, answer) = oneshot::channel();
        link.waiting.lock().insert(place.id.clone(), sender);
        let left = until.saturating_duration_since(Instant::now());
        let asking = Asking {
            reply_to: Some(REPLY_TO.to_owned()),
            correlation_id: Some(place.id.clone()),
            expiration: Some(left),
        };
        let deadline = now_ms().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let message = Message { asking: Some(asking), ..request.clone() };
        let message = message.with(DEADLINE, i64::try_from(deadline).unwrap_or(i64::MAX));
        let (exchange, kind) = (self.dial.names.gates(), convert::kind(&message).to_owned());
        let options = BasicPublishOptions::default();
        let sent = link.channel.basic_publish(
            exchange.as_str().into(),
            kind.as_str().into(),
            options,
            &message.body,
            convert::properties(&message),
        );
        sent.await.map_err(|error| error.to_string())?; // nothing is confirmed here: the answer is
        *away = None;
        answer.await.map_err(|_| "the connection ended before the answer".to_owned())
    }

    /// The open channel, or a new one.
    async fn link(&self) -> Result<Arc<Link>, String> {
        let opened = self.link.get(|| open(Arc::clone(&self.dial), Arc::clone(&self.limit))).await;
        opened.unwrap_or_else(|| Err("closed".to_owned()))
    }
}

impl Usable for Link {
    fn is_of_use(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }
}

async fn open(dial: Arc<Dial>, limit: Arc<Limit>) -> Result<Link, String> {
    let connection = connection::connect(&dial.server, &super::name(ASK)).await.map_err(|error| error.to_string())?;
    let channel = call("open a channel", connection.create_channel()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default());
    let consumer = call("wait for answers", consumer).await?;
    let waiting = Arc::new(Waiting::default());
    tokio::spawn(hear(consumer, Arc::clone(&waiting), limit));
    Ok(Link { connection, channel, waiting })
}

/// Hands answers to who waits for them, until the channel ends: then nobody is answered any more.
async fn hear(mut consumer: Consumer, waiting: Arc<Waiting>, limit: Arc<Limit>) {
    while let Some(received) = consumer.next().await {
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                limit.learn(&error.to_string());
                break;
            }
        };
        let message = convert::message(received.data, &received.properties);
        let id = message.asking.as_ref().and_then(|asking| asking.correlation_id.as_deref());
        // What nobody waits for any more was late.
        if let Some(sender) = id.and_then(|id| waiting.lock().remove(id)) {
            let _ = sender.send(message);
        }
    }
    waiting.lock().clear();
}
