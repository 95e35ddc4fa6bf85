//! An invocation is one event for one hook; this file is how it travels.
//!
//! Headers named `hookfleet-*` are believed on lane queues only. Every message carries the format version; every
//! republish builds its properties and headers afresh, so that nothing of a client's (`user_id`, `expiration`,
//! `x-death`) can close a channel or make the broker drop a message.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::claim::Point;
use super::decision::Decided;
use super::event::binary::Naming;
use super::event::{CLOUDEVENTS_JSON, Event, HOPS, Malformed, Reading};
use super::failure::{AttemptReport, Class};
use super::id::{EditedFrom, HookId, InvocationKey, LetterId};
use super::message::{Header, Message, Properties, Queue, format_version};
use super::revision::Revision;
use super::trace::{BAGGAGE, TRACEPARENT, TRACESTATE, TraceContext};

mod history;

const VERSION: &str = "hookfleet-version";
const KIND: &str = "hookfleet-kind";
const HOOK: &str = "hookfleet-hook";
const GENERATION: &str = "hookfleet-generation";
const ATTEMPT: &str = "hookfleet-attempt";
const DEATHS: &str = "hookfleet-deaths";
const SPENT_MS: &str = "hookfleet-spent-ms";
const FORCED: &str = "hookfleet-forced";
const HAS_WINDOW: &str = "hookfleet-has-window";
const HISTORY: &str = "hookfleet-history";
const REVISION: &str = "hookfleet-revision";
const UNKNOWN_MS: &str = "hookfleet-unknown-ms";
const LETTER: &str = "hookfleet-letter";
const CLIENT: &str = "hookfleet-client";
const DECISION: &str = "hookfleet-decision";
const EDITED_FROM: &str = "hookfleet-edited-from";
/// What a message carries of a client's headers; the largest are left out first.
const CLIENT_BYTES_MAX: usize = 64 * 1024;

/// One event for one hook, at one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub event: Arc<Event>,
    /// What gates have decided on the event; `None` if they were not asked.
    pub decision: Option<Decided>,
    pub hook: HookId,
    pub at: Point,
    /// Workers that died of it in this generation, as far as this message knows.
    pub deaths: u32,
    /// Runs and planned waits so far.
    pub spent: Duration,
    /// The generation by which an operator had it run although finished, under a key of its own; 0: by none.
    pub forced: u32,
    /// The window of its hook's `once_per` was its own: it goes on whoever has that now.
    pub has_window: bool,
    /// Failed attempts so far, those of earlier generations too, newest last.
    pub history: Vec<AttemptReport>,
    /// The catalog revision at which the event was matched.
    pub revision: Revision,
    /// How long it has waited for a catalog that knows its hook.
    pub unknown: Duration,
    /// Of a letter that was edited: the letter's event, with which it ends and fails.
    pub edited_from: Option<EditedFrom>,
}

impl Invocation {
    /// The first attempt of an event at a hook.
    #[must_use]
    pub fn first(event: Arc<Event>, hook: HookId, revision: Revision) -> Self {
        Self {
            event,
            decision: None,
            hook,
            at: Point::first(0),
            deaths: 0,
            spent: Duration::ZERO,
            forced: 0,
            has_window: false,
            history: Vec::new(),
            revision,
            unknown: Duration::ZERO,
            edited_from: None,
        }
    }

    #[must_use]
    pub fn key(&self) -> InvocationKey {
        InvocationKey { event: self.event.digest, hook: self.hook.clone() }
    }

    /// The key of the letter that it becomes if it is given up. Its own, unless it stands for another event.
    #[must_use]
    pub fn letter_key(&self) -> InvocationKey {
        let event = self.edited_from.as_ref().map_or(self.event.digest, |from| from.event);
        InvocationKey { event, hook: self.hook.clone() }
    }

