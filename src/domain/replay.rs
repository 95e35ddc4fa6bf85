//! How a letter goes back to work, and how what the broker dead-lettered by itself becomes a letter.
//!
//! A replay's generation is a pure function of the letter (its own plus one), so any number of operators and crashes
//! make one replay. Only force asks for another: the highest generation known, plus one. What follows from it, retries
//! and replays of its letters, stays under its key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::{RawValue, to_raw_value};

use super::claim::Point;
use super::dead_letter::{Cause, Letter, Mark, Record, Subject};
use super::decision::Decided;
use super::event::{Event, Malformed, Reading};
use super::failure::Class;
use super::id::{HookId, LetterId};
use super::invocation::{self, Client, Envelope, EventMessage, Invocation, ReplayOf};
use super::json::without_mark;
use super::message::{Lane, Message, Outgoing, Queue};
use super::trace::TraceContext;

/// A replay: publish, await the confirm, then append the mark.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    pub generation: u32,
    pub outgoing: Outgoing,
    pub mark: Record,
    /// What ends when it ends: the letter's own work, or that of the hook that it was sent to.
    pub follows: Subject,
    /// Its hook decides otherwise: it runs as one that observes, and its answer is not used.
    pub observes: bool,
}

/// Who replays, when, and in view of what.
#[derive(Debug, Clone)]
pub struct Operator {
    pub name: String,
    pub now_ms: u64,
    /// When the newest letter that the operator saw of this subject was written.
    pub seen_ms: u64,
    /// How messages are read that are no events by themselves. Their size has no limit here.
    pub reading: Reading,
}

/// Which generation a replay is, and by which generation it is forced (0: by none), given those of its letter.
///
/// `force`: the highest generation known of the letter's subject, for a run although the hook may have finished. `None`:
/// there is no generation after the last.
#[must_use]
pub fn generation(letter: (u32, u32), force: Option<u32>) -> Option<(u32, u32)> {
    match force {
        Some(highest) => highest.checked_add(1).map(|next| (next, next)),
        None => letter.0.checked_add(1).map(|next| (next, letter.1)),
    }
}

/// Makes the replay of a letter; `force` as for [`generation`]. A hook of another system that was asked and has failed runs
/// again as one that observes: a hook of ours that was asked does not, since nobody waits for its answer any more.
///
/// # Errors
/// One sentence: why this letter cannot be replayed as it is.
pub fn replay(letter: &Letter, force: Option<u32>, operator: &Operator) -> Result<Replay, String> {
    if letter.foreign.is_none() {
        refuse_record(letter)?;
    }
    let (generation, forced) = generation((letter.generation, letter.forced), force)
        .ok_or_else(|| format!("letter {} is of the last generation that there is", letter.id))?;
    let message = if let Some(hook) = &letter.hook {
        let event = whole(letter, None, operator)?;
        let mut invocation = Invocation::first(Arc::new(event), HookId::new(hook)?, letter.revision.as_str().into());
        invocation.at = Point::first(generation);
        invocation.forced = forced;
        invocation.history.clone_from(&letter.attempts);
        invocation.edited_from.clone_from(&letter.edited_from);
        invocation.decision = decision(letter);
        invocation.message()
    } else {
        let event = Arc::new(whole(letter, given_id(letter), operator)?);
        let replay_of = Some(ReplayOf { letter: letter.id.clone(), generation });
        EventMessage { event, decision: decision(letter), replay_of }.message()
    };
    let (subject, by) = (letter.subject(), operator.name.clone());
    let follows = subject.clone();
    let mark = Mark { subject, generation, at_ms: operator.now_ms, by, reason: None, until_ms: operator.seen_ms };
    let outgoing = Outgoing::to_lane(Lane::Replay, Duration::ZERO, message);
    Ok(Replay { generation, outgoing, mark: Record::Replayed(mark), follows, observes: letter.for_record })
}

