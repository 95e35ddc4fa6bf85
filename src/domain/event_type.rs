//! Event types: what the data of an event looks like, and what is done with an event whose data does not.
//!
//! A type is declared in a hooks file, with a JSON Schema (2020-12) of the event's `data`. Every declaration whose type or
//! pattern matches an event applies to it; an event that none matches is not checked.

use std::borrow::Cow;

use jsonschema::{Draft, PatternOptions, Validator, draft202012};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::escape;
use super::event::Event;
use super::pattern::{Index, Pattern};

/// Mistakes of one event that are told one by one.
const MISTAKES_MAX: usize = 20;
/// Values in an event of which mistakes are told one by one, and parts of a schema that are looked at.
const VALUES_TOLD_OF: usize = 2000;
const SCHEMA_PARTS_MAX: usize = 20_000;
/// Longest sentence about one of them.
const SENTENCE_CHARS_MAX: usize = 300;

/// What is done with an event whose data is not what its schema says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Validate {
    /// Nothing: the schema is there to be read.
    Off,
    /// It is taken, and told: a schema that is too narrow must not cost events of a publisher that nobody here can mend.
    #[default]
    Warn,
    /// Who publishes it is refused; what arrives all the same becomes a letter before any hook runs.
    Strict,
}

impl Validate {
    pub const ALL: [(&str, Self); 3] = [("off", Self::Off), ("warn", Self::Warn), ("strict", Self::Strict)];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, validate)| *validate == self).map_or("", |(name, _)| name)
    }
}

/// A declared event type.
#[derive(Debug)]
pub struct EventType {
    /// An exact type, or a pattern over types.
    pub on: Pattern,
    pub description: Option<String>,
    /// Of the event's data. Without one everything fits.
    pub schema: Option<Schema>,
    /// Data that fits.
    pub example: Option<Value>,
    pub validate: Validate,
}

/// A compiled JSON Schema.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    /// It refers to itself: to tell all that is wrong would take a time that doubles with every level.
    circular: bool,
}

/// What is wrong with a value. Says nothing of the value itself, which is an event's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// Where in the value: a JSON pointer, empty at the top.
    pub path: String,
    /// Where in the schema the rule stands that it breaks: a JSON pointer.
    pub rule: String,
    pub error: String,
}

impl Mistake {
    fn of(error: &jsonschema::ValidationError<'_>) -> Self {
        let cut = |text: &str| escape::sentence(text, SENTENCE_CHARS_MAX);
        Self {
            path: cut(error.instance_path().as_str()),
            rule: cut(error.schema_path().as_str()),
            error: cut(&error.masked().to_string()),
        }
    }
}

impl Schema {
    /// Compiles a schema. No reference leaves it, and no pattern takes more than linear time.
    ///
    /// # Errors
    /// What is wrong with the schema, by the place in it.
    pub fn compile(schema: &Value) -> Result<Self, Vec<Mistake>> {
        let mut wrong: Vec<Mistake> = Vec::new();
        // The schema of schemas has several parts, which say the same where they all do.
        for mistake in draft202012::meta::validator().iter_errors(schema).map(|error| Mistake::of(&error)) {
            let is_told = |told: &Mistake| told.path == mistake.path && told.error == mistake.error;
            if wrong.len() < MISTAKES_MAX && !wrong.iter().any(is_told) {
                wrong.push(mistake);
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let options = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(PatternOptions::regex());
        let circular = is_circular(schema);
        options.build(schema).map(|validator| Self { validator, circular }).map_err(|error| vec![Mistake::of(&error)])
    }

    /// What is wrong with a value: nothing, or the first mistakes.
    #[must_use]
    pub fn mistakes(&self, value: &Value) -> Vec<Mistake> {
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        if self.circular || is_large(value, &mut { VALUES_TOLD_OF }) {
            let error = "it does not fit; what does not is only told of small values and of schemas that do not refer to \
                         themselves";
            return vec![Mistake { path: String::new(), rule: String::new(), error: error.to_owned() }];
        }
        self.validator.iter_errors(value).take(MISTAKES_MAX).map(|error| Mistake::of(&error)).collect()
    }
}

/// Whether a schema may refer to itself. Said of references that are not followed here, too.
fn is_circular(schema: &Value) -> bool {
    fn visit<'s>(root: &'s Value, at: &'s Value, open: &mut Vec<&'s str>, budget: &mut usize) -> bool {
        if *budget == 0 {
            return true;
        }
        *budget -= 1;
        match at {
            Value::Object(fields) => fields.iter().any(|(name, inner)| match (name.as_str(), inner) {
                ("$dynamicRef" | "$recursiveRef" | "$anchor" | "$id", _) => true,
                ("$ref", Value::String(to)) => {
                    let Some(target) = to.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) else {
                        return true;
                    };
                    if open.contains(&to.as_str()) || to == "#" {
                        return true;
                    }
                    open.push(to);
                    let circular = visit(root, target, open, budget);
                    open.pop();
                    circular
                }
                _ => visit(root, inner, open, budget),
            }),
            Value::Array(items) => items.iter().any(|inner| visit(root, inner, open, budget)),
            _ => false,
        }
    }
    visit(schema, schema, &mut Vec::new(), &mut { SCHEMA_PARTS_MAX })
}

