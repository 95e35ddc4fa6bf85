//! A letter's event with other data: new work, under an identity of its own.
//!
//! Its id is a digest of the letter and the new body: the same edit, made twice or by two operators, is one event, and
//! never the one that failed, of which some hooks may have run. At a hook it stands for the letter all the same: the letter
//! is resolved when the edited event is done, and is that of the edited event should it fail too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};

use super::claim::Point;
use super::dead_letter::{LOG, Letter, Mark, Record};
use super::event::{Event, Reading};
use super::id::HookId;
use super::invocation::{EventMessage, Invocation, ReplayOf};
use super::json::without_mark;
use super::message::{Lane, Message, Outgoing};
use super::replay::{Operator, Replay, generation, refuse_record};
use super::trace::TraceContext;

/// What is to become of the data.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Other data: JSON, or for a letter without an event any bytes.
    Data(Bytes),
    /// RFC 6902 if it is a list of operations, RFC 7396 (merge) if it is an object.
    Patch(Value),
}

/// A letter's event with other data, on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    pub event: Arc<Event>,
    pub replay: Replay,
}

type Attributes = BTreeMap<String, Box<RawValue>>;

/// Makes the replay of a letter with other data. Its hook alone gets the new event; that of a whole message goes to all
/// hooks. The letter stays as with any replay until they have finished.
///
/// # Errors
/// One sentence: why this letter cannot be edited so.
pub fn edit(letter: &Letter, edit: &Edit, operator: &Operator) -> Result<Edited, String> {
    refuse_record(letter)?;
    if letter.queue == LOG {
        return Err(format!(
            "letter {} stands for a record that this version cannot read: nothing can be sent",
            letter.id
        ));
    }
    let (next, _) = generation((letter.generation, letter.forced), None)
        .ok_or_else(|| format!("letter {} is of the last generation that there is", letter.id))?;
    let event = Arc::new(edited(letter, edit, operator)?);
    let (subject, by, until_ms) = (letter.subject(), operator.name.clone(), operator.seen_ms);
    let reason = Some(format!("sent with other data as event {}", event.id));
    let mark = Mark { subject, generation: next, at_ms: operator.now_ms, by, reason, until_ms };
    let message = if let Some(hook) = &letter.hook {
        let first = Invocation::first(Arc::clone(&event), HookId::new(hook)?, letter.revision.as_str().into());
        let (history, edited_from) = (letter.attempts.clone(), letter.editing());
        Invocation { at: Point::first(next), history, edited_from, ..first }.message()
    } else {
        let replay_of = Some(ReplayOf { letter: letter.id.clone(), generation: next });
        EventMessage { event: Arc::clone(&event), decision: None, replay_of }.message()
    };
    let outgoing = Outgoing::to_lane(Lane::Replay, Duration::ZERO, message);
    let (mark, follows) = (Record::Replayed(mark), letter.subject());
    Ok(Edited { event, replay: Replay { generation: next, outgoing, mark, follows, observes: false } })
}

fn edited(letter: &Letter, edit: &Edit, operator: &Operator) -> Result<Event, String> {
    let client = letter.client.clone().unwrap_or_default();
    let mut message = client.message(letter.body.bytes()?);
    let attributes = serde_json::from_slice(without_mark(&message.body)).ok();
    if let Some(attributes) = attributes.filter(|event: &Attributes| event.contains_key("specversion")) {
        message.body = event_with(letter, attributes, edit)?;
    } else {
        message.body = body_with(letter, &message.body, edit)?;
        named(letter, &mut message);
    }
    let message = TraceContext::onto(letter.trace().as_ref(), message);
    let reading = Reading { body_bytes_max: usize::MAX, forward_baggage: true, ..operator.reading };
    Event::decode(&message, &reading)
        .map_err(|malformed| format!("letter {} with these data is no event: {}", letter.id, malformed.error))
}

