//! How a letter goes back to work, and how what the broker dead-lettered by itself becomes a letter.
//!
//! A replay's generation is a pure function of the letter (its own plus one), so any number of operators and crashes
//! make one replay. Only `forced` asks for another: the highest generation known, plus one.

use std::sync::Arc;
use std::time::Duration;

use super::claim::Point;
use super::dead_letter::{Cause, Letter, Mark, Record};
use super::event::{Event, Malformed, Reading};
use super::hook::HookId;
use super::invocation::{self, Envelope, Invocation, WholeEvent};
use super::message::{Lane, Message, Outgoing, Queue};
use super::settle::Class;

/// A replay: publish, await the confirm, then append the mark.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    pub outgoing: Outgoing,
    pub mark: Record,
}

/// Who replays, and when.
#[derive(Debug, Clone)]
pub struct Operator {
    pub name: String,
    pub now_ms: u64,
}

/// Makes the replay of a letter.
///
/// `forced`: the generation after this one, the highest known; the hook runs again although it may have finished.
///
/// # Errors
/// One sentence: why this letter cannot be replayed as it is.
pub fn replay(letter: &Letter, forced: Option<u32>, operator: &Operator) -> Result<Replay, String> {
    let generation = forced.unwrap_or(letter.generation) + 1;
    let message = if let Some(hook) = &letter.hook {
        let event = whole(letter, None)?;
        let mut invocation = Invocation::first(Arc::new(event), HookId::new(hook)?, letter.revision.clone());
        invocation.at = Point::first(generation);
        // What was forced once stays under a key of its own: under the plain one its receiver has done it before.
        invocation.forced = forced.is_some() || letter.forced;
        invocation.message()
    } else {
        let id = replayable(letter)?;
        WholeEvent { event: Arc::new(whole(letter, id)?), letter: Some((letter.id.clone(), generation)) }.message()
    };
    let mark =
        Mark { subject: letter.subject(), generation, at_ms: operator.now_ms, by: operator.name.clone(), reason: None };
    Ok(Replay { outgoing: Outgoing::to_lane(Lane::Replay, Duration::ZERO, message), mark: Record::Replayed(mark) })
}

/// Whether the message of a letter without a hook can become an event, and the id that it is given then, if any.
fn replayable(letter: &Letter) -> Result<Option<&str>, String> {
    match letter.class {
        Class::Unreadable | Class::Invalid => Err(format!(
            "letter {} is {:?} ({}): the same bytes would fail again, so it can only be edited",
            letter.id, letter.class, letter.error
        )),
        Class::Unidentified => Ok(Some(letter.id.as_str())),
        Class::Exhausted
        | Class::Rejected
        | Class::TargetBlocked
        | Class::Unrouted
        | Class::Poisoned
        | Class::HookRemoved
        | Class::HookDisabled
        | Class::Expired => Ok(None),
    }
}

/// The event inside a letter; `id` is given to one that has none.
fn whole(letter: &Letter, id: Option<&str>) -> Result<Event, String> {
    let client = letter.client.clone().unwrap_or_default();
    let mut message = Message { body: letter.body.bytes()?, properties: client.properties, headers: client.headers };
    if let Some(trace) = &letter.traceparent {
        message = message.with(super::event::TRACEPARENT, trace.as_str());
    }
    if let Some(id) = id {
        identify(&mut message, id);
    }
    let reading = Reading { body_bytes_max: usize::MAX, digest_missing_id: false };
    Event::decode(&message, &reading).map_err(|malformed| format!("letter {}: {}", letter.id, malformed.error))
}

fn identify(message: &mut Message, id: &str) {
    let structured: Option<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(&message.body).ok().filter(|it: &serde_json::Map<_, _>| it.contains_key("specversion"));
    let Some(mut event) = structured else {
        message.properties.message_id = Some(id.to_owned());
        return;
    };
    let missing = |value: Option<&serde_json::Value>| value.and_then(|value| value.as_str()).is_none_or(str::is_empty);
    if missing(event.get("id")) {
        event.insert("id".to_owned(), id.into());
    }
    if missing(event.get("source")) {
        event.insert("source".to_owned(), "/unidentified".into());
    }
    message.body = serde_json::Value::Object(event).to_string().into();
}

/// What the broker says about a message that it dead-lettered by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerMade<'a> {
    /// Short name of the queue it died in, or of the exchange that had no queue for it.
    pub place: &'a str,
    /// `x-first-death-reason`, or none for a message that had no route.
    pub reason: Option<&'a str>,
    /// It died on a lane or on the ladder: its `hookfleet-*` headers are ours.
    pub ours: bool,
}