    /// What the receiver gets to tell repeats by: constant over attempts and replays; by force another, which its own
    /// attempts and replays keep.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        if self.forced > 0 { format!("{}/{}", self.key(), self.forced) } else { self.key().to_string() }
    }

    /// The next attempt.
    #[must_use]
    pub fn next(&self, at: Point, deaths: u32, spent: Duration, report: Option<&AttemptReport>) -> Self {
        let history = history::with(&self.history, report, at.generation);
        Self { at: at.next(), deaths, spent, history, ..self.clone() }
    }

    /// As a message for a lane.
    #[must_use]
    pub fn message(&self) -> Message {
        let mut message = of_event(&self.event, self.decision.as_ref(), "invocation")
            .with(HOOK, self.hook.as_str())
            .with(GENERATION, i64::from(self.at.generation))
            .with(ATTEMPT, i64::from(self.at.attempt))
            .with(REVISION, self.revision.to_string());
        if self.deaths > 0 {
            message = message.with(DEATHS, i64::from(self.deaths));
        }
        if !self.spent.is_zero() {
            message = message.with(SPENT_MS, i64::try_from(self.spent.as_millis()).unwrap_or(i64::MAX));
        }
        if !self.unknown.is_zero() {
            message = message.with(UNKNOWN_MS, i64::try_from(self.unknown.as_millis()).unwrap_or(i64::MAX));
        }
        if self.forced > 0 {
            message = message.with(FORCED, i64::from(self.forced));
        }
        if self.has_window {
            message = message.with(HAS_WINDOW, true);
        }
        if let Some(from) = &self.edited_from {
            message = message.with(EDITED_FROM, serde_json::to_string(from).unwrap_or_default());
        }
        if !self.history.is_empty() {
            message = message.with(HISTORY, history::text(&self.history));
        }
        message
    }
}

/// A whole event as a message: its hooks are matched when it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventMessage {
    pub event: Arc<Event>,
    /// What gates have decided on the event; `None` if they were not asked.
    pub decision: Option<Decided>,
    /// The dead letter that this message replays, if it is a replay.
    pub replay_of: Option<ReplayOf>,
}

/// Which dead letter a message replays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayOf {
    pub letter: LetterId,
    /// The generation of the replay.
    pub generation: u32,
}

impl EventMessage {
    /// As a message for a lane.
    #[must_use]
    pub fn message(&self) -> Message {
        let message = of_event(&self.event, self.decision.as_ref(), "event");
        match &self.replay_of {
            Some(ReplayOf { letter, generation }) => {
                message.with(LETTER, letter.as_str()).with(GENERATION, i64::from(*generation))
            }
            None => message,
        }
    }

    /// The first attempt of this event at a hook.
    #[must_use]
    pub fn invocation(&self, hook: HookId, revision: Revision) -> Invocation {
        let first = Invocation::first(Arc::clone(&self.event), hook, revision);
        Invocation { decision: self.decision.clone(), ..first }
    }
}

fn of_event(event: &Event, decision: Option<&Decided>, kind: &str) -> Message {
    let properties = Properties {
        content_type: Some(CLOUDEVENTS_JSON.to_owned()),
        message_id: Some(event.id.clone()).filter(|id| id.len() <= 255), // AMQP short string
        ..Properties::default()
    };
    let message = Message { body: event.body.clone(), properties, ..Message::default() };
    let message = message.with(VERSION, format_version()).with(KIND, kind);
    let message = if event.hops > 0 { message.with(HOPS, i64::from(event.hops)) } else { message };
    let message = match decision {
        Some(decision) => message.with(DECISION, decision.as_json()),
        None => message,
    };
    TraceContext::onto(event.trace.as_ref(), message)
}

/// A message that was delivered too often goes to lane `suspect` before it is decoded, its body unchanged.
///
/// From the events queue the client's properties and headers travel as JSON text in one header, because streams drop
/// headers that are tables. From a lane they are ours and go along as they are.
#[must_use]
pub fn suspect(queue: Queue, message: &Message) -> Message {
    match queue {
        Queue::Lane(_) => again(message),
        Queue::Events | Queue::Gates | Queue::Undecided => {
            let client = Client::of(message);
            let raw = Message { body: message.body.clone(), ..Message::default() }
                .with(VERSION, format_version())
                .with(KIND, "raw")
                .with(CLIENT, client.cut_to(CLIENT_BYTES_MAX));
            if queue == Queue::Events { raw } else { raw.with(DECISION, Decided::nobody().as_json()) }
        }
    }
}

/// The same message once more, byte for byte, with the properties and headers that are ours.
#[must_use]
pub fn again(message: &Message) -> Message {
    let ours = |name: &str| name.starts_with("hookfleet-") || matches!(name, TRACEPARENT | TRACESTATE | BAGGAGE);
    Message {
        body: message.body.clone(),
        properties: Properties {
            content_type: message.properties.content_type.clone(),
            message_id: message.properties.message_id.clone(),
            ..Properties::default()
        },
        headers: message.headers.iter().filter(|(name, _)| ours(name)).map(|(k, v)| (k.clone(), v.clone())).collect(),
        ..Message::default()
    }
}

