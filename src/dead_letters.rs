//! The seam to the dead-letter log: append-only, read from any place in it to a barrier, folded by
//! [`crate::domain::fold::Fold`].
//!
//! Contract, checked by one suite on every implementation:
//! - what [`DeadLetters::append`] answered `Ok` for is in the log, and in every read that is opened afterwards;
//! - a read visits records in their order, each at an offset that stays, and ends; some may be visited that came later;
//! - a record that cannot be read is visited as the letter that it amounts to: none is passed over, none ends a read.

use async_trait::async_trait;

use crate::broker::PublishError;
use crate::domain::dead_letter::{Item, Offset, Record};

pub mod embedded;
pub mod projection;
pub mod stream;

/// Why the log could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    #[error("cannot append to the dead-letter log: {0}")]
    Append(PublishError),
    #[error("cannot read the dead-letter log: {0}")]
    Read(String),
    #[error("cannot recover the dead-letter log: {0}; nothing is lost, and trying again is safe")]
    Recover(String),
}

/// What a recovery came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Copies of records that were looked at.
    pub copies: u64,
    /// Records that the log lacked, and has again.
    pub appended: u64,
}

/// What the keeper found and mended beside the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Messages that the broker could hand to nobody, and keeps.
    pub unreadable: u64,
    /// An older version had bound the log to what the broker dead-letters; it is unbound again.
    pub unbound: bool,
    /// For how long nothing has come back from the delay ladder that should have, in milliseconds; 0: it carries.
    pub retries_still_ms: u64,
}

/// The place of the one who keeps the log; given back when it is dropped, or with the process.
pub trait Keeping: Send + Sync {
    /// Whether it is still ours.
    fn is_held(&self) -> bool;
}

/// The log of letters and marks.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Appends a record; it is safe when this returns.
    async fn append(&self, record: &Record) -> Result<(), DeadLetterError>;

    /// Begins to read where `from` is, or at the log's first record if that is gone. What the broker dead-lettered by
    /// itself is visited as the letter that it amounts to.
    async fn open(&self, from: Offset) -> Result<Box<dyn Reading>, DeadLetterError>;

    /// Drops what was appended before this time, as far as the log does not do so by itself; answers where it begins.
    async fn trim(&self, before_ms: u64) -> Result<Offset, DeadLetterError>;

    /// Takes the keeper's place, unless another process has it.
    async fn keep(&self) -> Result<Option<Box<dyn Keeping>>, DeadLetterError>;

    /// Appends what the broker dead-letters by itself, as the letters that it amounts to. Runs until it is dropped, which
    /// loses nothing. For the keeper only. Where a log has no broker there is nothing to do.
    async fn collect(&self) {
        std::future::pending::<()>().await;
    }

    /// Returns when it is worth looking around the log sooner than usual. Cancel-safe.
    async fn stirred(&self) {
        std::future::pending::<()>().await;
    }

    /// Mends what is around the log. For the keeper only, once in a while.
    ///
    /// # Errors
    /// The log cannot be reached.
    async fn upkeep(&self) -> Result<Upkeep, DeadLetterError> {
        Ok(Upkeep::default())
    }

    /// Appends again what the log has lost although it was confirmed, as far as there are copies of it. Where a confirm
    /// means that it is on disk there is nothing to do. Broken off, it loses nothing, and may be run again.
    async fn recover(&self) -> Result<Recovered, DeadLetterError> {
        Ok(Recovered::default())
    }

    /// Visits every record from there on that was confirmed before this call, oldest first, and answers where to go on.
    async fn read(&self, from: Offset, visit: &mut (dyn FnMut(Item) + Send)) -> Result<Offset, DeadLetterError> {
        let mut reading = self.open(from).await?;
        while let Some(items) = reading.next().await? {
            items.into_iter().for_each(&mut *visit);
        }
        Ok(reading.position())
    }
}

/// A read under way.
#[async_trait]
pub trait Reading: Send {
    /// The next records, oldest first; none: everything has been visited that was confirmed before the read was opened.
    async fn next(&mut self) -> Result<Option<Vec<Item>>, DeadLetterError>;

    /// Where to go on: what stands before it need not be read again. Some of what stands behind it may have been visited.
    fn position(&self) -> Offset;
}
