//! Event types, from `events:` of a hooks file.

use std::collections::HashMap;

use crate::domain::escape;
use crate::domain::event_type::{EventType, EventTypes, Mistake, Schema, Validate};
use crate::domain::pattern::Pattern;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::{one_of, text};
use crate::yaml::value::Value;

/// Keywords of JSON Schema 2020-12 with a schema, a list of schemas, or a map of schemas in them.
const WITH_ONE: [&str; 11] = [
    "items",
    "contains",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "if",
    "then",
    "else",
    "not",
    "contentSchema",
];
const WITH_LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const WITH_MAP: [&str; 4] = ["properties", "patternProperties", "dependentSchemas", "$defs"];
/// Those with none in them.
const PLAIN: [&str; 40] = [
    "$schema",
    "$id",
    "$ref",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$vocabulary",
    "$comment",
    "type",
    "enum",
    "const",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "required",
    "dependentRequired",
    "format",
    "contentEncoding",
    "contentMediaType",
    "title",
    "description",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "examples",
    "definitions",
    "dependencies",
];

/// The event types of the documents read so far.
#[derive(Default)]
pub(super) struct Declared {
    types: Vec<EventType>,
    /// File and line of each.
    places: HashMap<Pattern, (String, usize)>,
}

impl Declared {
    pub(super) fn into_types(self) -> EventTypes {
        EventTypes::new(self.types)
    }
}

/// Adds the event types of a document. `None` if one of them is wrong.
pub(super) fn read(value: &Value<'_>, declared: &mut Declared) -> Option<()> {
    let mut good = Some(());
    for (key, value) in value.entries()? {
        let on = Pattern::new(&key.name).map_err(|sentence| value.wrong_key(key, Mismatch::from_sentence(&sentence)));
        let read = on.ok().and_then(|on| {
            let first = declared.places.insert(on.clone(), (value.file().to_owned(), value.line()));
            if let Some((file, line)) = first {
                let found =
                    format!("`{}`, which is declared on line {line} of {file} already", escape::name(&key.name));
                value.wrong_key(key, Mismatch::new("each event type once").found(found));
            }
            read_type(&value, on)
        });
        match read {
            Some(read) => declared.types.push(read),
            None => good = None,
        }
    }
    good
}

fn read_type(value: &Value<'_>, on: Pattern) -> Option<EventType> {
    let mut fields = value.fields()?;
    let description = match fields.get("description") {
        Some(description) => description.read(text("what the event says")).map(Some),
        None => Some(None),
    };
    let schema = match fields.get("schema") {
        Some(schema) => read_schema(&schema).map(Some),
        None => Some(None),
    };
    let example = fields.get("example");
    let data = match &example {
        Some(example) => example.json().map(Some),
        None => Some(None),
    };
    let validate = fields.get("validate");
    let asked = validate.as_ref().map_or(Some(Validate::default()), |value| value.read(one_of(&Validate::ALL)));
    fields.end();
    let (schema, data) = (schema?, data?);
    if let (None, Some(validate), Some(Validate::Warn | Validate::Strict)) = (&schema, &validate, asked) {
        validate.wrong(Mismatch::new("a `schema` beside it to validate by").found("none"));
    }
    if let (Some(schema), Some(example), Some(data)) = (&schema, &example, &data) {
        report(example, "an example that its schema allows", &schema.mistakes(data));
    }
    Some(EventType { on, description: description?, schema, example: data, validate: asked? })
}

fn read_schema(value: &Value<'_>) -> Option<Schema> {
    let json = value.json()?;
    unknown_keywords(value);
    match Schema::compile(&json) {
        Ok(schema) => Some(schema),
        Err(mistakes) => {
            report(value, "a JSON Schema (2020-12)", &mistakes);
            None
        }
    }
}

/// Each mistake at its place.
fn report(value: &Value<'_>, expected: &str, mistakes: &[Mistake]) {
    for Mistake { path, error, .. } in mistakes {
        value.at_pointer(path).wrong(Mismatch::new(expected).found(format!("another: {error}")));
    }
}

/// JSON Schema ignores what it does not know: a rule that is misspelt checks nothing.
fn unknown_keywords(schema: &Value<'_>) {
    if !schema.is_map() {
        return;
    }
    for (key, value) in schema.entries().into_iter().flatten() {
        let name = key.name.as_str();
        if WITH_ONE.contains(&name) {
            unknown_keywords(&value);
        } else if WITH_LIST.contains(&name) && value.is_list() {
            let _ = value.list(|item| {
                unknown_keywords(&item);
                Some(())
            });
        } else if WITH_MAP.contains(&name) && value.is_map() {
            value.entries().into_iter().flatten().for_each(|(_, schema)| unknown_keywords(&schema));
        } else if !PLAIN.contains(&name) && !WITH_LIST.contains(&name) && !WITH_MAP.contains(&name) {
            let known = WITH_ONE.iter().chain(&WITH_LIST).chain(&WITH_MAP).chain(&PLAIN).copied();
            let found = format!("`{}`, which checks nothing", escape::name(name));
            value.warn(Mismatch::new("a keyword of JSON Schema").found(found).did_you_mean(name, known));
        }
    }
}
