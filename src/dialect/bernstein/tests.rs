use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::dialect;
use crate::domain::decision::{Merge, Verdict};
use crate::domain::dialect::{Dialect, EVENT_HEADER, HEADER};
use crate::domain::event::{Event, Foreign, Reading};
use crate::domain::hook::{CommandAction, HttpAction, fixture};
use crate::domain::id::HookId;
use crate::domain::message::{Message, Properties};

const VECTORS: &str = include_str!("../../../tests/vectors/bernstein.json");

fn vectors(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(VECTORS).unwrap();
    all[name].as_array().unwrap().clone()
}

fn event(body: &str, named: Option<&str>) -> Result<Event, String> {
    let reading = Reading { foreign: Foreign(dialect::decode), ..Reading::default() };
    let properties = Properties { message_id: Some("m-1".to_owned()), ..Properties::default() };
    let message = Message { body: body.to_owned().into(), properties, ..Message::default() }.with(HEADER, "bernstein");
    let message = match named {
        Some(named) => message.with(EVENT_HEADER, named),
        None => message,
    };
    Event::decode(&message, &reading).map_err(|malformed| malformed.error)
}

fn invocation(body: &str, named: Option<&str>) -> Invocation {
    Invocation::first(Arc::new(event(body, named).unwrap()), HookId::new("h").unwrap(), "r1".into())
}

fn command() -> Hook {
    let action = Action::Command(CommandAction::plain(&["x"]));
    let retry = RetryPolicy { attempts: 1, ..retry(&[]) };
    Hook { action, dialect: Dialect::Bernstein, name: Some("tell.sh".to_owned()), retry, ..fixture::hook("h") }
}

fn http(format: Format) -> Hook {
    let action = HttpAction { format, ..HttpAction::plain("https://example.org/".parse().unwrap(), &[]) };
    Hook { action: Action::Http(action), ..command() }
}

fn body<'a>(exchange: &'a Exchange<'_>) -> &'a str {
    std::str::from_utf8(&exchange.body).unwrap()
}

/// What its own dataclasses and `json.dumps` make, our deliveries have byte for byte.
#[test]
fn webhooks_get_its_own_bytes() {
    let hook = http(Format::Native);
    let payloads = vectors("payloads");
    assert!(payloads.len() > 40);
    for vector in payloads {
        let (name, bytes) = (vector["event"].as_str().unwrap(), vector["bytes"].as_str().unwrap());
        let invocation = invocation(bytes, None);
        assert_eq!(invocation.event.kind, format!("bernstein.{name}"));
        let exchange = encode(&hook, &invocation, "k", None).unwrap();
        assert_eq!(body(&exchange), bytes, "{name}");
        assert!(exchange.headers.iter().any(|(header, value)| header == "x-bernstein-event" && value == name));
    }
}

#[test]
fn the_documented_form() {
    let flat = r#"{"event": "task.failed", "timestamp": 1712345678.9, "task_id": "t1", "error": "tests"}"#;
    let envelope =
        r#"{"event": "task.failed", "timestamp": 1712345678.9, "data": {"task_id": "t1", "error": "tests"}}"#;
    for sent in [flat, envelope] {
        let invocation = invocation(sent, None);
        assert_eq!(invocation.event.subject.as_deref(), Some("t1"));
        for (hook, expected) in
            [(http(Format::Native), flat), (http(Format::Envelope), envelope), (command(), envelope)]
        {
            let exchange = encode(&hook, &invocation, "k", None).unwrap();
            assert_eq!(body(&exchange), expected, "of {sent}");
        }
        let hook = http(Format::Envelope);
        let exchange = encode(&hook, &invocation, "k", None).unwrap();
        let seconds = exchange.headers.iter().find(|(name, _)| name == "x-bernstein-timestamp");
        assert_eq!(seconds.map(|(_, value)| value.as_ref()), Some("1712345678"));
    }
}

