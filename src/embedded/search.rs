//! Looking for an event's messages in the file.

use bytes::Bytes;
use rusqlite::{Connection, Row, params};

use super::{ReadError, Store};
use crate::domain::message::{Message, Queue};

/// Messages of one id that are looked at.
const FOUND_MAX: u32 = 1000;
/// An event's id is its message's, unless it is longer than AMQP has room for.
const OF_ID: &str = "SELECT queue, due_ms, properties, headers, body FROM messages \
    WHERE json_extract(properties, '$.message_id') = ?1 ORDER BY due_ms, id LIMIT ?2";

/// A message in a queue, in hand or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    pub queue: Queue,
    /// When it may be handed out, in milliseconds since 1970.
    pub due_ms: u64,
    pub message: Message,
}

impl Store {
    /// The messages with this id, those first that are due first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn queued(&self, id: &str) -> Result<Vec<Queued>, ReadError> {
        let id = id.to_owned();
        self.read(move |conn| find(conn, &id)).await
    }
}

fn find(conn: &Connection, id: &str) -> rusqlite::Result<Vec<Queued>> {
    let mut statement = conn.prepare(OF_ID)?;
    let mut rows = statement.query(params![id, FOUND_MAX])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(read(row)?);
    }
    Ok(found)
}

/// Queues of newer versions are passed over.
fn read(row: &Row<'_>) -> rusqlite::Result<Option<Queued>> {
    let name: String = row.get("queue")?;
    let Some(queue) = Queue::ALL.into_iter().find(|queue| queue.name() == name) else { return Ok(None) };
    let properties = serde_json::from_str(row.get_ref("properties")?.as_str()?).unwrap_or_default();
    let headers = serde_json::from_str(row.get_ref("headers")?.as_str()?).unwrap_or_default();
    let body = Bytes::from(row.get::<_, Vec<u8>>("body")?);
    let due_ms = u64::try_from(row.get::<_, i64>("due_ms")?).unwrap_or_default();
    Ok(Some(Queued { queue, due_ms, message: Message { body, properties, headers, ..Message::default() } }))
}
