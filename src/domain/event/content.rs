//! What an event says, as a digest: the same however it is written, and another one for whatever else it may say.
//!
//! Gates keep their decision under the identity of an event, and who asks chooses that identity. So what was decided on has
//! to be told from everything else, by malice too: the digest is SHA-256, over a form in which neither the order of members
//! nor white space nor escapes count. Numbers count as they are written, since hooks get their digits.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::Event;

/// Attributes that a second request about the same thing may have otherwise.
const PASSED_OVER: [&str; 4] = ["specversion", "time", "traceparent", "tracestate"];
/// What is nested deeper counts as it is written.
const DEPTH_MAX: usize = 64;

type Hash = [u8; 32];

impl Event {
    /// Digest of its type, subject, data and extension attributes, in hexadecimal.
    #[must_use]
    pub fn content_digest(&self) -> String {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        let digest = match serde_json::from_str::<Members<'_>>(text) {
            Ok(Members(members)) => {
                let has_type = members.iter().any(|(name, _)| name == "datacontenttype");
                let told = members.into_iter().filter(|(name, _)| !PASSED_OVER.contains(&name.as_str()));
                let hashed = told.map(|(name, value)| (name, of_value(value, DEPTH_MAX)));
                let usual = Some(("datacontenttype".to_owned(), of_text("application/json"))).filter(|_| !has_type);
                of_members(hashed.chain(usual).collect())
            }
            Err(_) => tagged(b'r', &self.body),
        };
        hex::encode(digest)
    }
}

/// The members of an object as they are written, one that is written twice twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Collect).map(Self)
    }
}

fn of_value(value: &RawValue, depth: usize) -> Hash {
    let text = value.get();
    let known = match (text.as_bytes().first(), depth.checked_sub(1)) {
        (Some(b'"'), _) => serde_json::from_str::<String>(text).ok().map(|text| of_text(&text)),
        (Some(b'{'), Some(depth)) => serde_json::from_str::<Members<'_>>(text).ok().map(|Members(members)| {
            of_members(members.into_iter().map(|(name, value)| (name, of_value(value, depth))).collect())
        }),
        (Some(b'['), Some(depth)) => serde_json::from_str::<Vec<&RawValue>>(text).ok().map(|items| {
            let items: Vec<u8> = items.into_iter().flat_map(|item| of_value(item, depth)).collect();
            tagged(b'a', &items)
        }),
        _ => None,
    };
    known.unwrap_or_else(|| tagged(b'r', text.as_bytes()))
}

fn of_text(text: &str) -> Hash {
    tagged(b't', text.as_bytes())
}

/// In the order of their names; those of one name in the order in which they are written.
fn of_members(mut members: Vec<(String, Hash)>) -> Hash {
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    let all: Vec<u8> = members.into_iter().flat_map(|(name, value)| [of_text(&name), value].concat()).collect();
    tagged(b'o', &all)
}

/// Of one kind: none is taken for another.
fn tagged(kind: u8, bytes: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([kind]);
    hash.update(bytes);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use crate::domain::event::Reading;
    use crate::domain::message::{Message, Properties};

    use super::*;

    fn digest(members: &str) -> String {
        let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/s",{members}}}"#);
        let properties =
            Properties { content_type: Some("application/cloudevents+json".into()), ..Properties::default() };
        let message = Message { body: body.into(), properties, ..Message::default() };
        let reading = Reading { body_bytes_max: 1 << 20, ..Reading::default() };
        Event::decode(&message, &reading).unwrap().content_digest()
    }

    #[test]
    fn d7_what_is_the_same() {
        let same = |one: &str, other: &str, expected: bool| {
            assert_eq!(digest(one) == digest(other), expected, "{one} {other}");
        };
        let event = r#""type":"a","data":{"b":[1,"x/y"],"c":null}"#;
        same(event, event, true);
        same(event, r#" "data" : { "c":null, "b":[ 1,"x\/\u0079"] }, "type":"a" "#, true);
        same(event, r#""type":"a","time":"2026-12-01T00:00:00Z","data":{"b":[1,"x/y"],"c":null}"#, true);
        same(event, r#""type":"a","datacontenttype":"application/json","data":{"b":[1,"x/y"],"c":null}"#, true);
        same(event, r#""type":"b","data":{"b":[1,"x/y"],"c":null}"#, false);
        same(event, r#""type":"a","data":{"b":[2,"x/y"],"c":null}"#, false);
        same(event, r#""type":"a","data":{"b":["1","x/y"],"c":null}"#, false);
        same(event, r#""type":"a","data":{"b":["x/y",1],"c":null}"#, false);
        same(event, r#""type":"a","data":{"b":[1,"x/y"]}"#, false);
        same(event, r#""type":"a","subject":"s","data":{"b":[1,"x/y"],"c":null}"#, false);
        same(event, r#""type":"a","extension":"e","data":{"b":[1,"x/y"],"c":null}"#, false);
        same(r#""type":"a","data":{"b":1,"b":2}"#, r#""type":"a","data":{"b":2}"#, false);
        same(r#""type":"a","data":{"b":1,"b":2}"#, r#""type":"a","data":{"b":2,"b":1}"#, false);
        same(r#""type":"a","data":9007199254740993.0"#, r#""type":"a","data":9007199254740992.0"#, false);
        same(r#""type":"a","data":"[1]""#, r#""type":"a","data":[1]"#, false);
        same(r#""type":"a","data":{"a":{}}"#, r#""type":"a","data":{"a":[]}"#, false);
        same(r#""type":"a","data":"\ud800""#, r#""type":"a","data":"\ud801""#, false);
    }

    #[test]
    fn d7_depth_costs_no_stack() {
        let nested = |depth: usize| format!(r#""type":"a","data":{}{}"#, "[".repeat(depth), "]".repeat(depth));
        assert_ne!(digest(&nested(DEPTH_MAX + 20)), digest(&nested(DEPTH_MAX + 21)));
    }
}
