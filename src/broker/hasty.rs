//! A broker that confirms a publish before it is safe: a worker acks too early then, and loses messages when it dies. Tests
//! put it around a sound broker, to show that they notice.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Broker, Delivery, Health, PublishError, Receipt, Wanted};
use crate::domain::message::{Message, Outgoing};

/// Between two tries of a publish that was confirmed before.
const REPEAT_AFTER: Duration = Duration::from_millis(250);

/// The broker.
pub struct Hasty(pub Arc<dyn Broker>);

#[async_trait]
impl Broker for Hasty {
    fn want(&self, queues: Vec<Wanted>) {
        self.0.want(queues);
    }

    async fn receive(&self) -> Option<Delivery> {
        self.0.receive().await
    }

    async fn drain(&self) -> Vec<Delivery> {
        self.0.drain().await
    }

    /// The flaw: the answer does not wait for the confirm.
    async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let broker = Arc::clone(&self.0);
        tokio::spawn(async move {
            while broker.publish(outgoing.clone()).await.is_err() {
                sleep(REPEAT_AFTER).await;
            }
        });
        Ok(())
    }

    async fn ask(&self, request: &Message, within: Duration) -> Result<Option<Message>, PublishError> {
        self.0.ask(request, within).await
    }

    async fn reply(&self, delivery: &Delivery, reply: Outgoing, until: Instant) -> Result<(), PublishError> {
        self.0.reply(delivery, reply, until).await
    }

    fn ack(&self, receipt: Receipt) {
        self.0.ack(receipt);
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.0.health()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