/// The letter that such a message amounts to.
#[must_use]
pub fn broker_made(message: &Message, made: &BrokerMade<'_>) -> Letter {
    let (class, error) = match made.reason {
        None => (Class::Unrouted, format!("nothing was bound for it at {}", made.place)),
        // The first death of what came over the ladder is its end of a wait: what buried it came later.
        Some("expired") if !made.place.starts_with("delay.") => {
            (Class::Expired, format!("it waited too long in {}", made.place))
        }
        Some("delivery_limit") => (Class::Poisoned, format!("it was delivered too often from {}", made.place)),
        Some(reason) => (Class::Poisoned, format!("the broker gave it up in {} ({reason})", made.place)),
    };
    let at_ms = message.properties.timestamp.unwrap_or_default().saturating_mul(1000);
    if made.ours
        && let Ok(Envelope::Invocation(invocation)) =
            Envelope::decode(Queue::Lane(Lane::Default), message, &Reading::default())
    {
        let cause = Cause { class, report: None, unprotected: false, deaths: invocation.deaths, target: None };
        let mut letter = Letter::of_invocation(&invocation, invocation.at, cause, made.place, at_ms);
        letter.error = error;
        return letter;
    }
    let mut client = invocation::client(message).unwrap_or_default();
    // The broker's own headers differ from copy to copy; equal messages are one letter.
    client.headers.retain(|name, _| !name.starts_with("x-"));
    Letter::of_message(&Malformed { class, error }, client, &message.body, made.place, at_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dead_letter::Subject;
    use crate::domain::invocation::Client;
    use crate::domain::message::Properties;

    fn operator() -> Operator {
        Operator { name: "me".into(), now_ms: 5 }
    }

    fn event() -> Arc<Event> {
        let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a"}"#;
        Arc::new(Event::decode(&Message { body: body.into(), ..Message::default() }, &Reading::default()).unwrap())
    }

    fn of_hook(generation: u32) -> Letter {
        let mut invocation = Invocation::first(event(), HookId::new("h").unwrap(), "r".into());
        invocation.at = Point { generation, attempt: 4 };
        let cause = Cause { class: Class::Exhausted, report: None, unprotected: false, deaths: 1, target: None };
        Letter::of_invocation(&invocation, invocation.at, cause, "lane.default", 1)
    }

    #[test]
    fn a_replay_is_a_pure_function_of_the_letter() {
        let replayed = replay(&of_hook(2), None, &operator()).unwrap();
        let decoded = Envelope::decode(Queue::Lane(Lane::Replay), &replayed.outgoing.message, &Reading::default());
        let Ok(Envelope::Invocation(invocation)) = decoded else { panic!("{decoded:?}") };
        assert_eq!((invocation.at, invocation.forced, invocation.deaths), (Point::first(3), false, 0));
        assert_eq!(replay(&of_hook(2), None, &operator()).unwrap(), replayed);
        let Record::Replayed(mark) = replayed.mark else { panic!() };
        assert_eq!(mark.generation, 3);

        let forced = replay(&of_hook(2), Some(7), &operator()).unwrap();
        let decoded = Envelope::decode(Queue::Lane(Lane::Replay), &forced.outgoing.message, &Reading::default());
        let Ok(Envelope::Invocation(invocation)) = decoded else { panic!("{decoded:?}") };
        assert_eq!((invocation.at.generation, invocation.forced), (8, true));

        let again = replay(&Letter { forced: true, ..of_hook(8) }, None, &operator()).unwrap();
        assert!(again.outgoing.message.flag("hookfleet-forced"));
    }

    #[test]
    fn letters_without_a_hook() {
        let of = |class, body: &str, properties| {
            let malformed = Malformed { class, error: "x".into() };
            Letter::of_message(&malformed, Client { properties, ..Client::default() }, body.as_bytes(), "events", 1)
        };
        assert!(replay(&of(Class::Unreadable, "{", Properties::default()), None, &operator()).is_err());
        let plain = Properties { kind: Some("a".into()), ..Properties::default() };
        for letter in [
            of(Class::Unidentified, "{}", plain),
            of(Class::Unidentified, r#"{"specversion":"1.0","type":"a","source":"/s"}"#, Properties::default()),
            of(Class::Unidentified, r#"{"specversion":"1.0","type":"a","id":"7"}"#, Properties::default()),
        ] {
            let replayed = replay(&letter, None, &operator()).unwrap();
            let decoded = Envelope::decode(Queue::Lane(Lane::Replay), &replayed.outgoing.message, &Reading::default());
            let Ok(Envelope::Event(whole)) = decoded else { panic!("{decoded:?}") };
            assert!(whole.event.id == letter.id.as_str() || whole.event.id == "7");
            assert_eq!(whole.letter, Some((letter.id.clone(), 1)));
        }
    }

    #[test]
    fn what_the_broker_gave_up_is_a_letter() {
        let invocation = Invocation::first(event(), HookId::new("h").unwrap(), "r".into());
        let message = invocation.message();
        let died = |ours| BrokerMade { place: "lane.default", reason: Some("delivery_limit"), ours };
        let letter = broker_made(&message, &died(true));
        assert_eq!(letter.subject(), Subject::of(&invocation.key()));
        assert_eq!(letter.class, Class::Poisoned);
        let forged = broker_made(&message, &died(false));
        assert!(forged.hook.is_none());
        let lost = broker_made(&message, &BrokerMade { place: "events", reason: None, ours: false });
        assert_eq!(lost.class, Class::Unrouted);
        let after_a_wait = BrokerMade { place: "delay.3", reason: Some("expired"), ours: true };
        assert_eq!(broker_made(&message, &after_a_wait).class, Class::Poisoned);
    }
}
