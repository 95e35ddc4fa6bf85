//! Event types, as hooks files declare them.

use super::*;

/// The problems of what stands under `events:`, and of hooks files that only declare types.
fn check_events(events: &str, expected: &[&str]) {
    let text = format!("version: 1\nevents:\n{events}\n");
    check_file(&text, expected);
    let documents = [Document::native("hooks.yaml", text)];
    let problems = event_types(&documents).unwrap_err();
    let shown: Vec<String> = problems.list().iter().map(|problem| format!("{problem:#}")).collect();
    assert_eq!(shown, expected, "the same without the hooks");
}

#[test]
fn event_types_are_read() {
    let text = "version: 1\nevents:\n  task.failed:\n    description: A task failed.\n    schema: { type: object, required: [id] }\n    \
                example: { id: 7 }\n    validate: strict\n  agent.*: { example: hi }\n  note: { schema: { type: string } }\n";
    let set = read(text).unwrap();
    let types = set.types().all();
    let shown: Vec<String> = types
        .iter()
        .map(|it| format!("{} {:?} {} {:?}", it.on.as_str(), it.description, it.validate.name(), it.example))
        .collect();
    let expected = [
        "task.failed Some(\"A task failed.\") strict Some(Object {\"id\": Number(7)})",
        "agent.* None warn Some(String(\"hi\"))",
        "note None warn None",
    ];
    assert_eq!(shown, expected);
    let broken = Document::native("b.yaml", "version: 1\nhooks: [{ url: '${env:NO}' }]\nevents: { a: {} }");
    assert_eq!(event_types(&[broken]).unwrap().all().len(), 1, "hooks are nothing to a publisher");
}

#[test]
fn event_types_that_are_wrong() {
    check_events(
        "  a..b: {}\n  a: { schma: {} }\n  b: { validate: strict }\n  c: { validate: loud, schema: 1, example: [.nan] }",
        &[
            "3:3 events.a..b: expected segments between the dots, found an empty one in \"a..b\"",
            "4:8 events.a.schma: expected one of `description`, `schema`, `example`, `validate`, found `schma`",
            "5:18 events.b.validate: expected a `schema` beside it to validate by, found none",
            "6:18 events.c.validate: expected `off` or `warn` or `strict`, found \"loud\"",
            "6:32 events.c.schema: expected a JSON Schema (2020-12), found another: value is not of types \"boolean\", \"object\"",
            "6:45 events.c.example[0]: expected a number that JSON has, found \".nan\"",
        ],
    );
    let allows = "expected an example that its schema allows, found another:";
    check_events(
        "  a:\n    schema:\n      required: [id]\n      properties: { id: { type: integer }, n: { enum: [1] } }\n    \
         example: { id: '7', n: 2 }\n  b:\n    schema: { required: [x] }\n    example: {}",
        &[
            &format!("7:20 events.a.example.id: {allows} value is not of type \"integer\""),
            &format!("7:28 events.a.example.n: {allows} value is not one of 1"),
            &format!("10:14 events.b.example: {allows} \"x\" is a required property"),
        ],
    );
    check_events(
        "  a: { schema: { properties: { id: { type: strin } } } }",
        &[
            "3:44 events.a.schema.properties.id.type: expected a JSON Schema (2020-12), found another: value is not valid under \
           any of the schemas listed in the 'anyOf' keyword",
        ],
    );
    let remote = read("version: 1\nevents:\n  b: { schema: { $ref: 'https://x/y' } }").unwrap_err();
    let shown = format!("{:#}", remote.list()[0]);
    assert!(shown.starts_with("3:16 events.b.schema: expected a JSON Schema (2020-12), found another: "), "{shown}");
    assert!(shown.contains("https://x/y"), "{shown}");
}

#[test]
fn an_event_type_is_declared_once() {
    let document = |name: &str, text: &str| Document::native(name, text);
    let one = document("a.yaml", "version: 1\nevents:\n  a: {}\n");
    let two = document("b.yaml", "version: 1\nevents:\n  b: {}\n  a: {}\n");
    let problems = crate::catalog::read(&[one, two], &TERMS).unwrap_err();
    let shown: Vec<String> = problems.list().iter().map(|problem| format!("{problem:#}")).collect();
    assert_eq!(
        shown,
        ["4:3 events.a: expected each event type once, found `a`, which is declared on line 3 of a.yaml already"]
    );
}

#[test]
fn a_rule_that_checks_nothing_is_warned_of() {
    let text = "version: 1\nevents:\n  a:\n    schema:\n      requierd: [id]\n      properties: { type: { tpe: string } }\n      allOf: [{ minimun: 1 }]\n";
    let catalog = parse(text, "hooks.yaml", &TERMS).unwrap();
    let shown: Vec<String> = catalog
        .warnings
        .iter()
        .map(|problem| format!("{problem:#} ({})", problem.help.as_deref().unwrap_or_default()))
        .collect();
    let unknown = "expected a keyword of JSON Schema, found";
    let expected = [
        format!("5:17 events.a.schema.requierd: {unknown} `requierd`, which checks nothing (did you mean `required`?)"),
        format!(
            "6:34 events.a.schema.properties.type.tpe: {unknown} `tpe`, which checks nothing (did you mean `type`?)"
        ),
        format!(
            "7:26 events.a.schema.allOf[0].minimun: {unknown} `minimun`, which checks nothing (did you mean `minimum`?)"
        ),
    ];
    assert_eq!(shown, expected);
}
