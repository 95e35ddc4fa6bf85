//! What publishers send, good and bad, in every way.

use super::*;

fn found(read: Result<Request, Rejected>) -> String {
    let of = |event: &Event| format!("{} {} {}", event.source(), event.id().len(), event.kind());
    match read {
        Ok(Request::One(event)) => of(&event),
        Ok(Request::Batch(events)) => events.iter().map(of).collect::<Vec<_>>().join(", "),
        Err(Rejected::ContentType(error) | Rejected::Coding(error)) => format!("415 {error}"),
        Err(Rejected::Event(error)) => format!("422 {error}"),
        Err(Rejected::TooLarge(error)) => format!("413 {error}"),
    }
}

fn check(headers: &[(&str, &str)], body: &str, expected: &str) {
    let bytes: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let reading = Reading { body_bytes_max: 200, ..Reading::default() };
    let found = found(read(&bytes, &Bytes::copy_from_slice(body.as_bytes()), &reading));
    assert!(found.starts_with(expected), "{headers:?} {body}\n found: {found}\n expected: {expected}");
}

const JSON: (&str, &str) = ("content-type", "application/json");
const EVENTS: (&str, &str) = ("content-type", "application/cloudevents-batch+json; charset=utf-8");

#[test]
fn what_is_missing_is_filled_in() {
    check(&[JSON], r#"{"type":"a"}"#, "/hookfleet/publish 32 a");
    check(&[JSON], r#"{"specversion":"1.0","type":"a","id":"7","source":"/s"}"#, "/s 1 a");
    check(&[JSON], r#"{"data":1}"#, "422 expected the attribute `type`, found none: say what happened");
    check(&[JSON, ("ce-type", "a")], "1", "/hookfleet/publish 32 a");
    check(&[EVENTS], r#"[{"type":"a"},{"type":"b","source":"/s","id":"7"}]"#, "/hookfleet/publish 32 a, /s 1 b");
    check(&[EVENTS], "[]", "");
}

#[test]
fn what_is_no_event_is_refused() {
    check(&[JSON], "[]", "422 expected a JSON object");
    check(&[JSON], "{", "422 expected a JSON object");
    check(&[], r#"{"type":"a"}"#, "415 expected application/cloudevents+json");
    check(&[("content-type", "text/plain")], "x", "415 expected application/cloudevents+json");
    check(&[("content-type", "application/cloudevents+avro"), ("ce-type", "a")], "x", "415 expected");
    check(&[JSON], &format!("{{\"type\":\"a\",\"data\":\"{}\"}}", "x".repeat(200)), "413 the request has 222 bytes");
    let nearly = format!("{{\"type\":\"a\",\"data\":\"{}\"}}", "x".repeat(177));
    check(&[JSON], &nearly, "413 the event has ");
    let text = [("content-type", "image/png"), ("ce-type", "a")];
    check(&text, &"x".repeat(180), "413 the event has "); // as base64 it is larger than what workers take
}

#[test]
fn a_batch_is_all_or_nothing() {
    check(&[EVENTS], "{}", "422 expected a JSON array of events");
    check(
        &[EVENTS],
        r#"[{"type":"a"},7]"#,
        "422 nothing was published, since 1 of 2 (counted from 0) are no events: event 1",
    );
    let bad = r#"[{"specversion":"1.0","id":"","source":"/s","type":"a"},{"type":"b"},{}]"#;
    check(
        &[EVENTS],
        bad,
        "422 nothing was published, since 2 of 3 (counted from 0) are no events: event 0: the attribute `id` is",
    );
    let large = format!("[{{\"type\":\"a\"}},{{\"type\":\"a\",\"data\":\"{}\"}}]", "x".repeat(200));
    check(&[EVENTS], &large, "413 event 1: the event has 222 bytes, the limit is 200");
    check(&[EVENTS], &" ".repeat(16 * 200 + 1), "413 the request has 3201 bytes, the limit is 3200");
    let many = format!("[{}]", vec!["0"; BATCH_EVENTS_MAX + 1].join(","));
    let read = read(&[(EVENTS.0, EVENTS.1.as_bytes())], &many.into(), &Reading::default());
    assert_eq!(found(read), "413 the batch has 10001 events, the limit is 10000");
}

#[test]
fn headers_are_unescaped() {
    let id = |value: &[u8]| {
        let headers: [(&str, &[u8]); 3] = [("content-type", b"application/json"), ("ce-type", b"a"), ("ce-id", value)];
        match read(&headers, &Bytes::new(), &Reading::default()) {
            Ok(Request::One(event)) => event.id().to_owned(),
            Ok(Request::Batch(_)) => "a batch".to_owned(),
            Err(
                Rejected::ContentType(error)
                | Rejected::Coding(error)
                | Rejected::Event(error)
                | Rejected::TooLarge(error),
            ) => error,
        }
    };
    assert_eq!(id(b"Euro%20%E2%82%AC%20%F0%9F%98%80"), "Euro € 😀"); // the binding's own example
    assert_eq!(id(b"a%2cb%25"), "a,b%");
    assert_eq!(id(b"\"a b \\\"c\\\" \\\\ %41\""), "a b \"c\" \\ A");
    assert_eq!(id(b"%2541"), "%41"); // one round
    assert_eq!(id("ä".as_bytes()), "ä");
    assert!(id(b"50%").starts_with("the header `ce-id`: expected two hexadecimal digits"), "{}", id(b"50%"));
    assert!(id(b"%+1x").starts_with("the header `ce-id`: expected two hexadecimal digits"));
    assert!(id(b"%ff").starts_with("the header `ce-id`: expected UTF-8"));
    assert!(id(&[0xff]).starts_with("the header `ce-id`: expected UTF-8"));
    assert!(id(b"").starts_with("the attribute `id` is empty"));
    check(&[JSON, ("ce-type", "a"), ("ce-id", "1"), ("ce-id", "2")], "1", "422 the header `ce-id` is given twice");
    check(&[JSON, ("ce-type", "a"), ("ce-a-b", "1")], "1", "422 expected attribute names of a-z and 0-9");
    check(&[JSON, ("ce-type", "a"), ("ce-specversion", "0.3")], "1", "422 expected specversion \"1.0\"");
    check(&[JSON, ("ce-id", "a")], "1", "422 expected the attribute `type`, found none");
    check(&[JSON, ("ce-type", "a")], "{", "422 expected data in JSON");
}

#[test]
fn data_stays_as_it_is() {
    let data = "[18446744073709551617,0.10000000000000000001,1e400]";
    let json = |body: String| Bytes::from(body);
    let one = prepare(&json(format!("{{\"type\":\"a\",\"data\":{data}}}")), None, None, &Reading::default()).unwrap();
    let headers: [(&str, &[u8]); 2] = [("content-type", b"application/json"), ("ce-type", b"a")];
    let binary = read(&headers, &json(data.to_owned()), &Reading::default());
    let Ok(Request::One(binary)) = binary else { panic!("{binary:?}") };
    for event in [one, binary] {
        assert!(String::from_utf8_lossy(event.json()).contains(data), "{event:?}");
    }
}

#[test]
fn the_trace_context_comes_along() {
    let headers: [(&str, &[u8]); 5] = [
        ("content-type", b"application/json"),
        ("ce-type", b"a"),
        ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", b"a=1"),
        ("tracestate", b"b=2"),
    ];
    for body in ["1", r#"{"type":"a"}"#] {
        let headers = if body == "1" { &headers[..] } else { &[headers[0], headers[2], headers[3], headers[4]] };
        let Ok(Request::One(event)) = read(headers, &Bytes::from_static(body.as_bytes()), &Reading::default()) else {
            panic!("{body}");
        };
        let message = event.outgoing().message;
        assert_eq!(message.text(TRACEPARENT), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert_eq!(message.text(TRACESTATE), Some("a=1,b=2"));
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// The coding is taken off in every mode, or named; data never keep it.
#[test]
fn compressed_bodies() {
    let found = |headers: &[(&str, &[u8])], body: &[u8]| {
        let reading = Reading { body_bytes_max: 200, inflated_bytes_max: 200, ..Reading::default() };
        match read(headers, &Bytes::copy_from_slice(body), &reading) {
            Ok(Request::One(event)) => String::from_utf8(event.json().to_vec()).unwrap(),
            other => found(other),
        }
    };
    let event = br#"{"type":"a","id":"7","source":"/s","specversion":"1.0"}"#;
    let json: (&str, &[u8]) = ("content-type", b"application/json");
    let (packed, as_is) = (("content-encoding", &b"gzip"[..]), ("content-encoding", &b"identity"[..]));
    assert_eq!(found(&[json, packed], &gzip(event)).as_bytes(), event);
    assert_eq!(found(&[json, as_is], event).as_bytes(), event);
    let binary: [(&str, &[u8]); 4] =
        [("content-type", b"text/plain"), ("ce-type", b"a"), ("ce-id", b"7"), ("content-encoding", b"gzip")];
    assert!(found(&binary, &gzip(b"some text")).contains(r#""data":"some text""#));
    let batch: (&str, &[u8]) = ("content-type", b"application/cloudevents-batch+json");
    let two = [&b"["[..], event, b",", event, b"]"].concat();
    assert_eq!(found(&[batch, packed], &gzip(&two)), "/s 1 a, /s 1 a");
    let large = gzip(&[b' '; 201]);
    assert_eq!(found(&[json, packed], &large), "413 the compressed body inflates to more than 200 bytes, the limit");
    assert!(found(&[json, packed], event).starts_with("422 expected a body compressed as its content encoding says"));
    let other = found(&[json, ("content-encoding", b"br")], event);
    assert!(other.starts_with("415 expected a body in UTF-8, as it is or compressed with gzip or deflate"), "{other}");
    let twice = found(&[json, packed, ("content-encoding", b"gzip")], &gzip(&gzip(event)));
    assert_eq!(twice.as_bytes(), event);
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let event = "\u{feff}{\"type\":\"a\",\"id\":\"7\",\"source\":\"/s\",\"specversion\":\"1.0\"}";
    check(&[JSON], event, "/s 1 a");
    check(&[JSON], "\u{feff}{\"type\":\"a\"}", "/hookfleet/publish 32 a");
    check(&[EVENTS], &format!("\u{feff}[{}]", &event[3..]), "/s 1 a");
    check(&[JSON, ("ce-type", "a"), ("ce-source", "/s"), ("ce-id", "7")], "\u{feff}{}", "/s 1 a");
}
