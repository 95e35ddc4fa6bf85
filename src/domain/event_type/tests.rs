use serde_json::json;

use super::*;
use crate::domain::event::Reading;
use crate::domain::message::Message;

fn declared(on: &str, schema: &Value, validate: Validate) -> EventType {
    let schema = Some(Schema::compile(schema).unwrap());
    EventType { on: Pattern::new(on).unwrap(), description: None, schema, example: None, validate }
}

fn event(kind: &str, more: &str) -> Event {
    let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"{kind}"{more}}}"#);
    Event::decode(&Message { body: body.into(), ..Message::default() }, &Reading::default()).unwrap()
}

fn severe() -> Value {
    json!({
        "type": "object",
        "required": ["id", "severity"],
        "properties": { "id": { "type": "integer" }, "severity": { "enum": ["low", "high"] } },
    })
}

fn check(types: Vec<EventType>, kind: &str, more: &str, expected: Option<&str>) {
    let misfit = EventTypes::new(types).misfit(&event(kind, more));
    let shown = misfit.map(|misfit| format!("{} {}", if misfit.strict { "strict" } else { "warn" }, misfit.sentence()));
    assert_eq!(shown.as_deref(), expected, "{kind} {more}");
}

#[test]
fn data_is_checked_against_its_type() {
    let check = |more: &str, expected: Option<&str>| {
        check(vec![declared("task.*", &severe(), Validate::Strict)], "task.failed", more, expected);
    };
    check(r#","data":{"id":1,"severity":"low","more":[1]}"#, None);
    check(
        r#","data":{"id":"hunter2","severity":"hunter2"}"#,
        Some(
            "strict the data is not what the type `task.*` declares: /id: value is not of type \"integer\" (rule \
             /properties/id/type); /severity: value is not one of \"low\" or \"high\" (rule /properties/severity/enum)",
        ),
    );
    check(
        r#","data":{"severity":"low"}"#,
        Some(
            "strict the data is not what the type `task.*` declares: data: \"id\" is a required property (rule \
             /required)",
        ),
    );
    let null =
        "strict the data is not what the type `task.*` declares: data: value is not of type \"object\" (rule /type)";
    check("", Some(null));
    check(r#","data":null"#, Some(null));
    check(
        r#","data_base64":"AAAA""#,
        Some("strict the data is not what the type `task.*` declares: data: it is in `data_base64`, which is no JSON"),
    );
}

#[test]
fn every_declaration_that_matches_applies() {
    let number = json!({ "type": "number" });
    let of = |on: &str, validate| declared(on, &number, validate);
    let misfit = |strictness: &str, on: &str| {
        Some(format!(
            "{strictness} the data is not what the type `{on}` declares: data: value is not of type \"number\" (rule /type)"
        ))
    };
    let text = r#","data":"x""#;
    check(vec![of("b", Validate::Strict)], "a", text, None);
    check(vec![of("a", Validate::Off)], "a", text, None);
    check(vec![], "a", text, None);
    check(vec![of("*", Validate::Warn), of("a", Validate::Off)], "a", text, misfit("warn", "*").as_deref());
    check(vec![of("*", Validate::Warn), of("a", Validate::Strict)], "a", text, misfit("strict", "a").as_deref());
    check(vec![of("a", Validate::Warn), of("**", Validate::Strict)], "a", text, misfit("strict", "**").as_deref());
    check(vec![of("a", Validate::Warn), of("**", Validate::Strict)], "a", r#","data":1"#, None);
}

#[test]
fn what_nobody_can_parse_is_a_mistake() {
    let deep = format!(r#","data":{}1{}"#, "[".repeat(1000), "]".repeat(1000));
    let types = EventTypes::new(vec![declared("a", &json!({}), Validate::Strict)]);
    let misfit = types.misfit(&event("a", &deep)).unwrap();
    assert!(misfit.sentence().contains("recursion limit exceeded"), "{}", misfit.sentence());
}

fn check_schema(schema: &Value, expected: &[(&str, &str)]) {
    let mistakes = Schema::compile(schema).err().unwrap_or_default();
    let found: Vec<(&str, &str)> = mistakes.iter().map(|it| (it.path.as_str(), it.error.as_str())).collect();
    assert_eq!(found, expected, "{schema}");
}

#[test]
fn schemas_are_checked_and_stay_at_home() {
    check_schema(&json!({ "$defs": { "a": { "type": "string" } }, "$ref": "#/$defs/a" }), &[]);
    check_schema(&json!(true), &[]);
    check_schema(
        &json!({ "type": "strin" }),
        &[("/type", "value is not valid under any of the schemas listed in the 'anyOf' keyword")],
    );
    check_schema(
        &json!({ "required": "id", "properties": { "a": { "minLength": -1 } } }),
        &[
            ("/properties/a/minLength", "value is less than the minimum of 0"),
            ("/required", "value is not of type \"array\""),
        ],
    );
    for refused in [
        json!({ "$ref": "https://127.0.0.1:1/schema.json" }),
        json!({ "$ref": "file:///etc/passwd" }),
        json!({ "$ref": "#/$defs/nothing" }),
        json!({ "pattern": "(?=a)a" }),
        json!({ "pattern": "(" }),
        json!({ "format": "no-such-format" }),
    ] {
        assert!(Schema::compile(&refused).is_err(), "{refused}");
    }
}

#[test]
fn formats_are_checked() {
    let schema = Schema::compile(&json!({ "format": "date-time" })).unwrap();
    assert_eq!(schema.mistakes(&json!("2026-11-21T10:00:00Z")), []);
    assert_eq!(schema.mistakes(&json!("yesterday"))[0].error, "value is not a \"date-time\"");
}

/// A pattern that takes for ever where an engine tries every way.
#[test]
fn no_pattern_takes_for_ever() {
    let schema = Schema::compile(&json!({ "pattern": "^(a+)+$" })).unwrap();
    assert_eq!(schema.mistakes(&json!("a".repeat(50_000) + "b")).len(), 1);
}

/// A schema that refers to itself ends, on data of any depth and size that an event may have.
#[test]
fn hostile_schemas_and_data_take_no_time() {
    let nested = (0..120).fold(json!(1), |inner, _| json!({ "a": inner }));
    let many = json!((0..100_000).map(|n| json!([n, { "a": n }])).collect::<Vec<_>>());
    for (schema, data) in [
        (json!({ "$ref": "#" }), &json!(1)),
        (json!({ "allOf": [{ "$ref": "#" }, { "$ref": "#" }] }), &json!({})),
        (json!({ "not": { "$ref": "#" } }), &json!({})),
        (
            json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" }),
            &json!(1),
        ),
        (json!({ "properties": { "a": { "$ref": "#" } } }), &nested),
        (
            json!({ "anyOf": [{ "properties": { "a": { "$ref": "#" } } }, { "properties": { "a": { "$ref": "#" } } }] }),
            &nested,
        ),
        (
            json!({ "type": "object", "anyOf": [
                { "properties": { "a": { "$ref": "#" }, "k": { "const": 1 } } },
                { "properties": { "a": { "$ref": "#" }, "k": { "const": 2 } } },
            ] }),
            &nested, // a number where an object is wanted, at the end
        ),
        (json!({ "items": { "type": "string" } }), &many),
        (json!({ "uniqueItems": true }), &many),
        (json!({ "contains": { "const": "x" }, "unevaluatedItems": false }), &many),
        (json!({ "multipleOf": 0.0001 }), &json!(1e300)),
    ] {
        let began = std::time::Instant::now();
        let mistakes = Schema::compile(&schema).map(|schema| schema.mistakes(data));
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(5), "{schema} took {took:?}: {mistakes:?}");
    }
}
