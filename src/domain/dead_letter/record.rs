//! Records of the log, as they are stored and as they are read again.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Letter;
use crate::domain::event::Malformed;
use crate::domain::failure::Class;
use crate::domain::id::{HookId, InvocationKey, LetterId};
use crate::domain::invocation::Client;
use crate::domain::message::{Message, Properties};

/// Version of the records in the log.
pub const RECORD_VERSION: u32 = 1;
/// Header of a message that is a record of the log. Believed only on what was published to the log itself.
pub const RECORD: &str = "hookfleet-record";
/// The place that letters about records name.
pub const LOG: &str = "dead_letters";

/// Who makes the marks that say that a generation has finished.
pub const WORKER: &str = "worker";

/// What records are folded by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// One event at one hook, over all generations.
    Invocation { event: String, hook: String },
    /// A message without a hook.
    Message(LetterId),
}

impl Subject {
    #[must_use]
    pub fn of(key: &InvocationKey) -> Self {
        Self::Invocation { event: key.event.to_string(), hook: key.hook.to_string() }
    }

    /// # Errors
    /// The stored hook id is not legal, which no version of this program writes.
    pub fn hook(&self) -> Result<Option<HookId>, String> {
        match self {
            Self::Invocation { hook, .. } => HookId::new(hook).map(Some),
            Self::Message(_) => Ok(None),
        }
    }
}

/// A mark about a generation of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mark {
    pub subject: Subject,
    /// The generation that was sent out, or that finished.
    pub generation: u32,
    pub at_ms: u64,
    /// A worker or an operator.
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The newest letter that an operator meant, by the time it was written; 0 from workers.
    #[serde(default)]
    pub until_ms: u64,
}

/// Where a record stands in its log. Offsets only grow; there may be gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// Where to go on after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A record where it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub at: Offset,
    /// A reader that begins here gets it whole: before `at` if its body came by itself.
    pub from: Offset,
    /// Whether its body is with it: one that came by itself may be out of reach.
    pub whole: bool,
    pub record: Record,
}

impl Item {
    /// A record that stands in one place.
    #[must_use]
    pub const fn new(at: Offset, record: Record) -> Self {
        Self { at, from: at, whole: true, record }
    }
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    Letter(Box<Letter>),
    /// A replay was published as this generation.
    Replayed(Mark),
    /// This generation finished, or an operator closed it.
    Resolved(Mark),
    /// Ends a read: everything confirmed before it was read.
    Barrier {
        nonce: String,
    },
}

/// A record with its version, as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored<T> {
    v: u32,
    #[serde(flatten)]
    record: T,
}

/// What a record calls itself.
#[derive(Deserialize)]
struct Tagged {
    record: String,
}

impl Record {
    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        // Strings, numbers and maps with text keys always serialize.
        Bytes::from(serde_json::to_vec(&Stored { v: RECORD_VERSION, record: self }).unwrap_or_default())
    }

    /// As it travels.
    #[must_use]
    pub fn message(&self) -> Message {
        let properties = Properties { content_type: Some("application/json".to_owned()), ..Properties::default() };
        Message { body: self.encode(), properties, ..Message::default() }.with(RECORD, true)
    }

    /// What stands in the log under our name: a record, or the letter that one amounts to which this version cannot read, so
    /// that it is seen, counted and can be closed like any other.
    #[must_use]
    pub fn read(bytes: &[u8], at_ms: u64) -> Self {
        Self::decode(bytes).unwrap_or_else(|error| {
            let tagged: Option<Tagged> = serde_json::from_slice(bytes).ok();
            if tagged.is_some_and(|it| it.record == "barrier") {
                return Self::Barrier { nonce: String::new() }; // of whatever version: it is over
            }
            Self::unreadable(bytes, format!("a record of the log: {error}"), at_ms)
        })
    }

    /// What somebody else put into the log. `at_ms`: when it was found; 0 where that is not known.
    #[must_use]
    pub fn foreign(bytes: &[u8], at_ms: u64) -> Self {
        Self::unreadable(bytes, "it was published to the log, and is no record of this fleet".to_owned(), at_ms)
    }

    /// What stands in the log and is handed out to nobody, up to this place. Always the same letter for the same place.
    #[must_use]
    pub fn withheld(up_to: Offset) -> Self {
        let error = format!(
            "the broker cannot hand out the record at offset {} of the log, or several up to there: what they say is not known",
            up_to.0
        );
        let at = i64::try_from(up_to.0).unwrap_or(i64::MAX);
        let headers = Message::default().with("offset", at).headers;
        let client = Client { headers, ..Client::default() };
        let malformed = Malformed::new(Class::Unreadable, error);
        Self::Letter(Box::new(Letter::of_message(&malformed, client, &[], LOG, 0)))
    }

    fn unreadable(bytes: &[u8], error: String, at_ms: u64) -> Self {
        let malformed = Malformed::new(Class::Unreadable, error);
        Self::Letter(Box::new(Letter::of_message(&malformed, Client::default(), bytes, LOG, at_ms)))
    }

    /// # Errors
    /// The bytes are no record, or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let stored: Stored<Self> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if stored.v > RECORD_VERSION {
            return Err(format!("expected a record of version {RECORD_VERSION} or older, found {}", stored.v));
        }
        Ok(stored.record)
    }
}
