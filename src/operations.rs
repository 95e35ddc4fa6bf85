//! What operators do with dead letters, on whichever broker.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::broker::Broker;
use crate::dead_letters::projection::Projection;
use crate::dead_letters::{DeadLetters, Reading};
use crate::domain::browse::{Cursor, Filter, Group, Page};
use crate::domain::dead_letter::{Body, Item, LOG, Letter, Mark, Offset, Record};
use crate::domain::edit::{Edit, edit};
use crate::domain::escape;
use crate::domain::event;
use crate::domain::fold::{Entry, State};
use crate::domain::id::LetterId;
use crate::domain::matching::HookSet;
use crate::domain::redaction::{Pointer, REDACTED, redact_event, redact_unknown};
use crate::domain::replay::Operator;
use crate::domain::selection::Selection;
use crate::flow::Kept;
use crate::telemetry::now_ms;
use api_types::{Listed, PageAsked};

pub mod api_types;
pub mod cancel;
mod error;
pub mod events;
pub mod jobs;
pub mod keeper;
pub mod progress;
pub mod replay;

pub use error::OperationError;

/// Marks that await their confirm at a time.
const MARKS_MAX: usize = 100;
/// Longest reason that is kept.
const REASON_CHARS_MAX: usize = 512;
/// Longest name of an operator that is kept.
const BY_CHARS_MAX: usize = 128;

/// The hooks of the current catalog, or why they are not known in this process.
pub type Hooks = Result<watch::Receiver<Arc<HookSet>>, Arc<str>>;

/// What an operator can do with the letters of a fleet; clones share what is known of the letters.
#[derive(Clone)]
pub struct Operations {
    pub broker: Arc<dyn Broker>,
    pub letters: Projection,
    /// What the keeper says, if this process is the one.
    pub kept: Arc<watch::Sender<Option<Kept>>>,
    /// How messages are read that are no events by themselves.
    pub reading: event::Reading,
}

/// What a replay came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    pub id: LetterId,
    /// The generation that was sent out; the same for everyone who replays this letter.
    pub generation: u32,
    /// Its hook decides, and runs as an observer now: its answer is not used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observes: bool,
}

/// What an edit came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Edited {
    /// The letter, which is resolved when the edited event is done.
    pub id: LetterId,
    /// The generation that was sent out; the same for everyone who edits this letter.
    pub generation: u32,
    pub event: EditedEvent,
}

/// The event that was made of a letter's, with other data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EditedEvent {
    pub id: String,
    pub source: String,
}

/// A letter in full, with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Detail {
    pub letter: Letter,
    pub state: State,
    /// Letters that were folded into this one.
    pub count: u64,
    /// When the newest of them was written, in milliseconds since 1970.
    pub newest_ms: u64,
    /// Who replayed or resolved it, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// Where it stands in the log.
    pub offset: Offset,
}

impl Detail {
    fn new(letter: Letter, entry: Entry) -> Self {
        let (at_ms, offset) = (entry.letter.at_ms, entry.letter.at); // what the broker made has no time of its own
        let letter = Letter { at_ms, ..letter };
        Self { letter, state: entry.state, count: entry.count, newest_ms: entry.newest_ms, mark: entry.mark, offset }
    }

    /// As people see it; the event's body only where it was asked for, without what stands at these places of its data.
    #[must_use]
    pub fn view(mut self, body: bool, without: &[Pointer]) -> Value {
        self.letter.body = match self.letter.body {
            // What may stand anywhere in it, within other texts even.
            _ if self.letter.queue == LOG && !without.is_empty() => Body::Text(REDACTED.to_owned()),
            Body::Text(text) => Body::Text(redact_event(&text, without)),
            Body::Base64(_) if !without.is_empty() => Body::Text(REDACTED.to_owned()),
            Body::Base64(text) => Body::Base64(text),
        };
        if !body {
            self.letter.decision = None;
        } else if !without.is_empty() {
            self.letter.decision = self.letter.decision.map(|_| REDACTED.to_owned()); // it may hold what the event does
        }
        let mut view = serde_json::to_value(self).unwrap_or_default();
        if !body && let Some(letter) = view.get_mut("letter").and_then(Value::as_object_mut) {
            letter.remove("body");
            // A client's headers may hold credentials.
            if let Some(client) = letter.get_mut("client").and_then(Value::as_object_mut) {
                client.remove("headers");
            }
        }
        view
    }
}

/// Letters on their way out; only a few of them are in memory at a time.
pub struct Export {
    /// What is still to come, by where it stands.
    entries: HashMap<Offset, Entry>,
    reading: Option<Box<dyn Reading>>,
}

impl Export {
    /// Some more; none: that was all.
    ///
    /// # Errors
    /// The log cannot be read any more.
    pub async fn next(&mut self) -> Result<Option<Vec<Detail>>, OperationError> {
        let Some(reading) = self.reading.as_mut().filter(|_| !self.entries.is_empty()) else { return Ok(None) };
        let Some(items) = reading.next().await? else { return Ok(None) };
        let detail = |item: Item| match item.record {
            Record::Letter(letter) => Some(Detail::new(*letter, self.entries.remove(&item.at)?)),
            Record::Replayed(_) | Record::Resolved(_) | Record::Barrier { .. } => None,
        };
        Ok(Some(items.into_iter().filter_map(detail).collect()))
    }
}

