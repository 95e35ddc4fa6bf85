use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::domain::claim::Point;
use crate::domain::decision::{Decided, Merge};
use crate::domain::event::{Event, Reading};
use crate::domain::hook::{ExitCodes, HttpAction, fixture};
use crate::domain::id::HookId;
use crate::domain::message::{Message, Properties};
use crate::domain::secret::Secret;
use crate::domain::template::Text;
use crate::domain::trace::{TRACEPARENT, TRACESTATE};

fn invocation(body: &str) -> Invocation {
    let properties =
        Properties { kind: Some("a.b".into()), message_id: Some("e\u{0}1".into()), ..Properties::default() };
    let message = Message { body: body.to_owned().into(), properties, ..Message::default() };
    let message =
        message.with(TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").with(TRACESTATE, "a=1");
    let event = Event::decode(&message, &Reading::default()).unwrap();
    Invocation::first(Arc::new(event), HookId::new("h-1").unwrap(), "r1".into())
}

fn hook(action: Action) -> Hook {
    Hook { action, ..fixture::hook("h-1") }
}

fn command() -> Action {
    Action::Command(CommandAction::plain(&["true"]))
}

fn http(body: Option<Text>) -> Action {
    Action::Http(HttpAction { body, ..HttpAction::plain("http://a.example/".parse().unwrap(), &[]) })
}

#[test]
fn the_wire_payload() {
    let hook = Hook { id: HookId::new("A.b_c-9").unwrap(), ..hook(command()) };
    let body = r#" {"specversion":"1.0", "id":"\u0031","source":"/s","type":"a.b","data":[1.0e0, "\u00e4"] } "#;
    let invocation =
        Invocation { hook: hook.id.clone(), at: Point { generation: 2, attempt: 3 }, forced: 2, ..invocation(body) };
    let key = &invocation.idempotency_key();
    let whole = format!(
        r#"{{"contract_version":1,"invocation_key":"{key}","hook":"A.b_c-9","attempt":3,"generation":2,"event":{body}}}"#
    );
    assert_eq!(encode(&hook, &invocation, key, None).unwrap().body, whole);
    let with = |more: &str| format!("{},{more}}}", whole.strip_suffix('}').unwrap());
    let input: Json = serde_json::from_str("[1.0e0]").unwrap();
    let question = Question { input: Some(&input) };
    assert_eq!(encode(&hook, &invocation, key, Some(&question)).unwrap().body, with("\"updated_input\":[1.0e0]"));
    let decided = Invocation { decision: Some(Decided::nobody()), ..invocation.clone() };
    assert_eq!(encode(&hook, &decided, key, None).unwrap().body, with("\"decision\":null"));
    serde_json::from_str::<serde_json::Value>(&whole).unwrap();
}

fn shown(pairs: &[(impl std::fmt::Display, Cow<'_, str>)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[test]
fn what_goes_with_it() {
    let invocation = invocation("{}");
    let (posted, own) = (hook(http(None)), hook(http(Some(Text::plain("own")))));
    let exchange = encode(&posted, &invocation, "key", None).unwrap();
    assert_eq!(shown(&exchange.default_headers), ["content-type=application/json"]);
    let expected = [
        "idempotency-key=key",
        "hookfleet-attempt=1",
        "traceparent=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate=a=1",
    ];
    assert_eq!(shown(&exchange.headers), expected);
    assert_eq!((exchange.env.len(), exchange.args.len(), exchange.reads_body), (0, 0, false));
    let exchange = encode(&own, &invocation, "key", Some(&Question { input: None })).unwrap();
    assert_eq!((exchange.body.len(), exchange.reads_body), (0, true), "a hook with a body of its own");

    let run = hook(command());
    let exchange = encode(&run, &invocation, "key", None).unwrap();
    let expected = [
        "HOOKFLEET_EVENT_TYPE=a.b",
        "HOOKFLEET_EVENT_ID=e1", // without its NUL
        "HOOKFLEET_HOOK=h-1",
        "HOOKFLEET_ATTEMPT=1",
        "HOOKFLEET_INVOCATION_KEY=key",
    ];
    assert_eq!(shown(&exchange.env), expected);
    assert!(exchange.headers.is_empty() && exchange.args.is_empty());
}

#[test]
fn statuses() {
    let hint = Some(Duration::from_secs(7));
    for (statuses, expected) in [
        (&[200, 201, 202, 204, 206, 299][..], None),
        (&[300, 301, 302, 303, 304, 307, 308, 399], Some(Again::Never(Class::Rejected))),
        (&[400, 401, 403, 404, 405, 409, 410, 422, 451, 499], Some(Again::Never(Class::Rejected))),
        (&[408, 425, 429, 500, 501, 502, 503, 504, 599], Some(Again::Later(hint))),
        (&[100, 101, 103, 600, 999], Some(Again::Later(hint))),
    ] {
        for status in statuses {
            assert_eq!(again(*status, hint), expected, "{status}");
        }
    }
}

/// A reply on one line: what it says, or how the attempt failed.
fn said(hook: &Hook, asks: bool, raw: Raw) -> String {
    let (invocation, question) = (invocation("{}"), Question { input: None });
    let about = About { event: &invocation.event, question: asks.then_some(&question) };
    match read(hook, &about, raw, || vec!["s3cret".to_owned()]) {
        Ok(None) => "done".to_owned(),
        Ok(Some(answer)) => {
            let mut merge = Merge::default();
            merge.add(&hook.id, *answer, 1, 1);
            let decision = merge.done();
            format!("{:?} {}", decision.verdict, decision.reason.unwrap_or_default())
        }
        Err(Outcome::Failed(Failure { again, status, error, .. })) => format!("{again:?} {status:?} {error}"),
        Err(outcome) => format!("{outcome:?}"),
    }
}

#[test]
fn http_replies() {
    let hook = hook(http(None));
    let check = |asks: bool, status: u16, body: &str, expected: &str| {
        let reason = (status < 600).then_some("Reason");
        let body = if asks { Body::Whole(body.into()) } else { Body::Beginning(body.into()) };
        let found = said(&hook, asks, Raw::Http { status, reason, retry_after: None, body, sent: 7 });
        assert_eq!(found, expected, "{status}");
    };
    check(false, 204, "", "done");
    check(false, 404, "no s3cret", "Never(Rejected) Some(404) 404 Reason: no [REDACTED]");
    let large = "Never(Rejected) Some(413) 413 Reason (7 bytes were sent): too large";
    check(false, 413, "too large", large);
    check(false, 302, "", "Never(Rejected) Some(302) 302 Reason (redirects are not followed)");
    check(false, 777, "", "Later(None) Some(777) 777");
    check(true, 200, "", "Allow ");
    check(true, 200, r#"{"decision":"block","stop_reason":"of s3cret"}"#, "Deny of [REDACTED]");
    let mistake = "expected a JSON object, or nothing, as the answer; found other text";
    check(true, 200, "fine", &format!("Never(Rejected) None {mistake}"));
    check(true, 403, r#"{"decision":"approve"}"#, r#"Never(Rejected) Some(403) 403 Reason: {"decision":"approve"}"#);
    let body = Body::TooLarge { beginning: vec![], bytes_max: 7 };
    let large = Raw::Http { status: 200, reason: None, retry_after: None, body, sent: 7 };
    assert_eq!(said(&hook, true, large), "Never(Rejected) None the answer has more than 7 bytes");
}

#[test]
fn ends_of_programs() {
    let check = |asks: bool, code: i32, out: &str, err: &str, expected: &str| {
        let stdout = if asks { Body::Whole(out.into()) } else { Body::Beginning(out.into()) };
        let found = said(&hook(command()), asks, Raw::Exit { code, stdout, stderr: err.into() });
        assert_eq!(found, expected, "{asks} {code}");
    };
    check(false, 0, "x", "", "done");
    check(false, 1, "out", " \n", "Later(None) Some(1) exit 1: out");
    check(false, 1, "out", "err s3cret", "Later(None) Some(1) exit 1: err [REDACTED]");
    check(false, 2, "", "no", "Later(None) Some(2) exit 2: no");
    check(true, 0, "", "", "Allow ");
    check(true, 2, "", " not s3cret\n", "Deny not [REDACTED]");
    check(true, 2, "", "", "Deny the hook's program refused");
    check(true, 1, "", "", "Later(None) Some(1) exit 1");
}

#[test]
fn exit_codes_of_the_hook_go_first() {
    let codes = ExitCodes { named: vec![(2..=2, Exit::Done)], ..ExitCodes::default() };
    let action = CommandAction {
        exit_codes: codes,
        env: BTreeMap::from([("A".into(), Secret::new("b".into()))]),
        ..CommandAction::plain(&["x"])
    };
    let raw = Raw::Exit { code: 2, stdout: Body::Whole(vec![]), stderr: b"no".to_vec() };
    assert_eq!(said(&hook(Action::Command(action)), true, raw), "Allow ");
}