/// Makes the replay of a letter of a hook for another hook: that one runs, under a key of its own, as often as it is asked
/// for by this letter once; the letter is closed, and should the other hook fail too, that is a letter of that one.
///
/// # Errors
/// One sentence: why this letter cannot be sent there.
pub fn redirect(letter: &Letter, hook: &HookId, operator: &Operator) -> Result<Replay, String> {
    refuse_record(letter)?;
    match &letter.hook {
        None => {
            return Err(format!(
                "letter {} is about a whole message, which goes to every hook that wants it",
                letter.id
            ));
        }
        Some(own) if own == hook.as_str() => return replay(letter, None, operator),
        Some(_) => {}
    }
    let (generation, _) = generation((letter.generation, 0), None)
        .ok_or_else(|| format!("letter {} is of the last generation that there is", letter.id))?;
    let event = Arc::new(whole(letter, None, operator)?);
    let mut invocation = Invocation::first(event, hook.clone(), letter.revision.as_str().into());
    invocation.at = Point::first(generation);
    invocation.decision = decision(letter);
    let (subject, by, until_ms) = (letter.subject(), operator.name.clone(), operator.seen_ms);
    let reason = Some(format!("sent to hook {hook}"));
    let mark = Mark { subject, generation, at_ms: operator.now_ms, by, reason, until_ms };
    let outgoing = Outgoing::to_lane(Lane::Replay, Duration::ZERO, invocation.message());
    let follows = Subject::of(&invocation.key());
    Ok(Replay { generation, outgoing, mark: Record::Resolved(mark), follows, observes: false })
}

/// # Errors
/// It says what became of a question that was answered long ago.
pub fn refuse_record(letter: &Letter) -> Result<(), String> {
    if letter.for_record {
        return Err(format!(
            "letter {} is of a gate, for the record: who asked has had an answer without it. Resolve it once it is seen to",
            letter.id
        ));
    }
    Ok(())
}

/// The id that the message of a letter without a hook is given, if it has none.
fn given_id(letter: &Letter) -> Option<&str> {
    match letter.class {
        Class::Unidentified => Some(letter.id.as_str()),
        // What was refused for its size or by an older version may be an event all the same: decoding will tell.
        Class::Unreadable
        | Class::Invalid
        | Class::Exhausted
        | Class::Rejected
        | Class::TargetBlocked
        | Class::Unrouted
        | Class::Poisoned
        | Class::HookRemoved
        | Class::HookDisabled
        | Class::Expired => None,
    }
}

/// What gates have decided on the event inside a letter.
fn decision(letter: &Letter) -> Option<Decided> {
    letter.decision.as_deref().map(Decided::from_json)
}

/// The event inside a letter; `id` is given to one that has none.
fn whole(letter: &Letter, id: Option<&str>, operator: &Operator) -> Result<Event, String> {
    let client = letter.client.clone().unwrap_or_default();
    let mut message = client.message(letter.body.bytes()?);
    message = TraceContext::onto(letter.trace().as_ref(), message);
    if let Some(id) = id {
        identify(&mut message, id);
    }
    let reading = Reading { body_bytes_max: usize::MAX, forward_baggage: true, ..operator.reading };
    Event::decode(&message, &reading).map_err(|malformed| {
        format!(
            "letter {} is no event ({}): the same bytes would fail again, so it can only be edited",
            letter.id, malformed.error
        )
    })
}

/// The data stays as it is, to the last digit.
fn identify(message: &mut Message, id: &str) {
    let structured = serde_json::from_slice(without_mark(&message.body)).ok();
    let structured = structured.filter(|event: &BTreeMap<String, Box<RawValue>>| event.contains_key("specversion"));
    let Some(mut event) = structured else {
        message.properties.message_id = Some(id.to_owned());
        return;
    };
    for (name, value) in [("id", id), ("source", "/unidentified")] {
        let present = event.get(name).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
        if present.is_none_or(|value| value.is_empty())
            && let Ok(value) = to_raw_value(value)
        {
            event.insert(name.to_owned(), value);
        }
    }
    message.body = serde_json::to_vec(&event).unwrap_or_default().into();
}

/// What the broker says about a message that it dead-lettered by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerMade<'a> {
    /// Short name of the queue it died in, or of the exchange that had no queue for it.
    pub place: &'a str,
    /// Why it died, as the broker says, or none for a message that had no route.
    pub reason: Option<&'a str>,
    /// It died on a lane or on the ladder: its `hookfleet-*` headers are ours.
    pub ours: bool,
}

/// The letter that such a message amounts to. `at_ms`: when it was found, in milliseconds since 1970; 0 where that is not
/// known, since what a client says of its time is not when this came about. A reader then goes by the records around it.
#[must_use]
pub fn broker_made(message: &Message, made: &BrokerMade<'_>, at_ms: u64) -> Letter {
    let (class, error) = match made.reason {
        None => (Class::Unrouted, format!("nothing was bound for it at {}", made.place)),
        // In logs of older versions this is the first death. That of what came over the ladder is the end of a wait: what
        // dead-lettered it came later.
        Some("expired") if !["delay.", "park.", "running"].iter().any(|waits| made.place.starts_with(waits)) => {
            (Class::Expired, format!("it waited too long in {}", made.place))
        }
        Some("delivery_limit") => (Class::Poisoned, format!("it was delivered too often from {}", made.place)),
        Some(reason) => (Class::Poisoned, format!("the broker gave it up in {} ({reason})", made.place)),
    };
    letter(message, made, class, error, at_ms)
}

