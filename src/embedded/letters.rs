//! The dead-letter log in the file: append-only.

use rusqlite::{Connection, params};

use super::{Batch, ReadError, Store, WriteError};

/// Records read at a time.
const PAGE_RECORDS_MAX: usize = 256;
/// A page ends with the record that reaches this size, so that large letters do not add up.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A stretch of the log.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Stored records with their row ids, oldest first. Empty: the end.
    pub(crate) records: Vec<(i64, Vec<u8>)>,
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

/// The records after `after` and up to `until`, as many as make a page. Each page is a read of its own, so that the
/// writer can cut its log in between.
pub(crate) async fn page(store: &Store, after: i64, until: i64) -> Result<Page, ReadError> {
    store.read(move |conn| select(conn, after, until)).await
}

fn select(conn: &Connection, after: i64, until: i64) -> rusqlite::Result<Page> {
    let sql = "SELECT id, record FROM dead_letters WHERE id > ?1 AND id <= ?2 ORDER BY id";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([after, until])?;
    let mut page = Page::default();
    let mut bytes = 0;
    while page.records.len() < PAGE_RECORDS_MAX && bytes < PAGE_BYTES_MAX {
        let Some(row) = rows.next()? else { break };
        let record: Vec<u8> = row.get(1)?;
        bytes += record.len();
        page.records.push((row.get(0)?, record));
    }
    Ok(page)
}
