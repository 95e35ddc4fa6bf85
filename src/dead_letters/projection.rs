//! The fold of the log, kept: what has come since is read before each answer. It can be built anew at any time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::Instant;

use super::{DeadLetterError, DeadLetters};
use crate::domain::dead_letter::{Item, Letter, Offset, Record};
use crate::domain::fold::{Fold, Summary};

/// How old a view may be: whoever looks often shall not fill the log with the barriers of reads.
pub const VIEW_AGE_MAX: Duration = Duration::from_secs(1);

/// The log and its fold; clones share it.
#[derive(Clone)]
pub struct Projection {
    pub log: Arc<dyn DeadLetters>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    fold: Fold,
    /// Where to read on, and what was visited by now.
    position: Offset,
    seen: Offset,
    /// The time of the newest record: what the broker put there without a time came about then.
    at_ms: u64,
    /// When it was last complete.
    read_at: Option<Instant>,
}

impl Projection {
    /// Of this log; nothing is read yet.
    #[must_use]
    pub fn new(log: Arc<dyn DeadLetters>) -> Self {
        Self { log, known: Arc::default() }
    }

    /// The fold of everything that was confirmed before this call. Others wait while the answer is held.
    pub async fn now(&self) -> Result<MappedMutexGuard<'_, Fold>, DeadLetterError> {
        self.within(Duration::ZERO).await
    }

    /// The fold as it was a moment ago, and of everything that was appended by [`Projection::append`].
    pub async fn lately(&self) -> Result<MappedMutexGuard<'_, Fold>, DeadLetterError> {
        self.within(VIEW_AGE_MAX).await
    }

    /// The fold of everything that was confirmed so long ago, and of everything that was appended by [`Projection::append`].
    pub async fn within(&self, age: Duration) -> Result<MappedMutexGuard<'_, Fold>, DeadLetterError> {
        let asked = Instant::now();
        let mut known = self.known.lock().await;
        // Who has waited for another one's read that began after the question has its answer too.
        let fresh = known.read_at.is_some_and(|read_at| read_at >= asked || read_at.elapsed() < age);
        if !fresh && let Err(error) = known.read_on(self.log.as_ref()).await {
            *known = Known::default(); // perhaps the log is another one by now
            return Err(error);
        }
        Ok(MutexGuard::map(known, |known| &mut known.fold))
    }

    /// Appends a record, and knows it at once.
    pub async fn append(&self, record: &Record) -> Result<(), DeadLetterError> {
        self.log.append(record).await?;
        if !matches!(record, Record::Letter(_)) {
            // Marks may be known twice. A letter is not known before where it stands.
            self.known.lock().await.fold.apply(Item::new(Offset::default(), record.clone()));
        }
        Ok(())
    }

    /// The whole of a letter; `None`: it has aged out meanwhile.
    pub async fn letter(&self, summary: &Summary) -> Result<Option<Letter>, DeadLetterError> {
        let mut reading = self.log.open(summary.from).await?;
        while let Some(items) = reading.next().await? {
            for item in items {
                match item.record {
                    Record::Letter(letter) if item.at == summary.at => {
                        return Ok(Some(*letter).filter(|letter| letter.id == summary.id));
                    }
                    _ if item.at > summary.at => return Ok(None),
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// Forgets what has aged out of the log, as far as that can be found out now.
    pub async fn forget(&self) {
        if !self.known.lock().await.fold.is_empty()
            && let Ok(first) = self.log.trim(0).await
        {
            self.forget_before(first).await;
        }
    }

    /// Forgets what stands before the first record of the log.
    pub async fn forget_before(&self, first: Offset) {
        self.known.lock().await.fold.forget_before(first);
    }
}

impl Known {
    async fn read_on(&mut self, log: &dyn DeadLetters) -> Result<(), DeadLetterError> {
        let began = Instant::now();
        let mut reading = log.open(self.position).await?;
        while let Some(items) = reading.next().await? {
            for item in items {
                if item.at >= self.seen {
                    self.seen = item.at.next();
                    self.take(item);
                }
            }
            self.position = reading.position(); // who gives up here goes on there
        }
        self.position = reading.position();
        self.read_at = Some(began);
        Ok(())
    }

    fn take(&mut self, mut item: Item) {
        match &mut item.record {
            Record::Letter(letter) if letter.at_ms == 0 => letter.at_ms = self.at_ms,
            Record::Letter(letter) => self.at_ms = self.at_ms.max(letter.at_ms),
            Record::Replayed(mark) | Record::Resolved(mark) => self.at_ms = self.at_ms.max(mark.at_ms),
            Record::Barrier { .. } => {}
        }
        self.fold.apply(item);
    }
}
