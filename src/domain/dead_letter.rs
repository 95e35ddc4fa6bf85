//! Dead letters: an append-only log of letters and marks. Which of them are open is the fold's to say.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::claim::Point;
use super::event::{Event, Malformed};
use super::failure::{AttemptReport, Class};
use super::id::{EditedFrom, EventDigest, InvocationKey, LetterId};
use super::invocation::{Client, EventMessage, Invocation, ReplayOf};
use super::trace::TraceContext;

pub use self::foreign::ForeignHook;
pub use self::origin::Origin;
pub use self::record::{Item, LOG, Mark, Offset, RECORD, RECORD_VERSION, Record, Subject, WORKER};

mod foreign;
mod origin;
mod record;

impl LetterId {
    /// Of an invocation that was given up on, whichever generation it was. Older versions had another id for each
    /// generation; this is that of the first.
    #[must_use]
    pub fn of_invocation(key: &InvocationKey) -> Self {
        Self::digest(&[b"invocation", &key.event.0, key.hook.as_str().as_bytes(), &0_u32.to_be_bytes()])
    }

    /// Of a message that could not be taken as it is.
    #[must_use]
    pub fn of_raw(queue: &str, client: &Client, body: &[u8]) -> Self {
        let client = serde_json::to_vec(client).unwrap_or_default();
        Self::digest(&[b"raw", queue.as_bytes(), &client, body])
    }

    /// Of an event that was refused whole.
    #[must_use]
    pub fn of_event(event: &Event) -> Self {
        Self::digest(&[b"event", &event.digest.0, &event.body])
    }
}

/// A body as it stands in JSON: text if it is UTF-8, base64 otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    Text(String),
    Base64(String),
}

impl Body {
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    /// # Errors
    /// The base64 is broken.
    pub fn bytes(&self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Self::Base64(text) => STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("body: {error}")),
        }
    }
}

/// The identity of the event inside a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventName {
    pub id: String,
    pub source: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// What the fleet gave up on, with all that a replay needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Letter {
    pub id: LetterId,
    /// When it became one, in milliseconds since 1970: when it was written, or earlier, when the broker dead-lettered what
    /// was found later.
    pub at_ms: u64,
    /// When it was found, if that was later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_ms: Option<u64>,
    pub class: Class,
    /// Redacted, one line.
    pub error: String,
    /// None: the letter is about a whole event or message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventName>,
    pub generation: u32,
    /// Failed attempts of all generations, oldest first, as far as a message carries them: the newest hundred at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptReport>,
    #[serde(default)]
    pub deaths: u32,
    /// The generation by which an operator forced it; 0: by none.
    #[serde(default)]
    pub forced: u32,
    /// Run while the store was away: what it says of repeats is unproven.
    #[serde(default)]
    pub unprotected: bool,
    #[serde(default)]
    pub revision: String,
    /// Where the hook went, safe to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The hook in the words of its own system, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Box<ForeignHook>>,
    /// Letters of one cause share it.
    pub fingerprint: String,
    /// The queue it was received from.
    pub queue: String,
    /// What the client said, for letters about messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// Where the setting `events.baggage` lets it come along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baggage: Option<String>,
    /// The session and the run that the event names: see [`Origin`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Of a letter that was written again so that it does not age out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
    /// Of a gate: who asked has had an answer without this hook's, so that there is nothing to replay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_record: bool,
    /// The event that was edited after it had failed: the letter was its, and is now that of the edited one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_from: Option<EditedFrom>,
    /// What gates have said of the event, as JSON; `null`: nobody decided in time. In views only where the body is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// The event (or the raw message) whole; in views only where it is asked for.
    #[schema(required = false)]
    pub body: Body,
}

/// What a letter that is written again stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Carried {
    /// When it was written again, in milliseconds since 1970.
    pub at_ms: u64,
    /// Letters that had been folded into it by then, and when the newest of them was written.
    pub count: u64,
    pub newest_ms: u64,
}

/// Why an invocation is given up, beside what it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub class: Class,
    pub report: Option<AttemptReport>,
    pub unprotected: bool,
    pub deaths: u32,
    pub target: Option<String>,
    pub foreign: Option<Box<ForeignHook>>,
}