#[test]
fn what_comes_is_told_by_its_shape() {
    let check = |json: Value, named: Option<&str>, kind: &str, subject: Option<&str>| {
        let found = decode(json.to_string().as_bytes(), named).unwrap();
        assert_eq!((found.kind.as_str(), found.subject.as_deref()), (kind, subject), "{json}");
    };
    check(json!({ "event": "pre_merge", "action": "merge" }), None, "bernstein.pre_merge", None);
    let script =
        json!({ "event": "pre_merge", "task": "T", "session_id": null, "workdir": "/w", "env": {}, "data": {} });
    check(script, None, "bernstein.lifecycle.pre_merge", Some("T"));
    check(json!({ "event": "preToolUse", "data": {} }), None, "bernstein.lifecycle.preToolUse", None);
    let arguments = json!({ "session_id": "s", "tool": "Bash", "tool_input": {} });
    check(arguments, Some("on_pre_tool_use"), "bernstein.plugin.on_pre_tool_use", Some("s"));
    let notification = json!({ "event_id": "e-1", "kind": "post_task", "task_id": "t" });
    check(notification.clone(), None, "bernstein.notification.post_task", Some("t"));
    assert_eq!(decode(notification.to_string().as_bytes(), None).unwrap().id.as_deref(), Some("e-1"));

    let refused = |json: Value, named: Option<&str>, expected: &str| {
        let found = decode(json.to_string().as_bytes(), named).unwrap_err();
        assert!(found.contains(expected), "{json}: {found}");
    };
    refused(json!([]), None, "a JSON object");
    refused(json!({ "task_id": "t" }), None, "are named in the header `hook-event`");
    refused(json!({ "event": "task.done" }), None, "such as task.completed or pre_task, found \"task.done\"");
    refused(json!({ "event": "task.failed" }), Some("on_nothing"), "found \"on_nothing\"");
    refused(
        json!({ "event_id": "e", "kind": "x" }),
        None,
        "expected `kind` of a notification of Bernstein (pre_task, ",
    );
}

fn asked<'a>(invocation: &'a Invocation, question: &'a Question<'a>) -> About<'a> {
    About { event: &invocation.event, question: Some(question) }
}

fn exit(vector: &Value) -> Raw {
    let text = |name: &str| vector[name].as_str().unwrap_or_default().as_bytes().to_vec();
    let code = i32::try_from(vector["code"].as_i64().unwrap()).unwrap();
    Raw::Exit { code, stdout: Body::Whole(text("stdout")), stderr: text("stderr") }
}

/// What an answer comes to: the verdict, the reason, and what the next gate gets.
fn came_to(answer: Answer) -> (Verdict, Option<String>, Option<String>, bool) {
    let mut merge = Merge::new(Dialect::Bernstein);
    merge.add(&HookId::new("h").unwrap(), answer, 1, 0);
    let input = merge.input().map(|input| input.as_str().to_owned());
    let ends = merge.ends_at(StopAt::Denial);
    let merged = merge.done();
    (merged.verdict, merged.reason, input, ends)
}

