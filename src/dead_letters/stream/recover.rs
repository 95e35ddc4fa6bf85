//! Appending again what the stream lost in a power cut.
//!
//! The queue of copies is read once, up to a barrier. A copy is acked only after the confirm of what takes its place:
//! the record appended anew if the stream lacks it, else the same copy at the queue's end. Nothing is held back unacked
//! for longer, since a quorum queue shows a reader at most 2,000 unacked messages and counts each look at them. Broken
//! off anywhere, the worst that is left is a copy twice.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryFutureExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Confirmation, Connection};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::super::{DeadLetters as _, Reading as _, Recovered};
use super::{Bodies, SILENCE_MAX, StreamLetters, lock};
use crate::amqp::connection::{call, close, is_internal_error};
use crate::amqp::convert;
use crate::domain::dead_letter::{LOG, Offset, Record};
use crate::domain::message::Message;

/// Copies that are moved together.
const CHUNK: u16 = 100;

/// Names a record, whatever became of the message that it came in.
type Digest = [u8; 32];

/// What becomes of a copy.
enum Fate {
    /// Where the copies end that were there at the start.
    End,
    /// A barrier of some reader: nobody needs it again.
    Drop,
    /// The stream has it, or it is no record by itself.
    Keep(Message),
    /// The stream lacks it.
    Append(Record),
}

impl StreamLetters {
    pub(super) async fn recover_from_copies(&self) -> Result<Recovered, String> {
        // Two at a time would take the barriers out of each other's hands.
        let name = format!("{}.recovery", self.names.recent());
        let lock = lock::take(&self.server, "hookfleet dead letters recovery", &name).await?;
        let lock = lock.ok_or("somebody else is recovering it just now: wait until that has ended")?;
        let nonce = format!("{:032x}", fastrand::u128(..));
        let barrier = self.append(&Record::Barrier { nonce: nonce.clone() }).await;
        barrier.map_err(|error| error.to_string())?;
        let mut known = HashSet::new();
        let mut reading = self.begin(Offset::default(), nonce.clone()).await?;
        while let Some(items) = reading.next().await.map_err(|error| error.to_string())? {
            known.extend(items.iter().map(|item| digest(&item.record)));
        }
        let recovered = self.sweep(&lock.connection, &nonce, known).await;
        close(&lock.connection).await;
        recovered
    }

    async fn sweep(
        &self,
        connection: &Connection,
        nonce: &str,
        mut known: HashSet<Digest>,
    ) -> Result<Recovered, String> {
        let channel = call("open a channel", connection.create_channel()).await?;
        call("confirm mode", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        call("set the prefetch", channel.basic_qos(CHUNK, BasicQosOptions::default())).await?;
        let name = self.names.recent();
        let options = BasicConsumeOptions::default();
        let opened = channel.basic_consume(name.as_str().into(), "".into(), options, FieldTable::default());
        let consumer = call(&format!("consume from {name}"), opened).await?;
        let mut chunks = consumer.ready_chunks(usize::from(CHUNK));
        let (mut recovered, mut bodies) = (Recovered::default(), Bodies::new());
        loop {
            let chunk = match timeout(SILENCE_MAX, chunks.next()).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Err(format!("the consumer of {name} ended: was the queue deleted?")),
                Err(_) => return Err(format!("nothing came from {name} for {SILENCE_MAX:?}")),
            };
            let (mut last, mut ended, mut moves) = (0, false, Vec::new());
            for delivery in chunk {
                let delivery = delivery.map_err(|error| withheld(&name, &error))?;
                last = delivery.delivery_tag;
                match self.fate(delivery, nonce, &mut known, &mut bodies) {
                    Fate::End => {
                        ended = true;
                        break; // what comes behind it stays
                    }
                    Fate::Drop => {}
                    fate => moves.push(fate),
                }
            }
            recovered.copies += moves.len() as u64;
            recovered.appended += moves.iter().filter(|fate| matches!(fate, Fate::Append(_))).count() as u64;
            try_join_all(moves.iter().map(|fate| self.carry_out(&channel, fate))).await?;
            call("ack", channel.basic_ack(last, BasicAckOptions { multiple: true })).await?;
            if ended {
                return Ok(recovered);
            }
        }
    }

    fn fate(&self, delivery: Delivery, nonce: &str, known: &mut HashSet<Digest>, bodies: &mut Bodies) -> Fate {
        let mut copy = self.is_ours(&delivery).then(|| convert::message(delivery.data.clone(), &delivery.properties));
        if let Some(copy) = &mut copy {
            copy.headers.retain(|name, _| !name.starts_with("x-")); // the broker's, of this delivery
        }
        let item = self.item(delivery, bodies, 0);
        let whole = item.as_ref().is_none_or(|item| item.whole);
        match (item.map(|item| item.record), copy) {
            (Some(Record::Barrier { nonce: found }), _) if found == nonce => Fate::End,
            (Some(Record::Barrier { .. }), _) | (None, None) => Fate::Drop,
            // Of a newer version, or without its body: it is not ours to write.
            (Some(Record::Letter(letter)), Some(copy)) if letter.queue == LOG || !whole => Fate::Keep(copy),
            (Some(record), _) if known.insert(digest(&record)) => Fate::Append(record),
            (Some(record), None) => Fate::Keep(record.message()), // what the broker made is a record from now on
            (_, Some(copy)) => Fate::Keep(copy),                  // known, or a part of a letter, or of a newer version
        }
    }

    async fn carry_out(&self, channel: &Channel, fate: &Fate) -> Result<(), String> {
        match fate {
            Fate::End | Fate::Drop => Ok(()),
            Fate::Append(record) => self.append(record).await.map_err(|error| error.to_string()),
            Fate::Keep(message) => {
                let name = self.names.recent();
                let sent = channel.basic_publish(
                    "".into(),
                    name.as_str().into(),
                    BasicPublishOptions::default(),
                    &message.body,
                    convert::properties(message),
                );
                match call(&format!("publish to {name}"), sent.and_then(|confirm| confirm)).await? {
                    Confirmation::Ack(_) => Ok(()),
                    Confirmation::Nack(_) | Confirmation::NotRequested => {
                        Err(format!("{name} did not take a copy back"))
                    }
                }
            }
        }
    }
}

/// Why no more copies come.
fn withheld(name: &str, error: &lapin::Error) -> String {
    let reason = error.to_string();
    if is_internal_error(&reason) {
        return format!(
            "the broker cannot hand out a copy in {name}, which an older version let it put there; copies are kept for an \
             hour: try again then ({reason})"
        );
    }
    reason
}

fn digest(record: &Record) -> Digest {
    Sha256::digest(record.encode()).into()
}