/// What a client said about a message: for letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Client {
    #[serde(default)]
    pub properties: Properties,
    #[serde(default)]
    #[schema(value_type = Object)]
    pub headers: super::message::Headers,
    /// The key by which it was published, where the property `type` is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<String>,
}

impl Client {
    /// What the client of this message said about it.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let Message { properties, headers, routing_key, .. } = message.clone();
        Self { properties, headers, routing_key }
    }

    /// The message again, with this body.
    #[must_use]
    pub fn message(self, body: Bytes) -> Message {
        let Self { properties, headers, routing_key } = self;
        Message { body, properties, headers, routing_key, asking: None }
    }

    /// As JSON of about so many bytes at most: without its largest headers where they would not fit. Attributes of an
    /// event in binary mode stay, since it would be another event without them; where they alone are too much, the
    /// broker's limit makes the message a letter.
    fn cut_to(mut self, bytes_max: usize) -> String {
        let text = serde_json::to_string(&self).unwrap_or_default();
        let mut surplus = text.len().saturating_sub(bytes_max);
        if surplus == 0 {
            return text;
        }
        let size =
            |name: &str, header: &Header| serde_json::to_string(&(name, header)).map_or(0, |pair| pair.len() - 1);
        let naming = Naming::of(self.headers.keys().map(String::as_str));
        let is_attribute = |name: &str| naming.is_some_and(|naming| naming.attribute(name).is_some());
        let others = self.headers.iter().filter(|(name, _)| !is_attribute(name));
        let mut others: Vec<_> = others.map(|(name, header)| (size(name, header), name.clone())).collect();
        others.sort_unstable(); // once: a client may send thousands of small ones
        while surplus > 0
            && let Some((size, largest)) = others.pop()
        {
            self.headers.remove(&largest);
            surplus = surplus.saturating_sub(size);
        }
        serde_json::to_string(&self).unwrap_or_default()
    }
}

/// What a delivery carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Envelope {
    Event(EventMessage),
    Invocation(Invocation),
    /// Written by a newer version of this program: leave it to newer workers.
    Newer(i64),
}

impl Envelope {
    /// Reads a message from `queue`.
    ///
    /// # Errors
    /// [`Malformed`] with the class of the letter that it becomes.
    pub fn decode(queue: Queue, message: &Message, reading: &Reading) -> Result<Self, Malformed> {
        match queue {
            Queue::Events | Queue::Gates | Queue::Undecided => {
                let event = Arc::new(Event::decode(message, reading)?);
                Ok(Self::Event(EventMessage { event, decision: None, replay_of: None }))
            }
            Queue::Lane(_) => match message.number(VERSION) {
                None => Err(invalid(format!("expected the header `{VERSION}`, found none"))),
                Some(version) if version > format_version() => Ok(Self::Newer(version)),
                Some(_) => on_lane(message, reading),
            },
        }
    }
}

fn on_lane(message: &Message, reading: &Reading) -> Result<Envelope, Malformed> {
    // What was let in once is not refused later because a limit was lowered.
    let reading = &Reading { body_bytes_max: usize::MAX, ..*reading };
    match message.text(KIND) {
        Some("event") => {
            let replay_of = |id| ReplayOf { letter: LetterId::from(id), generation: count(message, GENERATION) };
            let event = Arc::new(Event::decode(message, reading)?);
            let replay_of = message.text(LETTER).map(replay_of);
            Ok(Envelope::Event(EventMessage { event, decision: decision(message), replay_of }))
        }
        Some("invocation") => invocation(message, reading),
        Some("raw") => {
            let of_client = client(message)?.message(message.body.clone());
            let event = Arc::new(Event::decode(&of_client, reading)?);
            Ok(Envelope::Event(EventMessage { event, decision: decision(message), replay_of: None }))
        }
        found => Err(invalid(format!("expected the header `{KIND}` to be event, invocation or raw, found {found:?}"))),
    }
}

/// What gates have decided on the event of a message that is ours.
fn decision(message: &Message) -> Option<Decided> {
    message.text(DECISION).map(Decided::from_json)
}

