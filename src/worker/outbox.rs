//! What a worker publishes: messages and records of the dead-letter log, each repeated until the broker has it for good.

use std::time::Duration;

use tokio::time::sleep;

use super::Worker;
use crate::broker::PublishError;
use crate::domain::dead_letter::{Letter, Mark, Record, Subject, WORKER};
use crate::domain::invocation::Invocation;
use crate::domain::message::{LADDER_UNIT, Outgoing};
use crate::domain::replay::undeliverable;
use crate::telemetry::{Metric, now_ms};

/// Who closes letters whose replays were cancelled: nobody knows by name any more who did that.
const CANCELLED: &str = "operator";
/// Tries of a publish between two warnings.
const WARN_EVERY: u32 = 40;
/// Between two tries of a publish.
const REPEAT_AFTER: Duration = LADDER_UNIT;

impl Worker {
    /// Publishes until the broker has it. A message that this broker will never take becomes a dead letter. While
    /// publishing is blocked this waits: nothing else would be safe.
    pub async fn send(&self, outgoing: Outgoing) {
        let mut tries = 0;
        loop {
            match self.broker.publish(outgoing.clone()).await {
                Ok(()) => return,
                Err(PublishError::TooLarge(error) | PublishError::Invalid(error)) => {
                    let letter = undeliverable(&outgoing.message, error, now_ms());
                    return Box::pin(self.dead_letter(letter, "the broker will never take its message")).await;
                }
                Err(error) => repeat(&mut tries, &error).await,
            }
        }
    }

    /// Appends a dead letter, counts it, and logs why.
    pub(super) async fn dead_letter(&self, letter: Letter, why: &'static str) {
        tracing::warn!(
            letter = %letter.id,
            class = letter.class.name(),
            hook = letter.hook.as_deref(),
            event = letter.event.as_ref().map(|event| event.id.as_str()),
            source = letter.event.as_ref().map(|event| event.source.as_str()),
            generation = letter.generation,
            error = letter.error,
            "dead-lettered: {why}"
        );
        let record = Record::Letter(Box::new(letter));
        self.append(&record).await;
        if let Record::Letter(letter) = record {
            self.metrics.dead_lettered(letter.class, letter.hook.as_deref());
        }
    }

    /// Appends the mark that says that this generation of a letter's subject is finished.
    pub(super) async fn resolve(&self, subject: Subject, generation: u32, reason: Option<String>) {
        self.mark(subject, generation, WORKER, reason).await;
    }

    /// Closes the letter that a cancelled invocation replays.
    pub(super) async fn close_letter(&self, invocation: &Invocation) {
        let (subject, generation) = (Subject::of(&invocation.letter_key()), invocation.at.generation);
        let reason = Some("its replay was cancelled by an operator".to_owned());
        self.mark(subject, generation, CANCELLED, reason).await;
    }

    async fn mark(&self, subject: Subject, generation: u32, by: &str, reason: Option<String>) {
        let by = by.to_owned();
        let mark = Mark { subject, generation, at_ms: now_ms(), by, reason, until_ms: 0 };
        self.append(&Record::Resolved(mark)).await;
    }

    /// The same, for the letter that a finished invocation replays.
    pub(super) async fn resolve_letter(&self, invocation: &Invocation) {
        let edited = invocation.edited_from.is_some();
        let reason = edited.then(|| format!("done with other data, as event {}", invocation.event.id));
        self.resolve(Subject::of(&invocation.letter_key()), invocation.at.generation, reason).await;
    }

    async fn append(&self, record: &Record) {
        let mut tries = 0;
        while let Err(error) = self.letters.append(record).await {
            if matches!(record, Record::Letter(_)) {
                Metric::LettersUnconfirmed.count(&[]);
            }
            repeat(&mut tries, &error).await;
        }
    }
}

/// Waits before a publish is repeated, and warns once in a while.
async fn repeat(tries: &mut u32, error: &(dyn std::error::Error + Sync)) {
    Metric::PublishRepeated.count(&[]);
    *tries += 1;
    if tries.is_multiple_of(WARN_EVERY) {
        tracing::warn!(%error, tries, "still not published, trying again");
    } else {
        tracing::debug!(%error, "not published, trying again");
    }
    sleep(REPEAT_AFTER).await;
}
