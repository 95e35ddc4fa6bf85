//! The dead-letter log in the SQLite file of a fleet of one process.
//!
//! Read in pages over a connection of its own, so that neither a long log nor a slow visitor holds the writer up.

use async_trait::async_trait;

use crate::domain::dead_letter::{Item, Offset, Record};
use crate::embedded::{ReadError, Store, WriteError, letters};

use super::{DeadLetterError, DeadLetters, Keeping, Reading};

/// The dead letters in a [`Store`].
#[derive(Debug)]
pub struct EmbeddedLetters {
    store: Store,
}

impl EmbeddedLetters {
    /// The dead letters in `store`.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }
}

fn unread(error: &ReadError) -> DeadLetterError {
    DeadLetterError::Read(error.to_string())
}

fn unwritten(error: WriteError) -> DeadLetterError {
    DeadLetterError::Append(error.into())
}

/// Row ids begin at 1, offsets at 0.
fn offset(id: i64) -> Offset {
    Offset(u64::try_from(id).unwrap_or_default())
}

#[async_trait]
impl DeadLetters for EmbeddedLetters {
    async fn append(&self, record: &Record) -> Result<(), DeadLetterError> {
        letters::append(&self.store, record.encode()).await.map_err(unwritten)
    }

    async fn open(&self, from: Offset) -> Result<Box<dyn Reading>, DeadLetterError> {
        // An end that does not move, so that appending as fast as we read cannot keep us here.
        let until = letters::last(&self.store).await.map_err(|error| unread(&error))?;
        let next = i64::try_from(from.0).unwrap_or(i64::MAX);
        Ok(Box::new(Pages { store: self.store.clone(), next, until }))
    }

    async fn trim(&self, before_ms: u64) -> Result<Offset, DeadLetterError> {
        while letters::drop_before(&self.store, before_ms).await.map_err(unwritten)? > 0 {}
        letters::first(&self.store).await.map(offset).map_err(|error| unread(&error))
    }

    /// The process that owns the file is the only one.
    async fn keep(&self) -> Result<Option<Box<dyn Keeping>>, DeadLetterError> {
        Ok(Some(Box::new(Owner)))
    }
}

struct Owner;

impl Keeping for Owner {
    fn is_held(&self) -> bool {
        true
    }
}

struct Pages {
    store: Store,
    /// Where the next page begins, and the last record.
    next: i64,
    until: i64,
}

#[async_trait]
impl Reading for Pages {
    async fn next(&mut self) -> Result<Option<Vec<Item>>, DeadLetterError> {
        let page = letters::page(&self.store, self.next, self.until).await.map_err(|error| unread(&error))?;
        let Some(last) = page.records.last() else { return Ok(None) };
        self.next = last.id.saturating_add(1);
        let item = |stored: &letters::Stored| {
            let at_ms = u64::try_from(stored.at_ms).unwrap_or_default();
            Item::new(offset(stored.id), Record::read(&stored.record, at_ms))
        };
        Ok(Some(page.records.iter().map(item).collect()))
    }

    fn position(&self) -> Offset {
        offset(self.next)
    }
}
