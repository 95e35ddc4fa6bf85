//! Messages on lane queues: invocations, whole events, and what came there undecoded.

use std::sync::Arc;
use std::time::Duration;

use hookfleet::domain::claim::Point;
use hookfleet::domain::dead_letter::{Cause, Letter, Record};
use hookfleet::domain::event::Reading;
use hookfleet::domain::failure::{AttemptReport, Class};
use hookfleet::domain::invocation::{Envelope, Invocation, again, suspect};
use hookfleet::domain::message::{FORMAT_VERSION, Lane, Message, Queue};
use hookfleet::domain::replay::{BrokerMade, Operator, broker_made, replay, undeliverable};

use super::input;

/// Attempts that a message lists at most.
const HISTORY_MAX: usize = 100;
const LANE: Queue = Queue::Lane(Lane::Default);

/// A message on a lane.
pub fn invocation(data: &[u8]) {
    let message = input::message(data);
    letters(&message);
    match decode(&message) {
        Ok(Envelope::Invocation(invocation)) => {
            one(&invocation);
            buried(&invocation);
        }
        Ok(Envelope::Event(whole)) => {
            let encoded = whole.message();
            trip(&encoded, &Envelope::Event(whole));
        }
        Ok(Envelope::Newer(version)) => assert!(version > FORMAT_VERSION, "{version}"),
        Err(error) => input::assert_one_line(&error),
    }
}

fn decode(message: &Message) -> Result<Envelope, String> {
    Envelope::decode(LANE, message, &Reading::default()).map_err(|malformed| malformed.error)
}

/// What we write is read as the same, also when it is sent round once more, and when it is taken to be suspect.
fn trip(encoded: &Message, expected: &Envelope) {
    for message in [encoded.clone(), again(encoded), suspect(LANE, encoded)] {
        assert_eq!(decode(&message).as_ref(), Ok(expected));
    }
    let short = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= 255);
    let properties = &encoded.properties;
    assert!(short(&properties.message_id) && short(&properties.content_type), "too long for AMQP: {properties:?}");
}

fn one(invocation: &Invocation) {
    let encoded = invocation.message();
    let Ok(Envelope::Invocation(read)) = decode(&encoded) else { panic!("an invocation stays one: {encoded:?}") };
    // The oldest attempts may be left out, nothing else.
    assert!(invocation.history.ends_with(&read.history), "{:?}", read.history);
    assert!(read.history.len() <= HISTORY_MAX, "{} attempts", read.history.len());
    assert_eq!(read, Invocation { history: read.history.clone(), ..invocation.clone() });
    assert_eq!(read.message(), encoded);
    trip(&encoded, &Envelope::Invocation(read));

    let report = AttemptReport {
        generation: 0,
        attempt: 1,
        at_ms: u64::MAX,
        took_ms: 6,
        status: Some(-1),
        tries: 1,
        error: "500".into(),
    };
    let next = invocation.next(invocation.at, 2, Duration::from_secs(3), Some(&report));
    assert_eq!((next.key(), next.idempotency_key()), (invocation.key(), invocation.idempotency_key()));
    let last = AttemptReport { generation: invocation.at.generation, ..report };
    assert!(next.at >= invocation.at && next.history.len() <= HISTORY_MAX && next.history.last() == Some(&last));
    trip(&next.message(), &Envelope::Invocation(decoded(&next)));
}

fn decoded(invocation: &Invocation) -> Invocation {
    match decode(&invocation.message()) {
        Ok(Envelope::Invocation(read)) => read,
        other => panic!("an invocation stays one: {other:?}"),
    }
}

/// Its letter, and the replay of that.
fn buried(invocation: &Invocation) {
    let cause =
        Cause { class: Class::Exhausted, report: None, unprotected: true, deaths: 1, target: None, foreign: None };
    let letter = Letter::of_invocation(invocation, invocation.at, cause, "lane.default", 7);
    let record = Record::Letter(Box::new(letter.clone()));
    assert_eq!(Record::decode(&record.encode()), Ok(record));
    let operator = Operator { name: "me".into(), now_ms: 5, seen_ms: 1, reading: Reading::default() };
    for force in [None, Some(invocation.at.generation)] {
        let replay = match replay(&letter, force, &operator) {
            Ok(replay) => replay,
            Err(error) => {
                assert_eq!(invocation.at.generation, u32::MAX, "{error}");
                continue;
            }
        };
        assert_eq!(replay.generation, invocation.at.generation + 1);
        let forced = force.map_or(invocation.forced, |_| replay.generation);
        let first =
            Invocation::first(Arc::clone(&invocation.event), invocation.hook.clone(), invocation.revision.clone());
        let history = decoded(invocation).history;
        let expected = Invocation {
            at: Point::first(replay.generation),
            forced,
            history,
            edited_from: invocation.edited_from.clone(),
            ..first
        };
        assert_eq!(decode(&replay.outgoing.message), Ok(Envelope::Invocation(expected)));
    }
}

/// What the broker gives up becomes a letter, whatever it is.
fn letters(message: &Message) {
    for (reason, ours) in [(None, false), (Some("expired"), true), (Some("delivery_limit"), true)] {
        let letter = broker_made(message, &BrokerMade { place: "lane.default", reason, ours }, 0);
        letter_of(message, letter);
    }
    letter_of(message, undeliverable(message, "too large".into(), 7));
}

fn letter_of(message: &Message, letter: Letter) {
    let of_message = letter.hook.is_none(); // others hold their event in its own form
    assert!(!of_message || letter.body.bytes().as_ref() == Ok(&message.body), "a letter holds the bytes");
    let record = Record::Letter(Box::new(letter));
    assert_eq!(Record::decode(&record.encode()), Ok(record));
}
