//! Which fields settings have, to say which one has another type, and which ones Kheish passes over.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::generation::{Effort, Reasoning, ResponseFormat, Summary, ToolChoice};
use super::{FailureMode, FailurePolicy, Generation, Model, ToolSurface};
use crate::dialect::json_text::Way;

/// A field of an object.
pub(super) struct Field {
    name: &'static str,
    is_required: bool,
    /// Whether a value has the field's type.
    reads: fn(&Value) -> Result<(), serde_json::Error>,
    /// The fields of the object that it is, if it is one.
    inside: &'static [Self],
}

const fn required<T: DeserializeOwned>(name: &'static str) -> Field {
    Field { name, is_required: true, reads: reads::<T>, inside: &[] }
}

const fn optional<T: DeserializeOwned>(name: &'static str) -> Field {
    Field { name, is_required: false, reads: reads::<T>, inside: &[] }
}

const fn object<T: DeserializeOwned>(name: &'static str, inside: &'static [Field]) -> Field {
    Field { name, is_required: false, reads: reads::<T>, inside }
}

fn reads<T: DeserializeOwned>(value: &Value) -> Result<(), serde_json::Error> {
    serde_json::from_value::<T>(value.clone()).map(drop)
}

const TIMEOUT: Field = optional::<Option<u64>>("timeout_ms");
const TYPE: Field = required::<String>("type");
const TEMPLATE: Field = required::<String>("template");
const SYSTEM_PROMPT: Field = optional::<Option<String>>("system_prompt");
const MODEL: Field = object::<Option<Model>>(
    "model",
    &[optional::<Option<String>>("provider"), object::<Option<Generation>>("generation", GENERATION)],
);
const GENERATION: &[Field] = &[
    optional::<Option<String>>("model"),
    optional::<Option<String>>("fallback_model"),
    optional::<ToolChoice>("tool_choice"),
    optional::<bool>("allow_parallel_tool_calls"),
    optional::<Option<u32>>("max_output_tokens"),
    optional::<Option<f32>>("temperature"),
    object::<Option<Reasoning>>(
        "reasoning",
        &[
            optional::<Option<Effort>>("effort"),
            optional::<Option<Summary>>("summary"),
            optional::<Option<u32>>("budget_tokens"),
            optional::<bool>("interleaved"),
        ],
    ),
    optional::<ResponseFormat>("response_format"),
];
const COMMAND: &[Field] = &[TYPE, required::<String>("command"), optional::<Option<String>>("shell"), TIMEOUT];
const HTTP: &[Field] = &[TYPE, required::<String>("url"), TIMEOUT];
const PROMPT: &[Field] = &[TYPE, TEMPLATE, SYSTEM_PROMPT, MODEL, TIMEOUT];
const AGENT: &[Field] = &[
    TYPE,
    TEMPLATE,
    SYSTEM_PROMPT,
    MODEL,
    object::<Option<ToolSurface>>(
        "tool_surface",
        &[optional::<Vec<String>>("allowlist"), optional::<Vec<String>>("denylist")],
    ),
    optional::<Option<usize>>("max_turns"),
    TIMEOUT,
];
const CALLBACK: &[Field] = &[TYPE, required::<String>("name"), TIMEOUT];
/// Of a definition, but for the executor, whose fields depend on its type.
const DEFINITION: &[Field] = &[
    required::<String>("name"),
    optional::<Option<String>>("matcher"),
    object::<FailurePolicy>("failure_policy", &[optional::<FailureMode>("mode"), optional::<u8>("max_retries")]),
];
const EXECUTOR: &str = "executor";

/// The fields that an executor of a type has.
pub(super) fn of_executor(kind: &str) -> Option<&'static [Field]> {
    match kind {
        "command" => Some(COMMAND),
        "http" => Some(HTTP),
        "prompt" => Some(PROMPT),
        "agent" => Some(AGENT),
        "callback" => Some(CALLBACK),
        _ => None,
    }
}

/// Why a value is no definition, and where: the innermost place that can be told. `error` is what was said of the whole.
pub(super) fn mistake(definition: &Value, at: &Way, error: &serde_json::Error) -> (Way, String) {
    let whole = || (at.clone(), error.to_string());
    if !definition.is_object() {
        return (at.clone(), format!("expected a hook as an object, found {}", kind_of(definition)));
    }
    if let Some(found) = mistake_in(definition, DEFINITION, at) {
        return found;
    }
    let at = at.field(EXECUTOR);
    let Some(executor) = definition.get(EXECUTOR) else { return (at, format!("missing field `{EXECUTOR}`")) };
    if !executor.is_object() {
        return (at, format!("expected an executor as an object, found {}", kind_of(executor)));
    }
    match executor.get("type").map(|kind| kind.as_str().and_then(of_executor)) {
        None => (at, "missing field `type`".to_owned()),
        Some(Some(fields)) => mistake_in(executor, fields, &at).unwrap_or_else(whole),
        Some(None) => {
            let reason = error.to_string(); // names the types that there are
            (at.field("type"), reason)
        }
    }
}

fn mistake_in(object: &Value, fields: &[Field], at: &Way) -> Option<(Way, String)> {
    fields.iter().find_map(|field| {
        let Some(value) = object.get(field.name) else {
            return field.is_required.then(|| (at.clone(), format!("missing field `{}`", field.name)));
        };
        let error = (field.reads)(value).err()?;
        let at = at.field(field.name);
        let inside = value.is_object().then(|| mistake_in(value, field.inside, &at)).flatten();
        Some(inside.unwrap_or_else(|| (at, format!("`{}`: {error}", field.name))))
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The fields of a definition that Kheish passes over, each with the way to it.
pub(super) fn unknown(definition: &Value, at: &Way) -> Vec<Way> {
    let mut found = unknown_in(definition, DEFINITION, &[EXECUTOR], at);
    let executor = definition.get(EXECUTOR).unwrap_or(&Value::Null);
    if let Some(fields) = executor.get("type").and_then(Value::as_str).and_then(of_executor) {
        found.extend(unknown_in(executor, fields, &[], &at.field(EXECUTOR)));
    }
    found
}

fn unknown_in(object: &Value, fields: &'static [Field], others: &[&str], at: &Way) -> Vec<Way> {
    let entries = object.as_object().into_iter().flatten();
    let of_entry = |(name, value): (&String, &Value)| match fields.iter().find(|field| field.name == name) {
        Some(field) if field.inside.is_empty() => Vec::new(),
        Some(field) => unknown_in(value, field.inside, &[], &at.field(name)),
        None if others.contains(&name.as_str()) => Vec::new(),
        None => vec![at.field(name)],
    };
    entries.flat_map(of_entry).collect()
}