fn invocation(message: &Message, reading: &Reading) -> Result<Envelope, Malformed> {
    let hook = message.text(HOOK).ok_or_else(|| invalid(format!("expected the header `{HOOK}`, found none")))?;
    let hook = HookId::new(hook).map_err(|error| invalid(format!("header `{HOOK}`: {error}")))?;
    let history = match message.text(HISTORY) {
        Some(text) => serde_json::from_str(text).map_err(|error| invalid(format!("header `{HISTORY}`: {error}")))?,
        None => Vec::new(),
    };
    let edited_from = message.text(EDITED_FROM).map(serde_json::from_str).transpose();
    let edited_from = edited_from.map_err(|error| invalid(format!("header `{EDITED_FROM}`: {error}")))?;
    Ok(Envelope::Invocation(Invocation {
        event: Arc::new(Event::decode(message, reading)?),
        decision: decision(message),
        hook,
        at: Point { generation: count(message, GENERATION), attempt: count(message, ATTEMPT).max(1) },
        deaths: count(message, DEATHS),
        spent: duration(message, SPENT_MS),
        unknown: duration(message, UNKNOWN_MS),
        forced: count(message, FORCED),
        has_window: message.headers.get(HAS_WINDOW) == Some(&Header::Flag(true)),
        history,
        revision: message.text(REVISION).unwrap_or_default().into(),
        edited_from,
    }))
}

/// The client's properties and headers: those of a raw message if it is one, else the message's own.
///
/// # Errors
/// The header that should hold them is not the JSON that we write.
pub fn client(message: &Message) -> Result<Client, Malformed> {
    match message.text(CLIENT) {
        Some(text) => serde_json::from_str(text).map_err(|error| invalid(format!("header `{CLIENT}`: {error}"))),
        None => Ok(Client::of(message)),
    }
}

