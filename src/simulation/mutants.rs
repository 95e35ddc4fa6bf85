//! Workers that do wrong: what their mutations change around the pipeline.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::hub::Port;
use crate::dead_letters::{DeadLetterError, DeadLetters, Keeping, Reading};
use crate::domain::dead_letter::{Offset, Record};
use crate::domain::failure::Class;
use crate::domain::mutation::Mutation;
use crate::domain::revision::{Revision, Unknown};
use crate::worker::Protocol;

/// The transitions that a worker with this mutation follows.
pub(super) fn protocol(mutation: Mutation) -> Protocol {
    let sound = Protocol::default();
    match mutation {
        Mutation::PublishBeforeRecord => Protocol {
            next_effect: |progress, token, stage, answer| {
                Mutation::PublishBeforeRecord.next_effect(progress, token, stage, answer)
            },
            ..sound
        },
        Mutation::RevisionNotCompared => Protocol { unknown_hook: removed, ..sound },
        Mutation::None
        | Mutation::TokenNotCompared
        | Mutation::LowerAttemptRuns
        | Mutation::ReleaseForgets
        | Mutation::AckBeforePublish
        | Mutation::RemovedIsDropped => sound,
    }
}

/// As if every revision knew all hooks.
fn removed(_: &Revision, _: &Revision, _: Duration) -> Unknown {
    Unknown::Removed
}

/// A log that takes letters of removed hooks and does not keep them.
pub(super) struct Forgetful(pub(super) Arc<Port>);

#[async_trait]
impl DeadLetters for Forgetful {
    async fn append(&self, record: &Record) -> Result<(), DeadLetterError> {
        match record {
            Record::Letter(letter) if letter.class == Class::HookRemoved => Ok(()),
            _ => self.0.append(record).await,
        }
    }

    async fn open(&self, from: Offset) -> Result<Box<dyn Reading>, DeadLetterError> {
        self.0.open(from).await
    }

    async fn trim(&self, before_ms: u64) -> Result<Offset, DeadLetterError> {
        self.0.trim(before_ms).await
    }

    async fn keep(&self) -> Result<Option<Box<dyn Keeping>>, DeadLetterError> {
        self.0.keep().await
    }
}