/// An event with other data; every other attribute stays as it is, to the last digit.
fn event_with(letter: &Letter, mut attributes: Attributes, edit: &Edit) -> Result<Bytes, String> {
    let data = match edit {
        Edit::Data(data) => parsed(data)?,
        Edit::Patch(patch) => patched(&data(&attributes)?, patch)?,
    };
    attributes.remove("data_base64");
    let id = id(letter, data.get().as_bytes());
    attributes.insert("data".to_owned(), data);
    attributes.insert("id".to_owned(), raw(&id)?);
    if !attributes.contains_key("source") {
        attributes.insert("source".to_owned(), raw(&"/edited")?);
    }
    Ok(serde_json::to_vec(&attributes).unwrap_or_default().into())
}

/// The body of a message that is no event in structured JSON.
fn body_with(letter: &Letter, old: &[u8], edit: &Edit) -> Result<Bytes, String> {
    match edit {
        Edit::Data(body) => Ok(body.clone()),
        Edit::Patch(patch) => {
            let old: Box<RawValue> = serde_json::from_slice(without_mark(old)).map_err(|error| {
                format!("letter {} is no JSON ({error}), so it cannot be patched: give --data", letter.id)
            })?;
            Ok(patched(&old, patch)?.get().to_owned().into())
        }
    }
}

/// A message that is given a whole new body may be an event of its own now; its id is ours all the same.
fn named(letter: &Letter, message: &mut Message) {
    let id = id(letter, &message.body);
    let structured: Option<Attributes> = serde_json::from_slice(without_mark(&message.body)).ok();
    match structured.filter(|event| event.contains_key("specversion")) {
        Some(mut attributes) => {
            if let Ok(id) = raw(&id) {
                attributes.insert("id".to_owned(), id);
            }
            message.body = serde_json::to_vec(&attributes).unwrap_or_default().into();
            message.properties.content_type = None; // the body says what it is
        }
        None => message.properties.message_id = Some(id),
    }
}

fn id(letter: &Letter, data: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(letter.id.as_str());
    hash.update([0]);
    hash.update(data);
    format!("edited-{}", hex::encode(&hash.finalize()[..12]))
}

fn raw<T: serde::Serialize>(value: &T) -> Result<Box<RawValue>, String> {
    to_raw_value(value).map_err(|error| error.to_string())
}

fn parsed(data: &[u8]) -> Result<Box<RawValue>, String> {
    let data = without_mark(data);
    serde_json::from_slice(data).map_err(|error| format!("expected JSON as the event's data, found none: {error}"))
}

fn data(attributes: &Attributes) -> Result<Box<RawValue>, String> {
    if attributes.contains_key("data_base64") {
        return Err("its data is binary, so it cannot be patched: give --data".to_owned());
    }
    attributes.get("data").cloned().map_or_else(|| raw(&Value::Null), Ok)
}

/// A merge leaves what it does not name as it stands, to the last digit; operations are made on the values.
fn patched(old: &RawValue, patch: &Value) -> Result<Box<RawValue>, String> {
    match patch {
        Value::Array(_) => {
            let mut value = serde_json::from_str(old.get()).map_err(|error| error.to_string())?;
            let expected = "expected a list of operations as of RFC 6902";
            let operations: json_patch::Patch =
                serde_json::from_value(patch.clone()).map_err(|error| format!("{expected}: {error}"))?;
            json_patch::patch(&mut value, &operations).map_err(|error| format!("the patch does not fit: {error}"))?;
            raw(&value)
        }
        Value::Object(_) => merged(Some(old), patch),
        other => {
            let expected = "expected a patch: an object to merge (RFC 7396) or a list of operations (RFC 6902)";
            Err(format!("{expected}, found {}", super::escape::quoted(&other.to_string())))
        }
    }
}

