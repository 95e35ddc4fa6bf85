//! What is kept in mind of a letter.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words::Words;
use super::{Place, State, SubjectKey};
use crate::domain::dead_letter::{Letter, Mark, Offset, Subject};
use crate::domain::dialect::Dialect;
use crate::domain::failure::Class;
use crate::domain::id::{EditedFrom, EventDigest, LetterId};

/// A letter without its body and its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    pub id: LetterId,
    /// When it became one, in milliseconds since 1970: see [`Letter::at_ms`].
    pub at_ms: u64,
    pub class: Class,
    /// Redacted, one line.
    #[schema(value_type = String)]
    pub error: Arc<str>,
    /// None: the letter is about a whole event or message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hook: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventSummary>,
    pub generation: u32,
    /// Failed attempts that it lists, of all generations.
    pub attempt_count: usize,
    /// See [`Letter::unprotected`].
    pub unprotected: bool,
    #[schema(value_type = String)]
    pub revision: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub target: Option<Arc<str>>,
    /// Of a hook of another system: which, and what the hook is called there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Named>,
    /// Letters of one cause share it.
    #[schema(value_type = String)]
    pub fingerprint: Arc<str>,
    #[schema(value_type = String)]
    pub queue: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub session: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub run: Option<Box<str>>,
    /// See [`Letter::edited_from`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_from: Option<Box<EditedFrom>>,
    /// Where it stands in the log.
    #[serde(rename = "offset")]
    pub at: Offset,
    /// Where a reader begins that gets it whole.
    #[serde(skip)]
    pub from: Offset,
    /// When it was written, if it became one earlier.
    #[serde(skip)]
    pub(in crate::domain) found_ms: Option<u64>,
    /// When it was written again.
    #[serde(skip)]
    pub(in crate::domain) carried_ms: Option<u64>,
}

/// A hook of another system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ForeignName)]
pub struct Named {
    #[schema(value_type = String, example = "kheish")]
    pub dialect: Dialect,
    #[schema(value_type = String)]
    pub name: Arc<str>,
}

/// The event of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventSummary {
    #[schema(value_type = String)]
    pub id: Box<str>,
    #[schema(value_type = String)]
    pub source: Arc<str>,
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub subject: Option<Box<str>>,
}

impl Summary {
    pub(super) fn of(letter: &Letter, (at, from): (Offset, Offset), words: &mut Words) -> Self {
        let event = letter.event.as_ref().map(|event| EventSummary {
            id: event.id.as_str().into(),
            source: words.one(&event.source),
            kind: words.one(&event.kind),
            subject: event.subject.as_deref().map(Into::into),
        });
        Self {
            id: letter.id.clone(),
            at_ms: letter.at_ms,
            class: letter.class,
            error: words.one(&letter.error),
            hook: letter.hook.as_deref().map(|hook| words.one(hook)),
            event,
            generation: letter.generation,
            attempt_count: letter.attempts.len(),
            unprotected: letter.unprotected,
            revision: words.one(&letter.revision),
            target: letter.target.as_deref().map(|target| words.one(target)),
            foreign: letter
                .foreign
                .as_deref()
                .map(|foreign| Named { dialect: foreign.dialect, name: words.one(&foreign.name) }),
            fingerprint: words.one(&letter.fingerprint),
            queue: words.one(&letter.queue),
            session: letter.session.as_deref().map(Into::into),
            run: letter.run.as_deref().map(Into::into),
            edited_from: letter.edited_from.clone().map(Box::new),
            at,
            from,
            found_ms: letter.found_ms,
            carried_ms: letter.carried.map(|carried| carried.at_ms),
        }
    }

    /// When it, or the copy that carries it on, was written to the log; 0 if nobody knows.
    pub(in crate::domain) fn kept_ms(&self) -> u64 {
        self.carried_ms.or(self.found_ms).unwrap_or(self.at_ms)
    }

    /// Where it stands among letters.
    pub(super) fn place(&self, subject: SubjectKey) -> Place {
        (self.at_ms, self.id.bytes(), subject)
    }

    /// What the letter is about: as [`Letter::subject`].
    #[must_use]
    pub fn subject(&self) -> Subject {
        match (self.event_digest(), &self.hook) {
            (Some(event), Some(hook)) => Subject::Invocation { event: event.to_string(), hook: hook.to_string() },
            _ => Subject::Message(self.id.clone()),
        }
    }

    /// The event that the letter is about, edited or not.
    #[must_use]
    pub fn event_digest(&self) -> Option<EventDigest> {
        let event = self.event.as_ref()?;
        let from = self.edited_from.as_ref().map(|from| from.event);
        Some(from.unwrap_or_else(|| EventDigest::of(&event.source, &event.id)))
    }
}

/// A letter with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    pub letter: Summary,
    pub state: State,
    /// Letters that were folded into this one.
    pub count: u64,
    /// When the newest of them was written, in milliseconds since 1970.
    pub newest_ms: u64,
    /// Who replayed or resolved it, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}
