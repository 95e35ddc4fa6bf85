//! Messages in the words of another hook system. What they say is read by their dialect; this makes events of them.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::plain::{AMQP_1_0_ID, digest_id, given, sender};
use super::{Malformed, Reading, Written, malformed, short, unreadable};
use crate::domain::dialect::{Dialect, EVENT_HEADER};
use crate::domain::failure::Class;
use crate::domain::message::Message;

/// What a message says of its event, in the words of its dialect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForeignEvent {
    /// The type of the event.
    pub kind: String,
    pub subject: Option<String>,
    /// What the payload itself tells repeats by; `None`: it has nothing of that kind.
    pub id: Option<String>,
    /// Further attributes of the event, for conditions and templates. Lower-case letters and digits (CloudEvents 1.0.2, 3.1).
    pub attributes: BTreeMap<&'static str, String>,
}

/// Reads messages of other dialects: of this one, named so by the message if it names them, with this body.
#[derive(Clone, Copy)]
pub struct Foreign(pub Read);

/// Reads one such message.
type Read = fn(Dialect, Option<&str>, &[u8]) -> Result<ForeignEvent, Malformed>;

impl Default for Foreign {
    /// Knows no other dialect.
    fn default() -> Self {
        Self(|dialect, _, _| {
            let error = format!("expected an event, found one of dialect {}, which is not read here", dialect.name());
            Err(malformed(Class::Invalid, error))
        })
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Foreign")
    }
}

/// Ways to read are not told from each other.
impl PartialEq for Foreign {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Foreign {}

/// The event that a message of this dialect is, in CloudEvents' structured JSON: its data are the body as it came.
///
/// The id is the message's `message_id`, or what the payload has in its place: a worker makes none up, since the same message
/// would get another one the next time. The time is the message's `timestamp`.
pub(super) fn structured(dialect: Dialect, message: &Message, reading: &Reading) -> Result<Bytes, Malformed> {
    let data: &RawValue = serde_json::from_slice(&message.body).map_err(|error| unreadable(&error))?;
    let ForeignEvent { kind, subject, id, attributes } =
        (reading.foreign.0)(dialect, message.text(EVENT_HEADER), &message.body)?;
    let properties = &message.properties;
    let id = given(properties.message_id.as_deref()).or_else(|| given(message.text(AMQP_1_0_ID))).or(id);
    let id = match id {
        Some(id) => id,
        None if reading.digest_missing_id => digest_id(message),
        None => return Err(malformed(Class::Unidentified, "expected the message property `message_id`, found none")),
    };
    let source = format!("/{}/{}", dialect.name(), sender(message));
    for (name, value) in [("id", &id), ("source", &source), ("type", &kind)] {
        short(name, value)?;
    }
    let seconds = properties.timestamp.and_then(|seconds| i64::try_from(seconds).ok());
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()).map(|time| time.to_string());
    let written = Written::new(&id, &source, &kind, data);
    let hookdialect = Some(dialect);
    Ok(Written { subject: subject.as_deref(), time, hookdialect, attributes, ..written }.json())
}
