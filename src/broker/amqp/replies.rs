//! Answers to requests, which go the way that the acks of their requests go.
//!
//! So nothing has to confirm them: an answer that is lost with its connection is asked for again, since the ack behind it is
//! lost too. For that no ack may overtake an answer, and in the library acks do overtake messages that wait to be written:
//! whoever acks has to see [`Sending::is_gone`] first.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use futures_util::FutureExt as _;
use lapin::Channel;
use lapin::options::BasicPublishOptions;

use crate::amqp::convert;
use crate::amqp::topology::Names;
use crate::domain::message::Outgoing;
use crate::failpoint;

/// Answers of one channel that may not be written yet.
#[derive(Default)]
pub(super) struct Sending(Vec<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Sending {
    /// Hands it to the library. Nobody is woken once it is written: whoever acks looks.
    pub(super) fn send(&mut self, channel: &Channel, names: &Names, reply: Outgoing) {
        let channel = channel.clone();
        let (exchange, routing_key) = convert::route(names, &reply);
        let message = reply.message;
        let mut sending = Box::pin(async move {
            let (properties, options) = (convert::properties(&message), BasicPublishOptions::default());
            // What fails ends the channel, which whoever consumes is told.
            let _ =
                channel.basic_publish(exchange.into(), routing_key.into(), options, &message.body, properties).await;
            let id = message.asking.and_then(|asking| asking.correlation_id).unwrap_or_default();
            failpoint::Point::GateReplied.reached(&id);
        });
        if sending.as_mut().now_or_never().is_none() {
            self.0.push(sending);
        }
    }

    /// Whether it is known that all are written.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all are written.
    pub(super) fn is_gone(&mut self) -> bool {
        self.0.retain_mut(|sending| sending.as_mut().now_or_never().is_none());
        self.0.is_empty()
    }

    /// Waits for that. Cancel-safe.
    pub(super) async fn gone(&mut self) {
        poll_fn(|context| {
            self.0.retain_mut(|sending| sending.as_mut().poll(context).is_pending());
            if self.0.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
