use super::*;
use crate::domain::event::{Event, Reading};
use crate::domain::message::Message;

const BODY: &str = r#"{"specversion":"1.0","id":"e-1","source":"/s","type":"task.failed","subject":"task-7","tenant":"acme",
    "time":"2026-11-21T10:00:00Z","data":{"severity":"error","count":3,"ratio":0.5,"big":18446744073709551615,"none":null,
    "tags":["a","b"],"steps":[{"name":"x","ms":5},{"name":"y","ms":9}]}}"#;

fn event(body: &str) -> Event {
    Event::decode(&Message { body: body.to_owned().into(), ..Message::default() }, &Reading::default()).unwrap()
}

fn evaluate(text: &str, body: &str) -> String {
    match Expression::new(text) {
        Err(refusal) => format!("refused: expected {}, found {}", refusal.expected, refusal.found),
        Ok(expression) => match expression.holds(&Facts::new(&event(body))) {
            Ok(holds) => holds.to_string(),
            Err(error) => format!("fails: {error}"),
        },
    }
}

fn check(text: &str, expected: &str) {
    let found = evaluate(text, BODY);
    assert!(found.starts_with(expected), "{text}\n found: {found}\n expected: {expected}");
}

#[test]
fn conditions() {
    for text in [
        "true",
        "event.type == 'task.failed' && event.source == '/s' && event.id == 'e-1'",
        "event.subject.startsWith('task-') && event.tenant == 'acme'",
        "event.data.severity in ['error', 'critical']",
        "event.data.count > 2 && event.data.count < 3.5 && event.data.ratio == 0.5 && event.data.big > 5u",
        "event.data.none == null",
        "!has(event.data.nothing) && has(event.data.tags)",
        "'a' in event.data.tags && !('z' in event.data.tags) && 'tags' in event.data",
        "event.data.steps.exists(step, step.ms > 8) && event.data.steps.all(step, step.name != '')",
        "event.data.steps.exists_one(step, step.name == 'x')",
        "event.data.steps.map(step, step.ms) == [5, 9]",
        "event.data.steps.filter(step, step.ms > 5).size() == 1",
        "event.data.steps.exists(event, event.Anything == 1 || true)",
        "size(event.data.tags) == 2 && event.data.tags[1] == 'b' && event.data['severity'] == \"error\"",
        "type(event.data.count) == int && string(event.data.count) == '3'",
        "event.data.count + 1 == 4 && event.data.severity + '!' == 'error!'",
        "event.data.tags + ['c'] == ['a', 'b', 'c'] && {'k': event.data.tags}.k == event.data.tags",
        "event.time < '2026-12'",
        "(event.data.count == 3 ? event.data.severity : 'none') == 'error'",
        "event.data.nothing.deeper == 1 || event.data.count == 3",
    ] {
        check(text, "true");
    }
}

#[test]
fn failures_at_run_time() {
    check("event.data.nothing == 1", "fails: the event has no `nothing`");
    check("event.data.count", "fails: expected true or false, found int");
    check("event.data.count == 1 && event.data.severity > 1", "false");
    check("event.data.severity > 1", "fails: found no matching overload for '_>_' applied to '(string, int)'");
    check("event.data.count / 0 == 1", "fails: a division by zero");
    check("event.data.tags[2] == ''", "fails: an index is beyond the end of its list");
    check("event.data.count + 9223372036854775807 > 0", "fails: a number grows too large");
    check("event.data.severity - 1 == 1", "fails: two values are of types that `sub` does not take");
    check("int(event.data.severity) == 1", "fails: `int` failed");
    check("event.nothing == ''", "fails: the event has no `nothing`");
}

#[test]
fn what_is_no_expression() {
    check("", "refused: expected an expression in CEL, such as");
    check("event.type ==", "refused: expected an expression in CEL, found one with a mistake: ");
    check("event.type = 'a'", "refused: expected an expression in CEL, found one with a mistake: ");
    check("evnt.type == 'a'", "refused: expected names that exist: `event`, and the variables of loops, found `evnt`");
    check(
        "event.data.list.all(x, y)",
        "refused: expected names that exist: `event`, and the variables of loops, found `y`",
    );
    check("event.Type == 'a'", "refused: expected an attribute of an event");
    check("event.data.name.startWith('a')", "refused: expected functions that exist, found `startWith`");
    check("event.data.name.matches('a')", "refused: expected functions that exist, found `matches`");
    check("event.data.list.all(true)", "refused: expected `all` to be written as `list.all(item, condition)`, found ");
    check("event.data.a.contains()", "refused: expected 2 values for `contains`, found 1");
    check("event{a: 1} == 1", "refused: expected values, lists and maps");
    check("@cost(1, 2)", "refused: expected an expression in CEL, found one with a mistake: ");
    check("event.?data.a == 1", "refused: expected an expression in CEL, found one with a mistake: ");
    check(&"x".repeat(4097), "refused: expected an expression of at most 4096 bytes");
    let meant = |text: &str| Expression::new(text).unwrap_err().unknown.unwrap().0;
    assert_eq!(meant("evnt.type == 'a'"), "evnt");
}

