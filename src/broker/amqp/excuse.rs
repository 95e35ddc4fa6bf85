//! Whether a delivery that came often is to blame for that.
//!
//! A message that the broker cannot hand out ends connections all over the fleet, and what these had in hand is counted each
//! time. A worker whose own connections have not ended yet cannot tell that from a message that kills. It asks the broker
//! whether another worker has left a queue to take it message by message: the lock of that one ([`apart`](super::apart)) is a
//! queue that everybody sees.

use std::time::Duration;

use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};

use super::apart::lock_of;
use super::{Dial, name};
use crate::amqp::connection::{self, call, close, is_locked};
use crate::domain::message::Queue;

/// Within this time the first of the fleet that has lost a connection is back and has its lock.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// See [`Broker::refuses_another`](crate::broker::Broker::refuses_another).
pub(super) async fn refuses_another(dial: &Dial, queue: Queue) -> bool {
    timeout(KNOWN_WITHIN, until_known(dial, queue)).await.is_ok()
}

/// Returns once it is known that a connection of this fleet was ended at a delivery. One task of a process looks for all.
async fn until_known(dial: &Dial, queue: Queue) {
    let _looking = dial.apart.looking().await;
    let mut connection = None;
    while !dial.apart.was_refused_lately() {
        if connection.is_none() {
            connection = connection::connect(&dial.server, &name("look")).await.ok();
        }
        if let Some(open) = &connection
            && is_left(dial, open, queue).await
        {
            dial.apart.refused();
        } else {
            sleep(AGAIN_AFTER).await;
        }
    }
    if let Some(open) = connection {
        close(&open).await;
    }
}

/// Whether a worker takes this queue, or one that clients write to, message by message.
async fn is_left(dial: &Dial, connection: &Connection, queue: Queue) -> bool {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    for queue in [Queue::Events, Queue::Undecided, Queue::Gates, queue] {
        let Ok(channel) = call("open a channel", connection.create_channel()).await else { return false };
        let lock = lock_of(&dial.names.queue(queue));
        let found = channel.queue_declare(lock.as_str().into(), options, FieldTable::default());
        match call("look for a lock", found).await {
            Err(reason) if is_locked(&reason) => return true,
            Ok(_) | Err(_) => {} // the channel has ended with the answer that there is no such queue
        }
    }
    false
}