/// RFC 7396, section 2.
fn merged(old: Option<&RawValue>, patch: &Value) -> Result<Box<RawValue>, String> {
    let Value::Object(patch) = patch else { return raw(patch) };
    let mut members: Attributes = old.and_then(|old| serde_json::from_str(old.get()).ok()).unwrap_or_default();
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            let member = merged(members.get(name).map(|member| &**member), value)?;
            members.insert(name.clone(), member);
        }
    }
    raw(&members)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::dead_letter::Cause;
    use crate::domain::event::Malformed;
    use crate::domain::failure::Class;
    use crate::domain::invocation::{Client, Envelope};
    use crate::domain::message::{Properties, Queue};
    use crate::domain::replay::replay;

    fn operator() -> Operator {
        Operator { name: "me".into(), now_ms: 5, seen_ms: 1, reading: Reading::default() }
    }

    fn of_hook(data: &str) -> Letter {
        let body = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a","big":12345678901234567890123,{data}}}"#
        );
        let event = Event::decode(&Message { body: body.into(), ..Message::default() }, &Reading::default()).unwrap();
        let mut invocation = Invocation::first(Arc::new(event), HookId::new("h").unwrap(), "r".into());
        invocation.at = Point { generation: 2, attempt: 4 };
        let cause =
            Cause { class: Class::Exhausted, report: None, unprotected: false, deaths: 1, target: None, foreign: None };
        Letter::of_invocation(&invocation, invocation.at, cause, "lane.default", 1)
    }

    fn raw_letter(body: &str, properties: Properties) -> Letter {
        let malformed = Malformed { class: Class::Unreadable, error: "x".into() };
        Letter::of_message(&malformed, Client { properties, ..Client::default() }, body.as_bytes(), "events", 1)
    }

    fn sent(replay: &Replay) -> (Option<String>, u32, Arc<Event>) {
        match Envelope::decode(Queue::Lane(Lane::Replay), &replay.outgoing.message, &Reading::default()).unwrap() {
            Envelope::Invocation(it) => (Some(it.hook.to_string()), it.at.generation, it.event),
            Envelope::Event(whole) => (None, whole.replay_of.unwrap().generation, whole.event),
            Envelope::Newer(version) => panic!("{version}"),
        }
    }

    fn data_of(event: &Event) -> Value {
        serde_json::from_slice::<Value>(&event.body).unwrap()["data"].clone()
    }

    #[test]
    fn the_data_of_an_event_is_replaced_or_patched() {
        let check = |edit_: Edit, expected: Value| {
            let edited = edit(&of_hook(r#""data":{"a":1,"b":2}"#), &edit_, &operator()).unwrap();
            let replay = edited.replay.clone();
            let (hook, generation, event) = sent(&replay);
            assert_eq!((hook.as_deref(), generation, data_of(&event)), (Some("h"), 3, expected));
            assert!(event.id.starts_with("edited-") && event.source == "/s" && event.kind == "a", "{event:?}");
            assert!(
                String::from_utf8_lossy(&event.body).contains("12345678901234567890123"),
                "others stay as they are"
            );
            let Record::Replayed(mark) = &replay.mark else { panic!("{replay:?}") };
            assert_eq!((mark.generation, &edited.event), (3, &event));
            assert_eq!(edit(&of_hook(r#""data":{"a":1,"b":2}"#), &edit_, &operator()).unwrap(), edited, "once");
        };
        check(Edit::Data("[7]".into()), json!([7]));
        check(Edit::Patch(json!({ "b": null, "c": 3 })), json!({ "a": 1, "c": 3 }));
        check(Edit::Patch(json!([{ "op": "replace", "path": "/a", "value": 9 }])), json!({ "a": 9, "b": 2 }));
    }

    /// The examples of RFC 7396, appendix A, that are about objects; and numbers that no f64 holds.
    #[test]
    fn merges() {
        let check = |old: &str, patch: &str, expected: &str| {
            let old: Box<RawValue> = serde_json::from_str(old).unwrap();
            let found = patched(&old, &serde_json::from_str(patch).unwrap()).unwrap();
            assert_eq!(found.get(), expected, "{old} {patch}");
        };
        check(r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#);
        check(r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#);
        check(r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#);
        check(r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#);
        check(r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#);
        check(r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#);
        check(r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#);
        check("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#);
        check("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#);
        let exact = r#"{"account":12345678901234567890123,"a":{"rate":0.10000000000000000001,"x":1}}"#;
        check(
            exact,
            r#"{"a":{"x":2}}"#,
            r#"{"a":{"rate":0.10000000000000000001,"x":2},"account":12345678901234567890123}"#,
        );
    }

    #[test]
    fn edits_that_do_not_fit() {
        let check = |letter: Letter, edit_: Edit, expected: &str| {
            let error = edit(&letter, &edit_, &operator()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let whole = || of_hook(r#""data":{"a":1}"#);
        check(whole(), Edit::Data("{".into()), "expected JSON as the event's data");
        check(whole(), Edit::Patch(json!(7)), "expected a patch: an object");
        check(whole(), Edit::Patch(json!([{ "op": "test", "path": "/a", "value": 2 }])), "the patch does not fit");
        check(whole(), Edit::Patch(json!([7])), "RFC 6902");
        check(of_hook(r#""data_base64":"AA==""#), Edit::Patch(json!({})), "binary");
        let plain = Properties { kind: Some("a".into()), ..Properties::default() };
        check(raw_letter("{ no json", plain.clone()), Edit::Patch(json!({})), "is no JSON");
        check(raw_letter("{", plain), Edit::Data("{".into()), "with these data is no event");
        let record = Letter { queue: LOG.to_owned(), ..raw_letter("{}", Properties::default()) };
        check(record, Edit::Data("{}".into()), "a record that this version cannot read");
    }

    #[test]
    fn a_message_that_was_no_event_becomes_one() {
        let check = |letter: Letter, edit_: Edit, expected: Value| {
            let replay = edit(&letter, &edit_, &operator()).unwrap().replay;
            let (hook, generation, event) = sent(&replay);
            assert_eq!((hook, generation, data_of(&event)), (None, 1, expected));
            assert!(event.id.starts_with("edited-") && event.kind == "a", "{event:?}");
            assert!(matches!(replay.mark, Record::Replayed(_)), "it is resolved when its hooks have finished");
        };
        let plain = || Properties { kind: Some("a".into()), ..Properties::default() };
        check(raw_letter("{ no json", plain()), Edit::Data(r#"{"b":1}"#.into()), json!({ "b": 1 }));
        check(raw_letter(r#"{"b":1}"#, plain()), Edit::Patch(json!({ "c": 2 })), json!({ "b": 1, "c": 2 }));
        let event = r#"{"specversion":"1.0","type":"a","source":"/s","id":"7","data":5}"#;
        check(raw_letter("{ no json", Properties::default()), Edit::Data(event.into()), json!(5));
    }

    /// The edited event fails too: that is the same letter, and what is made of it stands for the first event still.
    #[test]
    fn an_edited_event_stands_for_the_letter() {
        let first = of_hook(r#""data":{"a":1}"#);
        let failed = |edited: &Edited| {
            let message = &edited.replay.outgoing.message;
            let decoded = Envelope::decode(Queue::Lane(Lane::Replay), message, &Reading::default()).unwrap();
            let Envelope::Invocation(invocation) = decoded else { panic!("{decoded:?}") };
            assert_ne!(invocation.key(), invocation.letter_key());
            let cause = Cause {
                class: Class::Rejected,
                report: None,
                unprotected: false,
                deaths: 0,
                target: None,
                foreign: None,
            };
            Letter::of_invocation(&invocation, invocation.at, cause, "lane.replay", 9)
        };
        let second = failed(&edit(&first, &Edit::Data("2".into()), &operator()).unwrap());
        let third = failed(&edit(&second, &Edit::Data("3".into()), &operator()).unwrap());
        for (letter, generation) in [(&second, 3), (&third, 4)] {
            assert_eq!((letter.subject(), letter.generation), (first.subject(), generation));
            assert_eq!((letter.id.clone(), letter.editing()), (first.id.clone(), first.editing()));
        }
        let again = replay(&third, None, &operator()).unwrap();
        assert_eq!(again.follows, first.subject());
    }
}
