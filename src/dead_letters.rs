//! The seam to the dead-letter log: append-only, read from the start to a barrier, folded by
//! [`crate::domain::fold::Fold`].

use async_trait::async_trait;

use crate::domain::dead_letter::Record;
use crate::domain::fold::Fold;

pub mod embedded;
pub mod stream;

/// Why the log could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    #[error("cannot append to the dead-letter log: {0}")]
    Append(String),
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

/// The log of letters and marks.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Appends a record; it is safe when this returns.
    async fn append(&self, record: &Record) -> Result<(), DeadLetterError>;

    /// Visits every record that was confirmed before this call, oldest first, perhaps some later ones too. What the
    /// broker dead-lettered by itself is visited as the letter that it amounts to. Nothing is kept in memory.
    async fn read(&self, visit: &mut (dyn FnMut(Record) + Send)) -> Result<(), DeadLetterError>;

    /// Appends again what the log has lost although it was confirmed, as far as there are copies of it. Where a confirm
    /// means that it is on disk there is nothing to do. Broken off, it loses nothing, and may be run again.
    async fn recover(&self) -> Result<Recovered, DeadLetterError> {
        Ok(Recovered::default())
    }

    /// The state of every letter.
    async fn fold(&self) -> Result<Fold, DeadLetterError> {
        let mut fold = Fold::default();
        self.read(&mut |record| fold.apply(record)).await?;
        Ok(fold)
    }
}