fn count(message: &Message, name: &str) -> u32 {
    message.number(name).and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

fn duration(message: &Message, name: &str) -> Duration {
    Duration::from_millis(message.number(name).and_then(|number| u64::try_from(number).ok()).unwrap_or_default())
}

fn invalid(error: String) -> Malformed {
    Malformed::new(Class::Invalid, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dead_letter::{Cause, Letter};
    use crate::domain::message::Lane;

    fn sample() -> Invocation {
        let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.b"}"#;
        let message = Message { body: body.into(), ..Message::default() }
            .with(TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let event = Event::decode(&message, &Reading::default()).unwrap();
        Invocation::first(Arc::new(event), HookId::new("h").unwrap(), "r1".into())
    }

    #[test]
    fn an_invocation_survives_the_trip() {
        let report = AttemptReport {
            generation: 0,
            attempt: 1,
            at_ms: 5,
            took_ms: 6,
            status: Some(500),
            tries: 1,
            error: "500".into(),
        };
        let next = sample().next(Point::first(0), 2, Duration::from_secs(3), Some(&report));
        let windowed = Invocation { has_window: true, ..sample() };
        let edited = Invocation { edited_from: Some(EditedFrom::new("/s", "0")), ..sample() };
        for invocation in [sample(), next, windowed, edited, Invocation { forced: 2, at: Point::first(2), ..sample() }]
        {
            let found = Envelope::decode(Queue::Lane(Lane::Slow), &invocation.message(), &Reading::default());
            assert_eq!(found, Ok(Envelope::Invocation(invocation)));
        }
    }

    /// From the client's message through retries and letters, or not at all.
    #[test]
    fn baggage_goes_along_where_it_may() {
        for (forward_baggage, expected) in [(true, Some("user=7")), (false, None)] {
            let reading = Reading { forward_baggage, ..Reading::default() };
            let message = Message { body: sample().event.body.clone(), ..Message::default() }
                .with(TRACESTATE, "a=1")
                .with(BAGGAGE, "user=7")
                .with(TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
            let event = Arc::new(Event::decode(&message, &reading).unwrap());
            let first = Invocation::first(event, HookId::new("h").unwrap(), "r1".into());
            let Ok(Envelope::Invocation(next)) = Envelope::decode(Queue::Lane(Lane::Slow), &first.message(), &reading)
            else {
                panic!("no invocation")
            };
            let cause = Cause {
                class: Class::Exhausted,
                report: None,
                unprotected: false,
                deaths: 0,
                target: None,
                foreign: None,
            };
            let letter = Letter::of_invocation(&next, Point::first(0), cause, "events", 7).trace();
            for trace in [&next.event.trace, &letter] {
                let trace = trace.as_ref().unwrap();
                assert_eq!((trace.state(), trace.baggage()), (Some("a=1"), expected));
            }
        }
    }

    #[test]
    fn our_headers_are_not_believed_on_events() {
        let forged = Invocation { deaths: 4, ..sample() }.message();
        let found = Envelope::decode(Queue::Events, &forged, &Reading::default()).unwrap();
        assert!(matches!(found, Envelope::Event(EventMessage { replay_of: None, .. })), "{found:?}");
    }

    #[test]
    fn a_raw_message_is_the_event_that_it_was() {
        let plain = Message {
            body: "{}".into(),
            properties: Properties {
                message_id: Some("7".into()),
                kind: Some("a".into()),
                user_id: Some("guest".into()),
                ..Properties::default()
            },
            ..Message::default()
        };
        let expected = Envelope::decode(Queue::Events, &plain, &Reading::default());
        let raw = suspect(Queue::Events, &plain);
        assert_eq!(raw.properties, Properties::default());
        assert_eq!(Envelope::decode(Queue::Lane(Lane::Suspect), &raw, &Reading::default()), expected);
    }

    #[test]
    fn a_raw_message_keeps_the_attributes_in_its_headers() {
        let binary = Message { body: "{}".into(), ..Message::default() }
            .with("cloudEvents:specversion", "1.0")
            .with("cloudEvents:id", "7")
            .with("cloudEvents_source", "/s")
            .with("cloudEvents:type", "a")
            .with("cloudEvents:large", "x".repeat(50_000));
        let expected = Envelope::decode(Queue::Events, &binary, &Reading::default());
        assert!(matches!(expected, Ok(Envelope::Event(_))), "{expected:?}");
        let raw = suspect(Queue::Events, &binary.with("larger", "x".repeat(60_000)).with("other", "x".repeat(20_000)));
        assert_eq!(Envelope::decode(Queue::Lane(Lane::Suspect), &raw, &Reading::default()), expected);
        assert_eq!(client(&raw).unwrap().headers.len(), 5);
    }

    #[test]
    fn headers_are_kept_small() {
        let client = Message::default().with("large", "\"".repeat(100_000)).with("small", "x");
        let raw = suspect(Queue::Events, &client);
        let kept = super::client(&raw).unwrap();
        assert_eq!(kept.headers.keys().collect::<Vec<_>>(), ["small"]);

        let names: Vec<String> = (0..20_000).map(|n| format!("h{n}")).collect();
        let many = names.iter().fold(Message::default(), |message, name| message.with(name, true));
        let raw = suspect(Queue::Events, &many);
        let kept = raw.text(CLIENT).unwrap().len();
        assert!((CLIENT_BYTES_MAX - 20..=CLIENT_BYTES_MAX).contains(&kept), "{kept}");

        let report = |attempt| AttemptReport {
            generation: 0,
            attempt,
            at_ms: 5,
            took_ms: 6,
            status: None,
            tries: 1,
            error: "\u{1}".repeat(1000), // six bytes each in JSON
        };
        let invocation = Invocation { history: (1..=20).map(report).collect(), ..sample() };
        let found = Envelope::decode(Queue::Lane(Lane::Slow), &invocation.message(), &Reading::default()).unwrap();
        let Envelope::Invocation(found) = found else { panic!("{found:?}") };
        assert_eq!(found.history.iter().map(|report| report.attempt).collect::<Vec<_>>(), [16, 17, 18, 19, 20]);

        let report = |attempt| AttemptReport {
            generation: 0,
            attempt,
            at_ms: 5,
            took_ms: 6,
            status: None,
            tries: 1,
            error: "500".into(),
        };
        let invocation = Invocation { history: (1..=140).map(report).collect(), ..sample() };
        let found = Envelope::decode(Queue::Lane(Lane::Slow), &invocation.message(), &Reading::default()).unwrap();
        let Envelope::Invocation(found) = found else { panic!("{found:?}") };
        assert_eq!(found.history, invocation.history[40..]);
    }

    #[test]
    fn newer_messages_and_foreign_ones() {
        let lane = Queue::Lane(Lane::Default);
        let newer = sample().message().with(VERSION, 2);
        assert_eq!(Envelope::decode(lane, &newer, &Reading::default()), Ok(Envelope::Newer(2)));
        let found = Envelope::decode(lane, &Message::default(), &Reading::default());
        assert_eq!(found.unwrap_err().class, Class::Invalid);
    }

    #[test]
    fn keys_are_stable() {
        let first = sample();
        let next = first.next(first.at, 0, Duration::ZERO, None);
        assert_eq!(first.idempotency_key(), next.idempotency_key());
        let replay = Invocation { at: Point::first(1), ..sample() };
        assert_eq!(first.idempotency_key(), replay.idempotency_key());
        let forced = Invocation { forced: 1, ..replay };
        assert_eq!(forced.idempotency_key(), format!("{}/1", first.key()));
        let again = Invocation { at: Point::first(2), ..forced.clone() };
        assert_eq!(again.idempotency_key(), forced.idempotency_key());
    }
}
