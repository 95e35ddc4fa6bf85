//! The broker of a fleet of one process: queues in its SQLite file.
//!
//! A publish is confirmed after the fsync of its commit; a delivery is dispatched after the fsync that counts it; acks
//! are written with the next commits. Queues are served in turn, and within a queue by due time.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::message::{Destination, Message, Outgoing, Queue};
use crate::embedded::{Credit, Dispatched, Store, WriteError, letters};

use super::{Broker, Delivery, Health, PublishError, Receipt, Wanted};

/// The queues in a [`Store`]. Brokers made from one store are one: they share what is wanted, what is in flight, and
/// `close`.
#[derive(Debug)]
pub struct EmbeddedBroker {
    store: Store,
    health: watch::Receiver<Health>,
}

impl EmbeddedBroker {
    /// The broker in `store`. Nothing is dispatched before [`Broker::want`].
    #[must_use]
    pub fn new(store: Store) -> Self {
        let (changed, health) = watch::channel(Health::Up);
        store.listen(Box::new(move |trouble| {
            changed.send_replace(trouble.map_or(Health::Up, |reason| Health::Down(reason.to_owned())));
        }));
        Self { store, health }
    }

    /// Receipts are void under another owner of the file.
    fn epoch(&self) -> u64 {
        self.store.queues().owner().unsigned_abs()
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    fn want(&self, queues: Vec<Wanted>) {
        let credit = |wanted: &Wanted| Credit { messages: usize::from(wanted.prefetch), bytes: wanted.bytes };
        self.store.queues().want(queues.iter().map(|wanted| (wanted.queue, credit(wanted))));
    }

    async fn receive(&self) -> Option<Delivery> {
        let Dispatched { queue, id, deliveries, message } = self.store.queues().next().await?;
        let receipt = Receipt { epoch: self.epoch(), queue, tag: id.unsigned_abs() };
        Some(Delivery { queue, message, deliveries, hand_back: false, receipt })
    }

    /// Nothing is answered: what was dispatched and not received is given back by `close`, its count as it was.
    async fn drain(&self) -> Vec<Delivery> {
        self.want(Vec::new());
        Vec::new()
    }

    async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let Outgoing { to, delay, message } = outgoing;
        let queues = self.store.queues();
        let written = match to {
            Destination::Events => queues.publish(Queue::Events, Duration::ZERO, message).await,
            Destination::Exchange(exchange) if exchange.name.is_none() => {
                queues.publish(Queue::Events, Duration::ZERO, message).await
            }
            Destination::Lane(lane) | Destination::Running(lane) => {
                queues.publish(Queue::Lane(lane), delay, message).await
            }
            Destination::Parked(lane, level) => {
                queues.publish(Queue::Lane(lane), Outgoing::park_time(level), message).await
            }
            Destination::Dead => letters::append(&self.store, message.body).await,
            Destination::Exchange(_) => {
                let error = "without RabbitMQ there is no exchange but that of events, to which a hook without `exchange` publishes";
                return Err(PublishError::Invalid(error.to_owned()));
            }
            Destination::Gates | Destination::Reply(_) => {
                return Err(PublishError::Invalid("a file has no queues for requests and answers".to_owned()));
            }
        };
        written.map_err(PublishError::from)
    }

    async fn ask(&self, _: &Message, _: Duration) -> Result<Option<Message>, PublishError> {
        Err(PublishError::Away(
            "the gates of a file are asked by the process that owns it, over HTTP: start `hookfleet up`".to_owned(),
        ))
    }

    async fn reply(&self, _: &Delivery, _: Outgoing, _: Instant) -> Result<(), PublishError> {
        Err(PublishError::Invalid("a file has no queues for requests and answers".to_owned()))
    }

    fn ack(&self, receipt: Receipt) {
        let Ok(id) = i64::try_from(receipt.tag) else { return };
        if receipt.epoch == self.epoch() {
            self.store.queues().ack(receipt.queue, id);
        }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    async fn close(&self) {
        self.store.queues().close().await;
    }
}

impl From<WriteError> for PublishError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::TooLarge(_) => Self::TooLarge(error.to_string()),
            WriteError::Full(_) | WriteError::Failed(_) | WriteError::Closed => Self::Away(error.to_string()),
        }
    }
}