impl Letter {
    /// The letter of an invocation given up at generation `at.generation`.
    #[must_use]
    pub fn of_invocation(invocation: &Invocation, at: Point, cause: Cause, queue: &str, now_ms: u64) -> Self {
        let error = match (&cause.report, cause.class) {
            (Some(report), _) => report.error.clone(),
            (None, Class::Poisoned) => format!("{} workers died while running it", cause.deaths),
            (None, class) => format!("{class:?}"),
        };
        let mut attempts = invocation.history.clone();
        attempts.extend(cause.report.map(|report| AttemptReport { generation: at.generation, ..report }));
        let event = &invocation.event;
        let Origin { session, run } = Origin::of(&event.body);
        let [traceparent, tracestate, baggage] = trace_of(event);
        Self {
            id: LetterId::of_invocation(&invocation.letter_key()),
            at_ms: now_ms,
            found_ms: None,
            class: cause.class,
            fingerprint: fingerprint(cause.class, invocation.hook.as_str(), &error),
            error,
            hook: Some(invocation.hook.to_string()),
            event: Some(EventName::of(event)),
            generation: at.generation,
            attempts,
            deaths: cause.deaths,
            forced: invocation.forced,
            unprotected: cause.unprotected,
            revision: invocation.revision.to_string(),
            target: cause.target,
            foreign: cause.foreign,
            queue: queue.to_owned(),
            client: None,
            traceparent,
            tracestate,
            baggage,
            session,
            run,
            carried: None,
            for_record: false,
            edited_from: invocation.edited_from.clone(),
            decision: invocation.decision.as_ref().map(|decision| decision.as_json().to_owned()),
            body: Body::new(&event.body),
        }
    }

    /// The letter of a message that is no event.
    #[must_use]
    pub fn of_message(malformed: &Malformed, client: Client, body: &[u8], queue: &str, now_ms: u64) -> Self {
        Self {
            id: LetterId::of_raw(queue, &client, body),
            at_ms: now_ms,
            found_ms: None,
            class: malformed.class,
            fingerprint: fingerprint(malformed.class, queue, &malformed.error),
            error: malformed.error.clone(),
            hook: None,
            event: None,
            generation: 0,
            attempts: Vec::new(),
            deaths: 0,
            forced: 0,
            unprotected: false,
            revision: String::new(),
            target: None,
            foreign: None,
            queue: queue.to_owned(),
            traceparent: None,
            tracestate: None,
            baggage: None,
            client: Some(client),
            session: None,
            run: None,
            carried: None,
            for_record: false,
            edited_from: None,
            decision: None,
            body: Body::new(body),
        }
    }

    /// The letter of a whole event that is refused for what it says. That of a replay is the letter which it replays, at
    /// the generation of the replay.
    #[must_use]
    pub fn of_event(message: &EventMessage, malformed: &Malformed, queue: &str, now_ms: u64) -> Self {
        let event = &message.event;
        let (id, generation) = match &message.replay_of {
            Some(ReplayOf { letter, generation }) => (letter.clone(), *generation),
            None => (LetterId::of_event(event), 0),
        };
        let [traceparent, tracestate, baggage] = trace_of(event);
        let Origin { session, run } = Origin::of(&event.body);
        Self {
            id,
            generation,
            event: Some(EventName::of(event)),
            traceparent,
            tracestate,
            baggage,
            fingerprint: fingerprint(malformed.class, &event.kind, &malformed.error),
            client: None, // the body says all of it, whichever way it came
            session,
            run,
            decision: message.decision.as_ref().map(|decision| decision.as_json().to_owned()),
            ..Self::of_message(malformed, Client::default(), &event.body, queue, now_ms)
        }
    }

    /// The same, of a gate that failed like this: there is nothing to replay.
    #[must_use]
    pub fn for_record(self, error: &str) -> Self {
        let fingerprint = fingerprint(self.class, self.hook.as_deref().unwrap_or_default(), error);
        Self { for_record: true, error: error.to_owned(), fingerprint, ..self }
    }

    /// The same, of what came about earlier than it was found. A time that is later than that is none.
    #[must_use]
    pub fn since(self, at_ms: Option<u64>) -> Self {
        match at_ms.filter(|at_ms| (1..self.at_ms).contains(at_ms)) {
            Some(at_ms) => Self { found_ms: Some(self.at_ms), at_ms, ..self },
            None => self,
        }
    }

    /// When it was written, in milliseconds since 1970: what came about earlier may be found later than what came after it.
    #[must_use]
    pub fn written_ms(&self) -> u64 {
        self.found_ms.unwrap_or(self.at_ms).max(self.at_ms)
    }

    /// The trace that its event belongs to.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::new(self.traceparent.as_deref(), self.tracestate.as_deref(), self.baggage.as_deref())
    }

    /// What the letter is about.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match (self.event_digest(), &self.hook) {
            (Some(event), Some(hook)) => Subject::Invocation { event: event.to_string(), hook: hook.clone() },
            _ => Subject::Message(self.id.clone()),
        }
    }

    /// The event that the letter is about, edited or not.
    fn event_digest(&self) -> Option<EventDigest> {
        let event = self.event.as_ref()?;
        let from = self.edited_from.as_ref().map(|from| from.event);
        Some(from.unwrap_or_else(|| EventDigest::of(&event.source, &event.id)))
    }

    /// What the letter of an edited event says of the one that the letter is about.
    #[must_use]
    pub fn editing(&self) -> Option<EditedFrom> {
        let event = self.event.as_ref()?;
        Some(self.edited_from.clone().unwrap_or_else(|| EditedFrom::new(&event.source, &event.id)))
    }
}

impl EventName {
    #[must_use]
    pub fn of(event: &Event) -> Self {
        Self {
            id: event.id.clone(),
            source: event.source.clone(),
            kind: event.kind.clone(),
            subject: event.subject.clone(),
        }
    }
}

