use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

/// Every route: its method, its path and the role that opens it.
const ROUTES: [(&str, &str, Option<Role>); 32] = [
    ("get", "/metrics", None),
    ("get", "/healthz", None),
    ("get", "/readyz", None),
    ("get", "/v1/status", Some(Role::Read)),
    ("get", "/v1/openapi.json", Some(Role::Read)),
    ("get", "/v1/events", Some(Role::Read)),
    ("post", "/v1/events", Some(Role::Publish)),
    ("get", "/v1/catalog", Some(Role::Read)),
    ("post", "/v1/catalog", Some(Role::Operate)),
    ("post", "/v1/catalog/hooks/{hook}/cancel", Some(Role::Operate)),
    ("get", "/v1/dead-letters", Some(Role::Read)),
    ("get", "/v1/dead-letters/groups", Some(Role::Read)),
    ("get", "/v1/dead-letters/export", Some(Role::Read)),
    ("get", "/v1/dead-letters/jobs/{id}", Some(Role::Read)),
    ("get", "/v1/dead-letters/{id}", Some(Role::Read)),
    ("post", "/v1/gates", Some(Role::Decide)),
    ("post", "/v1/hooks/{dialect}", Some(Role::Decide)),
    ("post", "/v1/hooks/aether", Some(Role::Publish)),
    ("post", "/v1/hooks/bernstein", Some(Role::Publish)),
    ("post", "/v1/hooks/kheish/{token}", None), // the token is in the path
    ("post", "/hooks/{session_id}", None),      // it is signed
    ("post", "/webhook", None),                 // it is signed
    ("get", "/v1/runtime/hooks", Some(Role::Operate)),
    ("post", "/v1/runtime/hooks", Some(Role::Operate)),
    ("get", "/v1/runtime/hooks/dead-letter", Some(Role::Operate)),
    ("post", "/v1/runtime/hooks/dead-letter/{id}/resolve", Some(Role::Operate)),
    ("post", "/v1/dead-letters/replay", Some(Role::Operate)),
    ("post", "/v1/dead-letters/resolve", Some(Role::Operate)),
    ("post", "/v1/dead-letters/jobs/{id}/cancel", Some(Role::Operate)),
    ("post", "/v1/dead-letters/{id}/replay", Some(Role::Operate)),
    ("post", "/v1/dead-letters/{id}/resolve", Some(Role::Operate)),
    ("post", "/v1/dead-letters/{id}/edit", Some(Role::Operate)),
];

fn json() -> Value {
    serde_json::to_value(document()).unwrap()
}

/// Method, path and what is said of each operation.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &'_ Value)| {
        let methods: Vec<String> = item.as_object().unwrap().keys().cloned().collect();
        methods.into_iter().map(move |method| (method, path.clone())).collect::<Vec<_>>()
    };
    let names = paths.iter().flat_map(of_path);
    names.map(|(method, path)| (method.clone(), path.clone(), &paths[&path][&method])).collect()
}

#[test]
fn every_route_is_behind_its_role() {
    let document = json();
    let operations = operations(&document);
    let found: BTreeSet<(&str, &str)> = operations.iter().map(|(method, path, _)| (&**method, &**path)).collect();
    let expected: BTreeSet<(&str, &str)> = ROUTES.iter().map(|(method, path, _)| (*method, *path)).collect();
    assert_eq!(found, expected);
    for (method, path, operation) in &operations {
        let (_, _, role) = ROUTES.iter().find(|(of, at, _)| of == method && at == path).unwrap();
        let security = role.map_or(Value::Null, |role| serde_json::json!([{ TOKEN: [role.name()] }]));
        assert_eq!(operation["security"], security, "{method} {path}");
        for (status, name, _) in REFUSALS {
            let refusal = role.map_or(Value::Null, |_| format!("#/components/responses/{name}").into());
            assert_eq!(operation["responses"][status]["$ref"], refusal, "{method} {path}");
        }
    }
}

/// Every `$ref` in a document.
fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_whole() {
    let document = json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["components"]["securitySchemes"][TOKEN]["scheme"], "bearer");
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        assert!(target.is_some(), "{reference} leads nowhere");
    }
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let name = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name} has the id of another");
        assert!(operation["summary"].is_string(), "{name} is not explained");
        let declared = operation["parameters"].as_array().cloned().unwrap_or_default();
        for parameter in &declared {
            assert!(parameter["schema"].is_object() && parameter["description"].is_string(), "{name}: {parameter}");
        }
        let of_path: BTreeSet<&str> =
            declared.iter().filter(|it| it["in"] == "path").filter_map(|it| it["name"].as_str()).collect();
        let in_path: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        assert_eq!(of_path, in_path, "{name}");
        let answers = operation["responses"].as_object().unwrap();
        assert!(answers.keys().any(|status| status.starts_with('2')), "{name} never succeeds");
        for (status, answer) in answers {
            assert!(answer["description"].is_string() || answer["$ref"].is_string(), "{name} {status}");
        }
    }
}

#[test]
fn every_schema_is_one() {
    let document = json();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert!(schemas.len() > 20, "{:?}", schemas.keys());
    for (name, schema) in schemas {
        let whole = serde_json::json!({ "allOf": [schema], "components": document["components"] });
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
        assert!(jsonschema::draft202012::new(&whole).is_ok(), "{name}");
    }
}
