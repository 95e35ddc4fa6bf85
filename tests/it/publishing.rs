//! How tests publish: over AMQP where there is a broker, over HTTP into a file's owner.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hookfleet::broker::Broker as _;
use hookfleet::broker::amqp::AmqpBroker;
use hookfleet::domain::event::Reading;
use hookfleet::publish::prepare;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fleet::Site;
use crate::servers::{Rabbit, client};

/// Publishes events and repeats each until it is confirmed.
pub(crate) enum Publisher {
    Amqp(Box<AmqpBroker>),
    Http(reqwest::Client, String),
}

/// An event of this type and id, padded to about 1 KiB.
pub(crate) fn event(kind: &str, id: &str) -> Bytes {
    with_data(kind, id, &json!({ "pad": "x".repeat(850) }))
}

/// An event with these data.
pub(crate) fn with_data(kind: &str, id: &str, data: &Value) -> Bytes {
    json!({ "specversion": "1.0", "type": kind, "source": "/test", "id": id, "data": data }).to_string().into()
}

impl Publisher {
    pub(crate) async fn amqp(rabbit: &Rabbit, site: &Site) -> Self {
        Self::Amqp(Box::new(AmqpBroker::connect(&rabbit.server(), &site.namespace).await.unwrap()))
    }

    /// To whichever process listens on this port.
    pub(crate) fn http(port: u16) -> Self {
        Self::Http(client(), format!("http://127.0.0.1:{port}/v1/events"))
    }

    /// Publishes one event, however long it takes.
    pub(crate) async fn send(&self, event: Bytes) {
        loop {
            let confirmed = match self {
                Self::Amqp(broker) => {
                    let prepared = prepare(&event, None, None, &Reading::default()).unwrap();
                    broker.publish(prepared.outgoing()).await.is_ok()
                }
                Self::Http(client, url) => {
                    let sent = client.post(url).header("content-type", "application/json").body(event.clone());
                    sent.send().await.is_ok_and(|answer| answer.status() == 202)
                }
            };
            if confirmed {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Publishes many, 128 at a time.
    pub(crate) async fn send_all(&self, events: impl IntoIterator<Item = Bytes>) {
        stream::iter(events).map(|event| self.send(event)).buffer_unordered(128).collect::<()>().await;
    }
}
