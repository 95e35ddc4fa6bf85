//! Handing messages out: the last job of a transaction.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Row, params};

use crate::domain::message::{Message, Queue};

use super::line::{Place, Room};
use super::{Desk, Handed};
use crate::embedded::writer::{Batch, Job, WriteError};

/// In the order of the places; the place of the last message is the first two parameters.
pub(super) const AFTER: &str = "SELECT id, due_ms, deliveries, properties, headers, body FROM messages \
    WHERE queue = ?1 AND (due_ms, id) > (?2, ?3) ORDER BY due_ms, id";

/// Raises the count of what is due and wanted; after the commit it goes to the receivers.
pub(in crate::embedded) struct HandOut {
    desk: Arc<Desk>,
    taken: Vec<(Place, Handed)>,
}

impl HandOut {
    pub(in crate::embedded) fn new(desk: &Arc<Desk>) -> Self {
        Self { desk: Arc::clone(desk), taken: Vec::new() }
    }

    /// Takes messages of a queue that are due, as far as there is room; the due time of the next one, if there is room for it.
    fn take(&mut self, batch: &Batch<'_>, queue: Queue, mut room: Room, after: Place) -> rusqlite::Result<Option<i64>> {
        let now_ms = batch.now_ms();
        let mut statement = batch.prepare(AFTER)?;
        let mut rows = statement.query(params![queue.name(), after.due_ms, after.id])?;
        while let Some(row) = rows.next()? {
            let place = Place { due_ms: row.get("due_ms")?, id: row.get("id")? };
            if self.desk.state().line(queue).holds(place.id) {
                continue;
            }
            if place.due_ms > now_ms {
                return Ok(Some(place.due_ms));
            }
            let handed = handed(queue, place.id, row)?;
            room = room.less(handed.message.body.len());
            self.taken.push((place, handed));
            if room.is_empty() {
                break;
            }
        }
        Ok(None)
    }
}

impl Job for HandOut {
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        for queue in Queue::ALL {
            let (room, after) = {
                let mut state = self.desk.state();
                let line = state.line(queue);
                (line.room(), line.cursor())
            };
            if !room.is_empty() {
                let next = self.take(batch, queue, room, after)?;
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
        let mut state = self.desk.state();
        for (place, handed) in self.taken {
            state.line(handed.queue).handed_out(place, handed);
        }
        drop(state);
        self.desk.arrivals.notify_one();
    }
}

/// Headers that cannot be read were not written by us; the message goes on without them, and its reader will say so.
fn handed(queue: Queue, id: i64, row: &Row<'_>) -> rusqlite::Result<Handed> {
    let properties = serde_json::from_str(row.get_ref("properties")?.as_str()?).unwrap_or_default();
    let headers = serde_json::from_str(row.get_ref("headers")?.as_str()?).unwrap_or_default();
    let body = Bytes::from(row.get::<_, Vec<u8>>("body")?);
    let deliveries = u32::try_from(row.get::<_, i64>("deliveries")?).unwrap_or_default();
    Ok(Handed { queue, id, deliveries, message: Message { body, properties, headers, asking: None } })
}