#[test]
fn scripts_are_read_as_there() {
    let invocation = invocation(r#"{"event": "preToolUse", "workdir": "/w", "data": {"k": "v"}}"#, None);
    let question = Question { input: None };
    for vector in vectors("scripts") {
        let read = read(&command(), &asked(&invocation, &question), exit(&vector), Vec::new);
        if let Some(code) = vector["failed"].as_i64() {
            let Err(Outcome::Failed(failure)) = read else { panic!("{vector}: {read:?}") };
            assert_eq!(failure.status.map(i64::from), Some(code), "{vector}");
            continue;
        }
        let (verdict, reason, input, _) = came_to(*read.unwrap().unwrap());
        if let Some(denied) = vector["denied"].as_str() {
            // A reason is kept without blanks around it.
            let found = reason.unwrap_or_default();
            assert_eq!((verdict, found.trim()), (Verdict::Deny, denied.trim()), "{vector}");
        } else {
            let data = input.map_or_else(|| json!({ "k": "v" }), |input| serde_json::from_str(&input).unwrap());
            assert_eq!((verdict, &data), (Verdict::Allow, &vector["data"]), "{vector}");
        }
    }
}

#[test]
fn files_are_read_as_there() {
    let given = r#"{"task_id": "t1", "role": "backend", "title": "test"}"#;
    let (invocation, question) = (invocation(given, Some("on_task_created")), Question { input: None });
    for vector in vectors("files") {
        let read = read(&command(), &asked(&invocation, &question), exit(&vector), Vec::new);
        if vector["failed"] == true {
            assert!(matches!(read, Err(Outcome::Failed(_))), "{vector}: {read:?}");
            continue;
        }
        let (verdict, reason, input, ends) = came_to(*read.unwrap().unwrap());
        if let Some(refused) = vector["refused"].as_str() {
            assert_eq!((verdict, reason.as_deref()), (Verdict::Deny, Some(refused)), "{vector}");
        } else {
            assert_eq!((verdict, ends), (Verdict::Allow, vector["next"].is_null()), "{vector}");
            if let Some(next) = vector["next"].as_str() {
                let input = input.map(|input| crate::domain::decision::Json::read(&input).unwrap());
                let question = Question { input: input.as_ref() };
                let hook = command();
                let exchange = encode(&hook, &invocation, "k", Some(&question)).unwrap();
                assert_eq!(body(&exchange), next, "{vector}");
            }
        }
    }
}

#[test]
fn what_programs_get() {
    let env = |exchange: &Exchange<'_>| -> Vec<String> {
        let of = |name: &str| name.starts_with("BERNSTEIN_");
        exchange.env.iter().filter(|(name, _)| of(name)).map(|(name, value)| format!("{name}={value}")).collect()
    };
    let hook = command();
    let script = r#"{"event": "pre_task", "task": "T-1", "workdir": "/w", "env": {"EXTRA": "1", "BERNSTEIN_PROJECT": "p"}, "timestamp": 1712345678.0, "data": {"k": "h\u00e9"}}"#;
    let of_script = invocation(script, None);
    let exchange = encode(&hook, &of_script, "k", None).unwrap();
    let whole = r#"{"event": "pre_task", "task": "T-1", "session_id": null, "workdir": "/w", "env": {"EXTRA": "1", "BERNSTEIN_PROJECT": "p"}, "timestamp": 1712345678.0, "data": {"k": "h\u00e9"}}"#;
    assert_eq!(body(&exchange), whole);
    let expected = ["BERNSTEIN_EVENT=pre_task", "BERNSTEIN_TASK_ID=T-1", "BERNSTEIN_WORKDIR=/w", "BERNSTEIN_PROJECT=p"];
    assert_eq!(env(&exchange), expected);
    // Who publishes may set what the hook names, and nothing that a program is loaded with.
    assert!(exchange.env.iter().all(|(name, _)| name != "EXTRA"));
    let mut action = CommandAction::plain(&["x"]);
    action.env.insert("EXTRA".to_owned(), crate::domain::secret::Secret::new("0".to_owned()));
    let named = Hook { action: Action::Command(action), ..command() };
    let exchange = encode(&named, &of_script, "k", None).unwrap();
    assert!(exchange.env.iter().any(|(name, value)| name == "EXTRA" && value == "1"));

    let arguments = r#"{"session_id":"s1","tool":"Bash","tool_input":{"u":"h\u00e9","command":"ls","b":1,"a":null}}"#;
    let of_file = invocation(arguments, Some("on_pre_tool_use"));
    let exchange = encode(&hook, &of_file, "k", None).unwrap();
    let expected = [
        "BERNSTEIN_HOOK_SESSION_ID=s1",
        "BERNSTEIN_HOOK_TOOL=Bash",
        r#"BERNSTEIN_HOOK_TOOL_INPUT={"a": null, "b": 1, "command": "ls", "u": "h\u00e9"}"#,
    ];
    assert_eq!(env(&exchange), expected);
    assert_eq!(
        body(&exchange),
        r#"{"session_id": "s1", "tool": "Bash", "tool_input": {"u": "h\u00e9", "command": "ls", "b": 1, "a": null}}"#
    );

    let notification =
        "{\"event_id\": \"e\", \"kind\": \"post_task\", \"title\": \"h\u{e9}\", \"severity\": \"error\"}";
    let of_sink = invocation(notification, None);
    let exchange = encode(&hook, &of_sink, "k", None).unwrap();
    assert_eq!(body(&exchange), r#"{"event_id": "e", "kind": "post_task", "title": "h\u00e9", "severity": "error"}"#);
    let expected = [
        "BERNSTEIN_NOTIFY_EVENT_ID=e",
        "BERNSTEIN_NOTIFY_KIND=post_task",
        "BERNSTEIN_NOTIFY_SEVERITY=error",
        "BERNSTEIN_NOTIFY_SINK_ID=tell.sh",
    ];
    assert_eq!(env(&exchange), expected);
    let hook = http(Format::Native);
    let exchange = encode(&hook, &of_sink, "k", None).unwrap();
    assert_eq!(
        body(&exchange),
        "{\"event_id\":\"e\",\"kind\":\"post_task\",\"title\":\"h\u{e9}\",\"severity\":\"error\"}"
    );
}

#[test]
fn statuses_by_surface() {
    let flat = invocation(r#"{"event": "task.created", "task_id": "t"}"#, None);
    let sink = invocation(r#"{"event_id": "e", "kind": "post_task"}"#, None);
    let check = |invocation: &Invocation, status: u16, expected: Result<(), Again>| {
        let raw = Raw::Http { status, reason: None, retry_after: None, body: Body::Whole(Vec::new()), sent: 0 };
        let about = About { event: &invocation.event, question: None };
        let found = read(&http(Format::Native), &about, raw, Vec::new).map(|_| ());
        let found = found.map_err(|outcome| match outcome {
            Outcome::Failed(failure) => failure.again,
            other => panic!("{other:?}"),
        });
        assert_eq!(found, expected, "{status}");
    };
    for status in [200, 201, 204] {
        check(&flat, status, Ok(()));
        check(&sink, status, Ok(()));
    }
    for status in [302, 400, 401, 404, 410] {
        check(&flat, status, Err(Again::Later(None)));
        check(&sink, status, Err(Again::Never(Class::Rejected)));
    }
    for status in [408, 425, 429, 500, 503] {
        check(&flat, status, Err(Again::Later(None)));
        check(&sink, status, Err(Again::Later(None)));
    }
}

/// What is cut off could be the refusal.
#[test]
fn too_long_an_answer_is_a_failure() {
    let asks = invocation(r#"{"event": "preToolUse", "workdir": "/w", "data": {}}"#, None);
    let question = Question { input: None };
    let raw = Raw::Exit { code: 0, stdout: Body::TooLarge { beginning: vec![b'{'], bytes_max: 9 }, stderr: vec![] };
    let found = read(&command(), &asked(&asks, &question), raw, Vec::new);
    assert_eq!(found, Err(Outcome::never(Class::Rejected, "the answer has more than 9 bytes")));
}

/// Of the documented form: any exit but 0 refuses.
#[test]
fn blocking_scripts() {
    let created = invocation(r#"{"event": "task.created", "timestamp": 1.0, "data": {"task_id": "t1"}}"#, None);
    let question = Question { input: None };
    let check = |code: i32, stdout: &str, stderr: &str, expected: (Verdict, Option<&str>)| {
        let raw = exit(&json!({ "code": code, "stdout": stdout, "stderr": stderr }));
        let read = read(&command(), &asked(&created, &question), raw, Vec::new);
        let (verdict, reason, ..) = came_to(*read.unwrap().unwrap());
        assert_eq!((verdict, reason.as_deref()), expected);
    };
    check(0, "anything", "", (Verdict::Allow, None));
    check(1, "", "ERROR: Task goal too short\n", (Verdict::Deny, Some("ERROR: Task goal too short")));
    check(2, "out", "", (Verdict::Deny, Some("out")));
    check(77, "", "", (Verdict::Deny, Some("exit 77")));
}

/// Scripts are tried once, unless a hook is for other events besides.
#[test]
fn tries_by_surface() {
    for (on, attempts) in [
        (&["bernstein.lifecycle.pre_task"][..], 1),
        (&["bernstein.plugin.*", "bernstein.lifecycle.*"], 1),
        (&["bernstein.task.failed"], 3),
        (&["bernstein.notification.*"], 3),
        (&["bernstein.lifecycle.idle", "order.paid"], 3),
        (&[], 3),
    ] {
        let on: Vec<Pattern> = on.iter().map(|kind| Pattern::new(kind).unwrap()).collect();
        assert_eq!(retry(&on).attempts, attempts, "{on:?}");
    }
}

/// What Python reads as JSON counts: a denial is not lost for a number that JSON does not have.
#[test]
fn denials_in_the_json_of_python() {
    let asks = invocation(r#"{"event": "preToolUse", "workdir": "/w", "data": {}}"#, None);
    let question = Question { input: None };
    for (stdout, reason) in [
        (r#"{"decision":"deny","reason":"no","x":-Infinity}"#, "no"),
        (r#"{"decision":"deny","reason":NaN}"#, "nan"),
        (r#"{"decision":"deny","reason":"no","\ud800":1}"#, "no"),
        ("\u{1c}{\"decision\":\"deny\",\"reason\":\"no\"}\u{1f}", "no"),
        (
            r#"{"decision":"deny","reason":{"b":1e-05,"a":12345678901234567890123}}"#,
            "{'b': 1e-05, 'a': 12345678901234567890123}",
        ),
    ] {
        let raw = exit(&json!({ "code": 0, "stdout": stdout, "stderr": "" }));
        let read = read(&command(), &asked(&asks, &question), raw, Vec::new);
        let (verdict, found, ..) = came_to(*read.unwrap().unwrap());
        assert_eq!((verdict, found.as_deref()), (Verdict::Deny, Some(reason)), "{stdout}");
    }
}

/// No file runs with arguments that its hook may not be given.
#[test]
fn arguments_are_looked_at_first() {
    let wrong = invocation(r#"{"task_id": "t1", "role": "qa", "title": 42}"#, Some("on_task_created"));
    let refusal = dialect::prejudged(&command(), &wrong.event, None).unwrap();
    let (verdict, reason, ..) = came_to(refusal);
    assert_eq!(verdict, Verdict::Deny);
    assert_eq!(reason.as_deref(), Some("Invalid payload for 'on_task_created': 42 is not of type 'string'"));
    let error = encode(&command(), &wrong, "k", None).unwrap_err();
    assert_eq!(error, "expected arguments of on_task_created: 42 is not of type 'string'");
    let good = invocation(r#"{"task_id": "t1", "role": "qa", "title": "x"}"#, Some("on_task_created"));
    assert!(dialect::prejudged(&command(), &good.event, None).is_none());
    assert!(dialect::prejudged(&http(Format::Native), &wrong.event, None).is_none());
}
