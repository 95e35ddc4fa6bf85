//! The dead-letter log in the file: append-only.

use rusqlite::{Connection, params};

use super::{Batch, ReadError, Store, WriteError};

/// Records read at a time.
const PAGE_RECORDS_MAX: usize = 256;
/// A page ends with the record that reaches this size, so that large letters do not add up.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Records dropped at a time, so that nobody waits long behind it.
const DROPPED_MAX: i64 = 1000;

/// A stretch of the log.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Oldest first. Empty: the end.
    pub(crate) records: Vec<Stored>,
}

/// A record as it is stored.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its row.
    pub(crate) id: i64,
    /// When it was appended, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    pub(crate) record: Vec<u8>,
}

/// Appends a record; on disk when this returns `Ok`.
pub(crate) async fn append(store: &Store, record: bytes::Bytes) -> Result<(), WriteError> {
    store.write(move |batch| insert(batch, &record)).await
}

fn insert(batch: &Batch<'_>, record: &[u8]) -> rusqlite::Result<()> {
    let mut statement = batch.prepare("INSERT INTO dead_letters (at_ms, record) VALUES (?1, ?2)")?;
    statement.execute(params![batch.now_ms(), record]).map(drop)
}

/// The id of the last record; 0 if there is none.
pub(crate) async fn last(store: &Store) -> Result<i64, ReadError> {
    let sql = "SELECT ifnull(max(id), 0) FROM dead_letters";
    store.read(move |conn| conn.query_row(sql, [], |row| row.get(0))).await
}

/// The id of the first record; 0 if there is none.
pub(crate) async fn first(store: &Store) -> Result<i64, ReadError> {
    let sql = "SELECT ifnull(min(id), 0) FROM dead_letters";
    store.read(move |conn| conn.query_row(sql, [], |row| row.get(0))).await
}

/// Drops the oldest records that were appended before this time, as many as one write may; answers how many.
pub(crate) async fn drop_before(store: &Store, before_ms: u64) -> Result<usize, WriteError> {
    store.write(move |batch| delete(batch, i64::try_from(before_ms).unwrap_or(i64::MAX))).await
}

/// Only from the head on: a later record never goes before an earlier one, whatever the clock did. The last record stays,
/// so that no id is given twice.
fn delete(batch: &Batch<'_>, before_ms: i64) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM dead_letters WHERE id < ifnull(
                   (SELECT id FROM dead_letters WHERE at_ms >= ?1 ORDER BY id LIMIT 1),
                   (SELECT max(id) FROM dead_letters)
               ) AND id < (SELECT min(id) FROM dead_letters) + ?2";
    batch.prepare(sql)?.execute(params![before_ms, DROPPED_MAX])
}

/// The records from `from` up to `until`, as many as make a page. Each page is a read of its own, so that the
/// writer can cut its log in between.
pub(crate) async fn page(store: &Store, from: i64, until: i64) -> Result<Page, ReadError> {
    store.read(move |conn| select(conn, from, until)).await
}

fn select(conn: &Connection, from: i64, until: i64) -> rusqlite::Result<Page> {
    let sql = "SELECT id, at_ms, record FROM dead_letters WHERE id >= ?1 AND id <= ?2 ORDER BY id";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([from, until])?;
    let mut page = Page::default();
    let mut bytes = 0;
    while page.records.len() < PAGE_RECORDS_MAX && bytes < PAGE_BYTES_MAX {
        let Some(row) = rows.next()? else { break };
        let stored = Stored { id: row.get(0)?, at_ms: row.get(1)?, record: row.get(2)? };
        bytes += stored.record.len();
        page.records.push(stored);
    }
    Ok(page)
}