/// The headers of an event's trace: parent, state, baggage.
fn trace_of(event: &Event) -> [Option<String>; 3] {
    let trace = event.trace.as_ref();
    let parts = [TraceContext::parent, TraceContext::state, TraceContext::baggage];
    parts.map(|part| trace.and_then(part).map(str::to_owned))
}

/// Letters whose errors differ only in numbers have the same cause.
fn fingerprint(class: Class, scope: &str, error: &str) -> String {
    let shape: String = error.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let digest = Sha256::digest(format!("{class:?}\0{scope}\0{shape}"));
    hex::encode(&digest[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        let malformed = Malformed { class: Class::Invalid, error: "x".into() };
        Letter::of_message(&malformed, Client::default(), &[0xff, 0x00], "events", 7)
    }

    #[test]
    fn records_keep_their_form() {
        let mark =
            Mark { subject: letter().subject(), generation: 1, at_ms: 9, by: "me".into(), reason: None, until_ms: 0 };
        let whole = Record::Letter(Box::new(letter()));
        for record in [whole, Record::Resolved(mark), Record::Barrier { nonce: "n".into() }] {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
        assert!(Record::decode(br#"{"v":2,"record":"barrier","nonce":"n"}"#).unwrap_err().contains("version 1"));
    }

    /// Records are kept for a month and longer: these, of the first version, are read for ever.
    #[test]
    fn records_of_the_first_version_are_read() {
        let letter = r#"{"v":1,"record":"letter","id":"4be1c5b0a4b1d26e5f0c3a77","at_ms":7,"class":"exhausted","error":"500",
            "hook":"h","event":{"id":"1","source":"/s","type":"a"},"generation":2,
            "attempts":[{"attempt":1,"at_ms":5,"took_ms":1,"status":500,"error":"500"}],"deaths":0,"forced":0,"unprotected":false,
            "revision":"r3","target":"http://a","fingerprint":"0a1b2c3d4e5f","queue":"default","body":{"text":"{}"}}"#;
        let Ok(Record::Letter(letter)) = Record::decode(letter.as_bytes()) else { panic!() };
        assert_eq!((letter.id.as_str(), letter.generation, letter.attempts.len()), ("4be1c5b0a4b1d26e5f0c3a77", 2, 1));
        assert_eq!((&letter.session, &letter.carried, letter.body.clone()), (&None, &None, Body::Text("{}".into())));
        let mark = r#"{"v":1,"record":"resolved","subject":{"invocation":{"event":"00","hook":"h"}},"generation":3,"at_ms":8,
            "by":"me","reason":"x","until_ms":7}"#;
        let Ok(Record::Resolved(mark)) = Record::decode(mark.as_bytes()) else { panic!() };
        assert_eq!((mark.generation, mark.reason.as_deref()), (3, Some("x")));
        let mark = r#"{"v":1,"record":"replayed","subject":{"message":"4be1c5b0a4b1d26e5f0c3a77"},"generation":1,"at_ms":8,"by":"me"}"#;
        assert!(matches!(Record::decode(mark.as_bytes()), Ok(Record::Replayed(_))));
    }

    /// What cannot be read is a letter, always the same one, and no barrier is.
    #[test]
    fn what_cannot_be_read_is_a_letter() {
        for bytes in [&b"\xff\x00"[..], b"{", b"{}", br#"{"v":2,"record":"letter"}"#, br#"{"v":1,"record":"else"}"#] {
            let Record::Letter(letter) = Record::read(bytes, 5) else { panic!() };
            assert_eq!((letter.class, letter.queue.as_str(), letter.at_ms), (Class::Unreadable, LOG, 5));
            assert!(letter.error.starts_with("a record of the log: "), "{}", letter.error);
            let Record::Letter(again) = Record::read(bytes, 9) else { panic!() };
            assert_eq!(again.id, letter.id);
        }
        assert!(matches!(Record::read(br#"{"v":2,"record":"barrier","nonce":7}"#, 5), Record::Barrier { .. }));
    }

    /// A record at one place of the log is one letter, at every reading.
    #[test]
    fn what_is_withheld_is_a_letter() {
        let at = |offset| match Record::withheld(Offset(offset)) {
            Record::Letter(letter) => letter,
            other => panic!("{other:?}"),
        };
        assert_eq!(at(7), at(7));
        assert_ne!(at(7).id, at(8).id);
        assert_eq!(at(7).fingerprint, at(8).fingerprint);
        assert_eq!((at(7).class, at(7).queue.as_str()), (Class::Unreadable, LOG));
    }

    #[test]
    fn errors_that_differ_in_numbers_share_a_fingerprint() {
        assert_eq!(fingerprint(Class::Exhausted, "h", "took 12 ms"), fingerprint(Class::Exhausted, "h", "took 99 ms"));
        assert_ne!(fingerprint(Class::Exhausted, "h", "500"), fingerprint(Class::Rejected, "h", "500"));
    }
}