/// Whether there are more values in it than are left.
fn is_large(value: &Value, left: &mut usize) -> bool {
    if *left == 0 {
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter().any(|item| is_large(item, left)),
        Value::Object(fields) => fields.values().any(|item| is_large(item, left)),
        _ => false,
    }
}

/// An event whose data is not what its schema says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Misfit {
    /// The declaration that it does not fit.
    #[serde(rename = "type")]
    pub on: String,
    #[serde(skip)]
    pub strict: bool,
    #[serde(rename = "errors")]
    pub mistakes: Vec<Mistake>,
}

impl Misfit {
    /// For the one who published it.
    #[must_use]
    pub fn sentence(&self) -> String {
        let told = self.mistakes.iter().map(|Mistake { path, rule, error }| {
            let path = if path.is_empty() { "data" } else { path };
            if rule.is_empty() { format!("{path}: {error}") } else { format!("{path}: {error} (rule {rule})") }
        });
        format!("the data is not what the type `{}` declares: {}", self.on, told.collect::<Vec<_>>().join("; "))
    }
}

/// The declared event types of one catalog revision; immutable.
#[derive(Debug, Default)]
pub struct EventTypes {
    types: Vec<EventType>,
    index: Index,
}

impl EventTypes {
    /// In catalog order.
    #[must_use]
    pub fn new(types: Vec<EventType>) -> Self {
        let mut index = Index::default();
        for (number, declared) in types.iter().enumerate() {
            index.insert(&declared.on, number);
        }
        Self { types, index }
    }

    #[must_use]
    pub fn all(&self) -> &[EventType] {
        &self.types
    }

    /// Checks an event against every declaration of its type: nothing, or the first that it does not fit, of the
    /// strictest. The body is parsed if there is something to check it against, and once.
    #[must_use]
    pub fn misfit(&self, event: &Event) -> Option<Misfit> {
        if self.types.is_empty() {
            return None;
        }
        let declared = self.index.find(&event.kind).into_iter().map(|number| &self.types[number]);
        let checks = |declared: &&EventType| declared.schema.is_some() && declared.validate != Validate::Off;
        let mut declared: Vec<&EventType> = declared.filter(checks).collect();
        if declared.is_empty() {
            return None;
        }
        declared.sort_by_key(|declared| std::cmp::Reverse(declared.validate)); // stable: in catalog order
        let data = data(event);
        declared.into_iter().find_map(|declared| {
            let mistakes = match &data {
                Ok(data) => declared.schema.as_ref()?.mistakes(data),
                Err(mistake) => vec![mistake.clone()],
            };
            let strict = declared.validate == Validate::Strict;
            (!mistakes.is_empty()).then(|| Misfit { on: declared.on.as_str().to_owned(), strict, mistakes })
        })
    }
}

/// The data of an event; an event without is checked as `null`.
fn data(event: &Event) -> Result<Value, Mistake> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
        #[serde(borrow, default)]
        data_base64: Option<&'a RawValue>,
    }
    let wrong = |error: Cow<'_, str>| Mistake {
        path: String::new(),
        rule: String::new(),
        error: escape::sentence(&error, SENTENCE_CHARS_MAX),
    };
    let whole: Whole<'_> = serde_json::from_slice(&event.body).map_err(|error| wrong(error.to_string().into()))?;
    match (whole.data, whole.data_base64) {
        (Some(data), _) => serde_json::from_str(data.get())
            .map_err(|error| wrong(format!("it cannot be read as JSON: {error}").into())),
        (None, None) => Ok(Value::Null),
        (None, Some(_)) => Err(wrong("it is in `data_base64`, which is no JSON".into())),
    }
}

#[cfg(test)]
mod tests;
