//! Dispatching messages: the last job of a transaction.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Row, params};

use crate::domain::message::{Message, Queue};

use super::in_flight::{Credit, Place};
use super::{Dispatched, Queues};
use crate::embedded::job::{Batch, Job, WriteError};

/// In the order of the places; the place of the last message is the first two parameters.
pub(super) const AFTER: &str = "SELECT id, due_ms, deliveries, properties, headers, body FROM messages \
    WHERE queue = ?1 AND (due_ms, id) > (?2, ?3) ORDER BY due_ms, id";

/// Raises the count of what is due and wanted; after the commit it goes to the receivers.
pub(in crate::embedded) struct Dispatch {
    queues: Arc<Queues>,
    taken: Vec<(Place, Dispatched)>,
}

impl Dispatch {
    pub(in crate::embedded) fn new(queues: &Arc<Queues>) -> Self {
        Self { queues: Arc::clone(queues), taken: Vec::new() }
    }

    /// Takes messages of a queue that are due, as far as the credit goes; the due time of the next one, if there is credit for it.
    fn take(
        &mut self,
        batch: &Batch<'_>,
        queue: Queue,
        mut credit: Credit,
        after: Place,
    ) -> rusqlite::Result<Option<i64>> {
        let now_ms = batch.now_ms();
        let mut statement = batch.prepare(AFTER)?;
        let mut rows = statement.query(params![queue.name(), after.due_ms, after.id])?;
        while let Some(row) = rows.next()? {
            let place = Place { due_ms: row.get("due_ms")?, id: row.get("id")? };
            if self.queues.state().in_flight(queue).holds(place.id) {
                continue;
            }
            if place.due_ms > now_ms {
                return Ok(Some(place.due_ms));
            }
            let dispatched = read(queue, place.id, row)?;
            credit = credit.less(dispatched.message.body.len());
            self.taken.push((place, dispatched));
            if credit.is_empty() {
                break;
            }
        }
        Ok(None)
    }
}

impl Job for Dispatch {
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        for queue in Queue::ALL {
            let (credit, after) = {
                let mut state = self.queues.state();
                let in_flight = state.in_flight(queue);
                (in_flight.credit(), in_flight.cursor())
            };
            if !credit.is_empty() {
                let next = self.take(batch, queue, credit, after)?;
                batch.next_due_ms = batch.next_due_ms.into_iter().chain(next).min();
            }
        }
        let mut statement = batch.prepare("UPDATE messages SET deliveries = deliveries + 1 WHERE id = ?1")?;
        self.taken.iter().try_for_each(|(place, _)| statement.execute([place.id]).map(drop))
    }

    fn answer(self: Box<Self>, outcome: Result<(), WriteError>) {
        if outcome.is_err() || self.taken.is_empty() {
            return; // the end of the trouble brings the next try
        }
        let mut state = self.queues.state();
        for (place, dispatched) in self.taken {
            state.in_flight(dispatched.queue).dispatched(place, dispatched);
        }
        drop(state);
        self.queues.arrivals.notify_one();
    }
}

/// Headers that cannot be read were not written by us; the message goes on without them, and its reader will say so.
fn read(queue: Queue, id: i64, row: &Row<'_>) -> rusqlite::Result<Dispatched> {
    let properties = serde_json::from_str(row.get_ref("properties")?.as_str()?).unwrap_or_default();
    let headers = serde_json::from_str(row.get_ref("headers")?.as_str()?).unwrap_or_default();
    let body = Bytes::from(row.get::<_, Vec<u8>>("body")?);
    let deliveries = u32::try_from(row.get::<_, i64>("deliveries")?).unwrap_or_default();
    Ok(Dispatched { queue, id, deliveries, message: Message { body, properties, headers, ..Message::default() } })
}
