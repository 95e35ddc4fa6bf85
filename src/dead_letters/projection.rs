//! The fold of the log, kept: what has come since is read before each answer. It can be built anew at any time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::Instant;

use super::{DeadLetterError, DeadLetters};
use crate::domain::dead_letter::{Item, Letter, Offset, Record};
use crate::domain::fold::{Fold, Summary};
use crate::telemetry::now_ms;

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
    /// What stands before any record with a time: it came about before the first that has one.
    undated: Vec<Item>,
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
        self.date(now_ms()); // nothing in the log has a time
        self.read_at = Some(began);
        Ok(())
    }

    fn take(&mut self, mut item: Item) {
        match &mut item.record {
            Record::Letter(letter) if letter.at_ms == 0 && self.at_ms == 0 => return self.undated.push(item),
            Record::Letter(letter) if letter.at_ms == 0 => letter.at_ms = self.at_ms,
            Record::Letter(letter) => self.at_ms = self.at_ms.max(letter.written_ms()),
            Record::Replayed(mark) | Record::Resolved(mark) => self.at_ms = self.at_ms.max(mark.at_ms),
            Record::Barrier { .. } => {}
        }
        if self.at_ms > 0 {
            self.date(self.at_ms);
        }
        self.fold.apply(item);
    }

    /// Gives what has no time this one, and takes it in.
    fn date(&mut self, at_ms: u64) {
        for mut item in std::mem::take(&mut self.undated) {
            if let Record::Letter(letter) = &mut item.record {
                letter.at_ms = at_ms;
            }
            self.fold.apply(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dead_letter::{Mark, Subject};

    /// What has no time of its own has that of the record before it, else of the first behind it, else of when it was read.
    #[test]
    fn no_letter_is_of_1970() {
        let undated = |at: u64| Item::new(Offset(at), Record::foreign(&at.to_be_bytes(), 0));
        let dated = |at: u64, at_ms: u64| Item::new(Offset(at), Record::foreign(&at.to_be_bytes(), at_ms));
        let check = |items: Vec<Item>, expected: &[u64]| {
            let mut known = Known::default();
            for item in items {
                known.take(item);
            }
            known.date(99);
            let mut found: Vec<_> = known.fold.entries().map(|entry| (entry.letter.at, entry.letter.at_ms)).collect();
            found.sort_unstable();
            assert_eq!(found.into_iter().map(|(_, at_ms)| at_ms).collect::<Vec<_>>(), expected);
        };
        check(vec![undated(1), undated(2)], &[99, 99]);
        check(vec![undated(1), dated(2, 7), undated(3)], &[7, 7, 7]);
        let subject = Subject::Message("x".into());
        let mark = Mark { subject, generation: 0, at_ms: 5, by: "me".into(), reason: None, until_ms: 0 };
        check(vec![undated(1), Item::new(Offset(2), Record::Resolved(mark)), undated(3), dated(4, 8)], &[5, 5, 8]);
    }
}