impl Operations {
    /// Over this log, of which nothing is known yet.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, log: Arc<dyn DeadLetters>) -> Self {
        Self { broker, letters: Projection::new(log), kept: Arc::default(), reading: event::Reading::default() }
    }

    /// The same, for a fleet that reads messages like this.
    #[must_use]
    pub fn reading(self, reading: event::Reading) -> Self {
        Self { reading, ..self }
    }

    /// Some letters, newest first, as of a moment ago.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn page(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, OperationError> {
        Ok(self.letters.lately().await?.page(filter, after, limit))
    }

    /// The same, as it is asked for from outside.
    ///
    /// # Errors
    /// It cannot be understood, or the log cannot be read.
    pub async fn list(&self, asked: &PageAsked) -> Result<Listed, OperationError> {
        let after = asked.after.as_deref().map(str::parse).transpose();
        let after = after.map_err(|error| OperationError::Invalid(format!("after: {error}")))?;
        let page = self.page(&asked.which.filter(now_ms())?, after, asked.limit()?).await?;
        Ok(Listed { items: page.items, next: page.next.map(|cursor| cursor.to_string()) })
    }

    /// Letters by cause, as of a moment ago.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn groups(&self, filter: &Filter) -> Result<Vec<Group>, OperationError> {
        Ok(self.letters.lately().await?.groups(filter))
    }

    /// The letter with this id, or the newest one of its subject, in full.
    ///
    /// # Errors
    /// There is none, or the log cannot be read.
    pub async fn find(&self, id: &LetterId) -> Result<Detail, OperationError> {
        let found = self.letters.now().await?.find(id);
        let entry = found.ok_or_else(|| OperationError::Unknown(id.clone()))?;
        let letter = self.letters.letter(&entry.letter).await?;
        let letter = letter.ok_or_else(|| OperationError::Unknown(id.clone()))?;
        Ok(Detail::new(letter, entry))
    }

    /// Begins to export the letters that a filter takes, in full, in the order of the log.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn export(&self, filter: &Filter) -> Result<Export, OperationError> {
        self.export_newest(filter, usize::MAX).await
    }

    /// The same of the newest ones, at most so many.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn export_newest(&self, filter: &Filter, most: usize) -> Result<Export, OperationError> {
        let entries: HashMap<Offset, Entry> = {
            let fold = self.letters.now().await?;
            fold.taken(filter).rev().take(most).map(|entry| (entry.letter.at, entry)).collect()
        };
        let reading = match entries.values().map(|entry| entry.letter.from).min() {
            Some(first) => Some(self.letters.log.open(first).await?),
            None => None,
        };
        Ok(Export { entries, reading })
    }

    /// The ids of the newest letters that a filter takes, at most so many, newest first.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn newest(&self, filter: &Filter, most: usize) -> Result<Vec<LetterId>, OperationError> {
        let fold = self.letters.now().await?;
        Ok(fold.taken(filter).rev().take(most).map(|entry| entry.letter.id).collect())
    }

    /// Closes letters that are not closed by now; answers how many. Of two reasons the first stays.
    ///
    /// # Errors
    /// A letter is unknown (none is closed then), or the log cannot be written: some may be closed.
    pub async fn resolve(&self, selection: &Selection, reason: &str, by: &str) -> Result<usize, OperationError> {
        let reason = match reason.trim() {
            "" => "operator resolved".to_owned(),
            reason => escape::sentence(&redact_unknown(reason), REASON_CHARS_MAX),
        };
        let by = escape::sentence(by, BY_CHARS_MAX);
        let (marks, unknown) = self.letters.now().await?.closing(selection, &by, &reason, now_ms());
        if let Some(id) = unknown.into_iter().next() {
            return Err(OperationError::Unknown(id));
        }
        let count = marks.len();
        let append = |mark| async move { self.letters.append(&Record::Resolved(mark)).await };
        stream::iter(marks).map(append).buffer_unordered(MARKS_MAX).try_collect::<()>().await?;
        Ok(count)
    }

    /// Sends a letter's event out with other data. Doing it twice does it once.
    ///
    /// # Errors
    /// The letter is unknown, finished or cannot be edited so; or the broker is away, in which case repeating the call is
    /// safe.
    pub async fn edit(&self, id: &LetterId, change: &Edit, by: &str) -> Result<Edited, OperationError> {
        let detail = self.find(id).await?;
        match detail.state {
            State::Open => {}
            State::Resolved => {
                return Err(OperationError::Refused(format!("letter {id} is resolved: it was finished or closed")));
            }
            State::Replaying => {
                let error = format!("a replay of letter {id} is out: it can be edited when that has failed");
                return Err(OperationError::Refused(error));
            }
        }
        let name = escape::sentence(by, BY_CHARS_MAX);
        let operator = Operator { name, now_ms: now_ms(), seen_ms: detail.newest_ms, reading: self.reading };
        let edited = edit(&detail.letter, change, &operator).map_err(OperationError::Refused)?;
        let generation = edited.replay.generation;
        let event = EditedEvent { id: edited.event.id.clone(), source: edited.event.source.clone() };
        self.send(edited.replay).await.map_err(|failed| failed.told("editing it again in the same way"))?;
        Ok(Edited { id: detail.letter.id, generation, event })
    }
}
