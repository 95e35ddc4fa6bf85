//! The dead-letter log in the SQLite file of a fleet of one process.
//!
//! Read in pages over a connection of its own, so that neither a long log nor a slow visitor holds the writer up.

use async_trait::async_trait;

use crate::domain::dead_letter::Record;
use crate::embedded::{Store, letters};

use super::{DeadLetterError, DeadLetters};

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

#[async_trait]
impl DeadLetters for EmbeddedLetters {
    async fn append(&self, record: &Record) -> Result<(), DeadLetterError> {
        let written = letters::append(&self.store, record.encode()).await;
        written.map_err(|error| DeadLetterError::Append(error.to_string()))
    }

    async fn read(&self, visit: &mut (dyn FnMut(Record) + Send)) -> Result<(), DeadLetterError> {
        let failed = |error: crate::embedded::ReadError| DeadLetterError::Read(error.to_string());
        // An end that does not move, so that appending as fast as we read cannot keep us here.
        let until = letters::last(&self.store).await.map_err(failed)?;
        let mut after = 0;
        loop {
            let page = letters::page(&self.store, after, until).await.map_err(failed)?;
            let Some((last, _)) = page.records.last() else { return Ok(()) };
            after = *last;
            for (id, record) in page.records {
                match Record::decode(&record) {
                    Ok(record) => visit(record),
                    // One record of a newer version must not hide the others.
                    Err(error) => tracing::warn!(id, error, "a dead letter cannot be read"),
                }
            }
        }
    }
}