#[test]
fn keys() {
    let key = |text: &str| Expression::new(text).unwrap().key(&Facts::new(&event(BODY)));
    assert_eq!(key("event.data.severity + '/' + event.subject"), Ok("error/task-7".to_owned()));
    assert_eq!(key("event.data.count"), Ok("3".to_owned()));
    assert_eq!(key("event.data.ratio"), Ok("0.5".to_owned()));
    assert_eq!(key("event.data.big"), Ok("18446744073709551615".to_owned()));
    assert_eq!(key("event.data.count == 3"), Ok("true".to_owned()));
    assert_eq!(key("event.data.tags"), Err("expected a text, a number, true or false, found list".to_owned()));
}

/// Neither parsing nor evaluating may end the stack of a worker's thread, or take long.
#[test]
fn hostile_expressions() {
    let deep = |open: &str, inner: &str, close: &str| {
        let times = (BYTES_MAX - inner.len()) / (open.len() + close.len());
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let mut texts = vec![
        format!("event{}", ".a".repeat(2000)),
        format!("event{}", "[0]".repeat(1300)),
        format!("1{} > 0", "+1".repeat(2000)),
        format!("true{}", "&&true".repeat(600)),
        format!("true{}", "||true&&true".repeat(300)),
        format!("1{}", "==1".repeat(1300)),
        format!("event.data{}", ".map(x,x)".repeat(400)),
    ];
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{1:", "1", "}"),
        ("!", "true", ""),
        ("-", "1", ""),
        ("true?", "1", ":1"),
        ("size(", "1", ")"),
        ("[1].all(x,", "true", ")"),
        ("event.data.a(", "1", ")"),
        ("(", "", ""),
        ("[", "", ""),
        ("a.b(", "", ""),
        ("'", "", ""),
        ("1 ? ", "", ""),
    ] {
        texts.push(deep(open, inner, close));
    }
    for text in texts {
        let shown: String = text.chars().take(30).collect();
        let began = std::time::Instant::now();
        let evaluating = std::thread::Builder::new().stack_size(1 << 20).spawn(move || evaluate(&text, BODY));
        let found = evaluating.unwrap().join().unwrap();
        let known = ["refused: expected an expression", "fails: ", "true"].iter().any(|start| found.starts_with(start));
        assert!(known && began.elapsed().as_secs() < 10, "{shown}: {found} after {:?}", began.elapsed());
    }
}

/// What would take hours with a large event is given up.
#[test]
fn hostile_events() {
    let items = (0..100_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let body = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a","data":{{"a":[{items}],"s":"{}"}}}}"#,
        "x".repeat(100_000)
    );
    for (text, expected) in [
        ("event.data.a.all(x, x >= 0)", "true"),
        ("event.data.a.exists(x, x == 99999)", "true"),
        ("event.data.a.all(x, event.data.a.all(y, x + y >= 0))", "fails: the event holds too much"),
        ("event.data.a.all(x, x in event.data.a)", "fails: the event holds too much"),
        ("event.data.a.all(x, event.data.s.contains('y') || true)", "fails: the event holds too much"),
        ("event.data.a.exists(x, event.data[event.data.s] == x)", "fails: the event holds too much"),
        ("event.data.a.all(x, event.data.a == event.data.a)", "fails: the event holds too much"),
        ("event.data.a.map(x, event.data.a).size() > 0", "fails: the event holds too much"),
        ("event.data.a.map(x, [event.data.s, x]).size() > 0", "fails: the event holds too much"),
        ("event.data.a.map(x, event.data.s + 'a').size() > 0", "fails: the event holds too much"),
        ("event.data.a.map(x, {'a': event.data.a}).size() > 0", "fails: the event holds too much"),
        ("event.data.a.filter(x, size(event.data.s) > 0).size() > 0", "fails: the event holds too much"),
    ] {
        let found = evaluate(text, &body);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

/// Case D9: however a text is nested too deeply or broken, the sentence is one for people.
#[test]
fn d9_mistakes_are_told_in_sentences() {
    let repeated = |head: &str, middle: &str, tail: &str| format!("{}{middle}{}", head.repeat(200), tail.repeat(200));
    for text in [
        repeated("(", "true", ")"),
        repeated("[", "1", "]"),
        repeated("!", "true", ""),
        repeated("-", "1", ""),
        repeated("{1:", "1", "}"),
        repeated("size(", "''", ")"),
        repeated("true ? ", "true", " : true"),
        repeated("1 + ", "1", ""),
        repeated("true && ", "true", ""),
        repeated("event", "", ".x"),
        repeated("(", "", ""),
        repeated("", "1", ")"),
        repeated("[", "", ""),
        repeated("a b ", "", ""),
        repeated("\"", "", ""),
        repeated("'\\", "", ""),
        "event.data.".to_owned(),
        "\u{0}\u{1b}[31m".to_owned(),
    ] {
        let Err(refusal) = Expression::new(&text) else { continue };
        let sentence = format!("expected {}, found {}", refusal.expected, refusal.found);
        for sign in ["Error", "{ ", "Some(", "None", "Exceeded", "ANTLR", "\u{1b}"] {
            assert!(!sentence.contains(sign), "{sign:?} in {sentence}");
        }
        assert!(sentence.len() < 600, "{sentence}");
    }
    let deep = Expression::new(&repeated("(", "true", ")")).unwrap_err().expected;
    assert!(deep.contains("at most 24 levels"), "{deep}");
}
