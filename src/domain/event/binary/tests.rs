//! The binding as tables, and as a round trip: what a structured event says, it says in binary mode too.

use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::{Map, Value, json};

use super::*;
use crate::domain::event::{Event, Reading};
use crate::domain::message::{Headers, Properties};
use crate::domain::trace::TRACEPARENT;

fn good() -> Message {
    Message { body: "{}".into(), ..Message::default() }
        .with("cloudEvents:specversion", "1.0")
        .with("cloudEvents:id", "7")
        .with("cloudEvents:source", "/s")
        .with("cloudEvents:type", "a.b")
}

fn typed(content_type: &str, body: impl Into<Bytes>) -> Message {
    let properties = Properties { content_type: Some(content_type.to_owned()), ..Properties::default() };
    Message { body: body.into(), properties, ..good() }
}

fn check(message: &Message, expected: &str) {
    let found = match Event::decode(message, &Reading::default()) {
        Ok(event) => String::from_utf8(event.body.to_vec()).unwrap(),
        Err(Malformed { class, error }) => format!("{class:?}: {error}"),
    };
    assert!(found.starts_with(expected), "{message:?}\n found: {found}\n expected: {expected}");
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn data_is_what_its_content_type_says() {
    let all = r#""id":"7","source":"/s","specversion":"1.0","type":"a.b""#;
    let with = |content_type: &str, data: &str| format!("{{\"datacontenttype\":\"{content_type}\",{all},{data}}}");
    check(&good(), &format!("{{{all},\"data\":{{}}}}"));
    check(&Message { body: Bytes::new(), ..good() }, &format!("{{{all}}}"));
    check(&Message { body: "no json".into(), ..good() }, &format!("{{{all},\"data_base64\":\"bm8ganNvbg==\"}}"));
    check(&typed("application/json", "[1e400,0.10]"), &with("application/json", r#""data":[1e400,0.10]"#));
    check(&typed("application/x+json; v=1", "1"), &with("application/x+json; v=1", r#""data":1"#));
    check(&typed("text/plain", "ä"), &with("text/plain", r#""data":"ä""#));
    check(&typed("text/xml;charset=UTF-8", "<a/>"), &with("text/xml;charset=UTF-8", r#""data":"<a/>""#));
    check(&typed("text/xml;charset=latin1", "<a/>"), &with("text/xml;charset=latin1", r#""data_base64":"PGEvPg==""#));
    check(&typed("text/plain", vec![0xff]), &with("text/plain", r#""data_base64":"/w==""#));
    check(&typed("application/json", ""), &format!("{{\"datacontenttype\":\"application/json\",{all}}}"));
    check(&typed("application/xml", "<a/>"), &with("application/xml", r#""data_base64":"PGEvPg==""#));
    check(&typed("application/json", "{"), "Unreadable: expected data in JSON");
    check(&good().with("cloudEvents:datacontenttype", "text/plain"), &with("text/plain", r#""data":"{}""#));
}

#[test]
fn attributes_keep_their_types() {
    let body = |message: &Message| -> Value {
        serde_json::from_slice(&Event::decode(message, &Reading::default()).unwrap().body).unwrap()
    };
    let event = body(&good().with("cloudEvents:retry", 3).with("cloudEvents_ok", true).with("cloudEvents:x", "3"));
    assert_eq!((&event["retry"], &event["ok"], &event["x"]), (&json!(3), &json!(true), &json!("3")));
    assert_eq!(body(&good().with("cloudEvents:id", 17))["id"], "17");
    assert_eq!(body(&good().with("cloudEvents_id", "7"))["id"], "7", "twice the same is no harm");
    assert!(body(&good().with("other", "x").with("cloudEvents", "x")).get("other").is_none());
    let traced = |header: &str| Event::decode(&good().with(header, PARENT), &Reading::default()).unwrap();
    assert_eq!(traced(TRACEPARENT).trace.unwrap().parent(), Some(PARENT));
    assert_eq!(traced("cloudEvents:traceparent").trace.unwrap().parent(), Some(PARENT));
}

#[test]
fn refuses() {
    let without = |name: &str| {
        let mut message = good();
        message.headers.remove(name);
        message
    };
    check(&without("cloudEvents:id"), "Unidentified: expected the attribute `id`, found none");
    check(&without("cloudEvents:source"), "Unidentified: expected the attribute `source`, found none");
    check(&without("cloudEvents:type"), "Invalid: expected the attribute `type`, found none");
    check(&without("cloudEvents:specversion"), "Invalid: expected an event in JSON: missing field `specversion`");
    check(&good().with("cloudEvents:specversion", "0.3"), "Invalid: expected specversion \"1.0\", found \"0.3\"");
    check(&good().with("cloudEvents:id", ""), "Unidentified: the attribute `id` is empty");
    check(
        &good().with("cloudEvents:id", "\u{fffd}1"),
        "Unidentified: expected the attribute `id` as a text in UTF-8, found other bytes",
    );
    check(
        &good().with("cloudEvents:x", "\u{fffd}"),
        "Invalid: expected the attribute `x` as a text in UTF-8, found other bytes",
    );
    check(&good().with("cloudEvents_id", "8"), "Unidentified: the attribute `id` is given twice");
    check(&good().with("cloudEvents_type", "c"), "Invalid: the attribute `type` is given twice");
    check(&good().with("cloudEvents:Type", "c"), "Invalid: expected attribute names of a-z and 0-9");
    check(&good().with("cloudEvents:", "c"), "Invalid: expected attribute names of a-z and 0-9");
    check(&good().with("cloudEvents:data", "c"), "Invalid: expected the data in the body");
    for what in ["a table", "an array"] {
        let found = format!("Invalid: expected the attribute `x` as a text in UTF-8, found {what}");
        check(&good().with("cloudEvents:x", unreadable(what)), &found);
    }
    let mut packed = good();
    packed.properties.content_encoding = Some("gzip".into());
    check(&packed, "Unreadable: expected a body compressed as its content encoding says");
    let big = Message { body: vec![b' '; 1024 * 1024 + 1].into(), ..good() };
    check(&big, "Invalid: the body has 1048577 bytes");
}

/// Each binding and each client library has its own.
#[test]
fn headers_have_one_of_many_names() {
    let all = r#""id":"7","source":"/s","specversion":"1.0","type":"a.b""#;
    for prefix in ["cloudEvents:", "cloudEvents_", "ce-", "ce_", ""] {
        let given = [("specversion", "1.0"), ("id", "7"), ("source", "/s"), ("type", "a.b"), ("tenant", "t")];
        let message = Message { body: "{}".into(), ..Message::default() };
        let message =
            given.iter().fold(message, |message, (name, value)| message.with(&format!("{prefix}{name}"), *value));
        let expected = format!(r#"{{{all},"data":{{}}}}"#).replace(r#","type""#, r#","tenant":"t","type""#);
        check(&message, &expected);
        let mut text = Message { body: "some text".into(), ..message };
        text.properties.content_type = Some("text/plain".into());
        check(&text, r#"{"datacontenttype":"text/plain","#);
        assert!(Event::decode(&text, &Reading::default()).unwrap().body.ends_with(br#""data":"some text"}"#));
    }
    // Without a prefix all four have to be there, and other headers are no attributes.
    let bare = good().headers.into_iter().map(|(name, value)| (name.replace("cloudEvents:", ""), value));
    let bare = Message { headers: bare.collect(), ..good() };
    check(&bare.clone().with("x-opt", "y").with("Other", 7), &format!(r#"{{{all},"data":{{}}}}"#));
    for name in MANDATORY {
        let mut one = bare.clone();
        one.headers.remove(name);
        check(&one, "Invalid: expected CloudEvents JSON, or plain JSON");
    }
}

#[test]
fn times_are_written_as_rfc_3339() {
    let time = |value: Header| {
        let event = Event::decode(&good().with("cloudEvents_time", value), &Reading::default()).unwrap();
        serde_json::from_slice::<Value>(&event.body).unwrap()["time"].as_str().unwrap().to_owned()
    };
    assert_eq!(time(1_796_126_400_123_i64.into()), "2026-12-01T12:00:00.123Z");
    assert_eq!(time(1_796_126_400_000_i64.into()), "2026-12-01T12:00:00Z");
    assert_eq!(time(1_796_126_400_120_i64.into()), "2026-12-01T12:00:00.120Z");
    assert_eq!(time((-1_i64).into()), "1969-12-31T23:59:59.999Z");
    assert_eq!(time(0_i64.into()), "1970-01-01T00:00:00Z");
    assert_eq!(time("1796126400123".into()), "2026-12-01T12:00:00.123Z"); // STOMP and MQTT know texts only
    assert_eq!(time("2026-12-01T12:00:00+01:00".into()), "2026-12-01T12:00:00+01:00");
    let expected = "Invalid: expected `time` as RFC 3339, an AMQP timestamp, or milliseconds since 1970; found 9";
    check(&good().with("cloudEvents_time", i64::MAX), expected);
    check(&good().with("cloudEvents_time", true), r#"{"id":"7","source":"/s","specversion":"1.0","time":"true""#);
}

/// The content type decides: a structured event may repeat its attributes in headers (3.2.3).
#[test]
fn structured_goes_before_binary() {
    let body = r#"{"specversion":"1.0","id":"1","source":"/t","type":"c"}"#;
    check(&typed("application/cloudevents+json", body), body);
    check(&typed("application/cloudevents+avro", body), "Unreadable");
    let one = Message { body: body.into(), ..Message::default() }.with("cloudEvents:subject", "alone");
    check(&one, body); // one attribute alone is no event
}

/// The binding as a client follows it, written down a second time.
fn encode(event: &Map<String, Value>) -> Message {
    let mut message = Message::default();
    for (name, value) in event {
        match (name.as_str(), value) {
            ("datacontenttype", Value::String(text)) => message.properties.content_type = Some(text.clone()),
            ("data_base64", Value::String(text)) => message.body = STANDARD.decode(text).unwrap().into(),
            ("data", Value::String(text)) if event["datacontenttype"].as_str().unwrap().starts_with("text/") => {
                message.body = text.clone().into();
            }
            ("data", data) => message.body = data.to_string().into(),
            (name, value) => {
                let value = serde_json::from_value::<Header>(value.clone()).unwrap();
                message.headers.extend(Headers::from([(format!("cloudEvents:{name}"), value)]));
            }
        }
    }
    message
}

fn text() -> impl Strategy<Value = String> {
    "[ -~äß€あ-ん😀]{1,40}"
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Content type, name and value of the data.
fn content() -> impl Strategy<Value = (Option<&'static str>, Option<(&'static str, Value)>)> {
    let json = prop_oneof![Just(Some("application/json")), Just(Some("application/vnd.x+json; a=b"))];
    let bytes = prop_oneof![Just(Some("application/octet-stream")), Just(Some("image/png"))];
    prop_oneof![
        Just((None, None)),
        Just((Some("application/xml"), None)),
        (json, value()).prop_map(|(kind, data)| (kind, Some(("data", data)))),
        "[\\x00-~äß€あ-ん😀]{1,60}"
            .prop_map(|text| (Some("text/plain; charset=utf-8"), Some(("data", Value::from(text))))),
        (bytes, prop::collection::vec(any::<u8>(), 1..60))
            .prop_map(|(kind, bytes)| (kind, Some(("data_base64", Value::from(STANDARD.encode(bytes)))))),
    ]
}

fn event() -> impl Strategy<Value = Map<String, Value>> {
    let extension = prop_oneof![
        text().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from)
    ];
    let extensions = prop::collection::btree_map("x[a-z0-9]{0,18}", extension, 0..6);
    let identity = (text(), text(), text(), prop::option::of(text()));
    (identity, extensions, content()).prop_map(|((id, source, kind, subject), extensions, (content_type, data))| {
        let mut event: Map<String, Value> = extensions.into_iter().collect();
        for (name, value) in [("specversion", "1.0"), ("id", &id), ("source", &source), ("type", &kind)] {
            event.insert(name.to_owned(), Value::from(value));
        }
        event.extend(subject.map(|subject| ("subject".to_owned(), Value::from(subject))));
        event.extend(content_type.map(|content_type| ("datacontenttype".to_owned(), Value::from(content_type))));
        event.extend(data.map(|(name, value)| (name.to_owned(), value)));
        event
    })
}

proptest! {
    #![proptest_config(Config::with_cases(1000))]

    #[test]
    fn an_event_is_the_same_in_both_modes(event in event()) {
        let properties = Properties { content_type: Some("application/cloudevents+json".into()), ..Properties::default() };
        let structured = Message { body: Value::from(event.clone()).to_string().into(), properties, ..Message::default() };
        let expected = Event::decode(&structured, &Reading::default()).unwrap();
        let found = Event::decode(&encode(&event), &Reading::default()).unwrap();
        let identity = |event: &Event| (event.id.clone(), event.source.clone(), event.kind.clone(), event.digest);
        prop_assert_eq!(identity(&found), identity(&expected));
        prop_assert_eq!(&found.subject, &expected.subject);
        let body = |event: &Event| serde_json::from_slice::<Value>(&event.body).unwrap();
        prop_assert_eq!(body(&found), body(&expected));
    }
}
