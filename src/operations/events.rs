//! Where an event is: what claims, letters and, in a file, queues know of it, hook by hook. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Hooks, OperationError, Operations};
use crate::domain::at_hook::{Clues, HookState};
use crate::domain::claim::Found;
use crate::domain::escape::quoted;
use crate::domain::event::Event;
use crate::domain::failure::Class;
use crate::domain::fold::{Entry, State, Summary};
use crate::domain::hook::Mode;
use crate::domain::id::{EventDigest, HookId, InvocationKey, LetterId};
use crate::domain::invocation::Envelope;
use crate::domain::matching::HookSet;
use crate::embedded::{Queued, Store};
use crate::idempotency::{Idempotency, StoreError};
use crate::telemetry::now_ms;

/// Claims that are looked at at a time.
const LOOKS_MAX: usize = 16;
/// What is said where the queues cannot be searched.
const UNSEARCHED: &str = "what waits in RabbitMQ for its first run cannot be looked for: it is unknown too";

/// What is looked into.
#[derive(Clone)]
pub struct Events {
    pub claims: Arc<dyn Idempotency>,
    pub operations: Operations,
    pub hooks: Hooks,
    /// The file, if the queues are in one.
    pub file: Option<Store>,
}

/// Events with an id, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Known {
    pub items: Vec<EventKnown>,
    /// What could not be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventKnown {
    /// As log lines name it: the 32 digits before the hook.
    pub event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Every hook of the catalog that events run, and others that letters name.
    pub hooks: Vec<AtHook>,
    /// Of an event that was refused whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub letters: Vec<LetterKnown>,
}

/// One event at one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AtHook {
    pub hook: String,
    pub state: HookState,
    /// The attempt that runs or comes next, as far as its claim says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When its message is due, in milliseconds since 1970; of a file only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letter: Option<LetterKnown>,
}

/// A letter in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LetterKnown {
    pub id: LetterId,
    pub state: State,
    pub class: Class,
    pub error: String,
    pub generation: u32,
}

/// Why nothing is told of an event.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("nothing is known of event {0}")]
    Unknown(String),
    #[error("{0}")]
    Away(String),
}

impl From<OperationError> for LookError {
    fn from(error: OperationError) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<StoreError> for LookError {
    fn from(error: StoreError) -> Self {
        Self::Away(error.to_string())
    }
}

/// An event that is asked for: by its id and source, by its id alone, or as log lines name it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    id: &'a str,
    source: Option<&'a str>,
    digest: Option<EventDigest>,
}

impl<'a> Asked<'a> {
    #[must_use]
    pub fn new(id: &'a str, source: Option<&'a str>) -> Self {
        let digest = source.map_or_else(|| id.parse().ok(), |source| Some(EventDigest::of(source, id)));
        Self { id, source, digest }
    }

    fn means(&self, id: &str, source: &str) -> bool {
        self.id == id && self.source.is_none_or(|own| own == source)
    }

    fn takes(&self, letter: &Summary) -> bool {
        let Some(event) = &letter.event else { return false };
        if self.means(&event.id, &event.source) {
            return true;
        }
        match &letter.edited_from {
            Some(from) => {
                Some(from.event) == self.digest || self.source.is_none() && from.id.as_deref() == Some(self.id)
            }
            // With a source it would have been equal to it; to compute all digests takes long.
            None => self.source.is_none() && self.digest.is_some() && letter.event_digest() == self.digest,
        }
    }

    /// The sentence about what nothing is known of.
    fn unknown(&self) -> String {
        let id = quoted(self.id);
        match self.source.map(quoted) {
            Some(source) => format!(
                "{id} of source {source}: it never came, no hook wanted it, it still waits for its first run, or it was \
                 forgotten"
            ),
            None => format!(
                "{id}: no letter has it. Claims are found by an id together with its source: say the source too, or the 32 \
                 digits that log lines show as `invocation` before the slash"
            ),
        }
    }
}

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Carrier {
    Invocation,
    Event,
}

/// What was found of one event besides its claims.
#[derive(Default)]
struct Traces {
    id: Option<String>,
    source: Option<String>,
    kind: Option<String>,
    letters: Vec<Entry>,
    /// When the messages of its hooks are due: a hook's own goes before that of the whole event.
    due: BTreeMap<HookId, (Carrier, u64)>,
}

impl Events {
    /// What is known of the events that are asked for.
    ///
    /// # Errors
    /// Nothing is known of any; or the log, the claims or the file cannot be read.
    pub async fn look_up(&self, asked: &Asked<'_>) -> Result<Known, LookError> {
        let hooks = self.hooks.as_ref().map(|hooks| hooks.borrow().clone());
        let mut notes = Vec::new();
        if let Err(why) = &hooks {
            notes.push(format!("only hooks are listed that letters name, since the catalog is not known here: {why}"));
        }
        if self.file.is_none() {
            notes.push(UNSEARCHED.to_owned());
        }
        let hooks = hooks.unwrap_or_default();
        let mut items = Vec::new();
        for (digest, traces) in self.traces(asked, &hooks).await? {
            items.push(self.known(digest, traces, &hooks).await?);
        }
        items.retain(EventKnown::is_known);
        if items.is_empty() {
            return Err(LookError::Unknown(asked.unknown()));
        }
        Ok(Known { items, notes })
    }