/// The letter of a message of ours that no broker will take.
#[must_use]
pub fn undeliverable(message: &Message, error: String, at_ms: u64) -> Letter {
    letter(message, &BrokerMade { place: "publish", reason: None, ours: true }, Class::Invalid, error, at_ms)
}

fn letter(message: &Message, made: &BrokerMade<'_>, class: Class, error: String, at_ms: u64) -> Letter {
    if made.ours
        && let Ok(Envelope::Invocation(invocation)) =
            Envelope::decode(Queue::Lane(Lane::Default), message, &Reading::default())
    {
        let cause =
            Cause { class, report: None, unprotected: false, deaths: invocation.deaths, target: None, foreign: None };
        let mut letter = Letter::of_invocation(&invocation, invocation.at, cause, made.place, at_ms);
        letter.error = error;
        return letter;
    }
    let mut client = invocation::client(message).unwrap_or_default();
    // The broker's own headers differ from copy to copy; equal messages are one letter.
    client.headers.retain(|name, _| !name.starts_with("x-"));
    let mut letter =
        Letter::of_message(&Malformed::new(class, error), client.clone(), &message.body, made.place, at_ms);
    // Its id is made anew at each look at the log: it must be what it was before messages had routing keys.
    letter.id = LetterId::of_raw(made.place, &Client { routing_key: None, ..client }, &message.body);
    letter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dead_letter::Subject;
    use crate::domain::message::Properties;

    fn operator() -> Operator {
        Operator { name: "me".into(), now_ms: 5, seen_ms: 1, reading: Reading::default() }
    }

    fn event() -> Arc<Event> {
        let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a"}"#;
        Arc::new(Event::decode(&Message { body: body.into(), ..Message::default() }, &Reading::default()).unwrap())
    }

    fn of_hook(generation: u32) -> Letter {
        let mut invocation = Invocation::first(event(), HookId::new("h").unwrap(), "r".into());
        invocation.at = Point { generation, attempt: 4 };
        let cause =
            Cause { class: Class::Exhausted, report: None, unprotected: false, deaths: 1, target: None, foreign: None };
        Letter::of_invocation(&invocation, invocation.at, cause, "lane.default", 1)
    }

    #[test]
    fn the_last_generation_has_no_replay() {
        for (letter, force) in [(of_hook(u32::MAX), None), (of_hook(0), Some(u32::MAX))] {
            let error = replay(&letter, force, &operator()).unwrap_err();
            assert!(error.ends_with("is of the last generation that there is"), "{error}");
        }
    }

    #[test]
    fn a_replay_is_a_pure_function_of_the_letter() {
        let replayed = replay(&of_hook(2), None, &operator()).unwrap();
        let decoded = Envelope::decode(Queue::Lane(Lane::Replay), &replayed.outgoing.message, &Reading::default());
        let Ok(Envelope::Invocation(invocation)) = decoded else { panic!("{decoded:?}") };
        assert_eq!((invocation.at, invocation.forced, invocation.deaths), (Point::first(3), 0, 0));
        assert_eq!(replay(&of_hook(2), None, &operator()).unwrap(), replayed);
        let Record::Replayed(mark) = replayed.mark else { panic!() };
        assert_eq!(mark.generation, 3);

        let forced = replay(&of_hook(2), Some(7), &operator()).unwrap();
        let decoded = Envelope::decode(Queue::Lane(Lane::Replay), &forced.outgoing.message, &Reading::default());
        let Ok(Envelope::Invocation(invocation)) = decoded else { panic!("{decoded:?}") };
        assert_eq!((invocation.at.generation, invocation.forced), (8, 8));

        let again = replay(&Letter { forced: 8, ..of_hook(9) }, None, &operator()).unwrap();
        assert_eq!((again.generation, again.outgoing.message.number("hookfleet-forced")), (10, Some(8)));
    }

    #[test]
    fn a_letter_can_go_to_another_hook() {
        let other = HookId::new("other").unwrap();
        let replayed = redirect(&of_hook(2), &other, &operator()).unwrap();
        let decoded = Envelope::decode(Queue::Lane(Lane::Replay), &replayed.outgoing.message, &Reading::default());
        let Ok(Envelope::Invocation(invocation)) = decoded else { panic!("{decoded:?}") };
        assert_eq!((&invocation.hook, invocation.at), (&other, Point::first(3)));
        let Record::Resolved(mark) = replayed.mark else { panic!() };
        assert_eq!((mark.subject, mark.generation), (of_hook(2).subject(), 3));
        let own = redirect(&of_hook(2), &HookId::new("h").unwrap(), &operator()).unwrap();
        assert_eq!(own, replay(&of_hook(2), None, &operator()).unwrap(), "its own hook runs it as any replay");
        let whole = Letter { hook: None, ..of_hook(0) };
        assert!(redirect(&whole, &other, &operator()).unwrap_err().contains("a whole message"));
    }

    #[test]
    fn letters_without_a_hook() {
        let of = |class, body: &str, properties| {
            let malformed = Malformed { class, error: "x".into() };
            Letter::of_message(&malformed, Client { properties, ..Client::default() }, body.as_bytes(), "events", 1)
        };
        assert!(replay(&of(Class::Unreadable, "{", Properties::default()), None, &operator()).is_err());
        let plain = Properties { kind: Some("a".into()), ..Properties::default() };
        let large = of(Class::Invalid, r#"{"specversion":"1.0","type":"a","source":"/s","id":"7"}"#, plain.clone());
        assert!(replay(&large, None, &operator()).is_ok(), "it was refused for its size only");
        for letter in [
            of(Class::Unidentified, "{}", plain),
            of(Class::Unidentified, r#"{"specversion":"1.0","type":"a","source":"/s"}"#, Properties::default()),
            of(Class::Unidentified, r#"{"specversion":"1.0","type":"a","id":"7"}"#, Properties::default()),
        ] {
            let replayed = replay(&letter, None, &operator()).unwrap();
            let decoded = Envelope::decode(Queue::Lane(Lane::Replay), &replayed.outgoing.message, &Reading::default());
            let Ok(Envelope::Event(whole)) = decoded else { panic!("{decoded:?}") };
            assert!(whole.event.id == letter.id.as_str() || whole.event.id == "7");
            assert_eq!(whole.replay_of, Some(ReplayOf { letter: letter.id.clone(), generation: 1 }));
        }
    }

    /// Once the settings say where its type comes from.
    #[test]
    fn a_letter_without_a_type_can_be_replayed() {
        use crate::domain::event::{TypeSource, TypeSources};
        let malformed = Malformed { class: Class::Invalid, error: "x".into() };
        let properties = Properties { message_id: Some("7".into()), ..Properties::default() };
        let client = Client { properties, routing_key: Some("order.paid".into()), ..Client::default() };
        let letter = Letter::of_message(&malformed, client, b"{}", "events", 1);
        assert!(replay(&letter, None, &operator()).unwrap_err().contains("`events.missing_type: routing_key`"));
        let reading = Reading { missing_type: TypeSources::new(&[TypeSource::RoutingKey]), ..Reading::default() };
        let replayed = replay(&letter, None, &Operator { reading, ..operator() }).unwrap();
        let message = &replayed.outgoing.message;
        let Ok(Envelope::Event(whole)) = Envelope::decode(Queue::Lane(Lane::Replay), message, &Reading::default())
        else {
            panic!("{message:?}")
        };
        assert_eq!((whole.event.kind.as_str(), whole.event.id.as_str()), ("order.paid", "7"));
    }

    /// Marks in the log name it by its id.
    #[test]
    fn a_letter_of_the_broker_keeps_its_id() {
        let made = BrokerMade { place: "events", reason: Some("delivery_limit"), ours: false };
        let keyed = Message { body: "x".into(), routing_key: Some("a".into()), ..Message::default() };
        let bare = Message { routing_key: None, ..keyed.clone() };
        assert_eq!(broker_made(&keyed, &made, 0).id, broker_made(&bare, &made, 0).id);
        assert_eq!(broker_made(&keyed, &made, 0).client.unwrap().routing_key.as_deref(), Some("a"));
    }

    #[test]
    fn what_the_broker_gave_up_is_a_letter() {
        let invocation = Invocation::first(event(), HookId::new("h").unwrap(), "r".into());
        let message = invocation.message();
        let died = |ours| BrokerMade { place: "lane.default", reason: Some("delivery_limit"), ours };
        let letter = broker_made(&message, &died(true), 7);
        assert_eq!(letter.subject(), Subject::of(&invocation.key()));
        assert_eq!((letter.class, letter.at_ms), (Class::Poisoned, 7));
        let forged = broker_made(&message, &died(false), 7);
        assert!(forged.hook.is_none());
        let lost = broker_made(&message, &BrokerMade { place: "events", reason: None, ours: false }, 7);
        assert_eq!(lost.class, Class::Unrouted);
        let after_a_wait = BrokerMade { place: "delay.3", reason: Some("expired"), ours: true };
        assert_eq!(broker_made(&message, &after_a_wait, 0).class, Class::Poisoned);
    }
}