    /// Events that are meant, with what letters and queues say of each.
    async fn traces(&self, asked: &Asked<'_>, hooks: &HookSet) -> Result<BTreeMap<EventDigest, Traces>, LookError> {
        let mut traces: BTreeMap<EventDigest, Traces> = BTreeMap::new();
        if let Some(digest) = asked.digest {
            let (id, source) = asked.source.map(|source| (asked.id.to_owned(), source.to_owned())).unzip();
            traces.insert(digest, Traces { id, source, ..Traces::default() });
        }
        let lettered =
            self.operations.letters.now().await.map_err(OperationError::from)?.entries_of(|it| asked.takes(it));
        for entry in lettered {
            if let Some(digest) = entry.letter.event_digest() {
                traces.entry(digest).or_default().add(entry);
            }
        }
        // Letters tell the id of an event that is named as log lines do.
        let named = traces.values().filter_map(|traces| traces.id.clone());
        let ids: BTreeSet<String> = named.chain([asked.id.to_owned()]).collect();
        let mut queued = Vec::new();
        if let Some(file) = &self.file {
            for id in &ids {
                queued.extend(file.queued(id).await.map_err(|error| LookError::Away(error.to_string()))?);
            }
        }
        for Queued { queue, due_ms, message } in queued {
            let Ok(envelope) = Envelope::decode(queue, &message, &self.operations.reading) else { continue };
            let (event, wanting, carrier) = match envelope {
                Envelope::Invocation(invocation) => (invocation.event, vec![invocation.hook], Carrier::Invocation),
                Envelope::Event(whole) => {
                    let wanting = hooks.matching(&whole.event).hooks.iter().map(|hook| hook.id.clone()).collect();
                    (whole.event, wanting, Carrier::Event)
                }
                Envelope::Newer(_) => continue,
            };
            if asked.means(&event.id, &event.source) || Some(event.digest) == asked.digest {
                traces.entry(event.digest).or_default().wait(&event, wanting, (carrier, due_ms));
            }
        }
        Ok(traces)
    }

    async fn known(&self, digest: EventDigest, traces: Traces, hooks: &HookSet) -> Result<EventKnown, LookError> {
        let of_catalog = hooks.hooks().iter().filter(|hook| hook.mode == Mode::Observe).map(|hook| hook.id.clone());
        let named = traces.letters.iter().filter_map(|entry| HookId::new(entry.letter.hook.as_deref()?).ok());
        let all: BTreeSet<HookId> = of_catalog.chain(named).chain(traces.due.keys().cloned()).collect();
        let looked = stream::iter(all).map(|hook| async {
            let key = InvocationKey { event: digest, hook };
            let claim = self.claims.look(&key).await?;
            Ok::<_, StoreError>((key.hook, claim))
        });
        let looked: Vec<(HookId, Option<Found>)> = looked.buffered(LOOKS_MAX).try_collect().await?;
        let at_hooks = looked.iter().map(|(hook, claim)| at_hook(hook, claim.as_ref(), &traces, hooks)).collect();
        let whole = traces.letters.iter().filter(|entry| entry.letter.hook.is_none()).map(LetterKnown::of).collect();
        let Traces { id, source, kind, .. } = traces;
        Ok(EventKnown { event: digest.to_string(), id, source, kind, hooks: at_hooks, letters: whole })
    }
}

fn at_hook(hook: &HookId, claim: Option<&Found>, traces: &Traces, hooks: &HookSet) -> AtHook {
    let is_its = |entry: &&Entry| entry.letter.hook.as_deref() == Some(hook.as_str());
    let letter = traces.letters.iter().find(is_its);
    let due_ms = traces.due.get(hook).map(|(_, due_ms)| *due_ms);
    let is_paused = hooks.get(hook.as_str()).is_some_and(|hook| hook.paused);
    let clues = Clues { claim, letter, due_ms, is_paused, now_ms: now_ms() };
    let (state, at) = (clues.state(), clues.at());
    AtHook {
        hook: hook.to_string(),
        state,
        generation: at.map(|at| at.generation),
        attempt: at.map(|at| at.attempt),
        due_ms: due_ms.filter(|_| matches!(state, HookState::Waiting | HookState::Parked)),
        letter: letter.map(LetterKnown::of),
    }
}

impl Traces {
    fn add(&mut self, entry: Entry) {
        if let Some(event) = &entry.letter.event
            && entry.letter.edited_from.is_none()
        {
            self.name(&event.id, &event.source, &event.kind);
        }
        self.letters.push(entry);
    }

    /// A message of it is in a queue, for these hooks.
    fn wait(&mut self, event: &Event, hooks: Vec<HookId>, due: (Carrier, u64)) {
        self.name(&event.id, &event.source, &event.kind);
        for hook in hooks {
            let known = self.due.entry(hook).or_insert(due);
            *known = due.min(*known);
        }
    }

    fn name(&mut self, id: &str, source: &str, kind: &str) {
        self.id.get_or_insert_with(|| id.to_owned());
        self.source.get_or_insert_with(|| source.to_owned());
        self.kind.get_or_insert_with(|| kind.to_owned());
    }
}

impl EventKnown {
    fn is_known(&self) -> bool {
        !self.letters.is_empty() || self.hooks.iter().any(|at| at.state != HookState::Unknown)
    }
}

impl LetterKnown {
    fn of(entry: &Entry) -> Self {
        let Summary { id, class, error, generation, .. } = &entry.letter;
        Self { id: id.clone(), state: entry.state, class: *class, error: error.to_string(), generation: *generation }
    }
}
